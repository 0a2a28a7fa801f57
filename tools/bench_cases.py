"""What `tools.bench_envs` measures: a row of `CASES` per environment.

A row says how to make the world, what to do in it and, where a package has an
interface of its own, how to play the same there. A new environment is a new row;
one whose packages are not installed is skipped with the reason.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import importlib.util
import multiprocessing
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from envs import api, registry

WALK = 20
_SCIENCEWORLD = {'task_names': ('find-plant',), 'max_variations': 4}
_SCIENCEWORLD_ACTIONS = (
    'look around', 'teleport to kitchen', 'look around', 'inventory'
)  # fmt: skip
_FEW = {'train_tasks': 4, 'validation_tasks': 1, 'test_tasks': 1}


class Reference(Protocol):
  """A package's own interface."""

  def reset(self) -> None:
    """Starts the game again."""
    ...

  def step(self, action: str) -> bool:
    """Takes an action; whether the game is over."""
    ...


@dataclasses.dataclass(frozen=True)
class Case:
  """A row.

  Attributes:
    env, options: for `registry.make`.
    actions: repeated to `WALK`; empty for a random walk over admissible ones.
    needs: modules that must be installed.
    reference: makes the package's own; None where there is none.
    reference_needs: further modules of the reference.
    extra: further figures, name to units per second, from the seconds to spend.
  """

  env: str
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  actions: Sequence[str] = ()
  needs: Sequence[str] = ()
  reference: Callable[[], Reference] | None = None
  reference_needs: Sequence[str] = ()
  extra: Callable[[float], Mapping[str, float]] | None = None

  def missing(self) -> str:
    """Why it cannot run; empty if it can."""
    if ':' not in self.env and self.env not in registry.names():
      return f'{self.env} is not registered'
    return _not_installed(self.needs)

  def missing_reference(self) -> str:
    if self.reference is None:
      return 'no interface of its own'
    return _not_installed(self.reference_needs)


def _not_installed(modules: Sequence[str]) -> str:
  missing = [name for name in modules if importlib.util.find_spec(name) is None]
  return f'not installed: {", ".join(missing)}' if missing else ''


def find_walk(case: Case, session: api.TextEnv, task: api.Task) -> list[str]:
  """`WALK` actions that do not end the episode."""
  session.reset(task)
  rng, walk = random.Random(0), []
  for number in range(100 * WALK):
    if len(walk) == WALK:
      return walk
    snapshot = session.snapshot()
    choices = case.actions or session.admissible() or ('look',)
    in_turn = bool(case.actions)
    action = choices[number % len(choices)] if in_turn else rng.choice(choices)
    action = action.replace('<words>', 'red shirt')
    step = session.step(action)
    if step.terminated or step.truncated:
      session.restore(snapshot)
    else:
      walk.append(action)
  raise ValueError(f'{case.env}: no walk of {WALK} actions that does not end')


class GymSokoban:
  """gym-sokoban (MIT) on gym 0.26, unmaintained; its smallest picture."""

  _ACTIONS = {'up': 1, 'down': 2, 'left': 3, 'right': 4}

  def __init__(self) -> None:
    module: Any = importlib.import_module('gym_sokoban.envs.sokoban_env')
    self._env = module.SokobanEnv(dim_room=(6, 6), num_boxes=1, max_steps=10**9)

  def reset(self) -> None:
    self._env.reset()

  def step(self, action: str) -> bool:
    return bool(self._env.step(self._ACTIONS[action], 'tiny_rgb_array')[2])


class PackageScienceWorld:
  """The package's ScienceWorldEnv; its step also lists all valid actions."""

  def __init__(self) -> None:
    module: Any = importlib.import_module('scienceworld')
    self._env = module.ScienceWorldEnv('', envStepLimit=10**6)

  def reset(self) -> None:
    self._env.load('find-plant', 0, 'easy')
    self._env.reset()

  def step(self, action: str) -> bool:
    return bool(self._env.step(action)[2])


class PackageTextArena:
  """The game without the adapter."""

  def __init__(self, env_id: str = '2048-v0'):
    module: Any = importlib.import_module('textarena')
    self._make = lambda: module.make(f'{env_id}-raw')
    self.reset()

  def reset(self) -> None:
    self._game = self._make()
    self._game.reset(num_players=1, seed=0)
    self._game.get_observation()

  def step(self, action: str) -> bool:
    done, _ = self._game.step(action=action)
    self._game.get_observation()
    return bool(done)


class PackageGymnasium:
  """The environment without the adapter."""

  def __init__(self) -> None:
    module: Any = importlib.import_module('gymnasium')
    self._env = module.make(
        'Taxi-v4', render_mode='ansi', disable_env_checker=True,
        max_episode_steps=10**6,
    )  # fmt: skip

  def reset(self) -> None:
    self._env.reset(seed=0)

  def step(self, action: str) -> bool:
    _, _, terminated, truncated, _ = self._env.step(int(action))
    self._env.render()
    return terminated or truncated


def rate(work: Callable[[], int], seconds: float) -> float:
  """Units of work per second; `work` does some and says how many."""
  work()
  done, start = 0, time.perf_counter()
  while (passed := time.perf_counter() - start) < seconds:
    done += work()
  return done / passed


def sokoban_engine(seconds: float) -> dict[str, float]:
  """The engine without texts: single moves, and 4096 games in a batch."""
  import numpy as np

  from envs.sokoban import batch, engine, levels

  built = levels.build(
      train_levels=200, validation_levels=0, test_levels=0, max_moves=200
  )
  starts = [level.start for level in built['train']]
  deals = batch.Batch.of([starts[i % len(starts)] for i in range(4096)])
  played, rng = deals.copy(), np.random.default_rng(0)

  def play() -> int:
    played.step(rng.integers(4, size=4096))
    if (over := np.flatnonzero(played.over)).size:
      played.replace(over, deals.take(over))
    return 4096

  def move() -> int:
    for action in range(4):
      engine.move(starts[0], action)
    return 4

  def keep() -> int:
    played.copy()
    return 1

  return {
      'engine moves/s': rate(move, seconds), 'batch steps/s': rate(play, seconds),
      'batch snapshots/s': rate(keep, seconds),
  }  # fmt: skip


def scienceworld_workers(seconds: float) -> dict[str, float]:
  """Steps with 1 and 2 processes, each with a Java of its own."""
  figures = {}
  for workers in (1, 2):
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context('spawn')
    ) as pool:
      rates = list(pool.map(_scienceworld_rate, [seconds] * workers))
    figures[f'steps/s, {workers} worker{"s" * (workers > 1)}'] = sum(rates)
  return figures


def _scienceworld_rate(seconds: float) -> float:
  world = registry.make('scienceworld', **_SCIENCEWORLD)
  session = world.session()
  session.reset(world.tasks('train')[0])

  def work() -> int:
    for action in _SCIENCEWORLD_ACTIONS:
      session.step(action)
    return len(_SCIENCEWORLD_ACTIONS)

  found = rate(work, seconds)
  world.close()
  return found


# No rows: what they cost is what a server or a package costs that somebody names.
NAMED_BY_USERS = ('openenv', 'verifiers')
CASES: Mapping[str, Case] = {
    'webshop compact': Case('webshop', needs=('nltk', 'rapidfuzz')),
    'webshop text': Case('webshop', {'view': 'text'}, needs=('nltk', 'rapidfuzz')),
    'sokoban 6x6, 1 box': Case(
        'sokoban', {'max_steps': -1}, ('up', 'left', 'down', 'right'),
        reference=GymSokoban, reference_needs=('gym', 'gym_sokoban'),
        extra=sokoban_engine,
    ),
    'sokoban 10x10, 4 boxes': Case(
        'sokoban',
        {'max_steps': -1, 'height': 10, 'width': 10, 'boxes': 4, 'max_moves': 200,
         'train_levels': 20, 'validation_levels': 0, 'test_levels': 0},
        ('up', 'left', 'down', 'right'),
    ),
    'codecontests embedded': Case(
        'codecontests', {'max_turns': 100},
        ('print first', 'print last sum', 'print largest smallest', 'no'),
    ),
    'memsearch compact': Case(
        'memsearch', {'budget': 10**6}, ('keyword town', 'vector town', 'page 1'),
        needs=('nltk',),
    ),
    'scienceworld': Case(
        'scienceworld', _SCIENCEWORLD, _SCIENCEWORLD_ACTIONS,
        needs=('scienceworld', 'py4j'), reference=PackageScienceWorld,
        extra=scienceworld_workers,
    ),
    'alfworld': Case('alfworld', actions=('look', 'inventory'), needs=('textworld',)),
    'gymnasium Taxi': Case(
        'gymnasium',
        {'env_id': 'Taxi-v4', 'observe': 'render',
         'kwargs': {'render_mode': 'ansi', 'max_episode_steps': 10**6}, **_FEW},
        ('0', '2', '1', '3'), needs=('gymnasium',), reference=PackageGymnasium,
    ),
    'textarena 2048': Case(
        'textarena', {'env_id': '2048-v0', **_FEW}, ('[up]', '[left]', '[right]'),
        needs=('textarena',), reference=PackageTextArena,
    ),
}  # fmt: skip
