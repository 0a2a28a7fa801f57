"""The host's side of a pool that is cut over the devices of data and fsdp.

Shard s of the pool holds the page ids s * n .. (s + 1) * n - 1, and the rows of a
dispatch are cut in the same order. A row only sees pages of its own shard, so
that its keys and values never travel: a transcript stays where its first page
is. Each shard has a radix tree of its own; what two shards both need, such as
the beginning that all prompts have in common, each of them reads once.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence

from leafe_jax.sampler.batching import Buckets, Row
from leafe_jax.sampler.pages import Page, PagePool
from leafe_jax.sampler.radix import Lease, Node, RadixTree


class Shards:
  """Pages and radix trees of all shards.

  Args:
    buckets: the static shapes.
    num_pages: of all shards together; what does not divide evenly is left out.
    keep: whether pages stay after their last use.
  """

  def __init__(self, buckets: Buckets, num_pages: int, keep: bool):
    self._buckets = buckets
    count = buckets.num_shards
    size = num_pages // count
    self._pools = [PagePool(size, first=i * size) for i in range(count)]
    self._trees = [
        RadixTree(pool, buckets.page_size, keep, shard)
        for shard, pool in enumerate(self._pools)
    ]
    self._rows = [0] * count

  @property
  def num_free(self) -> int:
    """Pages that hold nothing."""
    return sum(pool.num_free for pool in self._pools)

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
      self, row: Row, tokens: tuple[int, ...], pages: Sequence[Page]
  ) -> Lease | None:
    """What a row wrote, see `RadixTree.insert`."""
    state, tree = row.state, self._trees[row.shard]
    return tree.insert(state.lease, state.cached, tokens, pages)

  def make_room(self, rows: Iterable[Row]) -> bool:
    """Frees idle pages for rows to be launched; whether there are enough."""
    needs = self._needs(rows).items()
    return all(self._trees[shard].make_room(count) for shard, count in needs)

  def put_back(self, rows: Iterable[Row], pinned: set[Node]) -> tuple[bool, int]:
    """Takes pages of states that wait, where rows to be launched need them.

    Returns:
      Whether there are enough now, and the number of leases that lost theirs.
    """
    needs = self._needs(rows).items()
    lost = sum(self._trees[shard].put_back(count, pinned) for shard, count in needs)
    return all(self._pools[shard].num_free >= count for shard, count in needs), lost

  def require(self, rows: Iterable[Row]) -> None:
    """Raises OutOfPages unless the pages that rows write are free."""
    for shard, count in self._needs(rows).items():
      self._pools[shard].require(count)

  def take(self, row: Row) -> tuple[Page, ...]:
    """The pages that a row writes. Raises OutOfPages."""
    return self._pools[row.shard].take(self._buckets.pages_needed(row))

  def _needs(self, rows: Iterable[Row]) -> collections.Counter[int]:
    """Pages by shard."""
    needs: collections.Counter[int] = collections.Counter()
    for row in rows:
      needs[row.shard] += self._buckets.pages_needed(row)
    return needs
