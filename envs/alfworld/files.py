"""Directories of game files, as `alfworld-download` makes them.

    data_dir/{train,valid_seen,valid_unseen}/TASK/TRIAL/game.tw-pddl

TASK is 'pick_heat_then_place_in_recep-Egg-None-GarbageCan-11': task type, object,
movable receptacle, receptacle (or lamp), room. valid_seen becomes the validation
split and valid_unseen the test split. `tools/build_alfworld_games.py` writes the
same layout, and a file that says that its games are rebuilt, not the official ones.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Sequence

from envs.alfworld import problems
from envs.alfworld.problems import TASK_TYPES, Game, Goal

DIRECTORIES = {
    'train': 'train', 'validation': 'valid_seen', 'test': 'valid_unseen'
}  # fmt: skip
GAME_FILE = 'game.tw-pddl'
REBUILT_FILE = 'rebuilt.json'
REBUILT = 'ALFWorld rebuilt from ALFRED, not the official game files'
OFFICIAL = 'official game files'
# ALFWorld leaves these out: sliced things, and receptacles that move.
_LEFT_OUT = ('movable', 'Sliced')


@dataclasses.dataclass(frozen=True)
class Entry:
  """A game that is read when it is played."""

  id: str
  task_type: str
  load: Callable[[], Game] = dataclasses.field(compare=False)


def entry_of(game: Game) -> Entry:
  return Entry(game.id, game.goal.task_type, lambda: game)


def parse_task(name: str) -> Goal | None:
  """The goal that a TASK directory names; None where ALFWorld leaves it out."""
  parts = name.split('-')
  if len(parts) != 5 or parts[0] not in TASK_TYPES:
    return None
  if any(word in name for word in _LEFT_OUT):
    return None
  task_type, obj, _, recep, _ = parts
  if task_type == 'look_at_obj_in_light':
    return Goal(task_type, obj, toggle=recep)
  return Goal(task_type, obj, recep)


def find_root(data_dir: str) -> pathlib.Path:
  """Where the splits are: `data_dir`, or its only directory that has them.

  Raises:
    ValueError: no directory was given.
    FileNotFoundError: there are no splits.
  """
  if not data_dir:
    raise ValueError('game files need the option data_dir')
  top = pathlib.Path(data_dir)
  for root in (top, *sorted(top.glob('json_2.1*'))):
    if (root / DIRECTORIES['train']).is_dir():
      return root
  raise FileNotFoundError(
      f'no {", ".join(DIRECTORIES.values())} in {data_dir} or its json_2.1.*'
  )


def origin(data_dir: str) -> str:
  """`REBUILT` or `OFFICIAL`."""
  rebuilt = (find_root(data_dir) / REBUILT_FILE).exists()
  return REBUILT if rebuilt else OFFICIAL


def load(
    data_dir: str,
    task_types: Sequence[str] = (),
    train_games: int = 0,
    validation_games: int = 0,
    test_games: int = 0,
) -> dict[str, list[Entry]]:
  """Solvable games by split, in the order of their paths.

  Args:
    data_dir: see the module's docstring.
    task_types: of `problems.TASK_TYPES`; empty for all six.
    train_games, validation_games, test_games: the first so many; 0 for all.

  Raises:
    ValueError: an unknown task type, or no directory.
    FileNotFoundError: no games there.
  """
  problems.check_types(task_types)
  root = find_root(data_dir)
  limits = {
      'train': train_games, 'validation': validation_games, 'test': test_games
  }  # fmt: skip
  found = {
      split: _load_split(root / directory, tuple(task_types), limits[split])
      for split, directory in DIRECTORIES.items()
  }
  if not any(found.values()):
    raise FileNotFoundError(f'no solvable games in {root}')
  return found


def _load_split(
    directory: pathlib.Path, task_types: Sequence[str], limit: int
) -> list[Entry]:
  entries = []
  for path in sorted(directory.glob(f'*/*/{GAME_FILE}')):
    goal = parse_task(path.parent.parent.name)
    if goal is None or (task_types and goal.task_type not in task_types):
      continue
    if not _read(path).get('solvable'):
      continue
    id = '/'.join(path.parts[-4:-1])
    load = functools.partial(_load_game, path, id, goal)
    entries.append(Entry(id, goal.task_type, load))
    if len(entries) == limit:
      break
  return entries


@functools.lru_cache(maxsize=256)
def _load_game(path: pathlib.Path, id: str, goal: Goal) -> Game:
  return Game.from_file(id, _read(path), goal)


def _read(path: pathlib.Path) -> dict:
  return json.loads(path.read_text(encoding='utf-8'))
