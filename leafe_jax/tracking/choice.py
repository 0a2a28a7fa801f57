"""Which trackers are told of a run, by name."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence

TENSORBOARD = 'tensorboard'
DEFAULT = (TENSORBOARD,)
NAMES = (TENSORBOARD, 'wandb', 'trackio')


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


def check(names: Sequence[str]) -> None:
  """Checks that all trackers are known and installed; imports none.

  Raises:
    ValueError: one is not; says what to do.
  """
  for name in names:
    if name not in NAMES:
      known = ', '.join(NAMES)
      raise ValueError(f'--tracker={name}: no such tracker; choose from {known}')
    if name != TENSORBOARD and not _is_installed(name):
      raise ValueError(
          f"--tracker={name}: its package is not installed: pip install -e '.[{name}]'"
      )


def _is_installed(package: str) -> bool:
  """Also where the working directory has a folder of that name, as wandb makes one."""
  found = importlib.util.find_spec(package)
  return found is not None and found.origin is not None
