"""A scripted teacher for the text views, in sentences.

Three players in one, as in `envs.webshop.expert`. Here a results page shows no
more than titles and prices, an item page its options, and what it is made of
stands among its features: the script looks for a price, then for the options,
then at the features, and goes back where something is missing. The demonstrator
hardly ever turns a page, goes back or looks at the features. All of them read
nothing but the history's texts, through `envs.webshop.storefront`.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator

from envs import api, teaching
from envs.webshop import storefront as front
from envs.webshop.storefront import Page, Request, Row


@dataclasses.dataclass(slots=True)
class Notes:
  """What a careful reader of a history knows, updated page by page.

  Attributes:
    request: what is wanted.
    page: the page being looked at.
    results: the last results page.
    item: the item page that is open, or above the sub page that is.
    asin: of that item.
    chosen: options chosen on it.
    unfit: why, for products that will not do.
    made: asin -> whether its features name the wanted material.
    ended: whether the end of the results has been seen.
  """

  request: Request
  page: Page = Page('search')
  results: Page = Page('search')
  item: Page = Page('item')
  asin: str = ''
  chosen: tuple[str, ...] = ()
  unfit: dict[str, str] = dataclasses.field(default_factory=dict)
  made: dict[str, bool] = dataclasses.field(default_factory=dict)
  ended: bool = False

  def read(self, action: str, observation: str) -> None:
    """Takes in what `action` led to."""
    before, self.page = self.page, front.read_page(observation, self.request.names)
    button = action.partition('[')[2].removesuffix(']')
    if self.page.kind == 'results':
      self.results, self.asin, self.chosen = self.page, '', ()
      self.ended |= self.page.last
    elif self.page.kind == 'item':
      self._read_item(before, button)
    elif self.page.kind == 'sub' and button.lower() == 'features':
      self._read_features()
    elif self.page.kind == 'search':
      self.asin, self.chosen = '', ()

  def _read_item(self, before: Page, button: str) -> None:
    self.item = self.page
    if before.kind == 'results':
      self.asin, self.chosen = button.upper(), ()
    value = button.lower()
    if before.kind == 'item' and value in map(str.lower, self.item.values):
      kept = [v for v in self.chosen if self._group(v) != self._group(value)]
      self.chosen = (*kept, value)
    if self.missing():
      self.unfit[self.asin] = f'it has no {self.missing()[0]}'
    elif self.item.price > self.request.cap:
      self.unfit[self.asin] = f'it costs ${self.item.price:g}'

  def _group(self, value: str) -> int:
    groups = (values for _, values in self.item.groups)
    return next((i for i, v in enumerate(groups) if value in map(str.lower, v)), -1)

  def _read_features(self) -> None:
    fits = self.request.material in self.page.text
    self.made[self.asin] = fits
    if not fits:
      self.unfit[self.asin] = f'it is not made of {self.request.material}'

  def missing(self) -> list[str]:
    """Wanted options that the open item does not have."""
    there = {value.lower() for value in self.item.values}
    return [value for value in self.request.options if value.lower() not in there]

  def to_choose(self) -> list[str]:
    """Wanted options, as the item writes them, that are not chosen yet."""
    wanted = {value.lower() for value in self.request.options}
    return [
        value for value in self.item.values
        if value.lower() in wanted and value.lower() not in self.chosen
    ]

  def affordable(self, row: Row) -> bool:
    return row.price <= self.request.cap

  def open_rows(self) -> list[Row]:
    """Rows of the present page that may fit, the likeliest first."""
    rows = [
        row for row in self.page.rows
        if self.affordable(row) and row.asin not in self.unfit
    ]
    return sorted(rows, key=self._overlap, reverse=True)

  def _overlap(self, row: Row) -> int:
    wanted = set(self.request.query.lower().split())
    return len(wanted & set(row.title.lower().split()))

  def unsure(self) -> bool:
    """Whether the open item's material is wanted and not known."""
    return bool(self.request.material) and self.asin not in self.made

  def choices(self) -> list[str]:
    """Sensible actions, the script's own first; never empty."""
    match self.page.kind:
      case 'item':
        return self._item_choices()
      case 'sub':
        return [front.PREVIOUS]
      case 'results' if self.page.rows:
        return self._results_choices()
    return [search(self.request)]

  def _results_choices(self) -> list[str]:
    if rows := self.open_rows():
      # As good as each other, unless their titles say more.
      best = [row for row in rows if self._overlap(row) == self._overlap(rows[0])]
      return [click(row.asin) for row in best]
    if not self.page.last:
      return [front.NEXT]
    rows = [row for row in self.page.rows if self.affordable(row)] or self.page.rows
    return [click(row.asin) for row in rows]

  def _item_choices(self) -> list[str]:
    if self.asin in self.unfit and not self.ended:
      return [front.PREVIOUS]
    if self.unsure() and not self.ended:
      return [front.FEATURES]
    if values := self.to_choose():
      return [click(value) for value in values]
    return [front.BUY]

  def buttons(self) -> list[str]:
    """Everything that could be done here, sensible or not."""
    match self.page.kind:
      case 'item':
        values = map(click, self.page.values)
        return [*values, front.FEATURES, front.PREVIOUS, front.BUY]
      case 'sub':
        return [front.PREVIOUS]
      case 'results' if self.page.rows:
        return [*(click(row.asin) for row in self.page.rows), front.NEXT]
    return [search(self.request)]

  def reason(self, action: str) -> str:
    """A sentence that leads to `action` here."""
    if action.startswith('search['):
      again = 'again ' if self.results.kind == 'results' else ''
      return f'I search {again}for {self.request.query}.'
    match self.page.kind:
      case 'results':
        return self._reason_on_results(action)
      case 'item':
        return self._reason_on_item(action)
      case 'sub':
        return self._reason_on_features()
    return f'I try {action}.'

  def _reason_on_results(self, action: str) -> str:
    cap = self.request.cap
    limit = '' if cap == front.NO_CAP else f' within ${cap:g}'
    if action == front.NEXT:
      return f'Nothing new{limit} on page {self.page.number}.'
    row = next((row for row in self.page.rows if click(row.asin) == action), None)
    if row is None:
      return f'I leave page {self.page.number}.'
    if self.affordable(row):
      return f'{row.asin} costs ${row.price:g},{limit or " which is fine"}.'
    return f'{row.asin} costs ${row.price:g}.'

  def _reason_on_item(self, action: str) -> str:
    if action == front.FEATURES:
      return f'Is it made of {self.request.material or "the right thing"}?'
    if action == front.PREVIOUS:
      why = self.unfit.get(self.asin)
      return f'I go back: {why}.' if why else 'I look for another one.'
    if action == front.BUY:
      chosen = ' and '.join(self.chosen)
      return f'{chosen} chosen, I buy it.' if chosen else 'I buy it.'
    value = action.partition('[')[2].removesuffix(']')
    if value in self.to_choose():
      return f'The request says {value}.'
    lacks = [v for v in self.missing() if v != value]
    return f'There is no {lacks[0]}, so {value}.' if lacks else f'I take {value}.'

  def _reason_on_features(self) -> str:
    if self.asin not in self.made:
      return 'I have read this.'
    made = 'is' if self.made[self.asin] else 'is not'
    return f'It {made} made of {self.request.material}.'


def search(request: Request) -> str:
  """The action that searches for a request."""
  return f'search[{request.query}]'


def click(text: str) -> str:
  """The action that presses what reads so."""
  return f'click[{text}]'


class TextShopTeacher(teaching.SpokenTeacher[Notes]):
  """See the module's docstring.

  Attributes:
    quality: chance that the demonstrator opens a product within the cap if it
      sees one.
    look: chance that it looks at the features where the material matters.
    back: chance that it leaves an item page that will not do.
    next: chance that it turns a results page.
    care: chance that it clicks a wanted option that is there.
    skip: chance that it skips an option whose wanted value is not there,
      rather than click another value.
    reflection_quality: chance that a diagnosis is the script's.
  """

  def __init__(
      self,
      quality: float = 0.9,
      look: float = 0.1,
      back: float = 0.1,
      next: float = 0.05,
      care: float = 0.9,
      skip: float = 0.5,
      reflection_quality: float = 0.9,
  ):
    """ValueError names an option that is not a probability."""
    teaching.check_chances(
        quality=quality, look=look, back=back, next=next, care=care, skip=skip,
        reflection_quality=reflection_quality,
    )
    self.quality, self.look, self.back, self.next = quality, look, back, next
    self.care, self.skip = care, skip
    self.reflection_quality = reflection_quality

  def open_notes(self, history: api.History) -> Notes:
    return Notes(front.read_request(history.instruction))

  def is_open(self, notes: Notes) -> bool:
    """Only results pages offer other items."""
    return notes.page.kind == 'results'

  def act(self, history: api.History, rng: random.Random) -> str:
    """What the demonstrator does."""
    notes = self.read(history)
    if notes.page.kind == 'item':
      return self._act_on_item(notes, rng)
    if notes.page.kind == 'results' and notes.page.rows:
      return self._act_on_results(notes, rng)
    return notes.choices()[0]

  def _act_on_results(self, notes: Notes, rng: random.Random) -> str:
    rows = notes.open_rows()
    if not notes.page.last and rng.random() < (self.next if rows else self.back):
      return front.NEXT
    if rows and rng.random() < self.quality:
      best = notes.choices()
      return rng.choice(best)
    return click(rng.choice(notes.page.rows).asin)

  def _act_on_item(self, notes: Notes, rng: random.Random) -> str:
    if notes.asin in notes.unfit and rng.random() < self.back:
      return front.PREVIOUS
    if not notes.chosen and notes.unsure() and rng.random() < self.look:
      return front.FEATURES
    for wanted, others in self._stages(notes):
      if wanted and rng.random() < self.care:
        return click(wanted)
      if others and rng.random() >= self.skip:
        return click(rng.choice(others))
    return front.BUY

  def _stages(self, notes: Notes) -> Iterator[tuple[str, list[str]]]:
    """(the wanted value or '', other values) of the groups still to come."""
    groups = [values for _, values in notes.item.groups]
    done = max(
        (i for i, values in enumerate(groups)
         if any(value.lower() in notes.chosen for value in values)), default=-1,
    )  # fmt: skip
    wanted = {value.lower() for value in notes.request.options}
    for values in groups[done + 1 :]:
      found = [value for value in values if value.lower() in wanted]
      others = [value for value in values if value not in found]
      yield (found[0] if found else ''), others
