"""A turn straight over KV pages, for TPUs and GPUs.

`turn.turn` gathers a row's pages into dense keys and values, which costs a copy
of its whole transcript a dispatch, and room for the longest one in every row.
Here nothing is gathered: prompt and response tokens go into their pages as they
are read, in a donated pool, and attention reads the pages that a row has; see
`ragged` for both. Layers are always scanned over.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import (
  delta,
  experts,
  kinds,
  layers,
  model,
  rope,
  sharding,
  stacks,
  weights,
)  # fmt: skip
from leafe_jax.sampler import cache, drawing, ragged, reading, recall
from leafe_jax.sampler import turn as turn_lib
from leafe_jax.sampler.batch import Batch, Held

# Where tokens are, by window.
_Rows = dict[int, ragged.Rows]
# The residual stream, and a number for the experts that its tokens went to.
_Stream = tuple[Array, Array | None]


def turn(
    config: config_lib.Policy,
    page_size: int,
    num_decode: int,
    params: model.Params,
    pool: cache.Pools,
    batch: Batch,
    memories: delta.Memory | None = None,
    *,
    gather_weights: bool = True,
    drawable: Bool[np.ndarray, ' V'] | None = None,
) -> tuple[cache.Pools, turn_lib.Response | None, delta.Memory | None]:
  """As `turn.turn`, but returns the pools themselves, with what is new in them.

  Args:
    config: sizes and types.
    page_size: P.
    num_decode: R, room for the response; 0 only reads.
    params: weights.
    pool: by window, see `ragged`; donate it.
    batch: the rows; their max_tokens <= R.
    memories: see `recall`; donate it.
    gather_weights: bring the FSDP shards of the weights together once, before
      decoding, instead of at every step.
    drawable: tokens that may be drawn; None: all.
  """
  params = _prepare(params, config, gather_weights and num_decode > 0)
  opened = {
      window: _open(pages, kinds.groups(config)[window], batch, window, page_size)
      for window, pages in pool.items()
  }
  pool = {window: pages for window, (pages, _) in opened.items()}
  known = jnp.arange(batch.tokens.shape[1]) < batch.num_new[:, None]
  rows = {window: found._replace(known=known) for window, (_, found) in opened.items()}
  memory: recall.Layers = []
  if memories is not None and batch.memory is not None:
    memory = recall.gather(memories, batch.memory, stacked=True)
  stream, pool, memory = _read(params, config, pool, memory, batch.tokens, rows, known)
  response = None
  if num_decode:
    found = _next(params, config, stream, batch.num_new - 1)
    rows = {
        window: found._replace(
            start=found.start + batch.num_new, known=batch.active[:, None]
        )
        for window, found in rows.items()
    }
    response, pool, memory = _decode(
        params, config, pool, memory, rows, batch, found, num_decode, drawable
    )
  if memories is not None and batch.write_memory is not None:
    memories = recall.write(memories, batch.write_memory, recall.of_rows(memory))
  return pool, response, memories


def _open(
    pool: Float[Array, 'slots P heads H'],
    depth: int,
    batch: Batch,
    window: int,
    page_size: int,
) -> tuple[Array, ragged.Rows]:
  """The pool of a group of layers with a page for every row to go on in."""
  held, num_pages = batch.held(window), pool.shape[0] // depth
  # A row goes on in a copy of its half-filled page, which others may share.
  fresh = jnp.where(batch.offset > 0, held.write_pages[:, 0], num_pages)
  pool = ragged.copy_pages(pool, depth, held.tail_page, fresh)
  table = page_table(held, page_size, num_pages)
  start = held.length + batch.offset
  skipped = batch.prefix_length - held.length if window else None
  return pool, ragged.Rows(table, start, batch.active[:, None], skipped)


def page_table(held: Held, page_size: int, num_pages: int) -> Int[Array, 'B p']:
  """Each row's full pages, then the ones it writes; `num_pages`: none."""
  full = (held.length // page_size)[:, None]
  ids = jnp.concatenate([held.pages, held.write_pages], axis=1)
  order = jnp.arange(ids.shape[1])
  skipped = held.pages.shape[1] - full
  place = jnp.where(order < full, order, order + skipped)
  found = jnp.take_along_axis(ids, place, axis=1, mode='clip')
  return jnp.where(place < ids.shape[1], found, num_pages)


def _prepare(
    params: model.Params, config: config_lib.Policy, whole: bool
) -> model.Params:
  """Weights as the loops read them.

  In the type of the products, as the loops would cast float32 weights at every
  step; if `whole`, sharded over tensor alone.
  """

  def prepare(name: str, value: Any) -> Any:
    if not isinstance(value, jax.Array):
      return value  # quantised: spelt out where it is used
    if reading.is_cast(name, value):
      value = value.astype(config.dtype)
    axes = weights.logical_axes(name)
    own = tuple(None if axis == 'embed' else axis for axis in axes)
    return sharding.constrain(value, own) if whole else value

  return {name: prepare(name, value) for name, value in params.items()}


def _read(
    params: model.Params,
    config: config_lib.Policy,
    pool: cache.Pools,
    memory: recall.Layers,
    tokens: Int[Array, 'B T'],
    rows: _Rows,
    kept: Bool[Array, 'B T'],
) -> tuple[_Stream, cache.Pools, recall.Layers]:
  """Runs tokens through the layers and writes their keys and values.

  Recurrent layers remember those that are `kept`.
  """
  x = layers.embed(params, tokens, config)
  x = sharding.constrain(x, ('batch', 'length', None))
  first = next(iter(rows.values())).first  # the same in all
  positions = first[:, None] + jnp.arange(tokens.shape[1])
  angles = rope.all_angles(positions, config)

  depths = kinds.groups(config)

  def layer(
      kind: kinds.Kind, carry: tuple[_Stream, cache.Pools], weights: model.Params,
      own: Any,
  ) -> tuple[tuple[_Stream, cache.Pools], delta.Memory | None]:
    ((x, route), pool), memory = carry, None
    normed = layers.enter(x, weights, 'attn_norm_ld', config)
    if kind.mixer == 'delta':
      mixed, memory = delta.mix(normed, weights, config, own, known=kept)
    else:
      mixed, pool = attend(kind, normed, weights, pool, own)
    x, routes = layers.conclude(x, mixed, weights, kind, config)
    x = sharding.constrain(x, ('batch', 'length', None))
    return ((x, experts.onward(route, routes)), pool), memory

  def attend(
      kind: kinds.Kind, normed: Array, weights: model.Params, pool: cache.Pools,
      index: Array,
  ) -> tuple[Array, cache.Pools]:
    k, v = layers.key_value(normed, weights, angles.get(kind.rope), config)
    q, gate = layers.query(normed, weights, angles.get(kind.rope), config)
    window = kind.window
    pages, mixed = ragged.write_and_attend(
        pool[window], depths[window], index, rows[window], q, k, v, window
    )
    return layers.project_out(mixed, gate, weights), {**pool, window: pages}

  states: dict[stacks.State, Any] = {
      ('attention', window): jnp.arange(depth) for window, depth in depths.items()
  }
  if memory:
    states['delta', 0] = memory
  stream = x, experts.nowhere(tokens, config)
  (stream, pool), found = stacks.scan(config, layer, (stream, pool), params, states)
  return stream, pool, found.get(('delta', 0), [])


def _next(
    params: model.Params, config: config_lib.Policy, stream: _Stream,
    place: Int[Array, ' B'],
) -> reading.Next:
  """What follows at each row's place."""
  last, route = jax.tree.map(lambda x: reading.pick(x, place)[:, 0], stream)
  return reading.Next(layers.unembed(params, last, config), route)


def _decode(
    params: model.Params,
    config: config_lib.Policy,
    pool: cache.Pools,
    memory: recall.Layers,
    rows: _Rows,
    batch: Batch,
    found: reading.Next,
    num_decode: int,
    drawable: Bool[np.ndarray, ' V'] | None,
) -> tuple[turn_lib.Response, cache.Pools, recall.Layers]:
  """Draws, reads, draws, ... until every row has stopped."""
  rules = batch.drawing
  assert rules is not None  # given wherever there is room for a response

  def step(
      carry: tuple[turn_lib.Said, cache.Pools, recall.Layers]
  ) -> tuple[turn_lib.Said, cache.Pools, recall.Layers]:
    said, pool, memory = carry
    kept = turn_lib.going_on(rules, said)[:, None]
    here = {
        window: found._replace(start=found.start + said.index - 1)
        for window, found in rows.items()
    }
    stream, pool, memory = _read(
        params, config, pool, memory, said.token[:, None], here, kept
    )
    found = _next(params, config, stream, jnp.zeros_like(batch.num_new))
    return turn_lib.draw_next(found, uniform, rules, said, drawable), pool, memory

  uniform = drawing.uniforms(rules.keys, num_decode, rules.first)
  nothing = turn_lib.nothing_said(batch, num_decode, config)
  first = turn_lib.draw_next(found, uniform, rules, nothing, drawable)
  said, pool, memory = jax.lax.while_loop(
      lambda carry: turn_lib.unfinished(batch, carry[0]), step, (first, pool, memory)
  )
  return said.response, pool, memory
