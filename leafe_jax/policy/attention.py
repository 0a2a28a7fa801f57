"""Causal attention within packed segments, for training.

`attend` is the one way in; it chooses the form:

  xla     plain products, everywhere. Heads lead ([B, N, T, H], so that both
          products are plain batched matrix products) and queries go in causal
          chunks: measured on two CPU cores at B=24, T=256, two heads of 32,
          forward + backward take 5.0 ms a layer against 9.2 ms unchunked,
          12.3 ms with heads inside and 17 ms with
          `jax.nn.dot_product_attention`.
  cudnn   the fused kernel of cuDNN, on GPUs, in half precision.
  splash  Pallas splash attention on TPUs: no scores in memory, and blocks
          above the diagonal are never computed. On CPU it is interpreted,
          which is slow and meant for tests.

All of them see the same keys, whatever the platform.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from leafe_jax.policy import products, sharding, splash

MASKED = -1e30
_MIN_CHUNK = 64
_MAX_CHUNKS = 8  # every chunk is unrolled: more would only slow compilation
_PLATFORMS = {
    'xla': ('cpu', 'gpu', 'tpu'),
    'cudnn': ('gpu',),
    'splash': ('tpu', 'cpu'),
}
_HALF = (jnp.bfloat16, jnp.float16)
_MAX_ROWS = 256  # queries whose scores are in memory at a time


def attend(
    q: Float[Array, 'B N T H'],
    k: Float[Array, 'B K T H'],
    v: Float[Array, 'B K T H'],
    segment_ids: Int[Array, 'B T'],
    form: str = 'auto',
    window: int = 0,
) -> Float[Array, 'B N T H']:
  """Scaled dot-product attention; softmax in float32.

  A query sees keys at or before its place in the row that carry its segment
  id, and with a window only the last ones, as many as it is wide. Query heads
  n of group g = N // K share the KV head n // g.

  Raises:
    ValueError: see `choose_form`.
  """
  platform = sharding.target_platform()
  form = choose_form(form, platform, q.dtype)
  if form == 'cudnn':
    return _attend_cudnn(q, k, v, segment_ids, window)
  if form == 'splash':
    interpret = platform != 'tpu'
    return splash.attend(q, k, v, segment_ids, window=window, interpret=interpret)
  return _attend_xla(q, k, v, segment_ids, window)


def choose_form(form: str, platform: str, dtype: jnp.dtype) -> str:
  """What `policy.attention` means on a platform: 'xla', 'cudnn' or 'splash'.

  Args:
    form: one of these, or 'auto': the fastest one that the platform has.
    platform: 'cpu', 'gpu' or 'tpu'.
    dtype: of the queries; cuDNN takes half precision only.

  Raises:
    ValueError: an unknown form, or one that the platform or type rules out.
  """
  half = dtype in _HALF
  if form == 'auto':
    return {'tpu': 'splash', 'gpu': 'cudnn' if half else 'xla'}.get(platform, 'xla')
  possible = [
      name
      for name, platforms in _PLATFORMS.items()
      if platform in platforms and (half or name != 'cudnn')
  ]
  if form not in possible:
    raise ValueError(
        f'policy.attention is {form!r}; on {platform} in {jnp.dtype(dtype).name}'
        f' choose from auto, {", ".join(possible)}'
    )
  return form


def scores_in_memory(length: int) -> int:
  """Scores of a row and head that 'xla' holds at a time, with their gradients.

  Those of short rows are all kept for the backward pass, the causal half.
  """
  if _chunk(length) <= _MAX_ROWS:
    return length * length // 2
  return 2 * _MAX_ROWS * length


def _attend_cudnn(
    q: Array, k: Array, v: Array, segment_ids: Array, window: int
) -> Array:
  q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
  same = (segment_ids[:, :, None] == segment_ids[:, None])[:, None]
  if window:
    place = jnp.arange(q.shape[1])
    same &= place[:, None] - place < window
  mixed = jax.nn.dot_product_attention(
      q, k, v, mask=same, is_causal=True, implementation='cudnn'
  )
  return mixed.swapaxes(1, 2)


def _attend_xla(
    q: Array, k: Array, v: Array, segment_ids: Array, window: int
) -> Array:
  length = q.shape[2]
  chunk = _chunk(length)
  outputs = [
      _attend_chunk(q, k, v, segment_ids, start, min(start + chunk, length), window)
      for start in range(0, length, chunk)
  ]
  return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=2)


def _chunk(length: int) -> int:
  return max(_MIN_CHUNK, -(-length // _MAX_CHUNKS))


def _attend_chunk(
    q: Array, k: Array, v: Array, segment_ids: Array, start: int, stop: int, window: int
) -> Array:
  """Queries start..stop against keys up to stop, a block of them at a time.

  Scores of long rows are not kept for the backward pass but computed anew, so
  that memory grows with the length and not with its square.
  """
  rows = stop - start
  first = max(0, start - window + 1) if window else 0  # key that any query sees
  q, keys = q[:, :, start:stop], (k[:, :, first:stop], v[:, :, first:stop])
  own, seen = segment_ids[:, start:stop], segment_ids[:, first:stop]
  start -= first
  count = -(-rows // _MAX_ROWS)
  if count == 1:
    return _attend_block(q, *keys, own, seen, start, window)
  size = -(-rows // count)
  pad = count * size - rows
  q = jnp.pad(q, ((0, 0), (0, 0), (0, pad), (0, 0)))
  own = jnp.pad(own, ((0, 0), (0, pad)))

  @functools.partial(jax.checkpoint, prevent_cse=False)
  def block(index: Array) -> Array:
    queries = jax.lax.dynamic_slice_in_dim(q, index * size, size, axis=2)
    segments = jax.lax.dynamic_slice_in_dim(own, index * size, size, axis=1)
    place = start + index * size
    return _attend_block(queries, *keys, segments, seen, place, window)

  blocks = jax.lax.map(block, jnp.arange(count))
  mixed = jnp.moveaxis(blocks, 0, 2).reshape(*q.shape)
  return mixed[:, :, :rows]


def _attend_block(
    q: Float[Array, 'B N R H'],
    k: Float[Array, 'B K S H'],
    v: Float[Array, 'B K S H'],
    own: Int[Array, 'B R'],
    seen: Int[Array, 'B S'],
    start: int | Array,
    window: int,
) -> Float[Array, 'B N R H']:
  """Queries at places start.. of segments `own` against the keys given."""
  batch, num_heads, rows, head_dim = q.shape
  # Groups fold into the rows: one matrix product per KV head.
  q = q.reshape(batch, k.shape[1], -1, head_dim)
  visible = start + jnp.arange(rows)[:, None] >= jnp.arange(k.shape[2])[None]
  if window:
    visible &= start + jnp.arange(rows)[:, None] - jnp.arange(k.shape[2]) < window
  visible &= own[:, :, None] == seen[:, None]
  mix = _mix_halves if q.dtype in _HALF else _mix
  return mix(q, k, v, visible).reshape(batch, num_heads, rows, head_dim)


def _mix(
    q: Float[Array, 'B K G H'],
    k: Float[Array, 'B K S H'],
    v: Float[Array, 'B K S H'],
    visible: Bool[Array, 'B R S'],
) -> Float[Array, 'B K G H']:
  """Values, weighed by the softmax of the scores; G = groups * R."""
  return _mix_and_keep(q, k, v, visible)[0]


def _mix_and_keep(
    q: Array, k: Array, v: Array, visible: Array
) -> tuple[Array, tuple[Array, Array]]:
  """`_mix`, and the weights before they are divided by their sum, and that."""
  scores = products.einsum('bkrh,bksh->bkrs', q, k, jnp.float32)
  by_group = (*scores.shape[:2], -1, *visible.shape[1:])
  scores = scores.reshape(by_group) * q.shape[-1] ** -0.5
  scores = jnp.where(visible[:, None, None], scores, MASKED)
  top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
  weights = jnp.exp(scores - top)
  total = jnp.sum(weights, axis=-1, keepdims=True).reshape(*q.shape[:3], 1)
  weights = weights.astype(v.dtype).reshape(*q.shape[:3], -1)
  mixed = products.einsum('bkrs,bksh->bkrh', weights, v, jnp.float32)
  return (mixed / total).astype(v.dtype), (weights, total)


@jax.custom_vjp
def _mix_halves(q: Array, k: Array, v: Array, visible: Array) -> Array:
  """`_mix` in half precision; its derivatives pass over the scores once."""
  return _mix(q, k, v, visible)


def _mix_forward(q: Array, k: Array, v: Array, visible: Array) -> tuple[Array, Any]:
  mixed, kept = _mix_and_keep(q, k, v, visible)
  return mixed, (q, k, v, mixed, *kept)


def _mix_backward(saved: Any, cotangent: Array) -> tuple[Array, Array, Array, None]:
  q, k, v, mixed, weights, total = saved
  # With w = weights and P = w / total: dS = P (dP - rowsum(P dP)), and the row
  # sum is that of the output times its cotangent (arXiv 2205.14135, section B.2).
  wide = cotangent.astype(jnp.float32) / total
  given = wide.astype(q.dtype)
  mean = jnp.sum(wide * mixed, axis=-1, keepdims=True)
  to_weights = products.einsum('bkrh,bksh->bkrs', given, v, jnp.float32)
  to_scores = (weights * (to_weights - mean) * q.shape[-1] ** -0.5).astype(q.dtype)
  return (
      products.einsum('bkrs,bksh->bkrh', to_scores, k),
      products.einsum('bkrs,bkrh->bksh', to_scores, q),
      products.einsum('bkrs,bkrh->bksh', weights, given),
      None,
  )


_mix_halves.defvjp(_mix_forward, _mix_backward)
