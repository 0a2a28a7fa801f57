"""The playbook of ACE: bullets that grow by deltas, never rewritten as a whole.

A bullet is a line `[sec-00001] helpful=2 harmful=0 :: text`. A delta names an
operation and what it works on; `Playbook.merge` applies deltas one by one,
without a model (arXiv 2510.04618, section 3):

    ADD     a new bullet; near-duplicates of an old one count as helpful instead
    UPDATE  another text for a bullet
    REMOVE  a bullet that misleads
    MERGE   one bullet for several, their counters added up
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rapidfuzz import fuzz

ADD, UPDATE, REMOVE, MERGE = 'ADD', 'UPDATE', 'REMOVE', 'MERGE'
OPERATIONS = (ADD, UPDATE, REMOVE, MERGE)
HELPFUL, HARMFUL, NEUTRAL = 'helpful', 'harmful', 'neutral'
SCHEMA_VERSION = 1

_SECTION = re.compile(r'[a-z][a-z0-9_]*')


class DeltaError(ValueError):
  """A delta that is not one, or that cannot be applied."""


@dataclasses.dataclass(frozen=True)
class Delta:
  """One change.

  Attributes:
    op: one of `OPERATIONS`.
    section: of a new bullet.
    ids: bullets that it works on.
    text: that it brings.
  """

  op: str
  section: str = ''
  ids: tuple[str, ...] = ()
  text: str = ''

  def __post_init__(self) -> None:
    if self.op not in OPERATIONS:
      raise DeltaError(
          f'unknown operation {self.op!r}; choose from {", ".join(OPERATIONS)}'
      )
    if self.op in (ADD, MERGE) and not _SECTION.fullmatch(self.section):
      raise DeltaError(f'{self.op} needs a section such as "strategies"')
    wanted = {ADD: (0, 0), MERGE: (2, None)}.get(self.op, (1, 1))
    count = len(set(self.ids))
    if count < wanted[0] or (wanted[1] is not None and count > wanted[1]):
      raise DeltaError(f'{self.op} cannot take the bullets {list(self.ids)}')
    if (self.op == REMOVE) == bool(self.text.strip()):
      raise DeltaError(
          f'{self.op} takes no text' if self.text else f'{self.op} needs a text'
      )


@dataclasses.dataclass
class Bullet:
  """One lesson with its counters."""

  id: str
  section: str
  text: str
  helpful: int = 0
  harmful: int = 0

  def line(self) -> str:
    return f'[{self.id}] helpful={self.helpful} harmful={self.harmful} :: {self.text}'


class Playbook:
  """Bullets by id, in the order in which they were added.

  Args:
    duplicate: similarity in [0, 1] from which two texts are one lesson (of
      their sorted words; the paper compares embeddings).
  """

  def __init__(self, duplicate: float = 0.9):
    self.bullets: dict[str, Bullet] = {}
    self.log: list[dict[str, Any]] = []
    self._duplicate = duplicate
    self._next = 1

  def merge(self, deltas: Iterable[Delta], step: int) -> int:
    """Applies deltas in order; returns how many changed something.

    One that cannot be applied changes nothing and is logged with the reason.
    """
    applied = 0
    for delta in deltas:
      try:
        self._apply(delta)
      except DeltaError as error:
        self.reject(delta.text or ', '.join(delta.ids), str(error), step)
      else:
        applied += 1
        record = {**dataclasses.asdict(delta), 'ids': list(delta.ids)}
        self.log.append({'step': step, **record})
    return applied

  def reject(self, text: str, reason: str, step: int) -> None:
    """Logs what changes nothing."""
    self.log.append({'step': step, 'op': 'NO-OP', 'text': text, 'reason': reason})

  def tag(self, ids: Iterable[str], verdict: str) -> None:
    """Counts bullets as helpful or harmful; unknown ids are passed over."""
    for bullet in (self.bullets[i] for i in ids if i in self.bullets):
      bullet.helpful += verdict == HELPFUL
      bullet.harmful += verdict == HARMFUL

  def best(self, count: int) -> list[Bullet]:
    """The most helpful bullets on balance, older ones first among equals."""
    ranked = sorted(self.bullets.values(), key=lambda b: b.harmful - b.helpful)
    return ranked[:count]

  def trim(self, capacity: int, step: int) -> list[Bullet]:
    """Removes what is over the capacity, the least helpful and oldest first."""
    order = sorted(
        self.bullets.values(), key=lambda b: (b.helpful - b.harmful, b.id)
    )
    gone = order[: max(0, len(order) - capacity)]
    for bullet in gone:
      del self.bullets[bullet.id]
      self.log.append({'step': step, 'op': 'TRIM', 'ids': [bullet.id]})
    return gone

  def _apply(self, delta: Delta) -> None:
    missing = [i for i in delta.ids if i not in self.bullets]
    if missing:
      raise DeltaError(f'no bullet {missing[0]!r}')
    text = ' '.join(delta.text.split())
    if delta.op == REMOVE:
      del self.bullets[delta.ids[0]]
    elif delta.op == UPDATE:
      self.bullets[delta.ids[0]].text = text
    elif delta.op == ADD:
      known = self.similar(text)
      if known is None:
        self._add(delta.section, text)
      else:
        known.helpful += 1
    else:
      old = [self.bullets.pop(i) for i in dict.fromkeys(delta.ids)]
      bullet = self._add(delta.section, text)
      bullet.helpful = sum(b.helpful for b in old)
      bullet.harmful = sum(b.harmful for b in old)

  def similar(self, text: str) -> Bullet | None:
    """The first bullet that says the same, in the sense of `duplicate`."""
    return next(
        (
            bullet
            for bullet in self.bullets.values()
            if fuzz.token_sort_ratio(bullet.text, text) >= 100 * self._duplicate
        ),
        None,
    )

  def _add(self, section: str, text: str) -> Bullet:
    bullet = Bullet(f'{section[:3]}-{self._next:05d}', section, text)
    self.bullets[bullet.id] = bullet
    self._next += 1
    return bullet

  def render(self) -> str:
    """Markdown: bullets by section."""
    sections: dict[str, list[Bullet]] = {}
    for bullet in self.bullets.values():
      sections.setdefault(bullet.section, []).append(bullet)
    parts = [
        f'## {section}\n\n' + ''.join(f'- {bullet.line()}\n' for bullet in bullets)
        for section, bullets in sections.items()
    ]
    return '# Playbook\n\n' + ('\n'.join(parts) or '(empty)\n')

  def to_json(self) -> dict[str, Any]:
    """JSON types; `from_json` reads them back."""
    return {
        'schema': SCHEMA_VERSION,
        'duplicate': self._duplicate,
        'next': self._next,
        'bullets': [dataclasses.asdict(bullet) for bullet in self.bullets.values()],
        'log': list(self.log),
    }

  @classmethod
  def from_json(cls, record: Mapping[str, Any]) -> Playbook:
    """Inverse of `to_json`. ValueError on another schema version."""
    if record.get('schema') != SCHEMA_VERSION:
      raise ValueError(
          f'playbook schema {record.get("schema")!r}; this code reads {SCHEMA_VERSION}'
      )
    book = cls(record['duplicate'])
    book._next = record['next']
    book.bullets = {b['id']: Bullet(**b) for b in record['bullets']}
    book.log = list(record['log'])
    return book


def parse_deltas(records: Sequence[Any]) -> tuple[list[Delta], list[str]]:
  """(deltas, what was wrong with the rest) of a curator's JSON list.

  A record has `op` (or `type`), `section`, `ids` (or `id`) and `text` (or
  `content`); other keys are passed over.
  """
  deltas: list[Delta] = []
  wrong: list[str] = []
  for record in records:
    try:
      deltas.append(_parse_delta(record))
    except DeltaError as error:
      wrong.append(f'{error}: {record!r}')
  return deltas, wrong


def _parse_delta(record: Any) -> Delta:
  if not isinstance(record, Mapping):
    raise DeltaError('not an object')
  ids = record.get('ids', record.get('id', ()))
  ids = (ids,) if isinstance(ids, str) else tuple(map(str, ids))
  return Delta(
      str(record.get('op', record.get('type', ''))).upper(),
      str(record.get('section', '')).lower(), ids,
      str(record.get('text', record.get('content', ''))),
  )
