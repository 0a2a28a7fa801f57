"""The sampler: immutable states in, responses out.

    state = sampler.extend(sampler.empty(), prompt)
    [sample] = sampler.sample([Request(state, key)], rules)
    state = sampler.extend(sample.state, observation)

A state may be used any number of times; branching is keeping a reference.
What was read once is never read again: a branch shares every full page of its
prefix, and copies at most the half-filled last one; a prompt given anew finds
what it begins with in the radix tree. The weights are the ones that train, on
the same mesh; loading new ones makes all older states stale.

`sample` waits for all its rows. `submit` and `poll` let the caller work on rows
that are done while the device works on others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool

from leafe_jax import config as config_lib
from leafe_jax.policy import model
from leafe_jax.progress import Progress
from leafe_jax.sampler.choices import build_trie
from leafe_jax.sampler.engine import Engine
from leafe_jax.sampler.scheduler import Scheduler
from leafe_jax.sampler.shards import Shards
from leafe_jax.sampler.state import Request, Rules, Sample, StaleState, State, Stats


class Sampler:
  """Samples from one policy on one mesh.

  Attributes:
    version: of the loaded weights, -1 before the first `load`.
  """

  def __init__(
      self,
      policy_config: config_lib.Policy,
      sampler_config: config_lib.Sampler,
      mesh: Mesh,
      decode: Callable[[Sequence[int]], str] | None = None,
      drawable: Bool[np.ndarray, ' V'] | None = None,
  ):
    """Makes the pool.

    Args:
      policy_config: sizes of the policy.
      sampler_config: sizes of pool and batches.
      mesh: of the weights.
      decode: text of a response's tokens, for stop strings.
      drawable: which rows of the embedding table may be drawn, such as those
        that a tokenizer knows; None: all. Log-probabilities stay those of the
        whole table.

    Raises:
      ValueError: no token may be drawn.
    """
    if drawable is not None and not drawable.any():
      raise ValueError('drawable names no token')
    self.version = -1
    self._max_length = policy_config.max_length
    self._table: int | None = None  # rows of the weights' embedding table
    self._drawable = None if drawable is None or drawable.all() else drawable
    self._engine = Engine(policy_config, sampler_config, mesh, self._drawable)
    reuse = sampler_config.prefix_reuse
    self._shards = Shards(
        self._engine.buckets, sampler_config.num_pages, reuse,
        self._engine.num_memories, self._engine.num_window_pages,
    )
    self._scheduler = Scheduler(self._engine, self._shards, reuse, decode)

  @property
  def stats(self) -> Stats:
    return self._engine.stats

  @property
  def num_programs(self) -> int:
    """Device programs compiled so far."""
    return self._engine.num_programs

  @property
  def num_free_pages(self) -> int:
    """Pages that hold nothing."""
    return self._shards.num_free

  @property
  def num_free_window_pages(self) -> int:
    """Pages of layers with a window that hold nothing."""
    return self._shards.num_free_near

  @property
  def num_idle_pages(self) -> int:
    """Pages that no state needs, kept for prompts that begin like them."""
    return self._shards.num_idle

  def load(self, params: model.Params, version: int) -> None:
    """Takes new weights; every state of another version becomes stale.

    The arrays are used as they are (no copy): do not donate them elsewhere
    while they are loaded here.

    Raises:
      ValueError: rows are waiting or under way, or the table of tokens is not
        the one that `drawable` describes.
    """
    table = params['embed_vd'].shape[0]
    if self._drawable is not None and len(self._drawable) != table:
      raise ValueError(
          f'drawable describes {len(self._drawable)} tokens; the weights have {table}'
      )
    self.forget()
    self._table = table
    self._engine.load(params)
    self.version = version

  def release(self) -> None:
    """Gives the memory of weights and pages back, until the next `load`.

    Raises:
      ValueError: rows are waiting or under way.
    """
    self.forget()
    self._engine.release()

  def forget(self) -> None:
    """Frees every page. Living states keep their tokens and are read again.

    What is sampled from here on depends on nothing that was done before: the
    same calls give the same bits, in this process or another.

    Raises:
      ValueError: rows are waiting or under way.
    """
    if self._scheduler.busy:
      raise ValueError('rows are waiting or under way: poll them first')
    self._shards.clear()

  def compile(self, responses: Sequence[int]) -> None:
    """Compiles all programs for these response lengths, with a progress line.

    Without it a program is compiled when it is first needed.

    Args:
      responses: the max_tokens of the rules to come. Programs of rules with
        filters or choices are left out: few runs have them.
    """
    rooms = {0, *map(self._engine.buckets.num_decode, responses)}
    programs = self._engine.programs(sorted(rooms))
    with Progress('compile', len(programs), 'program') as progress:
      for program in programs:
        self._engine.compile(program)
        progress.advance()

  def empty(self) -> State:
    """The transcript without a token."""
    return State(self.version)

  def extend(self, state: State, tokens: Iterable[int]) -> State:
    """The transcript with more tokens at its end; no device work.

    Raises:
      StaleState: the state belongs to other weights.
      ValueError: a token that the embedding table of the weights does not have.
    """
    self._check(state)
    tokens = tuple(tokens)
    self._check_tokens(tokens, state.length)
    pending = state.pending + tokens
    return State(state.version, state.lease, state.cached, pending)

  def last(self, state: State, count: int) -> list[int]:
    """The last `count` tokens of a transcript."""
    pending = state.pending
    tokens = pending if count <= len(pending) else state.tokens
    return list(tokens[len(tokens) - count :])

  def fits(self, state: State, room: int = 0) -> bool:
    """Whether `room` more tokens fit behind a transcript."""
    return state.length + room <= self._max_length

  def fork(self, state: State) -> State:
    """A second handle on the same transcript; shares all pages, costs nothing."""
    self._check(state)
    return state

  def prefill(self, states: Sequence[State]) -> list[State]:
    """The same transcripts with nothing pending.

    Read a shared prompt once here, then branch.

    Raises:
      StaleState: a state belongs to other weights.
      OutOfPages: a transcript does not fit into the pool alone.
      ValueError: a transcript is longer than the longest one.
    """
    for state in states:
      self._check(state)
      if not self.fits(state):
        raise ValueError(
            f'a transcript of {state.length} tokens; max_length is'
            f' {self._max_length}'
        )
    tickets = [self._scheduler.read(state) for state in states]
    return [sample.state for sample in self._scheduler.finish(tickets)]

  def sample(
      self,
      requests: Sequence[Request],
      rules: Rules | Sequence[Rules],
      between: Callable[[], None] = lambda: None,
  ) -> list[Sample]:
    """One response per request, in their order.

    A sample depends on its own state, key and rules, not on the others.

    Args:
      requests: prompts and keys.
      rules: the same for all, or one for each.
      between: called while the device works, once a dispatch; may raise.

    Raises:
      StaleState: a state belongs to other weights.
      OutOfPages: a transcript does not fit into the pool alone.
      NonFiniteLogits: the weights gave logits that are not finite.
      ValueError: a request that makes no sense, see `Scheduler.submit`.
    """
    for request in requests:
      self._check(request.state)
    each = [rules] * len(requests) if isinstance(rules, Rules) else rules
    pairs = zip(requests, each, strict=True)
    return self._scheduler.finish([self.submit(*pair) for pair in pairs], between)

  def submit(self, request: Request, rules: Rules) -> int:
    """Queues a request; `poll` returns its sample under this ticket.

    Raises:
      StaleState: the state belongs to other weights.
      ValueError: a request that makes no sense, see `Scheduler.submit`, or a
        choice with a token that cannot be drawn.
    """
    self._check(request.state)
    if rules.choices:
      self._check_choices(rules.choices)
    if not self.fits(request.state, rules.max_tokens):
      return self._scheduler.refuse(request.state)
    return self._scheduler.submit(request, rules)

  def poll(self) -> dict[int, Sample]:
    """Waits for some rows and returns their samples by ticket.

    Empty when no row came to its end yet. While the caller works on what it
    got, the device works on the other rows. The order is that of the launches,
    never of time.

    Raises:
      OutOfPages: a transcript does not fit into the pool alone.
      NonFiniteLogits: the weights gave logits that are not finite.
    """
    return self._scheduler.poll(hold=True)

  def _check(self, state: State) -> None:
    if state.version != self.version:
      raise StaleState(
          f'state of policy version {state.version}; the weights loaded are'
          f' version {self.version}'
      )

  def _check_tokens(self, tokens: Sequence[int], start: int) -> None:
    """ValueError for one that the table does not have; `start` is their place."""
    table = self._table
    if table is None or not tokens or 0 <= min(tokens) <= max(tokens) < table:
      return
    place, token = next((i, t) for i, t in enumerate(tokens) if not 0 <= t < table)
    raise ValueError(
        f'token {token} at position {start + place}: the embedding table of the'
        f' weights has {table} rows, 0 to {table - 1}; they are not of this tokenizer'
    )

  def _check_choices(self, choices: tuple[tuple[int, ...], ...]) -> None:
    spelt = build_trie(choices).edges[:, 1]
    self._check_tokens(spelt.tolist(), 0)
    if self._drawable is not None and not self._drawable[spelt].all():
      token = next(token for token in spelt if not self._drawable[token])
      raise ValueError(f'a choice has token {token}, which stands for no text')
