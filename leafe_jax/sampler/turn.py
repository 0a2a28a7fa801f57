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

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from leafe_jax import config as config_lib
from leafe_jax.policy import model
from leafe_jax.sampler import cache, choices, drawing, reading
from leafe_jax.sampler.reading import Layers


class Drawing(NamedTuple):
  """How each row draws; B rows.

  Attributes:
    temperature: [B] divides the logits.
    max_tokens: [B] most tokens in this dispatch.
    first: [B] place in the response of the first of them; earlier dispatches
      drew those before.
    stop_ids: [B, 8] padded with -1.
    keys: [B, 2] random key data.
    filters: top-k, top-p, min-p; None: off.
    edges: [B, E, 3] tries of what may be said (see `choices`); None: anything.
    node: [B] place in the trie; None: without tries.
  """

  temperature: Array
  max_tokens: Array
  first: Array
  stop_ids: Array
  keys: Array
  filters: drawing.Filters | None
  edges: Array | None
  node: Array | None


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
    active: [B] whether the row is real.
    drawing: how to draw; None where nothing is drawn.
  """

  prefix_pages: Array
  prefix_length: Array
  tail_page: Array
  offset: Array
  tokens: Array
  num_new: Array
  write_pages: Array
  active: Array
  drawing: Drawing | None


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
  node: Array | None
  response: Response
  spoken: Layers


def turn(
    config: config_lib.Policy,
    page_size: int,
    num_decode: int,
    params: model.Params,
    pool: Float[Array, 'pages L 2 K block'],
    batch: Batch,
) -> tuple[Array, Response | None]:
  """Reads every row's new tokens and samples up to `num_decode` tokens.

  Args:
    config: sizes and types.
    page_size: P.
    num_decode: R, room for the response; 0 only reads.
    params: weights.
    pool: KV pages; read only.
    batch: the rows; their max_tokens <= R.

  Returns:
    Pages for batch.write_pages (see `cache.write`), and the responses (None
    when R is 0). The last token of a response is never read: it stays pending.
  """
  policy = reading.LayeredPolicy(config, params)
  prefix = cache.gather(pool, batch.prefix_pages, config.head_dim)
  num_write = batch.write_pages.shape[1]
  buffers = cache.open_buffers(pool, batch.tail_page, config.head_dim, num_write)
  if config.scan_layers:
    prefix, buffers = reading.stack(prefix), reading.stack(buffers)
  logits, buffers = _read_prompt(policy, prefix, buffers, batch, num_decode > 0)
  response = None
  if logits is not None:
    response, spoken = _decode(policy, prefix, buffers, batch, logits, num_decode)
    place = batch.offset + batch.num_new
    move = functools.partial(cache.put, start=place)
    buffers = reading.each_layer(move, buffers, spoken)
  if isinstance(buffers, cache.KV):
    buffers = reading.unstack(buffers, config.num_layers)
  return cache.close_buffers(buffers, page_size), response


def _read_prompt(
    policy: reading.LayeredPolicy,
    prefix: Layers,
    buffers: Layers,
    batch: Batch,
    want_logits: bool,
) -> tuple[Array | None, Layers]:
  """Reads the new prompt tokens into the buffers; logits after the last."""
  slots = batch.offset[:, None] + jnp.arange(batch.tokens.shape[1])
  in_prefix = cache.before(reading.length_of(prefix), batch.prefix_length)

  def see(positions: Array) -> list[Array]:
    own = positions - batch.prefix_length[:, None]
    return [in_prefix, jnp.arange(reading.length_of(buffers)) <= own[:, :, None]]

  positions = batch.prefix_length[:, None] + slots
  last = batch.num_new - 1 if want_logits else None
  keep = functools.partial(cache.put, start=batch.offset)
  return reading.read(
      policy, batch.tokens, positions, [prefix], buffers, keep, see, last
  )


def _decode(
    policy: reading.LayeredPolicy,
    prefix: Layers,
    buffers: Layers,
    batch: Batch,
    logits: Float[Array, 'B V'],
    num_decode: int,
) -> tuple[Response, Layers]:
  """Draws, reads, draws, ... until every row has stopped."""
  rules = batch.drawing
  assert rules is not None  # given wherever there is room for a response
  end = batch.offset + batch.num_new
  in_prefix = cache.before(reading.length_of(prefix), batch.prefix_length)
  in_buffer = cache.before(reading.length_of(buffers), end)

  def unfinished(carry: _Decoding) -> Array:
    more = ~carry.response.stopped & (carry.index < rules.max_tokens)
    return jnp.any(batch.active & more)

  def step(carry: _Decoding) -> _Decoding:
    place = carry.index - 1
    in_response = (jnp.arange(num_decode) <= place)[None, None]
    positions = (batch.prefix_length + end + place)[:, None]
    masks = [in_prefix, in_buffer, in_response]
    logits, spoken = reading.read(
        policy, carry.token[:, None], positions, [prefix, buffers], carry.spoken,
        functools.partial(cache.put_all, place=place), lambda _: masks, end,
    )
    assert logits is not None  # asked for: `last` is given
    return _draw(logits, uniform, rules, carry._replace(spoken=spoken))

  uniform = drawing.uniforms(rules.keys, num_decode, rules.first)
  room = functools.partial(cache.no_tokens, length=num_decode)
  start = _Decoding(
      index=jnp.zeros((), jnp.int32),
      token=jnp.zeros_like(batch.num_new),
      node=rules.node,
      response=_no_response(batch, num_decode),
      spoken=reading.each_layer(room, buffers),
  )
  start = _draw(logits, uniform, rules, start)
  done = jax.lax.while_loop(unfinished, step, start)
  return done.response, done.spoken


def _no_response(batch: Batch, num_decode: int) -> Response:
  rows = batch.tokens.shape[0]
  return Response(
      tokens=jnp.zeros((rows, num_decode), jnp.int32),
      logprobs=jnp.zeros((rows, num_decode), jnp.float32),
      lengths=jnp.zeros((rows,), jnp.int32),
      stopped=jnp.zeros((rows,), bool),
  )


def _draw(
    logits: Array, uniform: Array, rules: Drawing, carry: _Decoding
) -> _Decoding:
  """Draws a token and records it for rows that have not stopped."""
  index, node, response = carry.index, carry.node, carry.response
  number = jax.lax.dynamic_index_in_dim(uniform, index, axis=1, keepdims=False)
  allowed = None
  if rules.edges is not None and node is not None:
    allowed = choices.allowed(rules.edges, node, logits.shape[-1])
  token, logprob = drawing.draw(
      logits, number, rules.temperature, rules.filters, allowed
  )
  hit = jnp.any(token[:, None] == rules.stop_ids, axis=1)
  if rules.edges is not None and node is not None:
    node = choices.follow(rules.edges, node, token)
    hit = node == choices.DONE
  running = ~response.stopped & (index < rules.max_tokens)
  column = jnp.arange(response.tokens.shape[1]) == index
  response = Response(
      tokens=jnp.where(column, token[:, None], response.tokens),
      logprobs=jnp.where(column, logprob[:, None], response.logprobs),
      lengths=response.lengths + running,
      stopped=response.stopped | (running & hit),
  )
  return _Decoding(index + 1, token, node, response, carry.spoken)
