"""Which trackers are told of a run, by name."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Sequence

TENSORBOARD = 'tensorboard'
DEFAULT = (TENSORBOARD,)
NAMES = (TENSORBOARD, 'wandb', 'trackio')
LONGEST = 128  # of names that wandb takes
_ODD = re.compile(r'[/\\#?%:]')


@dataclasses.dataclass(frozen=True)
class Choice:
  """Which trackers are told of a run.

  Attributes:
    names: of `NAMES`.
    project: for trackers that collect runs; '' leaves it to them.
    group: what the run is one of, a study; ''.
  """

  names: Sequence[str] = DEFAULT
  project: str = ''
  group: str = ''

  def within(self, group: str) -> Choice:
    """The same for a run of a group."""
    return dataclasses.replace(self, group=group)


BOARD = Choice()


def check(names: Sequence[str], project: str = '') -> None:
  """Checks that all trackers are known and installed; imports none.

  Args:
    names: of trackers.
    project: that they are told.

  Raises:
    ValueError: one is not, or takes no such project; says what to do.
  """
  _check_project(project)
  for name in names:
    if name not in NAMES:
      known = ', '.join(NAMES)
      raise ValueError(f'--tracker={name}: no such tracker; choose from {known}')
    if name != TENSORBOARD and not _is_installed(name):
      raise ValueError(
          f"--tracker={name}: its package is not installed: pip install -e '.[{name}]'"
      )


def _check_project(project: str) -> None:
  # wandb's rules; it would say so when the run is under way, and track nothing.
  if odd := _ODD.search(project):
    raise ValueError(
        f'--tracker_project={project}: no {odd[0]!r} in the name of a project; a team '
        'goes into WANDB_ENTITY'
    )
  if len(project) > LONGEST:
    raise ValueError(
        f'--tracker_project={project}: {len(project)} characters, not above {LONGEST}'
    )


def _is_installed(package: str) -> bool:
  """Also where the working directory has a folder of that name, as wandb makes one."""
  found = importlib.util.find_spec(package)
  return found is not None and found.origin is not None
