"""What there is to do: a task name and a variation of it.

The splits are the package's own. Variations of a task differ in the layout of
rooms, in objects and in what is asked for, but may share their description; so
the text of a task names the variation, and the description, which only a loaded
level has, opens the first observation.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from envs import api
from envs.scienceworld.simulator import Game, Level, Simulator

FIND_TASKS = (
    'find-living-thing', 'find-plant', 'find-animal', 'find-non-living-thing',
)  # fmt: skip
SIMPLIFICATIONS = (
    'easy', 'teleportAction', 'openDoors', 'openContainers',
    'selfWateringFlowerPots', 'noElectricalAction',
)  # fmt: skip
# What it takes away, and what names of tasks that need it hold.
_NOT_ELECTRICAL, _ELECTRICAL = 'noElectricalAction', ('power-component', 'conductivity')
_INSTRUCTION = re.compile(r'(?P<name>[\w-]+), variation (?P<variation>\d+)')


def known_names() -> tuple[str, ...]:
  """The 30 task names, sorted; needs the package but no Java."""
  constants: Any = importlib.import_module('scienceworld.constants')
  return tuple(sorted(constants.ID2TASK.values()))


def check_names(names: Sequence[str], known: Sequence[str]) -> None:
  """ValueError names the first unknown one and the choices."""
  for name in names:
    if name not in known:
      raise ValueError(f'unknown task {name!r}; choose from {", ".join(known)}')


def check_simplification(text: str, names: Sequence[str]) -> None:
  """Comma-separated, no spaces; empty for none.

  Raises:
    ValueError: an unknown one, or one without which a task cannot be done; the
      package refuses these too.
  """
  given = [*filter(None, text.split(','))]
  for name in given:
    if name not in SIMPLIFICATIONS:
      raise ValueError(
          f'unknown simplification {name!r}; choose from {", ".join(SIMPLIFICATIONS)}'
      )
  electrical = [name for name in names if any(part in name for part in _ELECTRICAL)]
  if _NOT_ELECTRICAL in given and electrical:
    raise ValueError(
        f'simplification={text!r}: without electrical actions nobody can do '
        f'{", ".join(electrical)}; leave {_NOT_ELECTRICAL} out, or name other '
        "tasks in task_names ('easy' keeps these actions where they are needed)"
    )


def load(
    simulator: Simulator,
    names: Sequence[str],
    simplification: str,
    max_variations: int,
) -> Mapping[str, Sequence[api.Task]]:
  """Tasks by split; variations evenly spread where there are too many."""
  found: dict[str, list[api.Task]] = {split: [] for split in api.SPLITS}
  game = Game(simulator)
  for name in names:
    splits = game.variations(Level(name, 0, simplification))
    for split, variations in zip(api.SPLITS, splits, strict=True):
      found[split] += [
          task_of(name, variation, split)
          for variation in spread(variations, max_variations)
      ]
  game.close()
  return {split: tuple(tasks) for split, tasks in found.items()}


def spread(variations: Sequence[int], limit: int) -> list[int]:
  """At most `limit` of them (0: all), evenly spaced: neighbours are alike."""
  count = len(variations)
  if not 0 < limit < count:
    return list(variations)
  return [variations[i * count // limit] for i in range(limit)]


def task_of(name: str, variation: int, split: str) -> api.Task:
  return api.Task(
      id=f'scienceworld-{name}-{variation}',
      split=split,
      instruction=f'{name}, variation {variation}',
      payload={'name': name, 'variation': variation},
  )


def read_instruction(text: str) -> tuple[str, int]:
  """(name, variation) of a task's text. ValueError on others."""
  found = _INSTRUCTION.fullmatch(text)
  if found is None:
    raise ValueError(f'not a task of scienceworld: {text[:80]!r}')
  return found['name'], int(found['variation'])


def level_of(task: api.Task, simplification: str) -> Level:
  """Inverse of `task_of`."""
  return Level(task.payload['name'], task.payload['variation'], simplification)
