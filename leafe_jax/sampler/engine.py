"""The device's side of sampling: weights, the pool of pages, the programs.

Programs read the pool and hand back the pages they wrote; `store` puts these
into the pool, which it alone takes as donated. A store waits for every program
that reads the pool, and what is launched after it waits for the store. So
stores are put off until a launch may need one, and then all are made at once:
programs between two stores run side by side.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from leafe_jax import config as config_lib
from leafe_jax import hosts
from leafe_jax.policy import model, sharding
from leafe_jax.sampler import cache
from leafe_jax.sampler import turn as turn_lib
from leafe_jax.sampler.batching import Buckets, Row
from leafe_jax.sampler.pages import Page
from leafe_jax.sampler.state import Stats

MAX_UNDER_WAY = 4  # dispatches that read the pool at the same time


class Dispatch(NamedTuple):
  """A device program under way; `fresh` are the pages that each row writes."""

  rows: Sequence[Row]
  fresh: Sequence[tuple[Page, ...]]
  ids: jax.Array
  pages: jax.Array
  response: turn_lib.Response | None


class Program(NamedTuple):
  """Shapes of a dispatch: new tokens, prefix pages, and room for responses."""

  num_new: int
  num_prefix: int
  num_decode: int


class Engine:
  """Runs dispatches on one mesh.

  Attributes:
    params: the weights.
    buckets: the static shapes.
    stats: counters.
  """

  def __init__(
      self,
      policy_config: config_lib.Policy,
      sampler_config: config_lib.Sampler,
      mesh: Mesh,
  ):
    self.params: model.Params = {}
    shards = sharding.num_row_shards(mesh)
    self.buckets = Buckets(sampler_config, policy_config.max_length, shards)
    self.stats = Stats()
    self._mesh = mesh
    self._pool = _make_pool(policy_config, sampler_config, mesh)
    self._num_pages = self._pool.shape[0]
    self._unstored: list[tuple[jax.Array, jax.Array]] = []  # ids, pages
    self._due = False  # whether pages not stored yet may be read by a launch
    self._under_way = 0
    self._idle_since: float | None = None
    self._turn = turn_program(policy_config, sampler_config.page_size, mesh)
    self._write = write_program(self._pool.sharding)

  def load(self, params: model.Params) -> None:
    """Takes new weights; what passed since the last program was not idling."""
    self.params = params
    self._idle_since = None

  @property
  def num_programs(self) -> int:
    """Device programs compiled so far."""
    return self._turn._cache_size() + self._write._cache_size()

  def launch(
      self, rows: Sequence[Row], fresh: Sequence[tuple[Page, ...]], num_decode: int
  ) -> Dispatch:
    """Starts a program; returns at once.

    Args:
      rows: at most a dispatch of them.
      fresh: pages that each row writes.
      num_decode: room for responses; 0 reads only.
    """
    if self._due:
      self._store()
    start = time.perf_counter()
    batch = self.buckets.fill(rows, fresh, num_decode, self._num_pages)
    batch, pages, response = self._run(batch, num_decode)
    dispatch = Dispatch(rows, fresh, batch.write_pages, pages, response)
    self._unstored.append((dispatch.ids, dispatch.pages))
    stats, end = self.stats, time.perf_counter()
    stats.dispatches += 1
    stats.rows += len(rows)
    stats.prompt_tokens += sum(row.num_new for row in rows)
    stats.host_seconds += end - start
    if not self._under_way and self._idle_since is not None:
      stats.idle_seconds += end - self._idle_since
    self._under_way += 1
    return dispatch

  def _run(
      self, batch: turn_lib.Batch, num_decode: int
  ) -> tuple[turn_lib.Batch, jax.Array, turn_lib.Response | None]:
    hosts.witness(*jax.tree.leaves(batch))
    if self._mesh.size > 1:  # jit itself puts arrays on one device 20 times faster
      batch = sharding.place(batch, row_shardings(self._mesh, batch))
    with jax.set_mesh(self._mesh):
      pages, response = self._turn(num_decode, self.params, self._pool, batch)
    return batch, pages, response

  def fetch(self, dispatch: Dispatch) -> turn_lib.Response | None:
    """Waits for a program; the responses of its rows as numpy arrays."""
    start = time.perf_counter()
    if dispatch.response is None:
      jax.block_until_ready(dispatch.pages)
    response = jax.device_get(dispatch.response)
    end = time.perf_counter()
    if dispatch.response is None:
      self.stats.prefill_seconds += end - start
    else:
      self.stats.decode_seconds += end - start
    self._under_way -= 1
    self._idle_since = end
    self._due |= any(dispatch.pages is pages for _, pages in self._unstored)
    places = self.buckets.places(dispatch.rows)
    return jax.tree.map(lambda array: array[places], response)

  def _store(self) -> None:
    """Puts all pages written so far into the pool, in the order of launches."""
    start = time.perf_counter()
    with jax.set_mesh(self._mesh):
      for ids, pages in self._unstored:
        self._pool = self._write(self._pool, ids, pages)
    self._unstored.clear()
    self._due = False
    self.stats.host_seconds += time.perf_counter() - start

  def programs(self, rooms: Iterable[int]) -> list[Program]:
    """All programs without filters or choices.

    Args:
      rooms: room for responses, 0 to read only.
    """
    buckets = self.buckets
    return [
        Program(num_new, length // buckets.page_size, room)
        for room in rooms
        for num_new in buckets.new_tokens
        for length in buckets.lengths
    ]

  def compile(self, program: Program) -> None:
    """Compiles a program by running it on no rows."""
    batch = self.buckets.blank(*program, self._num_pages)
    batch, pages, _ = self._run(batch, program.num_decode)
    self._unstored.append((batch.write_pages, pages))
    self._store()


def row_shardings(mesh: Mesh, batch: turn_lib.Batch) -> turn_lib.Batch:
  """Where the arrays of a dispatch lie: rows over data and fsdp."""
  return jax.tree.map(lambda x: sharding.batch_sharding(mesh, x.shape), batch)


def turn_program(policy: config_lib.Policy, page_size: int, mesh: Mesh) -> Any:
  """jit of (num_decode, params, pool, batch), see `turn.turn`."""
  return jax.jit(
      functools.partial(turn_lib.turn, policy, page_size),
      static_argnums=0,
      # Every process reads all responses.
      out_shardings=(None, sharding.replicated(mesh)),
  )


def write_program(pool_sharding: jax.sharding.Sharding) -> Any:
  """jit of (pool, ids, pages), see `cache.write`; donates the pool."""
  # A partial of its own: jits of one function share, and count, their programs.
  write = functools.partial(cache.write)
  return jax.jit(write, donate_argnums=0, out_shardings=pool_sharding)


def abstract_pool(
    policy: config_lib.Policy, sampler: config_lib.Sampler, mesh: Mesh
) -> jax.ShapeDtypeStruct:
  """Shape, type and sharding of the KV pages, nothing allocated.

  What does not divide evenly among the shards is left out.
  """
  block = policy.head_dim * sampler.page_size
  shards = sharding.num_row_shards(mesh)
  num_pages = sampler.num_pages // shards * shards
  shape = (num_pages, policy.num_layers, 2, policy.num_kv_heads, block)
  place = NamedSharding(mesh, sharding.partition_spec(cache.POOL_AXES, shape, mesh))
  return jax.ShapeDtypeStruct(shape, jnp.dtype(policy.dtype), sharding=place)


def _make_pool(
    policy: config_lib.Policy, sampler: config_lib.Sampler, mesh: Mesh
) -> jax.Array:
  target = abstract_pool(policy, sampler, mesh)
  make = functools.partial(jnp.zeros, target.shape, target.dtype)
  return jax.jit(make, out_shardings=target.sharding)()
