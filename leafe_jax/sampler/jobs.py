"""A row on its way through the sampler."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from leafe_jax.sampler.batching import Buckets, Row
from leafe_jax.sampler.choices import Trie
from leafe_jax.sampler.radix import Node
from leafe_jax.sampler.shards import Shards
from leafe_jax.sampler.state import Rules, State


class Kind(NamedTuple):
  """What rows of one program agree on: room, filters, size of the tries."""

  room: int
  filtered: bool
  trie_room: int


@dataclasses.dataclass(slots=True, eq=False)
class Job:
  """A row on its way: where it is, what it has said, who waits for it.

  Attributes:
    ticket: its number.
    state: how far it has come.
    rules: how it draws.
    key: of its random numbers; None where nothing is to be sampled.
    trie: what may be said; None: anything.
    tokens, logprobs, routes: what it has said, see `Sample`.
    followers: rows that begin with this one and wait for it.
    matched: whether its tokens were looked for in the radix tree.
    shard: where its pages are or will be; -1: not chosen yet.
  """

  ticket: int
  state: State
  rules: Rules
  key: tuple[int, int] | None = None
  trie: Trie | None = None
  tokens: list[int] = dataclasses.field(default_factory=list)
  logprobs: list[float] = dataclasses.field(default_factory=list)
  routes: list[int] = dataclasses.field(default_factory=list)
  followers: list[Job] = dataclasses.field(default_factory=list)
  matched: bool = False
  shard: int = -1
  _next: tuple[Kind, Row] | None = None

  @property
  def done(self) -> bool:
    return self.key is None and not self.state.pending

  def outlives(self, tickets: set[int], shards: Shards) -> bool:
    """Whether anybody waits for it when these tickets are given up."""
    led = bool(self.followers)
    self.followers = [job for job in self.followers if job.outlives(tickets, shards)]
    stays = bool(self.followers) if led else self.ticket not in tickets
    if not stays:
      shards.leave(self.shard)
    return stays

  def next_row(self, buckets: Buckets) -> tuple[Kind, Row]:
    """What it needs next: more of its prompt read, or tokens drawn."""
    if self._next is None or self._next[1].state is not self.state:
      row = self._row(buckets)
      self._next = _kind(row, buckets), row
    return self._next

  def _row(self, buckets: Buckets) -> Row:
    pending, largest = len(self.state.pending), buckets.new_tokens[-1]
    if self.key is None or pending > largest:
      return Row(self.ticket, self.state, min(pending, largest), shard=self.shard)
    first = len(self.tokens)
    return Row(
        self.ticket, self.state, pending, self.key, self.rules, first,
        buckets.per_dispatch(self.rules.max_tokens - first), self.trie,
        self.trie.node_after(self.tokens) if self.trie is not None else 0, self.shard,
    )


def held(*groups: Iterable[Job]) -> set[Node]:
  """The nodes that rows go on from."""
  leases = (job.state.lease for jobs in groups for job in jobs)
  return {lease.node for lease in leases if lease is not None}


def _kind(row: Row, buckets: Buckets) -> Kind:
  if not row.max_tokens:
    return Kind(0, False, 0)
  # The room is the same for all dispatches of a response.
  room = buckets.num_decode(row.rules.max_tokens)
  return Kind(room, row.rules.filtered, row.trie.room if row.trie is not None else 0)
