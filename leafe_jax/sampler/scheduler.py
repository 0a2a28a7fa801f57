"""Continuous batching: rows join and leave between dispatches.

A response is decoded in dispatches of at most `sampler.decode_chunk` tokens.
A short one is over after its first, which reads the new prompt tokens and
decodes to the end in one program. A long one waits, between its dispatches,
among all others for a place in the next batch: rows that have stopped leave,
waiting rows join, and long prompts are read a bucket at a time in between.

What runs in which batch is a function of the order of `submit` and `poll`
alone, never of time: results are fetched in the order of launches. With an
empty radix tree at the start (`Shards.clear`), the same calls give the same
bits.

When the pool is full, rows wait until those under way are done. When none is,
states that wait lose their pages, least recently used first, and are read again
when their turn comes. Nobody takes pages from the oldest row, so it always gets
on; only if it does not fit alone is `OutOfPages` raised.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from leafe_jax.sampler.batching import Row
from leafe_jax.sampler.choices import build_trie
from leafe_jax.sampler.engine import MAX_UNDER_WAY, Dispatch, Engine
from leafe_jax.sampler.jobs import Job, Kind, held
from leafe_jax.sampler.pages import Fresh, OutOfPages
from leafe_jax.sampler.radix import common_length
from leafe_jax.sampler.shards import Shards
from leafe_jax.sampler.state import NonFiniteLogits, Request, Rules, Sample, State
from leafe_jax.sampler.turn import Response
from leafe_jax.token_ids import shared

# With `hold`, as many as keep the device busy: what waits meanwhile is sorted
# into batches of like lengths.
_MAX_HELD = 2


class Scheduler:
  """The queue before the engine."""

  def __init__(
      self,
      engine: Engine,
      shards: Shards,
      reuse: bool,
      decode: Callable[[Sequence[int]], str] | None,
  ):
    self._engine = engine
    self._shards = shards
    self._reuse = reuse
    self._decode = decode
    self._stats = engine.stats
    self._next_ticket = 0
    self._waiting: dict[int, Job] = {}  # by ticket
    self._under_way: collections.deque[tuple[Dispatch, list[Job]]] = (
        collections.deque()
    )
    self._done: dict[int, Sample] = {}

  @property
  def busy(self) -> bool:
    """Whether a ticket is open."""
    return bool(self._waiting or self._under_way or self._done)

  def submit(self, request: Request, rules: Rules) -> int:
    """Queues a row; the ticket under which `poll` returns its sample.

    Raises:
      ValueError: a state without a pending token, choices that make no sense or
        are longer than max_tokens, or stop strings without a way to read tokens.
    """
    state, trie = request.state, None
    if not state.pending:
      raise ValueError(
          f'a state of {state.length} tokens has none pending: extend it first'
      )
    if rules.stop_strings and self._decode is None:
      raise ValueError(
          f'stop_strings {rules.stop_strings} need a Sampler(decode=...)'
      )
    if rules.choices:
      trie = build_trie(rules.choices)
      if trie.longest > rules.max_tokens:
        raise ValueError(
            f'a choice has {trie.longest} tokens; max_tokens is {rules.max_tokens}'
        )
    return self._enqueue(Job(0, state, rules, request.key, trie))

  def read(self, state: State) -> int:
    """Queues a transcript to be read; its sample holds the state read."""
    return self._enqueue(Job(0, state, Rules()))

  def _enqueue(self, job: Job) -> int:
    if job.shard < 0:
      job.shard = self._shards.choose(job.state.lease)
    self._shards.enter(job.shard)
    job.ticket = self._next_ticket
    self._next_ticket += 1
    self._waiting[job.ticket] = job
    return job.ticket

  def refuse(self, state: State) -> int:
    """A ticket for a row that is too long to be sampled."""
    ticket = self._next_ticket
    self._next_ticket += 1
    self._done[ticket] = Sample(state, [], [], False, overlong=True)
    return ticket

  def poll(self, hold: bool = False) -> dict[int, Sample]:
    """Launches what it can, then waits for the oldest dispatch.

    Args:
      hold: rows that do not fill a dispatch wait for others to join them, as
        long as something is under way.

    Returns:
      Samples by ticket; none while no row has come to its end.

    Raises:
      OutOfPages: a row does not fit into the pool alone; it is dropped.
      NonFiniteLogits: see `_check_finite`; all rows are dropped.
    """
    self._launch(hold)
    if self._under_way and not self._done:
      self._collect(*self._under_way.popleft())
    done, self._done = self._done, {}
    return done

  def finish(
      self, tickets: Sequence[int], between: Callable[[], None] = lambda: None
  ) -> list[Sample]:
    """Polls until these tickets are done; others' samples stay for `poll`.

    Args:
      tickets: of the rows.
      between: called after every launch; what it raises leaves all as it is.

    Raises:
      OutOfPages: a row does not fit into the pool alone; all these are dropped.
      NonFiniteLogits: see `_check_finite`; all rows are dropped.
    """
    try:
      while not all(ticket in self._done for ticket in tickets):
        self._launch(hold=False)
        between()
        if self._under_way:
          self._collect(*self._under_way.popleft())
    except OutOfPages:
      self._abandon(set(tickets))
      raise
    return [self._done.pop(ticket) for ticket in tickets]

  def _abandon(self, tickets: set[int]) -> None:
    """Forgets rows, those under way as soon as they are back."""
    while self._under_way:
      self._collect(*self._under_way.popleft())
    self._waiting = {
        job.ticket: job
        for job in self._waiting.values()
        if job.outlives(tickets, self._shards)
    }
    for ticket in tickets:
      self._done.pop(ticket, None)

  # Launching.

  def _launch(self, hold: bool) -> None:
    """Fills batches from the queue, as far as places and pages go."""
    self._settle()
    for room, group in self._groups():
      if len(self._under_way) >= (_MAX_HELD if hold else MAX_UNDER_WAY):
        return
      if hold and self._under_way and len(group) < self._engine.buckets.rows:
        continue
      put_back = self._stats.put_back
      fitting = self._fitting(group)
      if fitting:
        self._start(fitting, room)
      if len(fitting) < len(group) or self._stats.put_back > put_back:
        return  # what waits has changed: group anew

  def _settle(self) -> None:
    """Finds what fresh and put-back states have in pages."""
    fresh: dict[int, Job] = {}
    unsettled = list(self._waiting.values())
    while unsettled:
      over = []
      for job in unsettled:
        lease = job.state.lease
        gone = lease is not None and not lease.ready
        if gone or (lease is None and not job.matched):
          self._match(job, gone)
          fresh[job.ticket] = job
        if job.done:
          over.append(job)
      for job in over:
        self._finish_job(job, stopped=False)
      unsettled = [follower for job in over for follower in job.followers]
    if self._reuse and len(fresh) > 1:
      by_shard: dict[int, list[Job]] = {}
      for job in fresh.values():
        if job.ticket in self._waiting:
          by_shard.setdefault(job.shard, []).append(job)
      for jobs in by_shard.values():
        self._share(jobs)

  def _match(self, job: Job, gone: bool) -> None:
    tokens, job.matched = job.state.tokens, True
    if not self._reuse:
      job.state = State(job.state.version, None, 0, tokens)
      return
    lease, length = self._shards.match(job.shard, tokens[: self._limit(job, tokens)])
    job.state = State(job.state.version, lease, length, tokens[length:])
    if not gone:
      self._stats.matched_tokens += length

  def _limit(self, job: Job, tokens: tuple[int, ...]) -> int:
    """Tokens that may come from pages: a row that draws must read one."""
    return len(tokens) - (job.key is not None)

  def _share(self, fresh: list[Job]) -> None:
    """Lets what fresh rows of a shard begin with be read once, before them."""
    texts = sorted(((job.state.tokens, job) for job in fresh), key=lambda e: e[0])
    edges = [0, *(common_length(a[0], b[0]) for a, b in zip(texts, texts[1:])), 0]
    leaders: dict[tuple[int, ...], Job] = {}
    for (tokens, job), reach in zip(texts, map(max, edges, edges[1:])):
      reach = min(reach, self._limit(job, tokens))
      if reach - job.state.cached < self._engine.buckets.page_size:
        continue
      start = tokens[:reach]
      if start not in leaders:
        state = dataclasses.replace(job.state, pending=start[job.state.cached :])
        leaders[start] = Job(0, state, Rules(), matched=True, shard=job.shard)
      leaders[start].followers.append(self._waiting.pop(job.ticket))
      self._stats.matched_tokens -= job.state.cached  # it will be found again
    for leader in leaders.values():
      self._enqueue(leader)
    if len(leaders) > 1:
      self._share(list(leaders.values()))

  def _groups(self) -> list[tuple[int, list[Row]]]:
    """(room for responses, rows) of the batches that could run, oldest first."""
    by_kind: dict[Kind, list[Row]] = {}
    for job in self._waiting.values():
      kind, row = job.next_row(self._engine.buckets)
      by_kind.setdefault(kind, []).append(row)
    groups = [
        (kind.room, group)
        for kind, rows in by_kind.items()
        for group in self._engine.buckets.split(rows)
    ]
    return sorted(groups, key=lambda entry: min(row.index for row in entry[1]))

  def _fitting(self, group: list[Row]) -> list[Row]:
    """The rows for which there are pages; none when they must wait.

    Raises:
      OutOfPages: not even the oldest row of all fits; it is dropped.
    """
    under_way = [job for _, jobs in self._under_way for job in jobs]
    if self._shards.make_room(group, lambda: held(self._waiting.values(), under_way)):
      return group
    if self._under_way:
      self._stats.waits += len(group)
      return []
    group = sorted(group, key=lambda row: row.index)
    oldest = self._waiting[min(self._waiting)]
    while group:
      pinned = {row.state.lease.node for row in group if row.state.lease}
      if oldest.state.lease is not None:
        pinned.add(oldest.state.lease.node)
      enough, lost = self._shards.put_back(group, pinned)
      self._stats.put_back += lost
      if enough:
        return group
      if len(group) == 1 and group[0].index == oldest.ticket:
        del self._waiting[oldest.ticket]
        self._shards.require(group)
      group = group[: len(group) // 2]
    return []

  def _start(self, group: list[Row], room: int) -> None:
    fresh = [self._shards.take(row) for row in group]
    self._shards.tick()
    self._stats.cached_tokens += sum(
        row.state.cached for row in group if row.max_tokens and not row.first
    )
    jobs = [self._waiting.pop(row.index) for row in group]
    self._under_way.append((self._engine.launch(group, fresh, room), jobs))

  # Collecting.

  def _collect(self, dispatch: Dispatch, jobs: list[Job]) -> None:
    """Takes in what a dispatch has read and drawn."""
    response = self._engine.fetch(dispatch)
    start = time.perf_counter()
    lists: Any = None
    if response is not None:
      self._check_finite(dispatch.rows, response)
      lists = zip(*(array.tolist() for array in response if array is not None))
    for row, fresh, job in zip(dispatch.rows, dispatch.fresh, jobs, strict=True):
      if lists is None:
        self._advance(job, row, (), fresh)
        self._requeue(job)
        continue
      drawn, logprobs, count, stopped, *routes = next(lists)
      tokens, decoded = shared(drawn[:count]), count
      if row.rules.stop_strings:
        end = self._end_of_text(job, tokens)
        count, stopped = (count, stopped) if end is None else (end, True)
      job.tokens += tokens[:count]
      job.logprobs += logprobs[:count]
      job.routes += routes[0][:count] if routes else []
      self._advance(job, row, tuple(tokens[:count]), fresh, count == decoded)
      self._stats.sampled_tokens += count
      if stopped or len(job.tokens) >= job.rules.max_tokens:
        self._finish_job(job, stopped)
      else:
        self._waiting[job.ticket] = job
    self._stats.host_seconds += time.perf_counter() - start

  def _check_finite(self, rows: Sequence[Row], response: Response) -> None:
    """NonFiniteLogits where a token was drawn from NaN or infinite logits.

    The largest logit and the sum make the log-probability of every token, so
    that it tells. All rows and pages are forgotten: they are of no use.
    """
    place = np.arange(response.logprobs.shape[1])
    said = place < response.lengths[:, None]
    broken = said & ~np.isfinite(response.logprobs)
    if not broken.any():
      return
    while self._under_way:
      self._engine.fetch(self._under_way.popleft()[0])
    self._waiting.clear()
    self._done.clear()
    self._shards.clear()
    self._engine.wipe()
    row, token = np.argwhere(broken)[0]
    state = rows[row].state
    raise NonFiniteLogits(state.version, state.length + int(token))

  def _advance(
      self,
      job: Job,
      row: Row,
      said: tuple[int, ...],
      fresh: Fresh,
      whole: bool = True,
  ) -> None:
    """The state after the row's prompt tokens and all but the last one said.

    If not `whole`, more was decoded: what recurrent layers know is of no use then.
    """
    state = row.state
    read = state.pending[: row.num_new] + said[:-1]
    lease = self._shards.insert(row, read, fresh, whole)
    pending = state.pending[row.num_new :] + said[-1:]
    job.state = State(state.version, lease, state.cached + len(read), pending)

  def _requeue(self, job: Job) -> None:
    if job.done:
      self._finish_job(job, stopped=False)
    else:
      self._waiting[job.ticket] = job

  def _finish_job(self, job: Job, stopped: bool) -> None:
    self._waiting.pop(job.ticket, None)
    self._shards.leave(job.shard)
    if not job.followers:
      self._done[job.ticket] = Sample(
          job.state, job.tokens, job.logprobs, stopped, routes=job.routes
      )
    for follower in job.followers:  # what they share is in the tree now
      state = follower.state
      follower.state = State(state.version, None, 0, state.tokens)
      follower.matched = False
      self._waiting[follower.ticket] = follower

  def _end_of_text(self, job: Job, tokens: list[int]) -> int | None:
    """How many new tokens there are up to the first stop string, if any."""
    decode, strings = self._decode, job.rules.stop_strings
    assert decode is not None  # checked by `submit`

    def ends(count: int) -> bool:
      text = decode([*job.tokens, *tokens[:count]])
      return any(string in text for string in strings)

    if not ends(len(tokens)):
      return None
    return next(count for count in range(1, len(tokens) + 1) if ends(count))
