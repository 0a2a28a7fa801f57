"""Rebuilds ALFWorld's games from ALFRED's trajectories.

  python -m tools.build_alfworld_games --alfred=FILE_OR_DIR --out=DIR
      [--limit=N] [--workers=2]

--alfred is ALFRED's json_2.1.0 directory ({train,valid_seen,valid_unseen}/TASK/
TRIAL/traj_data.json), or the same in one file, a shortened trajectory a line
(.jsonl.gz). The games are *not* the official game files, which come from the
simulator: see envs/alfworld/alfred.py for what differs. DIR/rebuilt.json, and the
field 'origin' of every game file, say so.

Kept are the games that a script, which knows where everything is, wins in the real
engine; its solution is their walkthrough. What was dropped, and why, is printed and
stands in rebuilt.json. A game takes 0.1 to 0.5 s. Layout and files are such that
the package's own AlfredTWEnv reads them too.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import multiprocessing
import pathlib
from collections.abc import Iterator, Sequence

from absl import app, flags

from envs.alfworld import alfred, files, problems, solver
from envs.alfworld.engine import Engine

_ALFRED = flags.DEFINE_string('alfred', None, 'Trajectories.', required=True)
_OUT = flags.DEFINE_string('out', None, 'Directory to make.', required=True)
_LIMIT = flags.DEFINE_integer('limit', 0, 'Most games per split and type; 0: all.')
_WORKERS = flags.DEFINE_integer('workers', 1, 'Processes.')

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
  """Builds all; counts of outcomes by 'split/task type'."""
  trajectories = alfred.read(path)
  rooms = alfred.furnish(trajectories)
  jobs = [(t, rooms[t.floor_plan], out) for t in choose(trajectories, limit)]
  counts: dict[str, collections.Counter[str]] = collections.defaultdict(
      collections.Counter
  )
  # Each process has its own planner.
  with multiprocessing.get_context('spawn').Pool(workers) as pool:
    for split, task_type, outcome in pool.imap_unordered(build_one, jobs, 8):
      counts[f'{split}/{task_type}'][outcome] += 1
  return {name: dict(counts[name]) for name in sorted(counts)}


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {argv[1:]}')
  out = pathlib.Path(_OUT.value)
  if out.exists() and any(out.iterdir()):
    raise app.UsageError(f'--out={out} is not empty')
  counts = build(_ALFRED.value, _OUT.value, _LIMIT.value, _WORKERS.value)
  about = {'origin': files.REBUILT, 'from': 'ALFRED json_2.1.0', 'games': counts}
  out.mkdir(parents=True, exist_ok=True)
  (out / files.REBUILT_FILE).write_text(json.dumps(about, indent=2), encoding='utf-8')
  print(files.REBUILT)
  for name, outcomes in counts.items():
    print(f'{name}: ' + ', '.join(f'{n} {what}' for what, n in outcomes.items()))
  kept = sum(outcomes.get(KEPT, 0) for outcomes in counts.values())
  print(f'{kept} games in {out}')


if __name__ == '__main__':
  app.run(main)
