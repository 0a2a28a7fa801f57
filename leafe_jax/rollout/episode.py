"""One episode: a policy's state and an environment session, step by step.

An episode never samples by itself: it says what to sample (`prompt`), acts on
what was sampled (`act`, `advance`), and is over at some point. Whoever drives
many episodes batches the sampling (`leafe_jax.rollout.play`).

A `Decision` owns both halves of a state before an action: the environment's
snapshot and the policy's KV pages. Branching there is taking a reference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from envs import api, boundary
from leafe_jax.rollout.advisers import Adviser, Counsel
from leafe_jax.rollout.answers import read_action, read_answer
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.outcome import Outcome, attempt
from leafe_jax.rollout.timing import Clock
from leafe_jax.sampler import Sample, Sampler, State
from leafe_jax.text import history
from leafe_jax.text.transcript import Transcript, UnknownWords
from leafe_jax.tree import Node, Turn

if TYPE_CHECKING:
  from leafe_jax.rollout.journal import Journal

# (rules, instruction, memory, turns so far, observation) -> a prompt that begins anew
Window = Callable[[str, str, str, Sequence[Turn], str], list[int]]


@dataclasses.dataclass(frozen=True)
class Player:
  """What all episodes of one policy share.

  Attributes:
    sampler: holds the weights and the KV pages.
    transcript: spells episodes in tokens.
    world: makes sessions and parses responses.
    horizon: turns per episode.
    seed: of the run.
    version: number of the policy.
    clock: times the world.
    window: spells the prompts of later turns, each of them anew; None: they are
      what the turn adds to a transcript that only grows.
    keep_every: responses between two points from which a stopped wave goes on; 0:
      it starts again.
    journal: keeps the responses of the present wave; None: nobody does.
    adviser: says what to show at each turn; None: nobody does.
  """

  sampler: Sampler
  transcript: Transcript
  world: api.World
  horizon: int
  seed: int
  version: int
  clock: Clock = dataclasses.field(default_factory=Clock)
  window: Window | None = None
  keep_every: int = 0
  journal: Journal | None = None
  adviser: Adviser | None = None

  @property
  def looks_back(self) -> bool:
    """Whether what is asked later is made of earlier turns, not of a state alone."""
    return self.window is not None or self.adviser is not None


@dataclasses.dataclass(frozen=True)
class Decision:
  """A state before action `turn`, to which an episode can go back.

  Attributes:
    turn: index of the action to be taken, from 1.
    observation: o_turn; '' where nobody reads it any more (see `Growth`).
    num_prompt: how many of the state's tokens o_turn added, all where the prompt
      begins anew.
    state: the policy after h_turn, without the response opener.
    snapshot: the environment before the action; None where nobody can go back,
      and on the processes that do not play the task.
    start: where the episode, or the one that it left, began.
    past: the turns before, from turn 1; none where nobody reads them (see
      `Player.looks_back`).
  """

  turn: int
  observation: str
  num_prompt: int
  state: State
  snapshot: api.Snapshot | None
  start: Start
  past: tuple[Turn, ...] = ()


@dataclasses.dataclass(frozen=True)
class Start:
  """Where a root begins.

  Attributes:
    task: to play.
    state: h_1 already read, shared by all roots; None: read it here.
    memory: lessons in the prompt, one a line; part of `state` if that is given.
  """

  task: api.Task
  state: State | None
  memory: str = ''


class Episode:
  """A rollout in progress; records its turns on `node`.

  What touches the environment is work for the process that plays the task (`open`,
  `act`; see `rollout.crew`); all take in what it came to (`opened`, `advance`).

  Args:
    player: policy and world.
    node: records the episode.
    origin: the root's task, or the decision at which a branch leaves another
      episode, under node.experience.
    ledger: pays.
    hint_scope, earlier_hints: see `hint_ids`.
    keep_decisions: whether one can go back to its turns.
  """

  def __init__(
      self,
      player: Player,
      node: Node,
      origin: Start | Decision,
      ledger: Ledger,
      hint_scope: str = 'turn',
      earlier_hints: Sequence[str] = (),
      keep_decisions: bool = True,
  ):
    self._player = player
    self._origin = origin
    start = origin.start if isinstance(origin, Decision) else origin
    self._task = start.task
    self._ledger = ledger
    self._keep = keep_decisions
    self._hint_scope = hint_scope
    self._earlier_hints = tuple(earlier_hints)
    self._session: api.TextEnv | None = None
    self._snapshot: api.Snapshot | None = None
    self._counsel = Counsel(player.adviser, player.transcript)
    self.node = node
    self.decisions: dict[int, Decision] = {}

  def open(self, outcome: Outcome) -> None:
    """Brings a session to the first decision."""
    self._session = session = self._player.world.session()
    if isinstance(self._origin, Start):
      task = self._task
      outcome.step = api.checked(session.reset(task), self._player.world, task)
      self._snapshot = self._take_snapshot()
      return
    assert self._origin.snapshot is not None  # taken where the task is played
    try:
      session.restore(self._origin.snapshot)
    finally:
      outcome.replayed_steps = getattr(session, 'replayed_steps', 0)

  def opened(self, outcome: Outcome) -> None:
    """Takes in what `open` came to; the episode is over if it failed."""
    origin = self._origin
    if isinstance(origin, Decision):
      self._ledger.restores += 1
      self._ledger.replayed_steps += outcome.replayed_steps
    if outcome.error is not None:
      self.node.error = outcome.error
      self._end('error')
    elif isinstance(origin, Decision):
      self._arrive(origin)
    else:
      assert outcome.step is not None
      try:
        self._arrive(self._first_decision(origin, outcome.step.observation))
      except UnknownWords as error:
        self._break(error)

  def _first_decision(self, start: Start, observation: str) -> Decision:
    player = self._player
    ids = first_prompt(player, start.task, observation, start.memory)
    state = start.state or player.sampler.extend(player.sampler.empty(), ids)
    return Decision(1, observation, len(ids), state, self._snapshot, start)

  def _take_snapshot(self) -> api.Snapshot | None:
    assert self._session is not None
    return self._session.snapshot() if self._keep else None

  def _arrive(self, decision: Decision) -> None:
    self._decision = decision
    self._counsel.renew()
    if self._keep:
      self.decisions[decision.turn] = decision

  @property
  def over(self) -> bool:
    return bool(self.node.ended_by)

  @property
  def turn(self) -> int:
    """Index of the action to be taken next (or that would be)."""
    return self._decision.turn

  @property
  def state(self) -> State:
    """The policy after h_turn."""
    return self._decision.state

  def retold(self) -> tuple[State, list[int]]:
    """(a state, what to add to it): the policy after all turns, none left out."""
    player, decision = self._player, self._decision
    if player.window is None:
      return decision.state, []
    ids = history.whole(player.transcript, decision.past)
    ids += history.after(player.transcript, decision.past[-1], decision.observation)
    return player.sampler.empty(), ids

  def consult(self) -> list[int]:
    """See `Counsel.ask`."""
    return self._counsel.ask(self._task, self._decision, self._ledger)

  def take_advice(self, sample: Sample) -> bool:
    """Takes in the answer to `consult`; False: it is none, but a response."""
    return self._counsel.take(sample, self._task, self._decision, self._ledger)

  def hint_ids(self) -> list[int]:
    """The hint block of the coming response; empty for none."""
    node, e, hints = self.node, self.node.experience, self._counsel.advice
    if e is not None and (self._hint_scope != 'turn' or self.turn == node.tau):
      hints = (*self._earlier_hints, e, *hints)
    return [i for hint in hints for i in self._player.transcript.hint(hint)]

  def prompt(self) -> State:
    """The policy's state right before the response."""
    opener = self._player.transcript.opener_ids
    return self._player.sampler.extend(self.state, [*self.hint_ids(), *opener])

  def act(self, sample: Sample, outcome: Outcome) -> None:
    """Takes the sampled action in the environment; closes it after the last."""
    player = self._player
    if sample.overlong:
      outcome.closing = self._close()
      return
    assert self._session is not None  # opened before
    said = ''
    try:
      said = read_answer(player.transcript, sample)
      said = outcome.action = read_action(player.world, said)
    except api.InvalidAction as error:
      # It costs a step; of one that was cut off nothing reaches the world.
      outcome.invalid = boundary.describe(error)
    step = api.checked(self._session.step(said), player.world, self._task)
    outcome.step = step
    self._snapshot = self._take_snapshot()
    if step.terminated or step.truncated or self.turn >= player.horizon:
      outcome.closing = self._close()

  def advance(self, sample: Sample, outcome: Outcome) -> None:
    """Takes in a response and what `act` came to; moves to the next decision."""
    if outcome.closing is not None:
      self.node.error = f'CloseError: {outcome.closing}'
    if sample.overlong:
      self._end('overlong')
      return
    turn = self._record(sample, outcome)
    if outcome.error is not None:
      self.node.error = turn.error = outcome.error
      self._end('error')
    else:
      assert outcome.step is not None
      self._follow(turn, outcome.step, sample)

  def _record(self, sample: Sample, outcome: Outcome) -> Turn:
    transcript = self._player.transcript
    turn = Turn(
        index=self.turn,
        observation=self._decision.observation,
        prompt_ids=self._player.sampler.last(self.state, self._decision.num_prompt),
        opener_ids=list(transcript.opener_ids),
        response_ids=list(sample.tokens),
        logprobs=list(sample.logprobs),
        response=transcript.text(sample.tokens),
        action=outcome.action,
        policy_version=self._player.version,
        hint_ids=self.hint_ids(),
        error=outcome.invalid,
        fresh=self._player.window is not None and self.turn > 1,
        routes=list(sample.routes),
    )
    self.node.turns.append(turn)
    self._ledger.model_calls += 1
    self._ledger.sampled_tokens += len(turn.response_ids)
    self._ledger.prompt_tokens += (
        len(turn.prompt_ids) + len(turn.hint_ids) + len(turn.opener_ids)
    )
    return turn

  def _follow(self, turn: Turn, step: api.Step, sample: Sample) -> None:
    self._ledger.env_steps += 1
    try:
      decision = self._next_decision(turn, step, sample)
    except UnknownWords as error:
      turn.error = self._break(error)
      return
    turn.reward = step.reward
    turn.valid = step.valid and turn.error is None
    self.node.final_observation = step.observation
    self.node.score = step.score
    if step.terminated or step.truncated:
      self.node.success = step.success
      self._end('terminated' if step.terminated else 'truncated')
    elif turn.index >= self._player.horizon:
      self._end('horizon')
    self._arrive(decision)

  def _break(self, error: Exception) -> str:
    """Ends the episode with an error, which is returned as it is noted."""
    self.node.error = f'{type(error).__name__}: {error}'
    self._end('error')
    return self.node.error

  def _next_decision(self, turn: Turn, step: api.Step, sample: Sample) -> Decision:
    player, start, seen = self._player, self._decision.start, step.observation
    past = (*self._decision.past, turn) if player.looks_back else ()
    if player.window is None:
      before = self._state_after(turn, sample)
      ids = history.after(player.transcript, turn, seen)
    else:
      before, rules = player.sampler.empty(), player.world.instructions()
      ids = player.window(rules, start.task.instruction, start.memory, past, seen)
    state = player.sampler.extend(before, ids)
    return Decision(
        turn.index + 1, seen, len(ids), state, self._snapshot, start, past
    )

  def _state_after(self, turn: Turn, sample: Sample) -> State:
    if not turn.hinted:
      return sample.state
    # Go on from h_tau + a'_tau without the hint: a short re-extension.
    ids = [*turn.opener_ids, *turn.response_ids]
    return self._player.sampler.extend(self.state, ids)

  def _end(self, reason: str) -> None:
    self.node.ended_by = reason
    self._ledger.episodes += 1
    self._ledger.overlong += reason == 'overlong'
    self._close()  # the log alone says what it raises of an episode cut short

  def _close(self) -> str | None:
    """Lets go of the session; what that raised."""
    session, self._session = self._session, None
    return None if session is None else attempt(session.close)[1]

  def stop(self) -> None:
    """Ends the episode where it is (a reflection asked for it)."""
    self._end('stopped')


def first_prompt(
    player: Player, task: api.Task, observation: str, memory: str = ''
) -> list[int]:
  """Token ids of h_1."""
  rules = player.world.instructions()
  return player.transcript.first(rules, task.instruction, observation, memory)


def no_memory(task: api.Task) -> str:
  """The memory of a policy without one."""
  return ''
