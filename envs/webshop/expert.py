"""A scripted teacher for the compact view.

Three players in one: a greedy script (`correct`) that uses everything seen so
far, a demonstrator (`act`) that knows the buttons but hardly ever turns a page
or goes back even where it should, and a critic (`diagnose`, `advise`) that
compares a history with the script. The gap between what the demonstrator does
and what the critic says is what exploration can close. All of them read
nothing but the history's texts, through `envs.webshop.compact`.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator

from envs import api, teaching
from envs.webshop import compact, embedded

# A row of the results of a query: (query, page number, letter).
Place = tuple[str, int, str]


@dataclasses.dataclass(slots=True)
class Notes:
  """What a careful reader of a history knows, updated page by page.

  Attributes:
    request: what is wanted.
    page: the page being looked at; a refused action does not change it.
    query: words of the last search.
    number: of the last results page.
    rows: on it.
    row: the row whose item page is open, None elsewhere.
    values: options of the open item.
    chosen: options chosen on it.
    fitting: places whose row fits material and cap.
    rejected: places whose item page lacks a wanted option.
    ended: queries whose end has been seen.
  """

  request: compact.Request
  page: str = 'start'
  query: str = ''
  number: int = 0
  rows: tuple[compact.Row, ...] = ()
  row: compact.Row | None = None
  values: tuple[str, ...] = ()
  chosen: tuple[str, ...] = ()
  fitting: set[Place] = dataclasses.field(default_factory=set)
  rejected: set[Place] = dataclasses.field(default_factory=set)
  ended: set[str] = dataclasses.field(default_factory=set)

  def fits(self, row: compact.Row) -> bool:
    return row.material == self.request.material and row.price <= self.request.cap

  def missing(self) -> list[str]:
    """Wanted options that the open item does not have."""
    return [value for value in self.request.options if value not in self.values]

  def to_choose(self) -> list[str]:
    """Wanted options that the open item has and that are not chosen yet."""
    return [
        value
        for value in self.request.options
        if value in self.values and value not in self.chosen
    ]

  def open_rows(self) -> list[compact.Row]:
    """Fitting rows of the present page that are not known to be useless."""
    return [
        row
        for row in self.rows
        if (self.query, self.number, row.letter) not in self.rejected
        and self.fits(row)
    ]

  def settles(self) -> bool:
    """Whether all results are known and none will do: then take the best."""
    return self.query in self.ended and self.fitting <= self.rejected

  def read(self, action: str, observation: str) -> None:
    """Takes in what `action` led to."""
    seen = compact.parse_page(observation)
    if seen.kind == 'refused':
      return
    if seen.kind == 'chosen':
      self.chosen = seen.values
      return
    self.page, self.row, self.chosen = seen.kind, None, ()
    if seen.kind == 'results':
      self._read_results(action, seen)
    elif seen.kind == 'item':
      self._read_item(action, seen)

  def _read_results(self, action: str, seen: compact.Page) -> None:
    verb, _, words = action.partition(' ')
    if verb == 'search':
      self.query = words
    self.number, self.rows = seen.number, seen.rows
    if not seen.rows:
      self.ended.add(self.query)
    for row in seen.rows:
      if self.fits(row):
        self.fitting.add((self.query, self.number, row.letter))

  def _read_item(self, action: str, seen: compact.Page) -> None:
    self.values = seen.values
    letter = action.rpartition(' ')[2]
    self.row = next((row for row in self.rows if row.letter == letter), None)
    if self.row is not None and self.missing():
      self.rejected.add((self.query, self.number, letter))

  def choices(self) -> list[str]:
    """Sensible actions, the script's own first; never empty."""
    if self.page == 'item':
      return self._item_choices()
    if self.page != 'results' or not self.rows:
      return [compact.search_for(self.request)]
    if rows := self.open_rows():
      return [compact.click(row.letter) for row in rows]
    if not self.settles():
      at_end = self.query in self.ended and not self._more_ahead()
      return [compact.search_for(self.request) if at_end else compact.NEXT]
    rows = [row for row in self.rows if self.fits(row)] or self.rows
    return [compact.click(row.letter) for row in rows]

  def _more_ahead(self) -> bool:
    return any(
        query == self.query and number > self.number
        for query, number, _ in self.fitting - self.rejected
    )

  def _item_choices(self) -> list[str]:
    useless = self.missing() or (self.row is not None and not self.fits(self.row))
    if useless and not self.settles():
      return [compact.BACK]
    if values := self.to_choose():
      return [compact.click(value) for value in values]
    return [compact.BUY]

  def buttons(self) -> list[str]:
    """Everything that could be done here, sensible or not."""
    if self.page == 'item':
      return [*map(compact.click, self.values), compact.BACK, compact.BUY]
    if self.page != 'results' or not self.rows:
      return [compact.search_for(self.request)]
    return [*(compact.click(row.letter) for row in self.rows), compact.NEXT]

  def reason(self, action: str) -> str:
    """Words that justify `action` here."""
    if action == compact.BUY:
      return compact.ALL_CHOSEN
    if action == compact.BACK and self.page == 'item' and (lacks := self.missing()):
      return f'{compact.LACKING} {lacks[0]}'
    if action in (compact.BACK, compact.NEXT):
      return compact.NO_FIT
    if action.startswith('search'):
      return compact.NO_FIT if self.query else compact.FIRST
    if self.page == 'results':
      return compact.FITS
    return f'{compact.WANTED} {action.split()[-1]}'


class ShopTeacher(teaching.NotesTeacher[Notes]):
  """See the module's docstring.

  Attributes:
    quality: chance that the demonstrator clicks a fitting row if it sees one.
    back: chance that it leaves an item page.
    next: chance that it turns a results page.
    care: chance that it clicks a wanted option that is there.
    skip: chance that it skips an option whose wanted value is not there,
      rather than click another value.
    reflection_quality: chance that a diagnosis is the script's.
  """

  def __init__(
      self,
      quality: float = 0.9,
      back: float = 0.04,
      next: float = 0.03,
      care: float = 0.8,
      skip: float = 0.5,
      reflection_quality: float = 0.9,
  ):
    """ValueError names an option that is not a probability."""
    teaching.check_chances(
        quality=quality, back=back, next=next, care=care, skip=skip,
        reflection_quality=reflection_quality,
    )
    self.quality, self.back, self.next = quality, back, next
    self.care, self.skip = care, skip
    self.reflection_quality = reflection_quality

  def open_notes(self, history: api.History) -> Notes:
    return Notes(compact.parse_request(history.instruction))

  def is_open(self, notes: Notes) -> bool:
    """Only results pages offer other items."""
    return notes.page == 'results'

  def act(self, history: api.History, rng: random.Random) -> str:
    """What the demonstrator does."""
    notes = self.read(history)
    if notes.page == 'item':
      return self._act_on_item(notes, rng)
    if notes.page == 'results' and notes.rows:
      return self._act_on_results(notes, rng)
    return compact.search_for(notes.request)

  def _act_on_results(self, notes: Notes, rng: random.Random) -> str:
    if rng.random() < self.next:
      return compact.NEXT
    rows = notes.open_rows()
    if not rows or rng.random() >= self.quality:
      rows = notes.rows
    return compact.click(rng.choice(rows).letter)

  def _act_on_item(self, notes: Notes, rng: random.Random) -> str:
    if rng.random() < self.back:
      return compact.BACK
    for value, others in self._stages(notes):
      if value in notes.values and rng.random() < self.care:
        return compact.click(value)
      if others and rng.random() >= self.skip:
        return compact.click(rng.choice(others))
    return compact.BUY

  def _stages(self, notes: Notes) -> Iterator[tuple[str, list[str]]]:
    """(wanted value, other values) of the options still to come, in order."""
    kinds = [_kind(value) for value in notes.request.options]
    done = max((kinds.index(_kind(value)) for value in notes.chosen), default=-1)
    for value, kind in list(zip(notes.request.options, kinds, strict=True))[done + 1 :]:
      yield value, [v for v in notes.values if _kind(v) == kind and v != value]


def _kind(value: str) -> str:
  return 'size' if value in embedded.SIZES else 'color'
