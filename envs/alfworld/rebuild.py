"""Builds game files from ALFRED's trajectories, and counts what cannot be built.

Kept are the games that the script of `solver`, which knows where everything is,
wins in the real engine; its solution is their walkthrough.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import multiprocessing
import pathlib
from collections.abc import Iterator, Sequence

from envs.alfworld import alfred, files, problems, solver
from envs.alfworld.engine import Engine

KEPT, LEFT_OUT = 'kept', 'sliced or movable, as in ALFWorld'
WON, UNSOLVED = 'won at the start', 'not solved by the script'
Job = tuple[alfred.Trajectory, Sequence[alfred.Furniture], str]


def build_one(job: Job) -> tuple[str, str, str]:
  """Writes a game if it can be won; (split, task type, what became of it)."""
  trajectory, furniture, out = job
  task_type = trajectory.task.split('-')[0]
  game = alfred.build_game(trajectory, furniture)
  if game is None:
    return trajectory.split, task_type, LEFT_OUT
  engine = Engine()
  plan = solver.solve(engine, game)
  if plan is None:
    won = engine.start(game)[1].won
    return trajectory.split, task_type, WON if won else UNSOLVED
  write(dataclasses.replace(game, walkthrough=plan), trajectory, out)
  return trajectory.split, task_type, KEPT


def write(game: problems.Game, trajectory: alfred.Trajectory, out: str) -> None:
  """A game file, and beside it what AlfredTWEnv asks of traj_data.json."""
  directory = pathlib.Path(out) / game.id
  directory.mkdir(parents=True, exist_ok=True)
  data = {'origin': files.REBUILT, **game.to_file()}
  goal = game.goal
  about = {
      'origin': files.REBUILT,
      'task_type': goal.task_type,
      'task_id': trajectory.trial,
      'pddl_params': {
          'object_target': goal.obj, 'parent_target': goal.recep,
          'toggle_target': goal.toggle, 'mrecep_target': '', 'object_sliced': False,
      },
  }  # fmt: skip
  (directory / files.GAME_FILE).write_text(json.dumps(data), encoding='utf-8')
  (directory / 'traj_data.json').write_text(json.dumps(about), encoding='utf-8')


def choose(
    trajectories: Sequence[alfred.Trajectory], limit: int
) -> Iterator[alfred.Trajectory]:
  """The first `limit` (0: all) of every split and task type."""
  taken: collections.Counter[tuple[str, str]] = collections.Counter()
  for trajectory in trajectories:
    key = (trajectory.split, trajectory.task.split('-')[0])
    if not limit or (taken[key] < limit and files.parse_task(trajectory.task)):
      taken[key] += 1
      yield trajectory


def build(path: str, out: str, limit: int, workers: int) -> dict[str, dict[str, int]]:
  """Builds all, and writes `files.REBUILT_FILE`, which says so.

  Args:
    path: see `alfred.read`.
    out: directory of the games.
    limit: most games per split and task type, 0 for all.
    workers: processes.

  Returns:
    Counts of outcomes by 'split/task type'.
  """
  trajectories = alfred.read(path)
  rooms = alfred.furnish(trajectories)
  jobs = [(t, rooms[t.floor_plan], out) for t in choose(trajectories, limit)]
  found: dict[str, collections.Counter[str]] = collections.defaultdict(
      collections.Counter
  )
  # Each process has its own planner.
  with multiprocessing.get_context('spawn').Pool(workers) as pool:
    for split, task_type, outcome in pool.imap_unordered(build_one, jobs, 8):
      found[f'{split}/{task_type}'][outcome] += 1
  counts = {name: dict(found[name]) for name in sorted(found)}
  about = {'origin': files.REBUILT, 'from': 'ALFRED json_2.1.0', 'games': counts}
  directory = pathlib.Path(out)
  directory.mkdir(parents=True, exist_ok=True)
  text = json.dumps(about, indent=2)
  (directory / files.REBUILT_FILE).write_text(text, encoding='utf-8')
  return counts
