"""Memories on the host: what recurrent layers know, at some places of transcripts.

Keys and values of a transcript serve every beginning of it. The memory of a
recurrent layer (`policy.delta`) serves one length alone, so it is kept where
transcripts are gone on from: after what a dispatch has read, which is where
states end, branches begin and a long prompt is cut. It belongs to the node of the
radix tree whose last token it has seen. A node without one can still be walked
through; what goes on from there reads again from the last memory before it.
"""

from __future__ import annotations

import collections
from typing import Protocol

from leafe_jax.sampler.pages import Page, PagePool

NAME = ('memories of recurrent layers', 'num_memories')


class Place(Protocol):
  """A node of the radix tree: where a memory may be, and how many lease it."""

  memory: Page | None
  users: int


class Memories:
  """The memories of a shard, and which of them to give up first."""

  def __init__(self, pool: PagePool):
    self._pool = pool
    # Least recently used first (a dict as an ordered set).
    self._places: collections.OrderedDict[Place, None] = collections.OrderedDict()

  def keep(self, place: Place, memory: Page) -> None:
    """Puts a memory to its place, where there may be one that is as good."""
    if place.memory is None:
      place.memory = memory
    self._places[place] = None
    self._places.move_to_end(place)

  def touch(self, place: Place) -> None:
    """A place is gone on from."""
    if place in self._places:
      self._places.move_to_end(place)

  def drop(self, place: Place) -> None:
    """Gives up a memory, if the place has one."""
    place.memory = None
    self._places.pop(place, None)

  def make_room(self, count: int) -> bool:
    """Gives up memories of no living state until `count` are free."""
    self._give_up(count, {place for place in self._places if place.users})
    return self._pool.num_free >= count

  def put_back(self, count: int, pinned: set[Place]) -> int:
    """As `make_room`, then those of states that wait; returns how many states."""
    if self.make_room(count):
      return 0
    return self._give_up(count, pinned)

  def _give_up(self, count: int, pinned: set[Place]) -> int:
    lost = 0
    for place in [place for place in self._places if place not in pinned]:
      if self._pool.num_free >= count:
        break
      lost += place.users
      self.drop(place)
    return lost
