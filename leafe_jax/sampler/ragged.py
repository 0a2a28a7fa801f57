"""Keys and values in pages that attention reads in place, for TPUs and GPUs.

The pool is laid out as `jax.experimental.pallas.ops.tpu.ragged_paged_attention`
reads it, and so does the kernel for GPUs (`flash`):

    [L * pages, P, 2 K, H]; page i of layer l is l * pages + i, and KV head k
    has its keys at 2 k and its values at 2 k + 1

All layers of a group (`cache`) lie in one axis, so that no layer is ever sliced out
or copied back.

Over a mesh, heads go over tensor and rows over data and fsdp. There the pool is
such an array per shard of rows, one after the other: shard s holds the page ids
s * n .. (s + 1) * n - 1, and a row only has pages of its own shard. Nothing of
the keys and values ever travels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import attention, products, sharding
from leafe_jax.sampler import flash

_LANES = 128  # of a TPU's vector unit: the only head_dim of its kernel
_BLOCK_TOKENS = 1024  # places that the kernel reads at a time, in whole pages
_BLOCK_BYTES = 2**21  # of them, at most: two blocks are in on-chip memory
_BLOCK_HEADS = 1024  # queries times heads that it holds at a time
_DECODE_QUERIES = 8  # every row's pages meet all queries of a block


class Rows(NamedTuple):
  """Where the tokens of some rows are.

  Attributes:
    table: [B, p] the row's pages in order; no page's id where it has none.
    start: [B] places before the first of these tokens.
    known: [B, T] whether a token is real; others are written nowhere.
    skipped: [B] places of the transcript before those in the table, which no window
      reaches; None: none.

  `start` counts from the first place in the table.
  """

  table: Array
  start: Array
  known: Array
  skipped: Array | None = None

  @property
  def first(self) -> Int[Array, ' B']:
    """Places of the transcript before the first of these tokens."""
    return self.start if self.skipped is None else self.start + self.skipped


def abstract_pool(
    policy: config_lib.Policy,
    num_layers: int,
    num_pages: int,
    page_size: int,
    mesh: Mesh | AbstractMesh,
) -> jax.ShapeDtypeStruct:
  """Shape, type and sharding of a group's pool, nothing allocated."""
  heads = 2 * _pool_heads(policy, mesh)
  shape = (num_layers * num_pages, page_size, heads, policy.head_dim)
  place: Any = NamedSharding(mesh, _pool_spec(shape, mesh))
  return jax.ShapeDtypeStruct(shape, jnp.dtype(policy.dtype), sharding=place)


def _pool_spec(shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
  """Heads over tensor, a key and its value together."""
  [heads] = sharding.partition_spec(('kv_heads',), (shape[2] // 2,), mesh)
  return PartitionSpec(sharding.ROW_AXES, None, heads, None)


def _pool_heads(policy: config_lib.Policy, mesh: Mesh | AbstractMesh) -> int:
  """KV heads in the pool: with fewer than tensor shards, every shard has one."""
  heads, shards = policy.num_kv_heads, mesh.shape['tensor']
  copied = shards % heads == 0 and policy.num_heads % shards == 0
  return max(heads, shards) if copied else heads


def choose_form(
    form: str, policy: config_lib.Policy, mesh: Mesh | AbstractMesh, platform: str
) -> str:
  """What `sampler.attention` means on a platform: 'dense' or 'paged'.

  Args:
    form: one of these, or 'auto': paged where a kernel takes the shapes.
    policy: its shapes.
    mesh: whose tensor axis shares the heads.
    platform: 'cpu', 'gpu' or 'tpu'.

  Raises:
    ValueError: an unknown form, or shapes that the kernel refuses.
  """
  if form not in ('auto', 'dense', 'paged'):
    raise ValueError(
        f'sampler.attention is {form!r}; choose from auto, dense, paged'
    )
  refusals = {'tpu': _tpu_refusal, 'gpu': _gpu_refusal}
  reason = refusals[platform](policy, mesh) if platform in refusals else ''
  if form == 'auto':
    return 'paged' if platform in refusals and not reason else 'dense'
  if form == 'paged' and reason:
    raise ValueError(f'sampler.attention is paged, but {reason}; choose auto or dense')
  return form


def _gpu_refusal(policy: config_lib.Policy, _: Mesh | AbstractMesh) -> str:
  """Why `flash` does not take a policy; empty if it does."""
  dim = policy.head_dim
  if dim < flash.MIN_SIDE or dim & (dim - 1):
    return f'policy.head_dim is {dim}, no power of two from {flash.MIN_SIDE} on'
  return ''


def _tpu_refusal(policy: config_lib.Policy, mesh: Mesh | AbstractMesh) -> str:
  """Why ragged paged attention does not take a policy; empty if it does."""
  if policy.head_dim != _LANES:
    return f'policy.head_dim is {policy.head_dim} and its kernel takes {_LANES}'
  heads = _pool_heads(policy, mesh)
  if heads % mesh.shape['tensor'] == 0:
    heads //= mesh.shape['tensor']
  words = 2 * heads * jnp.dtype(policy.dtype).itemsize / 4
  if words not in (1, 2, 4) and words % 8:
    return f'{heads} KV heads a device do not fill whole tiles in {policy.dtype}'
  return ''


def write_and_attend(
    pool: Array,
    num_layers: int,
    layer: Array,
    rows: Rows,
    q: Float[Array, 'B N T H'],
    k: Float[Array, 'B K T H'],
    v: Float[Array, 'B K T H'],
    window: int = 0,
) -> tuple[Array, Float[Array, 'B N T H']]:
  """Puts keys and values into a layer's pages; causal attention over them.

  Args:
    pool: donated, or a loop's own.
    num_layers: in the pool.
    layer: which of them, from 0.
    rows: where the tokens are.
    q: queries of the tokens, not scaled.
    k: their keys.
    v: their values.
    window: places that a query sees, its own included; 0: all before it.

  Returns:
    The pool and the mixed values.
  """
  run = functools.partial(_write_and_attend, num_layers, window)
  pool, mixed = _by_device(
      run, pool, layer,
      (rows.table, rows.start, rows.known, q.swapaxes(1, 2), _join_heads(k, v, pool)),
  )
  return pool, mixed.swapaxes(1, 2)


def _join_heads(
    k: Float[Array, 'B K T H'], v: Float[Array, 'B K T H'], pool: Array
) -> Float[Array, 'B T heads H']:
  """Keys and values in turn, as the pool has them, with its copies of heads."""
  rows, heads, length, dim = k.shape
  both = jnp.stack([k, v], axis=2).transpose(0, 3, 1, 2, 4)
  both = jnp.repeat(both, pool.shape[2] // (2 * heads), axis=2)
  return both.reshape(rows, length, -1, dim).astype(pool.dtype)


def _by_device(
    run: Callable[..., Any], pool: Array, layer: Array, rows: Sequence[Array]
) -> Any:
  """run(pool, layer, shard, *rows) on every device's own pages, rows and heads.

  Arrays of four dimensions have their heads at the third. `run` returns the
  pool, and if it gets such arrays one more.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return run(pool, layer, 0, *rows)

  def on_device(pool: Array, layer: Array, *rows: Array) -> Any:
    return run(pool, layer, jax.lax.axis_index(sharding.ROW_AXES), *rows)

  of_pool = _pool_spec(pool.shape, mesh)
  with_heads = PartitionSpec(of_pool[0], None, of_pool[2], None)
  of_rows = [with_heads if x.ndim == 4 else PartitionSpec(of_pool[0]) for x in rows]
  mapped = jax.shard_map(
      on_device,
      in_specs=(of_pool, PartitionSpec(), *of_rows),
      out_specs=(of_pool, with_heads) if with_heads in of_rows else of_pool,
      check_vma=False,  # the kernel does not say how its output varies
  )
  return mapped(pool, layer, *rows)


def _own(
    ids: Array, shard: Int[Array, ''] | int, num_pages: int
) -> tuple[Array, Array]:
  """Page ids counted from the shard's first, and which of them are its own."""
  ids = ids - shard * num_pages
  return jnp.clip(ids, 0, num_pages - 1), (ids >= 0) & (ids < num_pages)


def _write_and_attend(
    num_layers: int,
    window: int,
    pool: Float[Array, 'slots P heads H'],
    layer: Array,
    shard: Array,
    table: Int[Array, 'B p'],
    start: Int[Array, ' B'],
    known: Array,
    q: Float[Array, 'B T N H'],
    new: Float[Array, 'B T heads H'],
) -> tuple[Array, Float[Array, 'B T N H']]:
  num_slots, page_size, heads, dim = pool.shape
  num_pages = num_slots // num_layers
  places = start[:, None] + jnp.arange(q.shape[1])
  page = jnp.take_along_axis(table, places // page_size, axis=1, mode='clip')
  page, exists = _own(page, shard, num_pages)
  slot = (layer * num_pages + page) * page_size + places % page_size
  flat = pool.reshape(-1, heads, dim)
  slot = jnp.where(known & exists, slot, flat.shape[0])
  flat = flat.at[slot.reshape(-1)].set(new.reshape(-1, heads, dim), mode='drop')
  pool = flat.reshape(pool.shape)
  pages, _ = _own(table, shard, num_pages)
  if window:
    pages, start = _near(pages, start, page_size, window, q.shape[1])
  return pool, attend(q, pool, layer * num_pages + pages, start, window)


def _near(
    pages: Int[Array, 'B p'],
    start: Int[Array, ' B'],
    page_size: int,
    window: int,
    length: int,
) -> tuple[Int[Array, 'B q'], Int[Array, ' B']]:
  """The pages that a row's windows reach, and `start` counted from their first.

  Args:
    pages: all pages of the rows.
    start: places before a row's first query.
    page_size: P.
    window: places that a query sees.
    length: queries of a row.
  """
  first = jnp.maximum(start - window + 1, 0) // page_size
  # Wherever in a page the first of these places lies.
  count = (window + length - 2) // page_size + 2
  if count >= pages.shape[1]:
    return pages, start
  places = first[:, None] + jnp.arange(count)
  near = jnp.take_along_axis(pages, places, axis=1, mode='clip')
  return near, start - first * page_size


def attend(
    q: Float[Array, 'B T N H'],
    pool: Float[Array, 'slots P heads H'],
    pages: Int[Array, 'B p'],
    start: Int[Array, ' B'],
    window: int = 0,
) -> Float[Array, 'B T N H']:
  """Query t of a row over the first start + t + 1 places of its pages.

  With a window, over the last ones of them alone.

  A Pallas kernel on TPUs and on GPUs; a gather and plain products elsewhere.
  """
  run = {'tpu': _attend_on_tpu, 'gpu': flash.attend}
  run = run.get(sharding.target_platform(), _attend_gathered)
  return run(q, pool, pages, start, window)


def _attend_on_tpu(
    q: Array, pool: Array, pages: Array, start: Array, window: int
) -> Array:
  from jax.experimental.pallas.ops.tpu import ragged_paged_attention as ragged

  rows, length, heads, dim = q.shape
  page_bytes = pool[0].size * pool.dtype.itemsize
  block = min(_BLOCK_TOKENS // pool.shape[1], _BLOCK_BYTES // page_bytes)
  # Padded tokens are queries too: they come last, so no real one sees them.
  mixed = ragged.ragged_paged_attention(
      q.reshape(rows * length, heads, dim), pool, start + length, pages,
      jnp.arange(rows + 1, dtype=jnp.int32) * length, jnp.full(1, rows, jnp.int32),
      sm_scale=dim**-0.5,
      sliding_window=window or None,
      num_kv_pages_per_block=max(1, min(block, pages.shape[1])),
      num_queries_per_block=min(block_queries(length, heads), rows * length),
  )
  return mixed.reshape(q.shape)


def block_queries(length: int, heads: int) -> int:
  """Queries for which the kernel reads a row's pages once.

  Args:
    length: tokens a row.
    heads: query heads on a device.
  """
  if length == 1:
    return _DECODE_QUERIES
  return max(_DECODE_QUERIES, min(128, _BLOCK_HEADS // heads // 8 * 8))


def _attend_gathered(
    q: Array, pool: Array, pages: Array, start: Array, window: int
) -> Array:
  rows, length, heads, dim = q.shape
  k, v = (
      pool[pages, :, of::2].reshape(rows, -1, pool.shape[2] // 2, dim)
      for of in (0, 1)
  )
  q = q.reshape(rows, length, k.shape[2], -1, dim) * dim**-0.5
  scores = products.einsum('btkgh,bskh->bkgts', q, k, jnp.float32)
  last = start[:, None] + jnp.arange(length)
  seen = jnp.arange(k.shape[1]) <= last[:, :, None]
  if window:
    seen &= last[:, :, None] - jnp.arange(k.shape[1]) < window
  scores = jnp.where(seen[:, None, None], scores, attention.MASKED)
  weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
  mixed = products.einsum('bkgts,bskh->btkgh', weights, v)
  return mixed.reshape(rows, length, heads, dim).astype(q.dtype)


def copy_pages(
    pool: Array,
    num_layers: int,
    sources: Int[Array, ' B'],
    targets: Int[Array, ' B'],
) -> Array:
  """Copies a page a row, in all layers; no page's id as target: none."""

  def run(
      pool: Array, _: Array, shard: Array, sources: Array, targets: Array
  ) -> Array:
    num_pages = pool.shape[0] // num_layers
    sources, _ = _own(sources, shard, num_pages)
    targets, exists = _own(targets, shard, num_pages)
    first = jnp.arange(num_layers)[:, None] * num_pages
    places = jnp.where(exists, first + targets, pool.shape[0])
    return pool.at[places].set(pool[first + sources], mode='drop')

  return _by_device(run, pool, jnp.zeros(()), (sources, targets))
