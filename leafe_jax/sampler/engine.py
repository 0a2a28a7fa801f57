"""The device's side of sampling: weights, the pool of pages, the programs.

Programs read the pool and hand back the pages they wrote; `store` puts these
into the pool, which it alone takes as donated. A store waits for every program
that reads the pool, and what is launched after it waits for the store. So
stores are put off until a launch may need one, and then all are made at once:
programs between two stores run side by side.

That is the dense form of attention. In the paged form (`sampler.attention`) a
program takes the pool as donated, writes its pages in place and hands it on.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Bool

from leafe_jax import config as config_lib
from leafe_jax import hosts
from leafe_jax.policy import kinds, model, sharding
from leafe_jax.sampler import cache, paged, ragged, recall, windows
from leafe_jax.sampler import turn as turn_lib
from leafe_jax.sampler.batch import Batch
from leafe_jax.sampler.batching import Buckets, Row
from leafe_jax.sampler.pages import Fresh
from leafe_jax.sampler.state import Stats

MAX_UNDER_WAY = 4  # dispatches that read the pool at the same time
_LARGE = 10_000_000  # weights


class Dispatch(NamedTuple):
  """A device program under way.

  Attributes:
    rows: what it reads.
    fresh: what each row writes.
    pages: what goes into them, by window; None where the program wrote them in place.
    response: what was sampled; None if it only reads.
  """

  rows: Sequence[Row]
  fresh: Sequence[Fresh]
  pages: cache.Pools | None
  response: turn_lib.Response | None


class Program(NamedTuple):
  """Shapes of a dispatch: new tokens, prefix pages, room for responses, rows."""

  num_new: int
  num_prefix: int
  num_decode: int
  num_rows: int


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
      drawable: Bool[np.ndarray, ' V'] | None = None,
  ):
    self.params: model.Params = {}
    shards = sharding.num_row_shards(mesh)
    few_rows = _is_large(policy_config)
    self.num_memories = recall.num_memories(policy_config, sampler_config, mesh)
    self.num_window_pages = windows.num_pages(policy_config, sampler_config, mesh)
    self.buckets = Buckets(
        sampler_config, policy_config.max_length, shards, few_rows,
        recurrent=self.num_memories > 0, window=windows.window_of(policy_config),
    )
    self.stats = Stats()
    self._mesh = mesh
    form = ragged.choose_form(
        sampler_config.attention, policy_config, mesh, sharding.platform_of(mesh)
    )
    self._in_place = form == 'paged'
    self._make_pool = _pool_maker(policy_config, sampler_config, mesh, form)
    self._pool, self._memories = self._make_pool()
    self._num_pages = num_pages(sampler_config, mesh)
    self._unstored: list[tuple[Batch, cache.Pools, Any]] = []
    self._due = False  # whether pages not stored yet may be read by a launch
    self._under_way = 0
    self._idle_since: float | None = None
    self._turn = turn_program(policy_config, sampler_config, mesh, form, drawable)
    self._write = write_program(jax.tree.map(lambda x: x.sharding, self._pool))
    self._remember: Any = jax.jit(
        functools.partial(recall.write), donate_argnums=0
    )

  def load(self, params: model.Params) -> None:
    """Takes new weights; what passed since the last program was not idling."""
    self.params = params
    self._idle_since = None
    if any(pool.is_deleted() for pool in self._pool.values()):
      self._pool, self._memories = self._make_pool()

  def release(self) -> None:
    """Lets go of weights and pages, until the next `load`; nothing is under way."""
    self.params = {}
    self._unstored.clear()
    self._due = False
    for array in jax.tree.leaves((self._pool, self._memories)):
      array.delete()

  def wipe(self) -> None:
    """Zeroes the pool; nothing is under way. NaN would leak through masks."""
    self._unstored.clear()
    self._due = False
    self._pool, self._memories = self._make_pool()

  @property
  def num_programs(self) -> int:
    """Device programs compiled so far."""
    programs = (self._turn, self._write, self._remember)
    return sum(program._cache_size() for program in programs)

  def launch(
      self, rows: Sequence[Row], fresh: Sequence[Fresh], num_decode: int
  ) -> Dispatch:
    """Starts a program; returns at once.

    Args:
      rows: at most a dispatch of them.
      fresh: what each row writes.
      num_decode: room for responses; 0 reads only.
    """
    if self._due:
      self._store()
    start = time.perf_counter()
    batch = self.buckets.fill(rows, fresh, num_decode, self._num_pages)
    pages, response = self._run(batch, num_decode)
    dispatch = Dispatch(rows, fresh, pages, response)
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
      self, batch: Batch, num_decode: int
  ) -> tuple[cache.Pools | None, turn_lib.Response | None]:
    hosts.witness(*jax.tree.leaves(batch))
    if self._mesh.size > 1:  # jit itself puts arrays on one device 20 times faster
      batch = sharding.place(batch, row_shardings(self._mesh, batch))
    with jax.set_mesh(self._mesh):
      found, response, memory = self._turn(
          num_decode, self.params, self._pool, batch, self._memories
      )
    if self._in_place:
      self._pool, self._memories = found, memory
      return None, response
    self._unstored.append((batch, found, memory))
    return found, response

  def fetch(self, dispatch: Dispatch) -> turn_lib.Response | None:
    """Waits for a program; the responses of its rows as numpy arrays."""
    start = time.perf_counter()
    if dispatch.response is None:
      jax.block_until_ready(self._pool if self._in_place else dispatch.pages)
    response = jax.device_get(dispatch.response)
    end = time.perf_counter()
    if dispatch.response is None:
      self.stats.prefill_seconds += end - start
    else:
      self.stats.decode_seconds += end - start
    self._under_way -= 1
    self._idle_since = end
    self._due |= any(dispatch.pages is pages for _, pages, _ in self._unstored)
    places = self.buckets.places(dispatch.rows)
    return jax.tree.map(lambda array: array[places], response)

  def _store(self) -> None:
    """Puts all pages written so far into the pool, in the order of launches."""
    start = time.perf_counter()
    with jax.set_mesh(self._mesh):
      for batch, pages, memory in self._unstored:
        self._pool = self._write(self._pool, written_pages(batch, pages), pages)
        if memory is not None:
          ids = batch.write_memory
          self._memories = self._remember(self._memories, ids, memory)
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
        Program(num_new, length // buckets.page_size, room, rows)
        for room in rooms
        for num_new in buckets.new_tokens
        for length in buckets.lengths
        for rows in buckets.row_sizes
    ]

  def compile(self, program: Program) -> None:
    """Compiles a program by running it on no rows."""
    batch = self.buckets.blank(
        program.num_new, program.num_prefix, program.num_decode, self._num_pages,
        program.num_rows,
    )
    self._run(batch, program.num_decode)
    self._store()


def _is_large(policy: config_lib.Policy) -> bool:
  """Whether narrower programs save more than they take to compile."""
  heads = 2 * (policy.num_heads + policy.num_kv_heads) * policy.head_dim
  of_experts = policy.num_experts * policy.expert_dim + policy.shared_expert_dim
  mlp = of_experts or policy.mlp_dim
  of_layer = policy.embed_dim * (heads + 3 * mlp)
  return policy.num_layers * of_layer > _LARGE


def row_shardings(mesh: Mesh, batch: Batch) -> Batch:
  """Where the arrays of a dispatch lie: rows over data and fsdp."""
  return jax.tree.map(lambda x: sharding.batch_sharding(mesh, x.shape), batch)


def turn_program(
    policy: config_lib.Policy,
    sampler: config_lib.Sampler,
    mesh: Mesh,
    form: str,
    drawable: Bool[np.ndarray, ' V'] | None = None,
) -> Any:
  """jit of (num_decode, params, pool, batch, memories), see `turn.turn`.

  Args:
    policy: sizes of the policy.
    sampler: sizes of pages.
    mesh: of the weights.
    form: 'dense', or 'paged', which donates the pools (`paged.turn`).
    drawable: tokens that may be drawn; None: all.
  """
  # Every process reads all responses.
  responses = sharding.replicated(mesh)
  if form == 'dense':
    run = functools.partial(
        turn_lib.turn, policy, sampler.page_size, drawable=drawable
    )
    return jax.jit(run, static_argnums=0, out_shardings=(None, responses, None))
  run = functools.partial(
      paged.turn, policy, sampler.page_size,
      gather_weights=sampler.gather_weights, drawable=drawable,
  )
  pools = (
      abstract_pools(policy, sampler, mesh, form),
      recall.abstract_pool(policy, sampler, mesh),
  )
  pool, places = jax.tree.map(lambda x: x.sharding, pools)
  return jax.jit(
      run, static_argnums=0, donate_argnums=(2, 4),
      out_shardings=(pool, responses, places),
  )


def write_program(places: dict[int, jax.sharding.Sharding]) -> Any:
  """jit of (pools, ids, pages) by window, see `cache.write`; donates the pools."""

  # A function of its own: jits of one function share, and count, their programs.
  def write(pools: cache.Pools, ids: cache.Pools, pages: cache.Pools) -> cache.Pools:
    return {
        window: cache.write(pool, ids[window], pages[window])
        for window, pool in pools.items()
    }

  return jax.jit(write, donate_argnums=0, out_shardings=places)


def written_pages(batch: Batch, pages: cache.Pools) -> dict[int, Any]:
  """The ids that receive what a dispatch has written, by window."""
  return {window: batch.held(window).write_pages for window in pages}


def num_pages(sampler: config_lib.Sampler, mesh: Mesh) -> int:
  """Pages of the pool: what does not divide among the shards is left out."""
  shards = sharding.num_row_shards(mesh)
  return sampler.num_pages // shards * shards


def abstract_pools(
    policy: config_lib.Policy, sampler: config_lib.Sampler, mesh: Mesh, form: str
) -> dict[int, jax.ShapeDtypeStruct]:
  """Shapes, types and shardings of the KV pages by window, nothing allocated.

  Args:
    policy: sizes of the policy.
    sampler: sizes of the pool.
    mesh: of the weights.
    form: 'dense' (see `cache`) or 'paged' (see `ragged`).
  """

  def describe(window: int, depth: int) -> jax.ShapeDtypeStruct:
    count = num_pages(sampler, mesh)
    if window:
      count = windows.num_pages(policy, sampler, mesh)
    if form == 'paged':
      return ragged.abstract_pool(policy, depth, count, sampler.page_size, mesh)
    block = policy.head_dim * sampler.page_size
    shape = (count, depth, 2, policy.num_kv_heads, block)
    place = NamedSharding(mesh, sharding.partition_spec(cache.POOL_AXES, shape, mesh))
    return jax.ShapeDtypeStruct(shape, cache.stored(policy.dtype), sharding=place)

  return {
      window: describe(window, depth) for window, depth in kinds.groups(policy).items()
  }


def _pool_maker(
    policy: config_lib.Policy, sampler: config_lib.Sampler, mesh: Mesh, form: str
) -> Any:
  """jit of (), which makes empty pools of pages and of memories."""
  target = (
      abstract_pools(policy, sampler, mesh, form),
      recall.abstract_pool(policy, sampler, mesh),
  )

  def make() -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), target)

  return jax.jit(make, out_shardings=jax.tree.map(lambda x: x.sharding, target))
