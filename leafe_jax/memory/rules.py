"""A pool of rules, and the edits that change it (arXiv 2606.27136, section 4).

An edit is one line, `OP | ids | text`:

    ADD      |      | look at the next page when no row fits
    EDIT     | 3    | the better wording
    UPVOTE   | 3    |
    DOWNVOTE | 5    |
    MERGE    | 3, 5 | one rule that says what both said

A line that cannot be read, or names a rule that is not there, changes nothing
and is logged as such. Every change of a pool is in its log, so a pool can be
audited, and rebuilt, from its log alone.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ADD, EDIT, UPVOTE, DOWNVOTE, MERGE = 'ADD', 'EDIT', 'UPVOTE', 'DOWNVOTE', 'MERGE'
OPERATIONS = (ADD, EDIT, UPVOTE, DOWNVOTE, MERGE)
# Only in logs: what follows from the pool's own limits.
PRUNE, NO_OP = 'PRUNE', 'NO-OP'

_IDS = re.compile(r'\s*\d+\s*(,\s*\d+\s*)*')


class EditError(ValueError):
  """A line that is no edit, or an edit that cannot be applied."""


@dataclasses.dataclass(frozen=True)
class Edit:
  """One operation on a pool: which rules, and the text that it brings."""

  op: str
  ids: tuple[int, ...] = ()
  text: str = ''

  def line(self) -> str:
    """The edit in the line grammar; `parse_edit` reads it back."""
    return f'{self.op} | {", ".join(map(str, self.ids))} | {self.text}'


def parse_edit(line: str) -> Edit:
  """Strict parsing of one line. EditError names what is wrong."""
  parts = [part.strip() for part in line.split('|', 2)]
  if len(parts) != 3:
    raise EditError(f'not of the form "OP | ids | text": {line!r}')
  op, ids_text, text = parts
  if op not in OPERATIONS:
    raise EditError(f'unknown operation {op!r}; choose from {", ".join(OPERATIONS)}')
  if ids_text and not _IDS.fullmatch(ids_text):
    raise EditError(f'ids are numbers with commas, not {ids_text!r}')
  ids = tuple(int(part) for part in ids_text.split(',')) if ids_text else ()
  edit = Edit(op, ids, ' '.join(text.split()))
  _check_form(edit)
  return edit


def _check_form(edit: Edit) -> None:
  wanted = {ADD: '0 ids', MERGE: '2 or more ids'}.get(edit.op, '1 id')
  distinct = len(set(edit.ids))
  fits = {ADD: not edit.ids, MERGE: distinct > 1}.get(edit.op, len(edit.ids) == 1)
  if not fits or distinct != len(edit.ids):
    raise EditError(f'{edit.op} takes {wanted}, not {list(edit.ids)}')
  if edit.op in (UPVOTE, DOWNVOTE):
    if edit.text:
      raise EditError(f'{edit.op} takes no text')
  elif not edit.text:
    raise EditError(f'{edit.op} needs a text')


@dataclasses.dataclass
class Rule:
  """One rule of a pool.

  Attributes:
    id: never given to another rule of the pool.
    text: one line.
    score: utility; votes move it.
    created_step: training step in which it came to be.
    last_used: last step in which it was in a prompt; 0: never.
    n_used: number of groups whose prompts it was in.
    provenance: trajectories that it was drawn from.
  """

  id: int
  text: str
  score: float
  created_step: int
  last_used: int = 0
  n_used: int = 0
  provenance: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Limits:
  """How a pool keeps itself small; see `config.Jerp`."""

  capacity: int
  initial_score: float
  vote_step: float
  prune_at: float


class Pool:
  """Rules of one task, or of one type of task.

  Attributes:
    rules: by id, oldest first.
    version: number of changes so far.
    log: one JSON record per edit, applied or not, and per pruned rule.
  """

  def __init__(self, limits: Limits):
    self.rules: dict[int, Rule] = {}
    self.version = 0
    self.log: list[dict[str, Any]] = []
    self._limits = limits
    self._next_id = 1

  def best(self, count: int) -> list[Rule]:
    """The rules of highest utility, older ones first among equals."""
    return sorted(self.rules.values(), key=lambda r: (-r.score, r.id))[:count]

  def note_use(self, ids: Iterable[int], step: int) -> None:
    """Books that rules were in the prompts of a group."""
    for rule in (self.rules[i] for i in ids):
      rule.last_used = step
      rule.n_used += 1

  def apply(
      self, edit: Edit, step: int, provenance: Sequence[str] = ()
  ) -> bool:
    """Changes the pool and logs it; False if it changed nothing.

    Adding a text that is there already is a vote for it.
    """
    known = self._by_text(edit.text)
    if edit.op == ADD and known is not None:
      edit = Edit(UPVOTE, (known.id,))
    try:
      self._check_ids(edit)
    except EditError as error:
      self.reject(edit.line(), str(error), step)
      return False
    changed = self._change(edit, step, provenance)
    self.version += 1
    self._record(edit.op, edit, step, provenance, changed)
    return True

  def reject(self, line: str, reason: str, step: int) -> None:
    """Logs a line that changes nothing."""
    self.log.append({'step': step, 'op': NO_OP, 'line': line, 'reason': reason})

  def prune(self, step: int) -> list[Rule]:
    """Removes rules of too little utility, then what is over the capacity."""
    limits = self._limits
    gone = [rule for rule in self.rules.values() if rule.score <= limits.prune_at]
    left = [rule for rule in self.rules.values() if rule.score > limits.prune_at]
    left.sort(key=lambda rule: (-rule.score, -rule.id))  # newer ones stay
    gone += left[limits.capacity :]
    for rule in gone:
      del self.rules[rule.id]
      self.version += 1
      self.log.append({
          'step': step, 'op': PRUNE, 'ids': [rule.id], 'score': rule.score
      })
    return gone

  def to_json(self) -> dict[str, Any]:
    """JSON types; `from_json` reads them back."""
    return {
        'version': self.version,
        'next_id': self._next_id,
        'rules': [dataclasses.asdict(rule) for rule in self.rules.values()],
        'log': list(self.log),
    }

  @classmethod
  def from_json(cls, record: Mapping[str, Any], limits: Limits) -> Pool:
    """Inverse of `to_json`."""
    pool = cls(limits)
    pool.version, pool._next_id = record['version'], record['next_id']
    pool.rules = {rule['id']: Rule(**rule) for rule in record['rules']}
    pool.log = list(record['log'])
    return pool

  def _by_text(self, text: str) -> Rule | None:
    return next((rule for rule in self.rules.values() if rule.text == text), None)

  def _check_ids(self, edit: Edit) -> None:
    _check_form(edit)
    missing = [i for i in edit.ids if i not in self.rules]
    if missing:
      raise EditError(f'no rule {missing[0]}; there are {list(self.rules)}')
    same = self._by_text(edit.text) if edit.op in (EDIT, MERGE) else None
    if same is not None and same.id not in edit.ids:
      raise EditError(f'rule {same.id} says that already')

  def _change(self, edit: Edit, step: int, provenance: Sequence[str]) -> int:
    """Applies a checked edit; the id of the rule that it made or changed."""
    if edit.op == ADD:
      return self._add(edit.text, self._limits.initial_score, step, provenance).id
    if edit.op == MERGE:
      return self._merge(edit, step, provenance).id
    rule = self.rules[edit.ids[0]]
    if edit.op == EDIT:
      rule.text = edit.text
      rule.provenance = _union(rule.provenance, provenance)
    else:
      sign = 1 if edit.op == UPVOTE else -1
      rule.score += sign * self._limits.vote_step
    return rule.id

  def _add(
      self, text: str, score: float, step: int, provenance: Iterable[str]
  ) -> Rule:
    rule = Rule(self._next_id, text, score, step, provenance=_union((), provenance))
    self.rules[rule.id] = rule
    self._next_id += 1
    return rule

  def _merge(self, edit: Edit, step: int, provenance: Sequence[str]) -> Rule:
    """One rule for several: the best of their utilities, all of their use."""
    old = [self.rules.pop(i) for i in edit.ids]
    sources = [name for rule in old for name in rule.provenance]
    rule = self._add(
        edit.text, max(rule.score for rule in old), step, [*sources, *provenance]
    )
    rule.n_used = sum(rule.n_used for rule in old)
    rule.last_used = max(rule.last_used for rule in old)
    return rule

  def _record(
      self, op: str, edit: Edit, step: int, provenance: Sequence[str], changed: int
  ) -> None:
    self.log.append({
        'step': step, 'op': op, 'ids': list(edit.ids), 'text': edit.text,
        'rule': changed, 'score': self.rules[changed].score,
        'provenance': list(provenance),
    })


def _union(names: Iterable[str], more: Iterable[str]) -> list[str]:
  return list(dict.fromkeys([*names, *more]))
