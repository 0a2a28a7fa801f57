"""Meta-experience: what a failure and a success at one task teach about others.

Four sections in a strict form (arXiv 2602.10224). The last two are for other
tasks, so nothing of this one may stand there.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

SECTIONS = ('failure', 'success', 'reflection', 'heuristics')
_FORM = re.compile(
    r'\s*'.join(rf'<{name}>(.*?)</{name}>' for name in SECTIONS), re.DOTALL
)
_NUMBER = re.compile(r'\d+(?:\.\d+)?')


class MetaError(ValueError):
  """A text that is no meta-experience, or one of this task alone; says why."""


@dataclasses.dataclass(frozen=True)
class Meta:
  """A meta-experience.

  Attributes:
    failure: where and how the failed attempt left the right way.
    success: what the other one did instead.
    reflection: the same in the first person, for tasks of this kind.
    heuristics: if-then rules.
  """

  failure: str
  success: str
  reflection: str
  heuristics: str


def parse(text: str) -> Meta:
  """The four sections, each once and in order. Raises MetaError."""
  for name in SECTIONS:
    if text.count(f'<{name}>') != 1 or text.count(f'</{name}>') != 1:
      raise MetaError(f'<{name}> and </{name}> must stand there once each')
  match = _FORM.fullmatch(text.strip())
  if match is None:
    raise MetaError(f'not the sections {", ".join(SECTIONS)} in order and nothing else')
  parts = [part.strip() for part in match.groups()]
  empty = [name for name, part in zip(SECTIONS, parts, strict=True) if not part]
  if empty:
    raise MetaError(f'section {empty[0]} is empty')
  return Meta(*parts)


def check_general(meta: Meta, instruction: str, actions: Iterable[str]) -> None:
  """Checks that the last two sections hold nothing of the task they come from.

  Args:
    meta: of the task.
    instruction: of the task, whose numbers may not occur.
    actions: what was done in the success; none of more than one word may occur.

  Raises:
    MetaError: names what occurs.
  """
  said = f'{meta.reflection}\n{meta.heuristics}'
  numbers = set(_NUMBER.findall(instruction)) & set(_NUMBER.findall(said))
  if numbers:
    raise MetaError(f'holds the number {min(numbers)} of this task')
  flat = ' '.join(said.lower().split())
  for action in actions:
    words = action.lower().split()
    if len(words) > 1 and ' '.join(words) in flat:
      raise MetaError(f'holds the action {action!r} of this task')
