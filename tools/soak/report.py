"""soak.json, which the next call goes on with, and the table."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from leafe_jax.files import read_object, write_atomic
from tools.soak.faults import FAULTS
from tools.soak.judge import OUTCOMES, WRONG

NOT_POSSIBLE = 'not possible'


@dataclasses.dataclass(frozen=True)
class Entry:
  """One draw.

  Attributes:
    number: of the draw.
    fault: its name.
    detail: what was done.
    outcome: one of `OUTCOMES`, or `NOT_POSSIBLE`.
    why: what is wrong, or not possible.
    seconds: that it took.
    replay: the command that makes the same draw again.
  """

  number: int
  fault: str
  detail: str
  outcome: str
  why: str
  seconds: float
  replay: str


def load(path: pathlib.Path, owner: dict) -> list[Entry]:
  """The draws of earlier calls. ValueError if they are of another config or seed."""
  if not path.exists():
    return []
  content = read_object(path)
  if content.get('owner') != owner:
    raise ValueError(
        f'{path} is of {content.get("owner")}, not of {owner}: give another --out'
    )
  return [Entry(**entry) for entry in content['draws']]


def save(path: pathlib.Path, owner: dict, entries: Sequence[Entry]) -> None:
  """Writes all draws."""
  draws = [dataclasses.asdict(entry) for entry in entries]
  write_atomic(path, json.dumps({'owner': owner, 'draws': draws}, indent=1) + '\n')


def table(entries: Sequence[Entry]) -> str:
  """A line for each kind of fault."""
  columns = (*OUTCOMES[:-1], NOT_POSSIBLE, WRONG)
  lines = [f'{"fault":<16}{"draws":>7}' + ''.join(f'{c:>14}' for c in columns)]
  for name in (*(fault.name for fault in FAULTS), 'all'):
    own = [entry for entry in entries if name in (entry.fault, 'all')]
    if own:
      counts = [sum(entry.outcome == c for entry in own) for c in columns]
      lines.append(f'{name:<16}{len(own):>7}' + ''.join(f'{c:>14}' for c in counts))
  lines += [
      f'{entry.number}: {entry.fault}, {entry.detail}: {entry.why}\n  {entry.replay}'
      for entry in entries if entry.outcome == WRONG
  ]
  return '\n'.join(lines) + '\n'
