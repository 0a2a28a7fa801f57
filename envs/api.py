"""The contract between a text environment and whoever plays it.

A `World` is heavy and shared: a product index, a JVM, a set of levels. A
`TextEnv` is one light session in it. The contract is shaped like gymnasium's,
with two additions that make backtracking possible:

* `snapshot()` returns an immutable, cheap `Snapshot` of the session;
* `restore(snapshot)` brings any session of the same world to that state, as
  often as wanted, also after other branches ran in between.

An environment that cannot copy its state inherits `ReplaySnapshots`, which
replays the action log and checks every observation against its hash.

`envs.contract.EnvironmentContract` holds the test that every environment
inherits: restore o step == step, determinism, no leak between branches.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from envs import plain
from envs.teacher import Diagnosis as Diagnosis
from envs.teacher import History as History
from envs.teacher import Teacher as Teacher

SPLITS = ('train', 'validation', 'test')
# What the gate asks of `World.teacher`: the script without its mistakes.
FAULTLESS: Mapping[str, Any] = {'reflection_quality': 1.0}
_TAG = re.compile(r'<(/?)action>', re.IGNORECASE)


class EnvError(Exception):
  """Base of every error an environment raises on purpose."""


class InvalidAction(EnvError):
  """A model response that holds no action; its text becomes feedback."""


class EpisodeOver(EnvError):
  """`step` was called before `reset` or after the episode ended."""


class ReplayDiverged(EnvError):
  """A replayed prefix showed another observation than the first time."""

  def __init__(self, turn: int, expected: str, actual: str):
    super().__init__(
        f'replay diverged at turn {turn}: observation hash {actual}, '
        f'recorded {expected}; the environment is not deterministic'
    )
    self.turn = turn


class SnapshotMismatch(EnvError):
  """A snapshot was restored into a session of another world or kind."""


class BadStep(EnvError):
  """An environment answered with what it may not; names world, task and field."""


@dataclasses.dataclass(frozen=True)
class Task:
  """One thing to do.

  Attributes:
    id: unique within the world and stable across processes.
    split: one of `SPLITS`.
    instruction: what the agent is asked, as it reads it.
    payload: environment-specific data the agent never sees (JSON types only).
  """

  id: str
  split: str
  instruction: str
  payload: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Step:
  """What the environment answers to `reset` and `step`.

  Attributes:
    observation: text for the agent.
    reward: reward of this step alone.
    terminated: the task ended by its own rules (bought, solved, broken).
    truncated: the environment's own limit was reached.
    info: JSON types; 'success' (bool) and 'score' (float in [0, 1]) once
      terminated, and where the limit is reached unless they are False and 0;
      'valid' (bool) says whether the action did anything.
  """

  observation: str
  reward: float = 0.0
  terminated: bool = False
  truncated: bool = False
  info: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def success(self) -> bool:
    return bool(self.info.get('success', False))

  @property
  def valid(self) -> bool:
    return bool(self.info.get('valid', True))

  @property
  def score(self) -> float:
    return float(self.info.get('score', 0.0))


@dataclasses.dataclass(frozen=True)
class Snapshot:
  """An immutable copy of a session's state.

  Attributes:
    world: name of the world it belongs to.
    state: environment-specific and immutable; never changed after creation.
    num_bytes: its approximate size in bytes.
  """

  world: str
  state: Any
  num_bytes: int

  def check(self, world: str, kind: type = object) -> None:
    """SnapshotMismatch unless it is of that world and its state of that kind."""
    if self.world != world or not isinstance(self.state, kind):
      raise SnapshotMismatch(
          f'a snapshot of {self.world!r} was restored into a session of {world!r}'
      )


class TextEnv(abc.ABC):
  """One session. Not thread-safe; cheap to make many of."""

  @abc.abstractmethod
  def reset(self, task: Task, seed: int = 0) -> Step:
    """Starts `task`; the same task and seed give the same episode."""

  @abc.abstractmethod
  def step(self, action: str) -> Step:
    """Takes one action. Raises EpisodeOver when there is nothing to step."""

  @abc.abstractmethod
  def snapshot(self) -> Snapshot:
    """The present state; EpisodeOver before the first reset."""

  @abc.abstractmethod
  def restore(self, snapshot: Snapshot) -> None:
    """Brings this session to a snapshot of any session of the same world."""

  def admissible(self) -> Sequence[str]:
    """Responses that do something now; empty where they cannot be listed.

    For people and tools. An open place in one is written <so>.
    """
    return ()

  def close(self) -> None:
    """Frees what the session holds; may be called twice."""


class World(abc.ABC):
  """The heavy, shared part of an environment; makes sessions."""

  name: str
  places: int = 1  # threads that may move its sessions at a time, each session one

  @abc.abstractmethod
  def tasks(self, split: str) -> Sequence[Task]:
    """All tasks of a split, in a fixed order. ValueError on a bad split."""

  @abc.abstractmethod
  def session(self) -> TextEnv:
    """A fresh session."""

  def prepare(self) -> None:
    """Makes ready what sessions need. EnvError where that cannot be."""

  def instructions(self) -> str:
    """How to play: rules and action grammar, for language models."""
    return ''

  def parse_response(self, response: str) -> str:
    """The action in a model's response. Raises InvalidAction."""
    action = response.strip()
    if not action:
      raise InvalidAction('empty response')
    return action

  def task_type(self, task: Task) -> str:
    """The kind of a task, as an agent may know it: tasks of a kind share lessons."""
    del task
    return self.name

  def reference(self, task: Task) -> str:
    """What a judge of finished episodes is told is right; empty: nothing."""
    del task
    return ''

  def plans(self, history: History) -> bool:
    """Whether the agent, about to move, has only a plan to go by yet.

    Experience of planning is kept apart from that of judging what came of it.
    """
    return not history.actions

  def subtasks(self) -> Mapping[str, str]:
    """What every task is made of, name -> what is to be done; empty: not known."""
    return {}

  def completed(self, task: Task, history: History) -> Sequence[str]:
    """Names of `subtasks` that the agent completed.

    Args:
      task: of this world.
      history: of a finished episode, its last observation included; an action is ''
        where a response held none.
    """
    del task, history
    return ()

  def vocabulary(self) -> Sequence[str]:
    """Every word its texts can hold, for word-level tokenizers.

    NotImplementedError where the texts are open-ended.
    """
    raise NotImplementedError(f'{self.name} has no closed vocabulary')

  def teacher(self, **options: Any) -> Teacher:
    """A scripted teacher, which knows `FAULTLESS` too.

    NotImplementedError where there is none; ValueError or TypeError name an
    option that it does not have.
    """
    raise NotImplementedError(f'{self.name} has no scripted teacher')

  def close(self) -> None:
    """Frees the world; its sessions are dead afterwards."""


def checked(step: Any, world: World, task: Task) -> Step:
  """A session's answer in plain types, before anything believes it.

  Raises:
    BadStep: it is no Step, or a field of it is not what `Step` says; names the
      world, the task, the field and its value.
  """
  try:
    return _checked(step)
  except ValueError as error:
    raise BadStep(f'world {world.name!r}, task {task.id!r}: {error}') from error


def _checked(step: Any) -> Step:
  if not isinstance(step, Step):
    raise ValueError(f'the answer is {plain.show(step)}; it must be an envs.api.Step')
  info = plain.mapping('info', step.info)
  terminated = plain.boolean('terminated', step.terminated)
  for name in ('success', 'valid'):
    if name in info:
      plain.boolean(f'info[{name!r}]', info[name])
  if 'score' in info:
    info['score'] = plain.number("info['score']", info['score'], 0.0, 1.0)
  for name in ('success', 'score'):
    if terminated and name not in info:
      raise ValueError(f'info has no {name!r}; a step that terminates must say it')
  return Step(
      plain.text('observation', step.observation), plain.number('reward', step.reward),
      terminated, plain.boolean('truncated', step.truncated), info,
  )  # fmt: skip


def observation_hash(observation: str) -> str:
  """16 hex digits that identify an observation's text, whatever it holds."""
  text = observation.encode(errors='surrogatepass')
  return hashlib.blake2b(text, digest_size=8).hexdigest()


def task_hash(task: Task) -> str:
  """16 hex digits that identify a task: its id, what it asks, its payload."""
  parts = [task.id, task.instruction, task.payload]
  return observation_hash(json.dumps(parts, sort_keys=True, default=str))


def find_tagged(response: str) -> str | None:
  """What the last <action>...</action> of a response holds; None without one."""
  tags = list(_TAG.finditer(response))
  for opening, closing in reversed(list(zip(tags, tags[1:]))):
    if closing[1] and not opening[1]:
      return response[opening.end() : closing.start()]
  return None


def check_split(split: str) -> None:
  if split not in SPLITS:
    raise ValueError(f'unknown split {split!r}; choose from {", ".join(SPLITS)}')


class ReplaySnapshots(TextEnv):
  """Snapshots by replay, for environments that cannot copy their state.

  A subclass implements `_reset(task, seed)` and `_step(action)`. The snapshot
  is the action log with a hash per observation; restore resets, replays and
  raises ReplayDiverged at the first observation that differs.

  Attributes:
    replayed_steps: number of steps taken to restore, since construction.
  """

  world_name: str = ''

  def __init__(self) -> None:
    self._task: Task | None = None
    self._seed = 0
    self._actions: tuple[str, ...] = ()
    self._hashes: tuple[str, ...] = ()
    self.replayed_steps = 0

  @abc.abstractmethod
  def _reset(self, task: Task, seed: int) -> Step:
    """As `reset`."""

  @abc.abstractmethod
  def _step(self, action: str) -> Step:
    """As `step`."""

  def reset(self, task: Task, seed: int = 0) -> Step:
    step = self._reset(task, seed)
    self._task, self._seed, self._actions = task, seed, ()
    self._hashes = (observation_hash(step.observation),)
    return step

  def step(self, action: str) -> Step:
    step = self._step(action)
    self._actions += (action,)
    self._hashes += (observation_hash(step.observation),)
    return step

  def snapshot(self) -> Snapshot:
    if self._task is None:
      raise EpisodeOver('snapshot before the first reset')
    state = (self._task, self._seed, self._actions, self._hashes)
    num_bytes = sum(map(sys.getsizeof, self._actions + self._hashes))
    return Snapshot(self.world_name, state, num_bytes)

  def restore(self, snapshot: Snapshot) -> None:
    snapshot.check(self.world_name)
    task, seed, actions, hashes = snapshot.state
    step = self._reset(task, seed)
    self._check(1, hashes[0], step)
    for turn, action in enumerate(actions, start=2):
      step = self._step(action)
      self._check(turn, hashes[turn - 1], step)
      self.replayed_steps += 1
    self._task, self._seed = task, seed
    self._actions, self._hashes = actions, hashes

  def _check(self, turn: int, expected: str, step: Step) -> None:
    actual = observation_hash(step.observation)
    if actual != expected:
      raise ReplayDiverged(turn, expected, actual)
