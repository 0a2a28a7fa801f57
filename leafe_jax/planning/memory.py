"""What a run takes on every device, before anything is allocated.

A run is planned by its moments: what is on a device at the same time while it
samples, while each of its jobs updates, between the updates of a job that plays.
Weights (as they are kept, with scales and adapters), optimizer state, batch and
KV pages are exact: they are summed from the shapes and shardings that the run
itself uses. Gradients are exact but for the moment at which XLA frees them. The
rest is estimated, see `estimates`; the sum of a moment agrees within 15 % with
XLA's own figure for the program on the shapes in tests/planning.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Sequence

import jax
from absl import logging

from leafe_jax.planning import estimates, jobs
from leafe_jax.planning.estimates import Part
from leafe_jax.planning.jobs import Job
from leafe_jax.planning.programs import Target
from leafe_jax.policy import sharding
from leafe_jax.policy.weights import weight_table
from leafe_jax.sampler import engine, windows

POOL, WINDOW_POOL, MEMORIES = 'KV pages', 'window pages', 'memories'
SAMPLING, FREEZING = 'sampling', 'freezing'
_LARGE = 5e8  # weights; smaller models are trained on CPUs by intention


class DoesNotFit(ValueError):
  """A run that no device of its mesh, or no pool, can hold; the message says why."""


@dataclasses.dataclass(frozen=True)
class Moment:
  """What is on a device at the same time.

  Attributes:
    name: of what is going on.
    parts: what is there.
  """

  name: str
  parts: tuple[Part, ...]

  def total(self, *, exact_only: bool = False) -> int:
    """Bytes per device."""
    return sum(part.size for part in self.parts if part.exact or not exact_only)

  @property
  def samples(self) -> bool:
    """Whether the sampler's pages are there."""
    return any(part.name in (POOL, WINDOW_POOL) for part in self.parts)

  def part(self, name: str) -> Part | None:
    return next((part for part in self.parts if part.name == name), None)


@dataclasses.dataclass(frozen=True)
class Plan:
  """Memory per device.

  Attributes:
    moments: of the run.
    page: bytes of one KV page, shared out among the devices; 0: all layers have
      windows, and pages are but places in the tree.
    num_pages: pages of the pool, on all devices together.
    page_size: tokens of a page.
    memory: bytes of one memory of the recurrent layers, likewise; 0: there are none.
    num_memories: of them.
    window_page: bytes of one page of the layers with a window, likewise.
    num_window_pages: of them.
  """

  moments: tuple[Moment, ...]
  page: int
  num_pages: int
  page_size: int
  memory: int = 0
  num_memories: int = 0
  window_page: int = 0
  num_window_pages: int = 0

  def moment(self, name: str) -> Moment:
    """StopIteration where the run has no such moment."""
    return next(moment for moment in self.moments if moment.name == name)

  @property
  def peak(self) -> int:
    return max((moment.total() for moment in self.moments), default=0)

  @property
  def certain(self) -> int:
    """What is needed at least."""
    totals = (moment.total(exact_only=True) for moment in self.moments)
    return max(totals, default=0)

  def verdict(self, limit: float) -> str:
    """'fits', or whether only the estimates or already the exact parts do not."""
    if self.peak <= limit:
      return f'fits, {_gb(limit - self.peak)} left'
    return 'TIGHT: estimates exceed it' if self.certain <= limit else 'DOES NOT FIT'

  def pages_that_fit(self, limit: float) -> int:
    """KV pages that a device of `limit` bytes has room for; at least 0.

    Beside the window pages as they are; of a policy all of whose layers have
    windows, these themselves.
    """
    page, count = self.page, self.num_pages
    if not page:
      page, count = self.window_page, self.num_window_pages
    pooled = [moment.total() for moment in self.moments if moment.samples]
    rest = limit - (max(pooled, default=0) - page * count)
    return max(0, int(rest // page))


def plan(
    target: Target,
    platform: str = '',
    of: Sequence[Job] | None = None,
    *,
    plays: bool = True,
) -> Plan:
  """The plan of a run.

  Args:
    target: the run.
    platform: 'cpu', 'gpu' or 'tpu'; by default that of this process.
    of: what it trains; a distillation if not given.
    plays: whether it samples outside of its jobs.
  """
  platform = platform or jax.default_backend()
  of = (jobs.distillation(target.config),) if of is None else of
  found = [_sampling(target, platform)] if plays else []
  if target.policy.lora_rank:
    found.append(Moment(FREEZING, estimates.freezing(target)))
  for job in {job.name: job for job in of}.values():
    found.append(_training(target, platform, job))
    if job.plays:
      found.append(_rollouts(target, platform, job))
  return Plan(tuple(found), **_sizes(target, platform))


def _sizes(target: Target, platform: str) -> dict[str, int]:
  """Of pages and memories: how many there are, and how large each is."""
  sampler, kept = target.config.sampler, target.memories()
  pages, near = _pages(target, platform)
  found = {'num_pages': engine.num_pages(sampler, target.mesh)}
  found['page_size'] = sampler.page_size
  found['page'] = pages // found['num_pages']
  if near:
    count = windows.num_pages(target.policy, sampler, target.mesh)
    found |= {'window_page': near // count, 'num_window_pages': count}
  if kept is not None:
    count = kept.state.shape[0]
    found |= {'memory': estimates.size(kept) // count, 'num_memories': count}
  return found


def _pages(target: Target, platform: str) -> tuple[int, int]:
  """Bytes of the pages of layers that see everything, and of those with windows."""
  pools = target.pools(platform)
  near = [pool for window, pool in pools.items() if window]
  return estimates.size(pools.get(0)), estimates.size(near)


def _sampling(target: Target, platform: str) -> Moment:
  trained = target.trained(jobs.distillation(target.config))
  return Moment(SAMPLING, (
      *estimates.weights(trained, target.frozen()), *_pools(target, platform),
      estimates.rows(target, platform),
  ))


def _training(target: Target, platform: str, job: Job) -> Moment:
  pool = _pools(target, platform) if job.plays else ()
  return Moment(job.name, (
      *estimates.kept(target, job), *pool, estimates.batch(target, job),
      *estimates.update(target, platform, job),
  ))


def _rollouts(target: Target, platform: str, job: Job) -> Moment:
  return Moment(f'{job.name} rollouts', (
      *estimates.kept(target, job), *_pools(target, platform),
      estimates.rows(target, platform),
  ))


def _pools(target: Target, platform: str) -> tuple[Part, ...]:
  pages, near = _pages(target, platform)
  parts = (Part(POOL, pages, True), Part(WINDOW_POOL, near, True))
  found = tuple(part for part in parts if part.size)
  kept = target.memories()
  if kept is None:
    return found
  return (*found, Part(MEMORIES, estimates.size(kept), True))


def check(
    target: Target,
    limit: float,
    of: Sequence[Job] | None = None,
    *,
    plays: bool = True,
) -> Plan:
  """The plan. DoesNotFit if its exact parts alone exceed `limit` bytes.

  An estimate stops no run: only what is certain does, and a pool that cannot
  hold the longest transcript. Arguments as for `plan`.
  """
  if plays or any(job.plays for job in of or ()):
    _check_pool(target)
  found = plan(target, of=of, plays=plays)
  if found.certain > limit:
    raise DoesNotFit(
        f'this run needs {_gb(found.certain)} GB a device at least, which has'
        f' {_gb(limit)}:\n{table(found, limit)}'
    )
  return found


def say_if_slow(target: Target) -> None:
  """Warns where a checkpoint that is meant for accelerators is to run on CPUs."""
  policy = target.config.policy
  table = weight_table(target.policy, target.vocab_size)
  large = sum(math.prod(weight.shape) for weight in table.values()) > _LARGE
  meant = large and policy.checkpoint and policy.dtype == 'bfloat16'
  if meant and sharding.platform_of(target.mesh) == 'cpu':
    logging.warning(
        'policy.dtype=bfloat16 is meant for TPUs and GPUs, and jax found none: all is '
        "computed on CPUs, slowly. Install leafe_jax[cuda] or [tpu]; a container must "
        'be given its GPUs (docker run --gpus=all)'
    )


def _check_pool(target: Target) -> None:
  """DoesNotFit if a shard of the KV pages is too small for one transcript.

  And of the pages of layers with a window, if it is too small for one row.
  """
  sampler, longest = target.config.sampler, target.policy.max_length
  shards = sharding.num_row_shards(target.mesh)
  own = engine.num_pages(sampler, target.mesh) // shards
  # A half-filled last page is copied before it grows.
  least = -(-longest // sampler.page_size) + 1
  if own < least:
    raise DoesNotFit(
        f'sampler.num_pages={sampler.num_pages}: {own} KV pages for each of {shards}'
        f' shards, and a transcript of policy.max_length={longest} tokens takes'
        f' {least}; at least {least * shards} are needed'
    )
  _check_window_pool(target, shards)


def _check_window_pool(target: Target, shards: int) -> None:
  """DoesNotFit if a shard of the window pages is too small for one row."""
  sampler, window = target.config.sampler, windows.window_of(target.policy)
  if not window:
    return
  own = windows.num_pages(target.policy, sampler, target.mesh) // shards
  page, buckets = sampler.page_size, target.buckets
  said = min(sampler.decode_chunk or target.num_decode, target.num_decode)
  written = -(-(page - 1 + buckets.new_tokens[-1] + said) // page)
  least = windows.nodes_reached(window, page) + written
  if own < min(least, engine.num_pages(sampler, target.mesh) // shards):
    raise DoesNotFit(
        f'sampler.num_window_pages={sampler.num_window_pages}: {own} pages of layers'
        f' with a window for each of {shards} shards, and a row reads and writes up to'
        f' {least}; at least {least * shards} are needed'
    )


def table(plan: Plan, limit: float) -> str:
  """One line per part, the totals, and the KV pages that fit."""
  widths = [max(10, len(moment.name) + 2) for moment in plan.moments]
  names = [f'{m.name:>{w}}' for m, w in zip(plan.moments, widths, strict=True)]
  lines = [f'{"GB per device":<16}{"".join(names)}']
  parts = {part.name: part for moment in plan.moments for part in moment.parts}
  for name, part in parts.items():
    found = [moment.part(name) for moment in plan.moments]
    sizes = [part.size if part else None for part in found]
    lines.append(_line(name, sizes, widths, '' if part.exact else '  (estimate)'))
  totals = [moment.total() for moment in plan.moments]
  lines.append(_line('total', totals, widths))
  room = f'  {plan.verdict(limit)}'
  lines.append(_line('memory', [limit] * len(totals), widths, room))
  if any(moment.samples for moment in plan.moments):
    lines += _page_lines(plan, limit)
  if plan.memory:
    lines.append(
        f'memories of recurrent layers: {plan.num_memories} (sampler.num_memories), '
        f'{plan.memory / 1e6:.3g} MB a device each'
    )
  return '\n'.join(lines)


def _page_lines(plan: Plan, limit: float) -> list[str]:
  """How many pages there are, how many fit, and how many tokens that is."""
  fitting, lines = plan.pages_that_fit(limit), []
  if plan.page:
    lines.append(
        f'KV pages: {plan.num_pages} asked for, room for {fitting}'
        f' ({fitting * plan.page_size:,} tokens)'
    )
  if plan.window_page:
    room = '' if plan.page else f', room for {fitting}'
    lines.append(
        f'pages of layers with a window: {plan.num_window_pages}'
        f' (sampler.num_window_pages){room}, {plan.window_page / 1e6:.3g} MB a device'
        f' each; {plan.num_window_pages * plan.page_size:,} tokens'
    )
  return lines


def _line(
    name: str, sizes: Iterable[float | None], widths: Sequence[int], note: str = ''
) -> str:
  cells = (
      f'{"-" if size is None else _gb(size):>{width}}'
      for size, width in zip(sizes, widths, strict=True)
  )
  return f'{name:<16}{"".join(cells)}{note}'


def _gb(size: float) -> str:
  return f'{size / 1e9:.2f}' if size >= 1e7 else f'{size / 1e9:.4f}'


def device_limit() -> float:
  """Bytes that a device of this process may use; on CPU its share of the RAM."""
  devices = jax.local_devices()
  limits = [(device.memory_stats() or {}).get('bytes_limit') for device in devices]
  known = [limit for limit in limits if limit]
  if known:
    return float(min(known))
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return memory / len(devices)
