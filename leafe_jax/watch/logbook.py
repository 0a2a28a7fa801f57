"""The end of a run's log: its last lines, and what went wrong."""

from __future__ import annotations

import os
import pathlib
import re
from typing import Any

_TAIL_BYTES = 64_000
_LINES = 40
# As absl writes them: I1126 15:09:20.559908 139707191208832 run.py:141] text
_HEAD = re.compile(
    r'([IWEF])\d{4} (\d\d:\d\d:\d\d)\.\d+ +\d+ [\w.-]+:\d+\] (.*)', re.DOTALL
)


def tail(path: pathlib.Path) -> list[dict[str, Any]]:
  """The last messages, oldest first; lines without a head belong to the one before.

  Each has `level` (I, W, E, F), `time` of the day and `text`. None if there is no log.
  """
  try:
    with path.open('rb') as file:
      file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
      text = file.read().decode('utf-8', 'replace')
  except OSError:
    return []
  found: list[dict[str, Any]] = []
  for line in text.split('\n'):
    head = _HEAD.fullmatch(line)
    if head:
      found.append({'level': head[1], 'time': head[2], 'text': head[3]})
    elif found and line.strip():
      found[-1]['text'] += f'\n{line}'
  return found[-_LINES:]
