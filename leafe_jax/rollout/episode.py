"""One episode: a policy's state and an environment session, step by step.

An episode never samples by itself: it says what to sample (`prompt`), takes
what was sampled (`advance`), and is over at some point. Whoever drives many
episodes batches the sampling (`leafe_jax.rollout.play`).

A `Decision` owns both halves of a state before an action: the environment's
snapshot and the policy's KV pages. Branching there is taking a reference.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

from absl import logging

from envs import api
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.timing import Clock
from leafe_jax.sampler import Sample, Sampler, State
from leafe_jax.text.transcript import Transcript
from leafe_jax.tree import Node, Turn

T = TypeVar('T')


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
  """

  sampler: Sampler
  transcript: Transcript
  world: api.World
  horizon: int
  seed: int
  version: int
  clock: Clock = dataclasses.field(default_factory=Clock)


@dataclasses.dataclass(frozen=True)
class Decision:
  """A state before action `turn`, to which an episode can go back.

  Attributes:
    turn: index of the action to be taken, from 1.
    observation: o_turn.
    prompt_ids: tokens that o_turn added.
    state: the policy after h_turn, without the response opener.
    snapshot: the environment before the action.
  """

  turn: int
  observation: str
  prompt_ids: list[int]
  state: State
  snapshot: api.Snapshot


class Episode:
  """A rollout in progress; records its turns on `node`."""

  def __init__(
      self,
      player: Player,
      node: Node,
      session: api.TextEnv,
      decision: Decision,
      ledger: Ledger,
      hint_scope: str = 'turn',
      earlier_hints: Sequence[str] = (),
      keep_decisions: bool = True,
  ):
    self._player = player
    self._session = session
    self._ledger = ledger
    self._keep = keep_decisions
    self._hint_scope = hint_scope
    self._earlier_hints = tuple(earlier_hints)
    self.node = node
    self.decisions: dict[int, Decision] = {}
    self._arrive(decision)

  @classmethod
  def start(
      cls, player: Player, node: Node, task: api.Task, root: State | None,
      ledger: Ledger, **options,
  ) -> Episode | None:
    """A root episode; None, noted on the node, if the environment fails.

    Args:
      player: policy and world.
      node: records the episode.
      task: to play.
      root: h_1 already read, shared by all roots; None: read it here.
      ledger: pays.
      **options: of `Episode`.
    """
    session = player.world.session()

    def open_task() -> Decision:
      observation = player.clock.time(lambda: session.reset(task)).observation
      ids = first_prompt(player, task, observation)
      state = root or player.sampler.extend(player.sampler.empty(), ids)
      return Decision(1, observation, ids, state, session.snapshot())

    decision, error = attempt(open_task)
    if decision is None:
      return _stillborn(node, session, ledger, error)
    return cls(player, node, session, decision, ledger, **options)

  @classmethod
  def branch(
      cls, player: Player, node: Node, decision: Decision, ledger: Ledger, **options
  ) -> Episode | None:
    """An episode that leaves another one at `decision`, under node.experience.

    None, noted on the node, if the state cannot be restored.
    """
    session = player.world.session()
    restore = functools.partial(session.restore, decision.snapshot)
    _, error = attempt(lambda: player.clock.time(restore))
    ledger.restores += 1
    ledger.replayed_steps += getattr(session, 'replayed_steps', 0)
    if error is not None:
      return _stillborn(node, session, ledger, error)
    return cls(player, node, session, decision, ledger, **options)

  def _arrive(self, decision: Decision) -> None:
    self._decision = decision
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

  def hint_ids(self) -> list[int]:
    """The hint block of the coming response; empty for none."""
    node = self.node
    if node.experience is None:
      return []
    if self._hint_scope == 'turn' and self.turn != node.tau:
      return []
    hints = (*self._earlier_hints, node.experience)
    return [i for hint in hints for i in self._player.transcript.hint(hint)]

  def prompt(self) -> State:
    """The policy's state right before the response."""
    ids = [*self.hint_ids(), *self._player.transcript.opener_ids]
    return self._player.sampler.extend(self.state, ids)

  def advance(self, sample: Sample) -> None:
    """Takes a sampled response, acts, and moves to the next decision."""
    if sample.overlong:
      self._end('overlong')
      return
    turn = self._record(sample)
    step, error = attempt(lambda: self._player.clock.time(lambda: self._act(turn)))
    if step is None:
      self.node.error = turn.error = error
      self._end('error')
    else:
      self._follow(turn, step, sample)

  def _record(self, sample: Sample) -> Turn:
    transcript = self._player.transcript
    turn = Turn(
        index=self.turn,
        observation=self._decision.observation,
        prompt_ids=list(self._decision.prompt_ids),
        opener_ids=list(transcript.opener_ids),
        response_ids=list(sample.tokens),
        logprobs=list(sample.logprobs),
        response=transcript.text(sample.tokens),
        action=None,
        policy_version=self._player.version,
        hint_ids=self.hint_ids(),
    )
    self.node.turns.append(turn)
    self._ledger.model_calls += 1
    self._ledger.sampled_tokens += len(turn.response_ids)
    self._ledger.prompt_tokens += (
        len(turn.prompt_ids) + len(turn.hint_ids) + len(turn.opener_ids)
    )
    return turn

  def _act(self, turn: Turn) -> api.Step:
    try:
      turn.action = self._player.world.parse_response(turn.response)
    except api.InvalidAction as error:
      turn.error = f'InvalidAction: {error}'
      # An unintelligible action still costs a step and gets the
      # environment's own feedback.
      return self._session.step(turn.response)
    return self._session.step(turn.action)

  def _follow(self, turn: Turn, step: api.Step, sample: Sample) -> None:
    self._ledger.env_steps += 1
    turn.reward = step.reward
    turn.valid = step.valid
    self.node.final_observation = step.observation
    self.node.score = step.score
    if step.terminated or step.truncated:
      self.node.success = step.success
      self._end('terminated' if step.terminated else 'truncated')
    elif turn.index >= self._player.horizon:
      self._end('horizon')
    self._arrive(self._next_decision(turn, step, sample))

  def _next_decision(self, turn: Turn, step: api.Step, sample: Sample) -> Decision:
    player = self._player
    prompt_ids = player.transcript.next(turn.index + 1, step.observation)
    if not sample.stopped:  # cut off by the token limit: close it ourselves
      prompt_ids = [player.transcript.stop_ids[0], *prompt_ids]
    if turn.hinted:
      # Go on from h_tau + a'_tau without the hint: a short re-extension.
      before = player.sampler.extend(
          self.state, [*turn.opener_ids, *turn.response_ids]
      )
    else:
      before = sample.state
    state = player.sampler.extend(before, prompt_ids)
    return Decision(
        turn.index + 1, step.observation, prompt_ids, state, self._session.snapshot()
    )

  def _end(self, reason: str) -> None:
    self.node.ended_by = reason
    self._ledger.episodes += 1
    self._session.close()

  def stop(self) -> None:
    """Ends the episode where it is (a reflection asked for it)."""
    self._end('stopped')


def attempt(work: Callable[[], T]) -> tuple[T | None, str | None]:
  """(result, None), or (None, what went wrong): a failure becomes data.

  The one boundary between a run and whatever an environment may raise.
  """
  try:
    return work(), None
  except Exception as error:  # noqa: BLE001
    logging.warning('an episode broke: %r', error)
    return None, f'{type(error).__name__}: {error}'


def _stillborn(
    node: Node, session: api.TextEnv, ledger: Ledger, error: str | None
) -> None:
  """Notes an episode that could not begin; it counts as one."""
  node.error, node.ended_by = error, 'error'
  ledger.episodes += 1
  session.close()


def first_prompt(player: Player, task: api.Task, observation: str) -> list[int]:
  """Token ids of h_1."""
  rules = player.world.instructions()
  return player.transcript.first(rules, task.instruction, observation)
