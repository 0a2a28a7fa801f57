"""The device program of a turn: read new tokens, decode a response.

Keys and values (dense, see `cache`) come in three parts, and attention runs
over the parts with one softmax:

  prefix    the full pages of each row, gathered once; read only.
  buffer    from there on: the half-filled last page and the new prompt
            tokens. It starts on a page boundary, so writing it back needs no
            shuffling.
  response  the sampled tokens. Every row writes the same place at each step
            of the loop, which is far cheaper than a place of its own; at the
            end the response moves into the buffer.

At the end the buffer's pages go to fresh ids of the pool. That is a program of
its own (`cache.write`, which alone takes the pool as donated), so that several
turns can read the same pool at the same time: on CPU most steps of a small
batch run on one core.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import layers, model
from leafe_jax.policy.attention import MASKED
from leafe_jax.sampler import cache, drawing


class Batch(NamedTuple):
  """Rows of one dispatch; B rows, T new tokens, S prefix tokens, N buffer.

  Attributes:
    prefix_pages: [B, S/P] ids of the full pages; padding is any valid id.
    prefix_length: [B] tokens in them.
    tail_page: [B] id of the half-filled page; any valid id without one.
    offset: [B] tokens in it.
    tokens: [B, T] new prompt tokens, padded on the right.
    num_new: [B] how many are real; at least 1.
    write_pages: [B, N/P] ids that receive the buffer; out of range: dropped.
    keys: [B, 2] random key data.
    active: [B] whether the row is real.
  """

  prefix_pages: Array
  prefix_length: Array
  tail_page: Array
  offset: Array
  tokens: Array
  num_new: Array
  write_pages: Array
  keys: Array
  active: Array


class Drawing(NamedTuple):
  """How to draw: scalars, and stop ids padded with -1."""

  temperature: Array
  max_tokens: Array
  stop_ids: Array


class Response(NamedTuple):
  """[B, R] tokens and log-probabilities, [B] lengths and stop marks."""

  tokens: Array
  logprobs: Array
  lengths: Array
  stopped: Array


class _Decoding(NamedTuple):
  """Carry of the decode loop."""

  index: Array
  token: Array
  response: Response
  spoken: list[cache.KV]


@dataclasses.dataclass(frozen=True)
class _Policy:
  """Weights within one program, layers apart.

  Slicing the stacked weights inside the loop would copy them every step.
  """

  config: config_lib.Policy
  params: model.Params

  @functools.cached_property
  def layers(self) -> list[model.Params]:
    count = self.config.num_layers
    return [model.layer_weights(self.params, i) for i in range(count)]


def turn(
    config: config_lib.Policy,
    page_size: int,
    num_decode: int,
    params: model.Params,
    pool: Float[Array, 'pages L 2 K block'],
    batch: Batch,
    rules: Drawing,
) -> tuple[Array, Response | None]:
  """Reads every row's new tokens and samples up to `num_decode` tokens.

  Args:
    config: sizes and types.
    page_size: P.
    num_decode: R, room for the response; 0 only reads.
    params: weights.
    pool: KV pages; read only.
    batch: the rows.
    rules: temperature, most tokens (<= R), stop ids.

  Returns:
    Pages for batch.write_pages (see `cache.write`), and the responses (None
    when R is 0). The last token of a response is never read: it stays pending.
  """
  policy = _Policy(config, params)
  prefix = cache.gather(pool, batch.prefix_pages, config.head_dim)
  num_write = batch.write_pages.shape[1]
  buffers = cache.open_buffers(pool, batch.tail_page, config.head_dim, num_write)
  logits, buffers = _read_prompt(policy, prefix, buffers, batch, num_decode > 0)
  response = None
  if logits is not None:
    response, spoken = _decode(
        policy, prefix, buffers, batch, logits, rules, num_decode
    )
    place = batch.offset + batch.num_new
    buffers = [cache.put(*pair, place) for pair in zip(buffers, spoken, strict=True)]
  return cache.close_buffers(buffers, page_size), response


def _read_prompt(
    policy: _Policy,
    prefix: list[cache.KV],
    buffers: list[cache.KV],
    batch: Batch,
    want_logits: bool,
) -> tuple[Array | None, list[cache.KV]]:
  """Reads the new prompt tokens into the buffers; logits after the last."""
  buffers = list(buffers)
  slots = batch.offset[:, None] + jnp.arange(batch.tokens.shape[1])
  in_prefix = cache.before(prefix[0], batch.prefix_length)

  def keep(layer: int, new: cache.KV) -> list[cache.KV]:
    buffers[layer] = cache.put(buffers[layer], new, batch.offset)
    return [prefix[layer], buffers[layer]]

  def see(positions: Array) -> list[Array]:
    own = positions - batch.prefix_length[:, None]
    return [in_prefix, jnp.arange(buffers[0].k.shape[3]) <= own[:, :, None]]

  positions = batch.prefix_length[:, None] + slots
  last = batch.num_new - 1 if want_logits else None
  return _read(policy, batch.tokens, positions, keep, see, last), buffers


def _read(
    policy: _Policy,
    tokens: Int[Array, 'B T'],
    positions: Int[Array, 'B T'],
    keep: Callable[[int, cache.KV], list[cache.KV]],
    see: Callable[[Array], list[Array]],
    last: Int[Array, ' B'] | None,
) -> Float[Array, 'B V'] | None:
  """Runs tokens through the layers.

  Args:
    policy: the weights.
    tokens: to read.
    positions: their places in the transcript.
    keep: stores a layer's new keys and values, returns the parts to look at.
    see: masks [B, T or 1, S] of the parts for queries at given positions.
    last: the place of each row whose logits are wanted. Only this one goes
      through the rest of the last layer: of the others nothing but keys and
      values is needed. None: no logits.
  """
  config = policy.config
  x = layers.embed(policy.params, tokens, config)
  angles = layers.rope_angles(positions, config)
  for index, weights in enumerate(policy.layers):
    normed = layers.rms_norm(x, weights['attn_norm_ld'], config.norm_eps)
    k, v = layers.key_value(normed, weights, angles, config)
    parts = keep(index, cache.KV(k.transpose(0, 1, 3, 2), v))
    if index == config.num_layers - 1:
      if last is None:
        return None
      x, normed, positions = (pick(a, last) for a in (x, normed, positions))
      angles = layers.rope_angles(positions, config)
    q = layers.query(normed, weights, angles, config)
    x = x + layers.project_out(attend(q, parts, see(positions)), weights)
    normed = layers.rms_norm(x, weights['mlp_norm_ld'], config.norm_eps)
    x = x + layers.feed_forward(normed, weights)
  return layers.unembed(policy.params, x[:, 0], config)


def pick(x: Array, place: Int[Array, ' B']) -> Array:
  """[B, T, ...] -> [B, 1, ...] at each row's place."""
  if x.shape[1] == 1:
    return x
  return jnp.take_along_axis(x, place.reshape(-1, *[1] * (x.ndim - 1)), axis=1)


def attend(
    q: Float[Array, 'B N T H'], parts: Sequence[cache.KV], masks: Sequence[Array]
) -> Float[Array, 'B N T H']:
  """Softmax attention over several parts at once, softmax in float32."""
  batch, num_heads, length, head_dim = q.shape
  num_kv_heads = parts[0].v.shape[1]
  # Query heads of a group fold into the rows of one product per KV head.
  rows = q.reshape(batch, num_kv_heads, -1, head_dim) * head_dim**-0.5
  groups = num_heads // num_kv_heads
  scores = []
  for part, mask in zip(parts, masks, strict=True):
    wide = (1, groups, 1) if mask.shape[1] > 1 else (1, 1, 1)
    product = _product('bkrh,bkhs->bkrs', rows, part.k)
    scores.append(jnp.where(jnp.tile(mask, wide)[:, None], product, MASKED))
  top = functools.reduce(jnp.maximum, [s.max(-1, keepdims=True) for s in scores])
  weights = [jnp.exp(s - top) for s in scores]
  total = functools.reduce(jnp.add, [w.sum(-1, keepdims=True) for w in weights])
  products = [
      _product('bkrs,bksh->bkrh', w.astype(part.v.dtype), part.v)
      for w, part in zip(weights, parts, strict=True)
  ]
  mixed = functools.reduce(jnp.add, products)
  return (mixed / total).astype(q.dtype).reshape(batch, num_heads, length, head_dim)


def _product(form: str, left: Array, right: Array) -> Array:
  return jnp.einsum(form, left, right, preferred_element_type=jnp.float32)


def _decode(
    policy: _Policy,
    prefix: list[cache.KV],
    buffers: list[cache.KV],
    batch: Batch,
    logits: Float[Array, 'B V'],
    rules: Drawing,
    num_decode: int,
) -> tuple[Response, list[cache.KV]]:
  """Draws, reads, draws, ... until every row has stopped."""
  end = batch.offset + batch.num_new
  # The buffer has room for the response too, which is not there yet.
  page = buffers[0].k.shape[3] // batch.write_pages.shape[1]
  num_read = -(-(page - 1 + batch.tokens.shape[1]) // page) * page
  # What the loop only reads is put together before it: two parts, not three.
  past = [cache.join(*pair, num_read) for pair in zip(prefix, buffers, strict=True)]
  in_prefix = cache.before(prefix[0], batch.prefix_length)
  in_past = jnp.concatenate([in_prefix, cache.before(buffers[0], end)], axis=-1)
  in_past = in_past[:, :, : past[0].k.shape[3]]

  def unfinished(carry: _Decoding) -> Array:
    open_rows = batch.active & ~carry.response.stopped
    return (carry.index < rules.max_tokens) & jnp.any(open_rows)

  def step(carry: _Decoding) -> _Decoding:
    place = carry.index - 1
    spoken = list(carry.spoken)
    in_response = (jnp.arange(num_decode) <= place)[None, None]

    def keep(layer: int, new: cache.KV) -> list[cache.KV]:
      spoken[layer] = cache.put_all(spoken[layer], new, place)
      return [past[layer], spoken[layer]]

    positions = (batch.prefix_length + end + place)[:, None]
    masks = [in_past, in_response]
    logits = _read(policy, carry.token[:, None], positions, keep, lambda _: masks, end)
    assert logits is not None  # asked for: `last` is given
    token, response = draw_next(logits, uniform, rules, carry.index, carry.response)
    return _Decoding(carry.index + 1, token, response, spoken)

  zero = jnp.zeros((), jnp.int32)
  uniform = drawing.uniforms(batch.keys, num_decode)
  empty = no_response(batch, num_decode)
  token, response = draw_next(logits, uniform, rules, zero, empty)
  spoken = [cache.no_tokens(buffer, num_decode) for buffer in buffers]
  start = _Decoding(zero + 1, token, response, spoken)
  done = jax.lax.while_loop(unfinished, step, start)
  return done.response, done.spoken


def no_response(batch: Batch, num_decode: int) -> Response:
  """Room for `num_decode` tokens a row, none drawn yet."""
  rows = batch.tokens.shape[0]
  return Response(
      tokens=jnp.zeros((rows, num_decode), jnp.int32),
      logprobs=jnp.zeros((rows, num_decode), jnp.float32),
      lengths=jnp.zeros((rows,), jnp.int32),
      stopped=jnp.zeros((rows,), bool),
  )


def draw_next(
    logits: Array, uniform: Array, rules: Drawing, index: Array, response: Response
) -> tuple[Array, Response]:
  """Draws token `index` and records it for rows that have not stopped."""
  number = jax.lax.dynamic_index_in_dim(uniform, index, axis=1, keepdims=False)
  token, logprob = drawing.draw(logits, number, rules.temperature)
  running = ~response.stopped
  hit = jnp.any(token[:, None] == rules.stop_ids, axis=1)
  column = jnp.arange(response.tokens.shape[1]) == index
  return token, Response(
      tokens=jnp.where(column, token[:, None], response.tokens),
      logprobs=jnp.where(column, logprob[:, None], response.logprobs),
      lengths=response.lengths + running,
      stopped=response.stopped | (running & hit),
  )
