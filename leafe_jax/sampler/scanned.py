"""The device program of a turn for deep models: one loop over the layers.

`turn.turn` unrolls the layers, which a small policy runs fastest; 80 of them
would take minutes to compile. Here the weights, the keys and the values of all
layers stay stacked along a leading axis and `lax.scan` goes over them:

    keys [L, B, K, H, S], values [L, B, K, S, H]

A layer only reads its caches; what it adds comes out as the scan's result and
is written for all layers at once. The results are those of `turn.turn`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import layers, model, sharding
from leafe_jax.sampler import cache, drawing
from leafe_jax.sampler import turn as turn_lib

_QUERIES = 128  # at a time: bounds the scores that a long prefill holds
_KEY_AXES = ('layers', 'batch', 'kv_heads', None, None)


class _Decoding(NamedTuple):
  """Carry of the decode loop; `spoken` is stacked over layers."""

  index: Array
  token: Array
  response: turn_lib.Response
  spoken: cache.KV


# layer's caches, its new keys and values -> parts to attend to, what to keep
_Keep = Callable[[Sequence[cache.KV], cache.KV], tuple[list[cache.KV], cache.KV]]


def turn(
    config: config_lib.Policy,
    page_size: int,
    num_decode: int,
    params: model.Params,
    pool: Float[Array, 'pages L 2 K block'],
    batch: turn_lib.Batch,
    rules: turn_lib.Drawing,
) -> tuple[Array, turn_lib.Response | None]:
  """As `turn.turn`."""
  # Once: the loops would cast (and gather) float32 weights at every step.
  params = {name: value.astype(config.dtype) for name, value in params.items()}
  prefix = _gather(pool, batch.prefix_pages, config.head_dim)
  buffers = _open_buffers(pool, batch, config.head_dim)
  hidden, buffers = _read_prompt(params, config, prefix, buffers, batch)
  response = None
  if num_decode:
    logits = layers.unembed(params, hidden, config)
    caches = (prefix, buffers)
    response, spoken = _decode(params, config, caches, batch, logits, rules, num_decode)
    place = batch.offset + batch.num_new
    buffers = jax.vmap(cache.put, (0, 0, None))(buffers, spoken, place)
  return _close_buffers(buffers, page_size), response


def _gather(pool: Array, ids: Int[Array, 'B p'], head_dim: int) -> cache.KV:
  """As `cache.gather`, stacked."""
  pages = pool.at[ids].get(mode='promise_in_bounds')
  rows, count, depth, _, heads, block = pages.shape
  room = block // head_dim
  k = pages[:, :, :, 0].reshape(rows, count, depth, heads, head_dim, room)
  v = pages[:, :, :, 1].reshape(rows, count, depth, heads, room, head_dim)
  k = k.transpose(2, 0, 3, 4, 1, 5).reshape(depth, rows, heads, head_dim, -1)
  v = v.transpose(2, 0, 3, 1, 4, 5).reshape(depth, rows, heads, -1, head_dim)
  return _pin(cache.KV(k, v))


def _pin(kv: cache.KV) -> cache.KV:
  """Rows over data and fsdp, heads over tensor, as in training."""
  return cache.KV(*(sharding.constrain(x, _KEY_AXES) for x in kv))


def _open_buffers(pool: Array, batch: turn_lib.Batch, head_dim: int) -> cache.KV:
  """As `cache.open_buffers`, stacked."""
  tail = _gather(pool, batch.tail_page[:, None], head_dim)
  room = (batch.write_pages.shape[1] - 1) * tail.v.shape[3]
  none = (0, 0)
  return cache.KV(
      jnp.pad(tail.k, (none, none, none, none, (0, room))),
      jnp.pad(tail.v, (none, none, none, (0, room), none)),
  )


def _close_buffers(buffers: cache.KV, page_size: int) -> Array:
  """As `cache.close_buffers`."""
  depth, rows, heads, dim, length = buffers.k.shape
  count = length // page_size
  k = buffers.k.reshape(depth, rows, heads, dim, count, page_size)
  v = buffers.v.reshape(depth, rows, heads, count, page_size, dim)
  k = k.transpose(1, 4, 0, 2, 3, 5).reshape(rows * count, depth, heads, -1)
  v = v.transpose(1, 3, 0, 2, 4, 5).reshape(rows * count, depth, heads, -1)
  return jnp.stack([k, v], axis=2)


def _read_prompt(
    params: model.Params,
    config: config_lib.Policy,
    prefix: cache.KV,
    buffers: cache.KV,
    batch: turn_lib.Batch,
) -> tuple[Float[Array, 'B D'], cache.KV]:
  """Reads the new tokens into the buffers; the hidden state of the last."""
  slots = batch.offset[:, None] + jnp.arange(batch.tokens.shape[1])
  positions = batch.prefix_length[:, None] + slots
  in_prefix = jnp.arange(prefix.k.shape[4]) < batch.prefix_length[:, None]
  in_buffer = jnp.arange(buffers.k.shape[4]) <= slots[:, :, None]

  def keep(
      caches: Sequence[cache.KV], new: cache.KV
  ) -> tuple[list[cache.KV], cache.KV]:
    prefix, buffer = caches
    buffer = cache.put(buffer, new, batch.offset)
    return [prefix, buffer], buffer

  masks = [in_prefix[:, None], in_buffer]
  x, buffers = _read(
      params, config, batch.tokens, positions, (prefix, buffers), keep, masks
  )
  return turn_lib.pick(x, batch.num_new - 1)[:, 0], buffers


def _read(
    params: model.Params,
    config: config_lib.Policy,
    tokens: Int[Array, 'B T'],
    positions: Int[Array, 'B T'],
    caches: Sequence[cache.KV],
    keep: _Keep,
    masks: Sequence[Array],
) -> tuple[Float[Array, 'B T D'], cache.KV]:
  """Runs tokens through the layers.

  Args:
    params: weights.
    config: sizes and types.
    tokens: to read.
    positions: their places in the transcript.
    caches: keys and values of all layers, read only.
    keep: says what a layer attends to and which keys and values come out.
    masks: [B, T or 1, S] of the parts that `keep` returns.

  Returns:
    Hidden states and the kept keys and values of all layers.
  """
  x = layers.embed(params, tokens, config)
  angles = layers.rope_angles(positions, config)

  def layer(
      x: Array, of_layer: tuple[model.Params, Sequence[cache.KV]]
  ) -> tuple[Array, cache.KV]:
    weights, caches = of_layer
    normed = layers.rms_norm(x, weights['attn_norm_ld'], config.norm_eps)
    k, v = layers.key_value(normed, weights, angles, config)
    parts, kept = keep(caches, cache.KV(k.transpose(0, 1, 3, 2), v))
    q = layers.query(normed, weights, angles, config)
    x = x + layers.project_out(_attend(q, parts, masks), weights)
    normed = layers.rms_norm(x, weights['mlp_norm_ld'], config.norm_eps)
    x = x + layers.feed_forward(normed, weights)
    return sharding.constrain(x, ('batch', 'length', None)), kept

  return jax.lax.scan(layer, x, (model.stacks(params), tuple(caches)))


def _attend(
    q: Float[Array, 'B N T H'], parts: Sequence[cache.KV], masks: Sequence[Array]
) -> Float[Array, 'B N T H']:
  """`turn.attend`, a chunk of queries at a time where there are many."""
  rows, heads, length, dim = q.shape
  if length <= _QUERIES or length % _QUERIES:
    return turn_lib.attend(q, parts, masks)
  count = length // _QUERIES

  def chunk(index: Array) -> Array:
    cut = functools.partial(
        jax.lax.dynamic_slice_in_dim, start_index=index * _QUERIES,
        slice_size=_QUERIES,
    )
    seen = [mask if mask.shape[1] == 1 else cut(mask, axis=1) for mask in masks]
    return turn_lib.attend(cut(q, axis=2), parts, seen)

  mixed = jax.lax.map(chunk, jnp.arange(count))  # [count, B, N, queries, H]
  return mixed.transpose(1, 2, 0, 3, 4).reshape(rows, heads, length, dim)


def _decode(
    params: model.Params,
    config: config_lib.Policy,
    caches: tuple[cache.KV, cache.KV],
    batch: turn_lib.Batch,
    logits: Float[Array, 'B V'],
    rules: turn_lib.Drawing,
    num_decode: int,
) -> tuple[turn_lib.Response, cache.KV]:
  """Draws, reads, draws, ... until every row has stopped."""
  prefix, buffers = caches
  end = batch.offset + batch.num_new
  in_prefix = (jnp.arange(prefix.k.shape[4]) < batch.prefix_length[:, None])[:, None]
  in_buffer = (jnp.arange(buffers.k.shape[4]) < end[:, None])[:, None]
  itself = jnp.ones((1, 1, 1), bool)

  def unfinished(carry: _Decoding) -> Array:
    open_rows = batch.active & ~carry.response.stopped
    return (carry.index < rules.max_tokens) & jnp.any(open_rows)

  def keep(
      caches: Sequence[cache.KV], new: cache.KV
  ) -> tuple[list[cache.KV], cache.KV]:
    return [*caches, new], new

  def step(carry: _Decoding) -> _Decoding:
    place = carry.index - 1
    in_response = (jnp.arange(num_decode) < place)[None, None]
    positions = (batch.prefix_length + end + place)[:, None]
    masks = [in_prefix, in_buffer, in_response, itself]
    x, new = _read(
        params, config, carry.token[:, None], positions,
        (prefix, buffers, carry.spoken), keep, masks,
    )
    spoken = jax.vmap(cache.put_all, (0, 0, None))(carry.spoken, new, place)
    logits = layers.unembed(params, x[:, 0], config)
    token, response = turn_lib.draw_next(
        logits, uniform, rules, carry.index, carry.response
    )
    return _Decoding(carry.index + 1, token, response, spoken)

  zero = jnp.zeros((), jnp.int32)
  uniform = drawing.uniforms(batch.keys, num_decode)
  token, response = turn_lib.draw_next(
      logits, uniform, rules, zero, turn_lib.no_response(batch, num_decode)
  )
  empty = jax.vmap(lambda kv: cache.no_tokens(kv, num_decode))(buffers)
  start = _Decoding(zero + 1, token, response, _pin(empty))
  done = jax.lax.while_loop(unfinished, step, start)
  return done.response, done.spoken
