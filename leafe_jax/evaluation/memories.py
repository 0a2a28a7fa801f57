"""What arms learnt in words, for the report: rules, playbooks, lessons, banks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

MOST_SHOWN = 40  # texts of an arm
LONGEST = 600  # characters of one


@dataclasses.dataclass(frozen=True)
class Remembered:
  """A text that stands in prompts.

  Attributes:
    text: what it says.
    about: the kind of tasks, the task or the situation that it is for.
    source: the episodes that it was drawn from.
    worth: what it proved to be worth, in the words of its memory.
    rank: the same as a number, more is better, of one memory.
    tried: how often it was shown; None: nobody counts.
  """

  text: str
  about: str
  source: str
  worth: str
  rank: float
  tried: int | None = None


@dataclasses.dataclass(frozen=True)
class Shelf:
  """The memory of one arm, as far as it is shown.

  Attributes:
    arm: its name.
    shown: the texts of most worth.
    total: how many there are.
  """

  arm: str
  shown: tuple[Remembered, ...]
  total: int


def shelves(memories: Mapping[str, Sequence[Remembered]]) -> list[Shelf]:
  """The best texts of each arm; earlier ones first among equals."""
  found = []
  for arm, texts in memories.items():
    best = sorted(texts, key=lambda text: -text.rank)[:MOST_SHOWN]
    shown = tuple(dataclasses.replace(
        text, text=short(text.text), about=short(text.about), source=short(text.source)
    ) for text in best)
    found.append(Shelf(arm, shown, len(texts)))
  return found


def short(text: str) -> str:
  return text if len(text) <= LONGEST else f'{text[:LONGEST]} ...'
