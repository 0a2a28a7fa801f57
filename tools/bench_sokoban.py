"""Measures Sokoban: steps, batch steps, snapshots and restores.

  python -m tools.bench_sokoban --size=10 --boxes=4 --games=4096

prints a line per figure. All of it runs in one process on one core.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags

from envs import registry
from envs.sokoban import batch, engine, levels

_SIZE = flags.DEFINE_integer('size', 6, 'Height and width of the rooms.')
_BOXES = flags.DEFINE_integer('boxes', 1, 'Boxes per room.')
_GAMES = flags.DEFINE_integer('games', 4096, 'Games of the batch.')
_SECONDS = flags.DEFINE_float('seconds', 1.0, 'Time spent on each figure.')


def measure(work: Callable[[], int], seconds: float) -> float:
  """Units of work per second; `work` does some and says how many."""
  work()
  done, start = 0, time.perf_counter()
  while (passed := time.perf_counter() - start) < seconds:
    done += work()
  return done / passed


def session_figures(options: dict[str, int], seconds: float) -> dict[str, float]:
  """Rates of the session API, observations included."""
  world = registry.make('sokoban', view='compact', max_steps=-1, **options)
  session = world.session()
  tasks, rng = world.tasks('train'), random.Random(0)

  def play() -> int:
    session.reset(rng.choice(tasks))
    for count in range(1, 101):
      if session.step(rng.choice(engine.ACTIONS)).terminated:
        return count
    return 100

  def keep() -> int:
    for _ in range(1000):
      session.snapshot()
    return 1000

  def bring_back() -> int:
    for _ in range(1000):
      session.restore(snapshot)
    return 1000

  steps = measure(play, seconds)
  session.reset(tasks[0])
  snapshot = session.snapshot()
  return {
      'session steps/s': steps,
      'snapshot us': 1e6 / measure(keep, seconds),
      'restore us': 1e6 / measure(bring_back, seconds),
      'snapshot bytes': snapshot.num_bytes,
  }


def batch_figures(
    options: dict[str, int], games: int, seconds: float
) -> dict[str, float]:
  """Rates of the engine without texts; solved games are dealt anew."""
  starts = [level.start for level in levels.build(**options)['train']]
  deals = batch.Batch.of([starts[i % len(starts)] for i in range(games)])
  played, rng = deals.copy(), np.random.default_rng(0)

  def play() -> int:
    played.step(rng.integers(4, size=games))
    if (over := np.flatnonzero(played.over)).size:
      played.replace(over, deals.take(over))
    return games

  def keep() -> int:
    played.copy()
    return 1

  state = starts[0]

  def move() -> int:
    for action in range(4):
      engine.move(state, action)
    return 4

  return {
      'engine moves/s': measure(move, seconds),
      'batch steps/s': measure(play, seconds),
      'batch snapshot us': 1e6 / measure(keep, seconds),
  }


def main(argv: list[str]) -> None:
  del argv
  options = {
      'height': _SIZE.value, 'width': _SIZE.value, 'boxes': _BOXES.value,
      'max_moves': 200, 'train_levels': 200, 'validation_levels': 0,
      'test_levels': 0,
  }  # fmt: skip
  figures = session_figures(options, _SECONDS.value)
  figures |= batch_figures(options, _GAMES.value, _SECONDS.value)
  for name, value in figures.items():
    print(f'{name:20} {value:12,.2f}')


if __name__ == '__main__':
  app.run(main)
