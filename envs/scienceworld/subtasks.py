"""The parts of a task of ScienceWorld, and which of them an episode came to.

The simulator keeps two lists of goals for each task: those that have to be reached in
order, of which the first is mostly to focus on the right thing, and things that help.
The parts are the same for all tasks, which differ in what stands in the lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

BEGIN, PREPARE, IDENTIFY, FINISH = 'begin', 'prepare', 'identify', 'finish'
SUBTASKS: Mapping[str, str] = {
    BEGIN: 'do a first thing that helps, such as to come to a room that matters',
    PREPARE: 'do half of the things that help: find, fetch and place what is needed',
    IDENTIFY: 'reach the first goal, which is mostly to focus on the right thing',
    FINISH: 'reach all goals',
}
_GOAL = re.compile(r'^\d+\t(true|false)\t', re.MULTILINE)
_OPTIONAL = 'Unordered and Optional'


class Goals(NamedTuple):
  """Which goals are reached: in order, and of what helps."""

  ordered: tuple[bool, ...]
  helpful: tuple[bool, ...]


def read(report: str) -> Goals:
  """The goals in the simulator's own report."""
  ordered, _, helpful = report.partition(_OPTIONAL)
  return Goals(_reached(ordered), _reached(helpful))


def _reached(text: str) -> tuple[bool, ...]:
  return tuple(word == 'true' for word in _GOAL.findall(text))


def completed(start: Goals, end: Goals) -> list[str]:
  """Names of `SUBTASKS` that were completed between two reports.

  What holds from the start is no achievement. A task without anything that helps is
  begun and prepared once its first goal is reached.
  """
  pairs = zip(start.helpful, end.helpful, strict=True)
  earned = [after for before, after in pairs if not before]
  first, whole = any(end.ordered[:1]), bool(end.ordered) and all(end.ordered)
  done = {
      BEGIN: any(earned) if earned else first,
      PREPARE: 2 * sum(earned) >= len(earned) if earned else first,
      IDENTIFY: first,
      FINISH: whole,
  }
  return [name for name in SUBTASKS if done[name]]
