"""The host's side of a pool that is cut over the devices of data and fsdp.

Shard s of the pool holds the page ids s * n .. (s + 1) * n - 1, and the rows of a
dispatch are cut in the same order. A row only sees pages of its own shard, so
that its keys and values never travel: a transcript stays where its first page
is. Each shard has a radix tree of its own; what two shards both need, such as
the beginning that all prompts have in common, each of them reads once.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence

from leafe_jax.sampler import memories, windows
from leafe_jax.sampler.batching import Buckets, Row
from leafe_jax.sampler.memories import Memories
from leafe_jax.sampler.pages import Fresh, PagePool
from leafe_jax.sampler.radix import Lease, Node, RadixTree
from leafe_jax.sampler.windows import Windows


class Shards:
  """Pages and radix trees of all shards.

  Args:
    buckets: the static shapes.
    num_pages: of all shards together; what does not divide evenly is left out.
    keep: whether pages stay after their last use.
    num_memories: of recurrent layers, likewise; 0: there are no such layers.
    num_window_pages: of layers with a window, likewise.
  """

  def __init__(
      self,
      buckets: Buckets,
      num_pages: int,
      keep: bool,
      num_memories: int = 0,
      num_window_pages: int = 0,
  ):
    self._buckets = buckets
    count = buckets.num_shards
    size = num_pages // count
    self._pools = [PagePool(size, first=i * size) for i in range(count)]
    own = num_memories // count
    self._memory_pools = [
        PagePool(own, first=i * own, name=memories.NAME)
        for i in range(count if num_memories else 0)
    ]
    kept = [Memories(pool) for pool in self._memory_pools] or [None] * count
    near = num_window_pages // count
    self._window_pools = [
        PagePool(near, first=i * near, name=windows.NAME)
        for i in range(count if num_window_pages else 0)
    ]
    reached = windows.nodes_reached(buckets.window, buckets.page_size)
    found = [Windows(pool, reached, keep) for pool in self._window_pools]
    found = found or [None] * count
    self._trees = [
        RadixTree(pool, buckets.page_size, keep, shard, kept[shard], found[shard])
        for shard, pool in enumerate(self._pools)
    ]
    self._rows = [0] * count

  @property
  def num_free(self) -> int:
    """Pages that hold nothing."""
    return sum(pool.num_free for pool in self._pools)

  @property
  def num_free_near(self) -> int:
    """Pages of layers with a window that hold nothing."""
    return sum(pool.num_free for pool in self._window_pools)

  @property
  def num_idle(self) -> int:
    """Pages that no state needs, kept for prompts that begin like them."""
    return sum(tree.num_idle() for tree in self._trees)

  def clear(self) -> None:
    """Frees every page; states keep their tokens and are read again."""
    self._rows = [0] * len(self._rows)
    for tree in self._trees:
      tree.clear()

  def tick(self) -> None:
    """Counts a launch, by which the age of pages is told."""
    for tree in self._trees:
      tree.clock += 1

  def choose(self, lease: Lease | None) -> int:
    """The shard for a row: its pages', or the one with fewest rows.

    A transcript that has lost all its pages is as good as a new one.
    """
    if lease is not None and lease.lives:
      return lease.shard
    return self._rows.index(min(self._rows))

  def enter(self, shard: int) -> None:
    """A row of a shard is to be sampled or read."""
    self._rows[shard] += 1

  def leave(self, shard: int) -> None:
    """A row of a shard has come to its end."""
    self._rows[shard] -= 1

  def match(self, shard: int, tokens: Sequence[int]) -> tuple[Lease | None, int]:
    """See `RadixTree.match`."""
    return self._trees[shard].match(tokens)

  def insert(
      self, row: Row, tokens: tuple[int, ...], fresh: Fresh, read: bool = True
  ) -> Lease | None:
    """What a row wrote, see `RadixTree.insert`.

    Args:
      row: of a dispatch.
      tokens: that it has in pages now.
      fresh: what it wrote.
      read: whether its memory has seen these tokens and no more.
    """
    state, tree = row.state, self._trees[row.shard]
    if not read:
      fresh = fresh._replace(memory=None)
    return tree.insert(state.lease, state.cached, tokens, fresh)

  def make_room(
      self, rows: Iterable[Row], held: Callable[[], Iterable[Node]] = tuple
  ) -> bool:
    """Frees idle pages for rows to be launched; whether there are enough.

    Places where branches may begin lose their windows before any row waits.

    Args:
      rows: to be launched.
      held: the nodes that rows go on from, waiting and under way.
    """
    enough = [self._trees[i].make_room(count) for i, count in self._needs(rows)]
    enough += [kept.make_room(count) for kept, _, count in self._memory_needs(rows)]
    for kept, pool, count in self._near_needs(rows):
      if not kept.make_room(count):
        kept.put_back(count, held())
      enough.append(pool.num_free >= count)
    return all(enough)

  def put_back(self, rows: Iterable[Row], pinned: set[Node]) -> tuple[bool, int]:
    """Takes pages of states that wait, where rows to be launched need them.

    Returns:
      Whether there are enough now, and the number of leases that lost theirs; of
      layers with a window, the number of pages that leases lost.
    """
    lost, enough = 0, True
    for shard, count in self._needs(rows):
      lost += self._trees[shard].put_back(count, pinned)
      enough &= self._pools[shard].num_free >= count
    for kept, pool, count in self._memory_needs(rows):
      lost += kept.put_back(count, {*pinned})
      enough &= pool.num_free >= count
    for kept, pool, count in self._near_needs(rows):
      lost += kept.put_back(count, pinned)
      enough &= pool.num_free >= count
    return enough, lost

  def require(self, rows: Iterable[Row]) -> None:
    """Raises OutOfPages unless what rows write is free."""
    for shard, count in self._needs(rows):
      self._pools[shard].require(count)
    for _, pool, count in [*self._memory_needs(rows), *self._near_needs(rows)]:
      pool.require(count)

  def take(self, row: Row) -> Fresh:
    """What a row writes. Raises OutOfPages."""
    count = self._buckets.pages_needed(row)
    fresh = Fresh(self._pools[row.shard].take(count))
    if self._memory_pools:
      [memory] = self._memory_pools[row.shard].take(1)
      fresh = fresh._replace(memory=memory)
    if self._window_pools:
      fresh = fresh._replace(near=self._window_pools[row.shard].take(count))
    return fresh

  def _needs(self, rows: Iterable[Row]) -> list[tuple[int, int]]:
    """(shard, pages)."""
    needs: collections.Counter[int] = collections.Counter()
    for row in rows:
      needs[row.shard] += self._buckets.pages_needed(row)
    return list(needs.items())

  def _memory_needs(
      self, rows: Iterable[Row]
  ) -> Iterator[tuple[Memories, PagePool, int]]:
    """Where memories are needed, and how many; nothing without recurrent layers."""
    if self._memory_pools:
      for shard, count in collections.Counter(row.shard for row in rows).items():
        kept = self._trees[shard].memories
        assert kept is not None  # as there are pools
        yield kept, self._memory_pools[shard], count

  def _near_needs(
      self, rows: Iterable[Row]
  ) -> Iterator[tuple[Windows, PagePool, int]]:
    """Where window pages are needed, and how many; nothing without windows."""
    for shard, count in self._needs(rows) if self._window_pools else ():
      kept = self._trees[shard].windows
      assert kept is not None  # as there are pools
      yield kept, self._window_pools[shard], count
