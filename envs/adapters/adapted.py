"""What the adapters share: tasks that are seeds, sessions around a game.

An adapter says how one game of its package is started and played (`Game`); the
rest is here. A game that can be pickled is kept by pickling it: a snapshot is the
bytes, immutable, and of a size that is known. Another one is replayed.

Splits have different seeds. Whether different seeds are different games is the
package's affair: a game that is drawn from few comes in every split.
"""

from __future__ import annotations

import abc
import dataclasses
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from envs import api

SNAPSHOTS = ('copy', 'replay')
# Where the seeds of a split begin.
FIRST_SEED = {'train': 0, 'validation': 1_000_000, 'test': 2_000_000}


class UncopyableState(api.EnvError):
  """A game that cannot be pickled."""


class NoText(api.BadStep, TypeError):
  """An observation that is no text; says what to do about it."""


class Game(abc.ABC):
  """One game, one after the other.

  Attributes:
    state: all that changes while it is played.
    task: id of the task that is played, which names the environment too.
  """

  def __init__(self, max_steps: int):
    self.state: Any = None
    self.task = ''
    self._max_steps = max_steps
    self._steps, self._over = 0, True

  @abc.abstractmethod
  def _start(self, seed: int) -> str:
    """Starts the game of a seed; the first observation."""

  @abc.abstractmethod
  def _act(self, action: str) -> api.Step:
    """Takes an action; 'success' and 'score' are those of a game that ends here."""

  def admissible(self) -> Sequence[str]:
    """As `TextEnv.admissible`, of a game that is not over."""
    return ()

  def start(self, task: api.Task) -> api.Step:
    """As `TextEnv.reset`."""
    self._steps, self._over = 0, False
    self.task = task.id
    return api.Step(self._start(task.payload['seed']), info={'valid': True})

  def act(self, action: str) -> api.Step:
    """As `TextEnv.step`."""
    if self._over:
      raise api.EpisodeOver('step before the first reset or after the end')
    step = self._act(action)
    self._steps += 1
    late = 0 < self._max_steps <= self._steps
    if late and not (step.terminated or step.truncated):
      step = dataclasses.replace(step, truncated=True)
    self._over = step.terminated or step.truncated
    if self._over:
      return step
    # Whoever goes on may still lose what was won so far.
    info = {key: value for key, value in step.info.items() if key != 'success'}
    return dataclasses.replace(step, info=info)

  def choices(self) -> Sequence[str]:
    """What can be done now; empty where it cannot be listed."""
    return () if self._over else self.admissible()

  def dump(self) -> bytes:
    """Everything that `load` needs. Raises UncopyableState."""
    try:
      return pickle.dumps((self.state, self.task, self._steps, self._over))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
      raise UncopyableState(
          f"this game cannot be copied ({error}); use the option snapshots='replay'"
      ) from error

  def load(self, dumped: bytes) -> None:
    self.state, self.task, self._steps, self._over = pickle.loads(dumped)

  def close(self) -> None:
    """Frees what the game holds; may be called twice."""


class PickledSession(api.TextEnv):
  """Snapshots are the pickled game."""

  def __init__(self, world_name: str, make_game: Callable[[], Game]):
    self._name = world_name
    self._game = make_game()
    self._started = False

  def reset(self, task: api.Task, seed: int = 0) -> api.Step:
    """Starts the task's own game, so `seed` is unused."""
    del seed
    self._started = True
    return self._game.start(task)

  def step(self, action: str) -> api.Step:
    return self._game.act(action)

  def snapshot(self) -> api.Snapshot:
    if not self._started:
      raise api.EpisodeOver('snapshot before the first reset')
    dumped = self._game.dump()
    return api.Snapshot(self._name, dumped, len(dumped))

  def restore(self, snapshot: api.Snapshot) -> None:
    snapshot.check(self._name, bytes)
    self._game.load(snapshot.state)
    self._started = True

  def admissible(self) -> Sequence[str]:
    return self._game.choices()

  def close(self) -> None:
    self._game.close()


class ReplayedSession(api.ReplaySnapshots):
  """Snapshots are the log of the actions."""

  def __init__(self, world_name: str, make_game: Callable[[], Game]):
    super().__init__()
    self.world_name = world_name
    self._game = make_game()

  def _reset(self, task: api.Task, seed: int) -> api.Step:
    del seed
    return self._game.start(task)

  def _step(self, action: str) -> api.Step:
    return self._game.act(action)

  def admissible(self) -> Sequence[str]:
    return self._game.choices()

  def close(self) -> None:
    self._game.close()


class AdaptedWorld(api.World):
  """Games of another package, a task a seed."""

  def __init__(
      self,
      title: str,
      make_game: Callable[[], Game],
      settings: Sequence[Any],
      num_tasks: Mapping[str, int],
      snapshots: str = 'copy',
      rules: str = '',
  ):
    """Makes a game once, to find what is wrong with it.

    Args:
      title: of the game, shown with every task.
      make_game: makes what a session plays.
      settings: all that tells this world from others of the title.
      num_tasks: per split.
      snapshots: 'copy' or 'replay'.
      rules: how to play, for language models.

    Raises:
      ValueError: a bad number of tasks or way of snapshots.
    """
    if snapshots not in SNAPSHOTS:
      raise ValueError(
          f'unknown snapshots {snapshots!r}; choose from {", ".join(SNAPSHOTS)}'
      )
    for split, count in num_tasks.items():
      if not 0 <= count <= 1_000_000:
        raise ValueError(f'{split}_tasks is {count}; from 0 to a million')
    fingerprint = api.observation_hash(repr((*settings, snapshots)))[:8]
    self.name = f'{title}-{fingerprint}'
    self._title, self._rules = title, rules
    self._make_game = make_game
    self._session = PickledSession if snapshots == 'copy' else ReplayedSession
    self._tasks = {
        split: tuple(map(self._task, [split] * count, range(count)))
        for split, count in num_tasks.items()
    }
    make_game().close()

  def _task(self, split: str, number: int) -> api.Task:
    seed = FIRST_SEED[split] + number
    return api.Task(
        f'{self._title}-{seed}', split, f'{self._title}, game {seed}', {'seed': seed}
    )

  def tasks(self, split: str) -> Sequence[api.Task]:
    api.check_split(split)
    return self._tasks[split]

  def session(self) -> api.TextEnv:
    return self._session(self.name, self._make_game)

  def instructions(self) -> str:
    return self._rules

  def parse_response(self, response: str) -> str:
    """What the last <action>...</action> holds, else the whole response."""
    tagged = api.find_tagged(response)
    return super().parse_response(response if tagged is None else tagged)
