"""The sampler: immutable states in, responses out.

    state = sampler.extend(sampler.empty(), prompt)
    [sample] = sampler.sample([Request(state, key)], rules)
    state = sampler.extend(sample.state, observation)

A state may be used any number of times; branching is keeping a reference.
What was read once is never read again: a branch shares every full page of its
prefix, and copies at most the half-filled last one. The weights are the ones
that train, on the same mesh; loading new ones makes all older states stale.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from leafe_jax import config as config_lib
from leafe_jax import hosts
from leafe_jax.policy import model, sharding
from leafe_jax.sampler import cache, scanned
from leafe_jax.sampler import turn as turn_lib
from leafe_jax.sampler.batching import Buckets, Row, advance
from leafe_jax.sampler.pages import Page, PagePool
from leafe_jax.sampler.state import Request, Rules, Sample, StaleState, State, Stats

_MAX_STOP_IDS = 8
MAX_UNDER_WAY = 4  # dispatches that read the pool before any writes to it
_POOL_AXES = ('pages', 'layers', None, 'kv_heads', None)

T = TypeVar('T')


class _Dispatch(NamedTuple):
  """A device program under way."""

  rows: list[Row]
  fresh: list[tuple[Page, ...]]
  ids: jax.Array
  pages: jax.Array
  response: turn_lib.Response | None


class Sampler:
  """Samples from one policy on one mesh.

  Attributes:
    version: of the loaded weights, -1 before the first `load`.
    stats: counters.
  """

  def __init__(
      self,
      policy_config: config_lib.Policy,
      sampler_config: config_lib.Sampler,
      mesh: Mesh,
      vocab_size: int,
  ):
    self.version = -1
    self.stats = Stats()
    self._config = policy_config
    self._mesh = mesh
    self._vocab_size = vocab_size
    self._params: model.Params = {}
    self._buckets = Buckets(sampler_config, policy_config.max_length)
    self._pages = PagePool(sampler_config.num_pages)
    self._pool = _make_pool(policy_config, sampler_config, mesh)
    self._turn: Any = turn_program(policy_config, sampler_config.page_size, mesh)
    self._write: Any = write_program(self._pool.sharding)

  @property
  def num_programs(self) -> int:
    """Device programs compiled so far."""
    return self._turn._cache_size() + self._write._cache_size()

  @property
  def num_free_pages(self) -> int:
    return self._pages.num_free

  def load(self, params: model.Params, version: int) -> None:
    """Takes new weights; every state of another version becomes stale.

    The arrays are used as they are (no copy): do not donate them elsewhere
    while they are loaded here.
    """
    self._params = params
    self.version = version

  def empty(self) -> State:
    """The transcript without a token."""
    return State(self.version)

  def extend(self, state: State, tokens: Iterable[int]) -> State:
    """The transcript with more tokens at its end; no device work.

    Raises:
      StaleState: the state belongs to other weights.
    """
    self._check(state)
    pending = state.pending + tuple(tokens)
    return State(state.version, state.pages, state.cached, pending)

  def fork(self, state: State) -> State:
    """A second handle on the same transcript; shares all pages, costs nothing."""
    self._check(state)
    return state

  def prefill(self, states: Sequence[State]) -> list[State]:
    """The same transcripts with nothing pending.

    Read a shared prompt once here, then branch.

    Raises:
      StaleState: a state belongs to other weights.
      OutOfPages: the pool is too small for what is alive.
      ValueError: a transcript is longer than the longest one.
    """
    for state in states:
      self._check(state)
      self._check_length(state)
    return self._read(states, [0] * len(states))

  def sample(self, requests: Sequence[Request], rules: Rules) -> list[Sample]:
    """One response per request, in their order.

    A sample depends on its own state, key and rules, not on the others.

    Raises:
      StaleState: a state belongs to other weights.
      OutOfPages: the pool is too small for what is alive.
      ValueError: a state without a pending token, or too many stop ids.
    """
    drawing = drawing_arrays(rules)
    states = [request.state for request in requests]
    for state in states:
      self._check(state)
      if not state.pending:
        raise ValueError(
            f'a state of {state.length} tokens has none pending: extend it first'
        )
    fits = [s.length + rules.max_tokens <= self._config.max_length for s in states]
    largest = self._buckets.new_tokens[-1]
    keep = [largest if fit else s.length for s, fit in zip(states, fits, strict=True)]
    states = self._read(states, keep)
    samples = [Sample(state, [], [], False, overlong=True) for state in states]
    rows = [
        Row(i, states[i], len(states[i].pending), requests[i].key)
        for i in range(len(requests))
        if fits[i]
    ]
    self.stats.cached_tokens += sum(row.state.cached for row in rows)
    for row, sample in self._run(rows, self._responses, rules.max_tokens, drawing):
      samples[row.index] = sample
    return samples

  def _check(self, state: State) -> None:
    if state.version != self.version:
      raise StaleState(
          f'state of policy version {state.version}; the weights loaded are'
          f' version {self.version}'
      )

  def _check_length(self, state: State) -> None:
    if state.length > self._config.max_length:
      raise ValueError(
          f'a transcript of {state.length} tokens; max_length is'
          f' {self._config.max_length}'
      )

  def _read(self, states: Sequence[State], keep: Sequence[int]) -> list[State]:
    """Reads pending tokens, in chunks, until at most `keep` are left."""
    states = list(states)
    largest = self._buckets.new_tokens[-1]
    while True:
      rows = [
          Row(i, state, min(largest, len(state.pending) - keep[i]))
          for i, state in enumerate(states)
          if len(state.pending) > keep[i]
      ]
      if not rows:
        return states
      for row, state in self._run(rows, self._states, 0, drawing_arrays(Rules())):
        states[row.index] = state

  def _run(
      self,
      rows: Sequence[Row],
      collect: Callable[[_Dispatch], list[T]],
      max_tokens: int,
      drawing: turn_lib.Drawing,
  ) -> Iterable[tuple[Row, T]]:
    """Runs all rows, a few dispatches at a time."""
    results: list[tuple[Row, T]] = []
    whole = sharding.replicated(self._mesh)
    drawing = jax.tree.map(lambda x: sharding.place(x, whole), drawing)
    groups = self._buckets.split(rows)
    for first in range(0, len(groups), MAX_UNDER_WAY):
      wave = groups[first : first + MAX_UNDER_WAY]
      under_way = [self._launch(group, max_tokens, drawing) for group in wave]
      self._store(under_way)
      for dispatch in under_way:
        results.extend(zip(dispatch.rows, collect(dispatch), strict=True))
    return results

  def _launch(
      self, rows: list[Row], max_tokens: int, drawing: turn_lib.Drawing
  ) -> _Dispatch:
    start = time.perf_counter()
    buckets = self._buckets
    counts = [buckets.pages_needed(row, max_tokens) for row in rows]
    self._pages.require(sum(counts))
    fresh = [self._pages.take(count) for count in counts]
    num_decode = buckets.num_decode(max_tokens) if max_tokens else 0
    batch = buckets.fill(rows, fresh, num_decode, self._pages.num_pages)
    hosts.witness(*batch)
    batch = jax.tree.map(sharding.place, batch, row_shardings(self._mesh, batch))
    with jax.set_mesh(self._mesh):
      pages, response = self._turn(
          num_decode, self._params, self._pool, batch, drawing
      )
    self.stats.dispatches += 1
    self.stats.rows += len(rows)
    self.stats.prompt_tokens += sum(row.num_new for row in rows)
    self.stats.host_seconds += time.perf_counter() - start
    return _Dispatch(rows, fresh, batch.write_pages, pages, response)

  def _store(self, dispatches: Sequence[_Dispatch]) -> None:
    start = time.perf_counter()
    with jax.set_mesh(self._mesh):
      for dispatch in dispatches:
        self._pool = self._write(self._pool, dispatch.ids, dispatch.pages)
    self.stats.host_seconds += time.perf_counter() - start

  def _states(self, dispatch: _Dispatch) -> list[State]:
    return [
        advance(
            row.state,
            fresh,
            row.num_new,
            row.state.pending[row.num_new :],
            self._buckets.page_size,
        )
        for row, fresh in zip(dispatch.rows, dispatch.fresh, strict=True)
    ]

  def _responses(self, dispatch: _Dispatch) -> list[Sample]:
    start = time.perf_counter()
    response = jax.device_get(dispatch.response)
    fetched = time.perf_counter()
    self.stats.device_seconds += fetched - start
    tokens, logprobs = response.tokens.tolist(), response.logprobs.tolist()
    lengths, stopped = response.lengths.tolist(), response.stopped.tolist()
    samples = []
    for i, (row, fresh) in enumerate(zip(dispatch.rows, dispatch.fresh, strict=True)):
      count = lengths[i]
      new = tokens[i][:count]
      num_read = row.num_new + count - 1
      state = advance(
          row.state, fresh, num_read, (new[-1],), self._buckets.page_size
      )
      samples.append(Sample(state, new, logprobs[i][:count], stopped[i]))
    self.stats.sampled_tokens += sum(lengths[: len(samples)])
    self.stats.host_seconds += time.perf_counter() - fetched
    return samples


def drawing_arrays(rules: Rules) -> turn_lib.Drawing:
  """The rules as a program takes them. ValueError: too many stop ids."""
  if len(rules.stop_ids) > _MAX_STOP_IDS:
    raise ValueError(f'{len(rules.stop_ids)} stop ids; at most {_MAX_STOP_IDS}')
  stop_ids: Any = np.full(_MAX_STOP_IDS, -1, np.int32)
  stop_ids[: len(rules.stop_ids)] = rules.stop_ids
  temperature: Any = np.float32(rules.temperature)
  max_tokens: Any = np.int32(rules.max_tokens)
  return turn_lib.Drawing(temperature, max_tokens, stop_ids)


def row_shardings(mesh: Mesh, batch: turn_lib.Batch) -> turn_lib.Batch:
  """Where the arrays of a dispatch lie: rows over data and fsdp."""
  return jax.tree.map(lambda x: sharding.batch_sharding(mesh, x.shape), batch)


def turn_program(policy: config_lib.Policy, page_size: int, mesh: Mesh) -> Any:
  """jit of (num_decode, params, pool, batch, drawing), see `turn.turn`."""
  turn = scanned.turn if policy.scan_layers else turn_lib.turn
  return jax.jit(
      functools.partial(turn, policy, page_size),
      static_argnums=0,
      # Every process reads all responses.
      out_shardings=(None, sharding.replicated(mesh)),
  )


def write_program(pool_sharding: jax.sharding.Sharding) -> Any:
  """jit of (pool, ids, pages), see `cache.write`; donates the pool."""
  return jax.jit(cache.write, donate_argnums=0, out_shardings=pool_sharding)


def abstract_pool(
    policy: config_lib.Policy, sampler: config_lib.Sampler, mesh: Mesh
) -> jax.ShapeDtypeStruct:
  """Shape, type and sharding of the KV pages, nothing allocated."""
  block = policy.head_dim * sampler.page_size
  shape = (sampler.num_pages, policy.num_layers, 2, policy.num_kv_heads, block)
  place = NamedSharding(mesh, sharding.partition_spec(_POOL_AXES, shape, mesh))
  return jax.ShapeDtypeStruct(shape, jnp.dtype(policy.dtype), sharding=place)


def _make_pool(
    policy: config_lib.Policy, sampler: config_lib.Sampler, mesh: Mesh
) -> jax.Array:
  target = abstract_pool(policy, sampler, mesh)
  make = functools.partial(jnp.zeros, target.shape, target.dtype)
  return jax.jit(make, out_shardings=target.sharding)()
