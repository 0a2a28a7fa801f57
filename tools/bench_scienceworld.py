"""How fast ScienceWorld is, and whether its own solutions work in it.

  python -m tools.bench_scienceworld [--workers=1,2] [--seconds=10]
  python -m tools.bench_scienceworld --gold [--tasks=find-plant,boil]

The first plays look-arounds and restarts in one process, and one Java process,
per worker and prints actions per second; the second plays the simulator's own
solution of one test variation per task and exits with 1 unless all reach the
full score.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import sys
import time
from collections.abc import Sequence

from absl import app, flags

from envs import registry
from envs.scienceworld import env

_WORKERS = flags.DEFINE_list('workers', ['1', '2'], 'Numbers of worker processes.')
_SECONDS = flags.DEFINE_float('seconds', 10.0, 'How long each number plays.')
_GOLD = flags.DEFINE_bool('gold', False, 'Play the solutions instead.')
_TASKS = flags.DEFINE_list('tasks', [], 'Task names; empty for all of them.')

_ACTIONS = ('look around', 'teleport to kitchen', 'look around', 'inventory')
_ACTIONS_PER_EPISODE = 20


def count_actions(seconds: float) -> tuple[int, int, float]:
  """(actions, restarts, seconds spent on restarts) of one worker."""
  world = registry.make('scienceworld', task_names=('find-plant',), max_variations=4)
  tasks = world.tasks('train')
  session = world.session()
  session.reset(tasks[0])
  actions = episodes = 0
  loading = 0.0
  start = time.perf_counter()
  while time.perf_counter() - start < seconds:
    before = time.perf_counter()
    session.reset(tasks[episodes % len(tasks)])
    loading += time.perf_counter() - before
    episodes += 1
    for i in range(_ACTIONS_PER_EPISODE):
      session.step(_ACTIONS[i % len(_ACTIONS)])
      actions += 1
  world.close()
  return actions, episodes, loading


def measure(workers: int, seconds: float) -> None:
  """Prints a line for a number of workers."""
  with concurrent.futures.ProcessPoolExecutor(
      workers, mp_context=multiprocessing.get_context('spawn')
  ) as pool:
    counts = list(pool.map(count_actions, [seconds] * workers))
  actions, episodes, loading = (sum(column) for column in zip(*counts))
  stepping = (seconds * workers - loading) / actions
  print(
      f'{workers} workers: {actions / seconds:.0f} actions/s with a restart every '
      f'{_ACTIONS_PER_EPISODE}; an action {stepping * 1000:.1f} ms, '
      f'a restart {loading / episodes * 1000:.0f} ms'
  )


def play_gold(names: Sequence[str]) -> bool:
  """Plays a solution per task; whether all succeed."""
  world = env.make(task_names=tuple(names), max_variations=1)
  session = world.session()
  solved = 0
  for task in world.tasks('test'):
    start = time.perf_counter()
    path = world.gold_path(task)
    step = session.reset(task)
    for action in path:
      step = session.step(action)
      if step.terminated:
        break
    solved += step.success
    took = time.perf_counter() - start
    print(f'{task.id}: {len(path)} actions, score {step.score:.2f}, {took:.1f} s')
  total = len(world.tasks('test'))
  print(f'{solved} of {total} solved')
  world.close()
  return solved == total


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {argv[1:]}')
  if _GOLD.value:
    sys.exit(0 if play_gold(_TASKS.value) else 1)
  for workers in _WORKERS.value:
    measure(int(workers), _SECONDS.value)


if __name__ == '__main__':
  app.run(main)
