"""The device program of a turn: read new tokens, decode a response.

Keys and values (dense, see `cache`) come in two parts, and attention runs over
both with one softmax. While the prompt is read they are

  past      the full pages of each row and then its half-filled last page, on a
            page boundary of its own and with room for the new tokens. Gathered
            once.
  new       the new prompt tokens, which then move into the past;

and in the decode loop the past and

  response  the sampled tokens. Every row writes the same place at each step
            of the loop, which is far cheaper than a place of its own.

Layers with a window have pages of their own (`cache`): of the past they gather the
pages that the windows of new tokens reach, and no others.

At the end what follows the full pages goes to fresh ids of the pool. That is a
program of its own (`cache.write`, which alone takes the pool as donated), so
that several turns can read the same pool at the same time: on CPU most steps of
a small batch run on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import delta, model, rope
from leafe_jax.sampler import cache, choices, drawing, reading, recall
from leafe_jax.sampler.batch import Batch, Drawing, Held
from leafe_jax.sampler.cache import KV, Layers, Pools


class Response(NamedTuple):
  """[B, R] tokens and log-probabilities, [B] lengths and stop marks.

  Routes are [B, R] numbers for the experts that were asked; None without any.
  """

  tokens: Array
  logprobs: Array
  lengths: Array
  stopped: Array
  routes: Array | None


class Said(NamedTuple):
  """What the rows of a decode loop have said so far.

  Attributes:
    index: tokens drawn.
    token: [B] the last of them.
    node: [B] places in the tries; None without tries.
    response: all of them.
  """

  index: Array
  token: Array
  node: Array | None
  response: Response


def turn(
    config: config_lib.Policy,
    page_size: int,
    num_decode: int,
    params: model.Params,
    pool: Pools,
    batch: Batch,
    memories: delta.Memory | None = None,
    *,
    drawable: Bool[np.ndarray, ' V'] | None = None,
) -> tuple[Pools, Response | None, delta.Memory | None]:
  """Reads every row's new tokens and samples up to `num_decode` tokens.

  Args:
    config: sizes and types.
    page_size: P.
    num_decode: R, room for the response; 0 only reads.
    params: weights.
    pool: KV pages by window; read only.
    batch: the rows; their max_tokens <= R.
    memories: pool of them, see `recall`; None without recurrent layers.
    drawable: tokens that may be drawn; None: all.

  Returns:
    Pages by window for `Held.write_pages` (see `cache.write`), the responses (None
    when R is 0), and memories for batch.write_memory (see `recall.write`). The last
    token of a response is never read: it stays pending.
  """
  policy = reading.LayeredPolicy.prepare(config, params)
  num_new, num_write = batch.tokens.shape[1], batch.write_pages.shape[1]
  past = _gather(pool, batch, config, -(-(num_new - 1) // page_size) * page_size)
  recalled = _recall(memories, batch, config)
  found, past, known = _read_prompt(
      policy, past, batch, page_size, num_decode > 0, recalled
  )
  buffers = cache.each_layer(
      lambda window, row: cache.behind(
          row, _prefix(batch, window, page_size), num_write * page_size
      ),
      past,
  )
  response = None
  if found is not None:
    response, spoken, known = _decode(
        policy, past, batch, page_size, found, known, num_decode, drawable
    )
    place = batch.offset + batch.num_new
    buffers = cache.each_layer(
        lambda _, buffer, new: cache.put(buffer, new, place), buffers, spoken
    )
  memory = recall.of_rows(known) if memories is not None else None
  pages = {
      window: cache.close_buffers(group, page_size) for window, group in buffers.items()
  }
  return pages, response, memory


def _gather(
    pool: Pools, batch: Batch, config: config_lib.Policy, room: int
) -> Layers:
  """The past of every row, with room for new tokens."""

  def ids(held: Held) -> Int[Array, 'B p']:
    return jnp.concatenate([held.pages, held.tail_page[:, None]], axis=1)

  return {
      window: cache.gather(
          pages, ids(batch.held(window)), config.head_dim, room, config.scan_layers
      )
      for window, pages in pool.items()
  }


def _prefix(batch: Batch, window: int, page_size: int) -> int:
  """Places of the past before the half-filled page."""
  return batch.held(window).pages.shape[1] * page_size


def _recall(
    memories: delta.Memory | None, batch: Batch, config: config_lib.Policy
) -> reading.Recalled | None:
  """What recurrent layers know of the rows before their new tokens."""
  if memories is None or batch.memory is None:
    return None
  known = jnp.arange(batch.tokens.shape[1]) < batch.num_new[:, None]
  found = recall.gather(memories, batch.memory, config.scan_layers)
  return reading.Recalled(found, known)


def _read_prompt(
    policy: reading.LayeredPolicy,
    past: Layers,
    batch: Batch,
    page_size: int,
    want_logits: bool,
    recalled: reading.Recalled | None,
) -> tuple[reading.Next | None, Layers, recall.Layers]:
  """Reads the new prompt tokens into the past; logits after the last."""
  order = jnp.arange(batch.tokens.shape[1])
  angles = _angles(policy, batch.prefix_length + batch.offset, order)
  causal = order <= order[:, None]
  seen = _seen(past, batch, page_size, batch.offset)
  found, new, memory = reading.read(
      policy, batch.tokens, angles, [past],
      lambda caches, new: ([*caches, new], new),
      _masks(seen, order, causal[None]),
      batch.num_new - 1 if want_logits else None, recalled,
  )
  places = {
      window: _prefix(batch, window, page_size) + batch.offset for window in past
  }
  past = cache.each_layer(
      lambda window, row, new: cache.put(row, new, places[window]), past, new
  )
  return found, past, memory


def _angles(
    policy: reading.LayeredPolicy, start: Int[Array, ' B'], order: Int[Array, ' T']
) -> rope.AllAngles:
  """Of places in their order behind each row's start."""
  return rope.all_angles(start[:, None] + order, policy.config)


class _Seen(NamedTuple):
  """What the past holds.

  Attributes:
    known: [B, 1, S] whether there is a token.
    places: [B, S] where in the transcript it is.
    end: [B] tokens of the transcript: the place of what follows.
  """

  known: Array
  places: Array
  end: Array


def _seen(
    past: Layers, batch: Batch, page_size: int, end: Int[Array, ' B']
) -> dict[int, _Seen]:
  """By window: the tokens in the full pages, and the `end` tokens behind them."""

  def of_group(window: int, group: cache.Group) -> _Seen:
    held = batch.held(window)
    place = jnp.arange(cache.length_of(group))
    behind = place - held.pages.shape[1] * page_size
    in_prefix = place < held.length[:, None]
    known = (in_prefix | ((behind >= 0) & (behind < end[:, None])))[:, None]
    places = jnp.where(behind < 0, place, held.length[:, None] + behind)
    if window:  # what is held begins where the first window does
      places += (batch.prefix_length - held.length)[:, None]
    return _Seen(known, places, batch.prefix_length + end)

  return {window: of_group(window, group) for window, group in past.items()}


def _masks(
    seen: dict[int, _Seen],
    order: Int[Array, ' t'] | Int[Array, ''],
    before: Bool[Array, '1 t new'],
) -> reading.Masks:
  """What tokens see of the past and of the new ones, by window.

  Args:
    seen: the past.
    order: of the tokens, from 0 behind the past.
    before: which of the new tokens are not behind each of them.
  """

  def mask(window: int, seen: _Seen) -> list[Array]:
    if not window:
      return [seen.known, before]
    place = jnp.atleast_1d(order)
    own = seen.end[:, None] + place
    near = own[:, :, None] - seen.places[:, None] < window
    close = place[:, None] - jnp.arange(before.shape[-1]) < window
    return [seen.known & near, before & close]

  return {window: mask(window, of_group) for window, of_group in seen.items()}


def _decode(
    policy: reading.LayeredPolicy,
    past: Layers,
    batch: Batch,
    page_size: int,
    found: reading.Next,
    memory: recall.Layers,
    num_decode: int,
    drawable: Bool[np.ndarray, ' V'] | None,
) -> tuple[Response, Layers, recall.Layers]:
  """Draws, reads, draws, ... until every row has stopped."""
  rules = batch.drawing
  assert rules is not None  # given wherever there is room for a response
  end = batch.offset + batch.num_new
  seen = _seen(past, batch, page_size, end)
  room = cache.each_layer(lambda _, like: cache.no_tokens(like, num_decode), past)
  stacked = policy.config.scan_layers
  order, memories = jnp.arange(num_decode), bool(memory)
  # Of all steps at once: XLA would compute them again for every head and layer.
  angles = _angles(policy, batch.prefix_length + end, order)

  def step(
      carry: tuple[Said, Layers, recall.Layers]
  ) -> tuple[Said, Layers, recall.Layers]:
    said, spoken, memory = carry
    place = said.index - 1

    def keep(caches: Sequence[KV], new: KV) -> tuple[list[KV], KV]:
      past, spoken = caches
      spoken = cache.put_all(spoken, new, place)
      return [past, spoken], new if stacked else spoken

    now = jax.tree.map(
        lambda a: jax.lax.dynamic_index_in_dim(a, place, axis=2), angles
    )
    here = None
    if memories:
      here = reading.Recalled(memory, going_on(rules, said)[:, None])
    found, kept, memory = reading.read(
        policy, said.token[:, None], now, [past, spoken], keep,
        _masks(seen, place, (order <= place)[None, None]),
        jnp.zeros_like(end), here,
    )
    assert found is not None  # asked for: `last` is given
    if stacked:  # written for all layers at once
      kept = cache.each_layer(
          lambda _, spoken, new: cache.put_all(spoken, new, place), spoken, kept
      )
    return draw_next(found, uniform, rules, said, drawable), kept, memory

  uniform = drawing.uniforms(rules.keys, num_decode, rules.first)
  nothing = nothing_said(batch, num_decode, policy.config)
  first = draw_next(found, uniform, rules, nothing, drawable)
  said, spoken, memory = jax.lax.while_loop(
      lambda carry: unfinished(batch, carry[0]), step, (first, cache.pin(room), memory)
  )
  return said.response, spoken, memory


def going_on(rules: Drawing, said: Said) -> Bool[Array, ' B']:
  """Rows that have not come to their end: they read their last token."""
  return ~said.response.stopped & (said.index < rules.max_tokens)


def nothing_said(batch: Batch, num_decode: int, config: config_lib.Policy) -> Said:
  """Room for `num_decode` tokens a row, none drawn yet."""
  rows = batch.tokens.shape[0]
  response = Response(
      tokens=jnp.zeros((rows, num_decode), jnp.int32),
      logprobs=jnp.zeros((rows, num_decode), jnp.float32),
      lengths=jnp.zeros((rows,), jnp.int32),
      stopped=jnp.zeros((rows,), bool),
      routes=jnp.zeros((rows, num_decode), jnp.uint32) if config.num_experts else None,
  )
  node = batch.drawing.node if batch.drawing is not None else None
  zero = jnp.zeros((), jnp.int32)
  return Said(zero, jnp.zeros((rows,), jnp.int32), node, response)


def unfinished(batch: Batch, said: Said) -> Array:
  """Whether any row goes on."""
  assert batch.drawing is not None
  more = ~said.response.stopped & (said.index < batch.drawing.max_tokens)
  return jnp.any(batch.active & more)


def draw_next(
    found: reading.Next,
    uniform: Array,
    rules: Drawing,
    said: Said,
    drawable: Bool[np.ndarray, ' V'] | None,
) -> Said:
  """Draws a token and records it for rows that have not stopped."""
  index, node, response = said.index, said.node, said.response
  logits, routes = found.logits, response.routes
  number = jax.lax.dynamic_index_in_dim(uniform, index, axis=1, keepdims=False)
  allowed = None if drawable is None else jnp.broadcast_to(drawable, logits.shape)
  if rules.edges is not None and node is not None:
    listed = choices.allowed(rules.edges, node, logits.shape[-1])
    allowed = listed if allowed is None else listed & allowed
  token, logprob = drawing.draw(
      logits, number, rules.temperature, rules.filters, allowed
  )
  hit = jnp.any(token[:, None] == rules.stop_ids, axis=1)
  if rules.edges is not None and node is not None:
    node = choices.follow(rules.edges, node, token)
    hit = node == choices.DONE
  running = going_on(rules, said)
  column = jnp.arange(response.tokens.shape[1]) == index
  if routes is not None and found.route is not None:
    routes = jnp.where(column, found.route[:, None], routes)
  response = Response(
      tokens=jnp.where(column, token[:, None], response.tokens),
      logprobs=jnp.where(column, logprob[:, None], response.logprobs),
      lengths=response.lengths + running,
      stopped=response.stopped | (running & hit),
      routes=routes,
  )
  return Said(index + 1, token, node, response)
