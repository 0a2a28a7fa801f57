"""Banks of experience: what was good and bad in a situation (arXiv 2605.13486).

    planning    before anything was found
    reflection  when it is to be judged whether what was found is enough

An experience knows the turn that it was drawn from and what that was worth. Recall
compares situations, never tasks: cosine of words, where the paper has embeddings of
'(situation) condition'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from jaxtyping import Float
from numpy import ndarray

PLANNING, REFLECTION, TURNS = 'planning', 'reflection', 'turns'
MOST_POINTS = 12
SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Experience:
  """What to do, or not to do, in a situation.

  Attributes:
    id: within all banks.
    good: whether it was drawn from a good turn.
    points: that the turn earned, of `MOST_POINTS`.
    situation: in which it holds.
    condition: that must hold beside.
    text: what is shown.
    source: task, episode and turn that it was drawn from.
    step: of the phase that drew it.
  """

  id: int
  good: bool
  points: int
  situation: str
  condition: str
  text: str
  source: str
  step: int

  def key(self) -> str:
    """What situations are compared with."""
    return f'({self.situation}) {self.condition}'.strip()

  def utility(self) -> float:
    """How clear the case was, in [0, 1]."""
    share = self.points / MOST_POINTS
    return share if self.good else 1 - share


class Vectors(Protocol):
  """Texts that can be compared with another one, as `envs.vectors.WordVectors`."""

  def scores(self, query: str) -> Float[ndarray, ' N']: ...
  def top(self, query: str, count: int) -> list[int]: ...


class Banks:
  """Experience by bank, in the order in which it was drawn.

  Attributes:
    banks: name -> experience.
    log: what could not be read, with the reason.

  Args:
    vectors: makes the texts of a bank comparable.
  """

  def __init__(self, vectors: Callable[[Sequence[str]], Vectors]):
    self._make_vectors = vectors
    self.banks: dict[str, list[Experience]] = {}
    self.log: list[dict[str, Any]] = []
    self._vectors: dict[str, Vectors] = {}

  def __len__(self) -> int:
    return sum(map(len, self.banks.values()))

  def add(
      self, bank: str, good: bool, points: int, situation: str, condition: str,
      text: str, source: str, step: int,
  ) -> Experience:  # fmt: skip
    """Keeps an experience; each text is one line."""
    found = Experience(
        len(self) + 1, good, points, _line(situation), _line(condition), _line(text),
        source, step,
    )
    self.banks.setdefault(bank, []).append(found)
    self._vectors.pop(bank, None)
    return found

  def reject(self, text: str, reason: str, step: int) -> None:
    """Logs what no experience was drawn from."""
    self.log.append({'step': step, 'text': text, 'reason': reason})

  def recall(
      self, bank: str, situation: str, recalled: int, shown: int,
      relevance: float = 0.0, alpha: float = 1.0,
  ) -> list[Experience]:  # fmt: skip
    """The experience for a situation, best first, no text twice.

    Args:
      bank: its name; a bank that is not there has none.
      situation: in words.
      recalled: how many of the most similar ones are looked at.
      shown: how many of these are returned.
      relevance: least similarity.
      alpha: weight of similarity against utility among those recalled.
    """
    held = self.banks.get(bank, [])
    if not held:
      return []
    if bank not in self._vectors:
      self._vectors[bank] = self._make_vectors([e.key() for e in held])
    vectors = self._vectors[bank]
    scores = vectors.scores(situation).round(9)
    near = [n for n in vectors.top(situation, recalled) if scores[n] >= relevance]
    near.sort(key=lambda n: -(alpha * scores[n] + (1 - alpha) * held[n].utility()))
    chosen = {held[n].text: held[n] for n in reversed(near)}
    return list(reversed(chosen.values()))[:shown]

  def render(self) -> str:
    """Markdown: every bank, every experience, where it came from."""
    parts = ['# Experience\n']
    for bank, held in sorted(self.banks.items()):
      parts.append(f'\n## {bank}\n\n')
      for e in held:
        parts.append(
            f'- {e.id}. **{"good" if e.good else "bad"}**, {e.points} of {MOST_POINTS} '
            f'points: {e.text}\n  - situation: {e.key()}\n  - from {e.source}\n'
        )
    return ''.join(parts) if self.banks else '# Experience\n\n(none)\n'

  def to_json(self) -> dict[str, Any]:
    """JSON types; `from_json` reads them back."""
    return {
        'schema': SCHEMA_VERSION,
        'banks': {
            bank: [dataclasses.asdict(experience) for experience in held]
            for bank, held in self.banks.items()
        },
        'log': list(self.log),
    }

  @classmethod
  def from_json(
      cls, record: Mapping[str, Any], vectors: Callable[[Sequence[str]], Vectors]
  ) -> Banks:
    """Inverse of `to_json`. ValueError on another schema version."""
    if record.get('schema') != SCHEMA_VERSION:
      raise ValueError(
          f'banks schema {record.get("schema")!r}; this code reads {SCHEMA_VERSION}'
      )
    found = cls(vectors)
    found.banks = {
        bank: [Experience(**experience) for experience in held]
        for bank, held in record['banks'].items()
    }
    found.log = list(record['log'])
    return found


def extremes(points: Sequence[int], share: float) -> tuple[list[int], list[int]]:
  """(places of the highest, places of the lowest) points, a share of all each.

  A place is in one of them at most, and equal points are on one side alone: the
  lowest ones stay below the highest ones.
  """
  count = int(share * len(points))
  order = sorted(range(len(points)), key=lambda place: (points[place], place))
  low, high = order[:count], order[len(order) - count :]
  if not count or points[low[0]] == points[high[-1]]:
    return [], []
  return (
      sorted(n for n in high if points[n] > points[low[-1]]),
      sorted(n for n in low if points[n] < points[high[0]]),
  )


def _line(text: str) -> str:
  return ' '.join(text.split())
