"""Pages of layers with a window, on the host: which are there, which go first.

A node of the radix tree (`radix`) may have a page of these layers beside its page of
the others (`Node.near`). A transcript is gone on from a node where the nodes that a
window reaches back to have theirs; elsewhere it is read again from the last such
place before. So what lies behind every window can be given back, and what a branch
may begin from is kept while there is room.

Invariants:
  1. A node with a window page has a page.
  2. `reached` counts the leased nodes whose window reaches a node, and a node with a
     window page is in `_idle` if there are none, else in `_wanted`.
  3. Both are sorted by when a transcript whose window reaches the node was last gone
     on from. So the pages of one place go one after the other: a hole in a window
     costs as much as the loss of all of it.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from typing import Protocol

from jax.sharding import AbstractMesh, Mesh

from leafe_jax import config as config_lib
from leafe_jax.policy import kinds, sharding
from leafe_jax.sampler.pages import Page, PagePool

NAME = ('KV pages of layers with a window', 'num_window_pages')
_KEPT = 2  # windows a row, where no number of pages is given: its own, and a branch's


class Place(Protocol):
  """A node of the radix tree."""

  near: Page | None
  reached: int

  @property
  def parent(self) -> Place | None: ...


class Windows:
  """The window pages of a shard.

  Args:
    pool: of them.
    count: nodes that a window reaches, the one that is gone on from included.
    keep: whether pages stay that no leased node's window reaches.
  """

  def __init__(self, pool: PagePool, count: int, keep: bool = True):
    self._pool = pool
    self._count = count
    self._keep = keep
    # Least recently used first (dicts as ordered sets).
    self._idle: collections.OrderedDict[Place, None] = collections.OrderedDict()
    self._wanted: collections.OrderedDict[Place, None] = collections.OrderedDict()

  @property
  def num_idle(self) -> int:
    """Pages that no living state's window reaches."""
    return len(self._idle)

  def reach(self, place: Place) -> Iterator[Place]:
    """The nodes that a window reaches from one, itself first."""
    for _ in range(self._count):
      if place.parent is None:
        return
      yield place
      place = place.parent

  def whole(self, place: Place) -> bool:
    """Whether a transcript can be gone on from a node."""
    return all(near.near is not None for near in self.reach(place))

  def put(self, place: Place, page: Page) -> None:
    """Gives a node its page, if it has none; until it is leased it is idle."""
    if place.near is None:
      place.near = page
      (self._wanted if place.reached else self._idle)[place] = None

  def lease(self, place: Place, first: bool) -> None:
    """A node is gone on from; `first`: nobody else had leased it."""
    for near in reversed([*self.reach(place)]):
      near.reached += first
      if near.near is not None:
        self._idle.pop(near, None)
        self._wanted[near] = None
        self._wanted.move_to_end(near)

  def release(self, place: Place) -> None:
    """The last lease on a node has ended."""
    for near in reversed([*self.reach(place)]):
      near.reached -= 1
      if not near.reached and near.near is not None:
        del self._wanted[near]
        self._idle[near] = None
    self.tidy()

  def tidy(self) -> None:
    """Gives idle pages back at once where they are not to be kept."""
    if not self._keep:
      self._give_up(self._idle, self._pool.num_pages, set())

  def drop(self, place: Place) -> None:
    """Gives a node's page back, if it has one."""
    place.near = None
    self._idle.pop(place, None)
    self._wanted.pop(place, None)

  def make_room(self, count: int) -> bool:
    """Gives back pages that no living state's window reaches until `count` are free."""
    self._give_up(self._idle, count, set())
    return self._pool.num_free >= count

  def put_back(self, count: int, held: Iterable[Place]) -> int:
    """As `make_room`, then those of living states; returns how many of these.

    Args:
      count: pages to be free afterwards, if there are as many.
      held: nodes whose windows stay.
    """
    if self.make_room(count):
      return 0
    return self._give_up(
        self._wanted, count, {near for place in held for near in self.reach(place)}
    )

  def _give_up(self, places: Iterable[Place], count: int, kept: set[Place]) -> int:
    lost = []
    for place in places:
      if self._pool.num_free + len(lost) >= count:
        break
      if place not in kept:
        lost.append(place)
    for place in lost:
      self.drop(place)
    return len(lost)


def window_of(policy: config_lib.Policy) -> int:
  """The window that layers of a policy have; 0: none has one."""
  return max(kinds.groups(policy), default=0)


def nodes_reached(window: int, page_size: int) -> int:
  """Nodes that a window reaches back to from any token of the last, that included."""
  return 1 + -(-max(window - 2, 0) // page_size)


def num_pages(
    policy: config_lib.Policy, sampler: config_lib.Sampler, mesh: Mesh | AbstractMesh
) -> int:
  """Window pages of the pool; 0 for a policy without windows.

  Where `sampler.num_window_pages` is 0: two windows for each of `max_rows`, and what
  a dispatch writes. There are never more than `num_pages`, as each lies beside one.

  Raises:
    ValueError: too few for one row.
  """
  window = window_of(policy)
  if not window:
    return 0
  shards = sharding.num_row_shards(mesh)
  page, reached = sampler.page_size, nodes_reached(window, sampler.page_size)
  said = sampler.decode_chunk or policy.max_length
  written = -(-(page - 1 + max(sampler.prefill_buckets) + said) // page)
  asked = sampler.num_window_pages or (
      sampler.max_rows * _KEPT * reached + sampler.dispatch_rows * written
  )
  found = min(asked, sampler.num_pages) // shards * shards
  least = reached + -(-(page - 1 + max(sampler.prefill_buckets)) // page)
  if found // shards < least and found < sampler.num_pages // shards * shards:
    raise ValueError(
        f'sampler.num_window_pages is {asked}: a row reads {reached} and writes up to'
        f' {least - reached} pages of {page} tokens, on each of {shards} shards of data'
        f' and fsdp; give {least * shards} or more'
    )
  return found
