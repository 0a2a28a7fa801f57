"""The shop in a few words a page, for small policies: one grammar, both ways.

      start      cotton shirt blue m under 30
      search     search page
      results    page 1 cotton 30 a wool 50 b silk 20 c   |   page 4 empty
      item       red blue white s m l
      chosen     chose blue   |   chose blue m
      refused    no such button
      bought     score 3

A row is 'material price letter' with the letter last, so that a policy copies
the letter after it has matched the row. 'score' counts quarters of the reward,
rounded down; 4 is success. Responses and what they mean:

      search cotton shirt   search[cotton shirt]   on any page
      click b               click[<asin of row b>] on a results page
      click blue            click[blue]            on an item page
      click buy             click[buy now]         on an item page
      click next            click[next >]          on a results page
      click back            click[< prev]          item: to its results page,
                                                   forgetting chosen options;
                                                   results: one page back

This is the only place that knows these texts: `CompactView` renders them,
`parse_page` and `parse_request` read them, `vocabulary` lists their words.
"""

from __future__ import annotations

import dataclasses
import functools
import string
from collections.abc import Iterable
from typing import NamedTuple

from envs.webshop import shop as shop_lib
from envs.webshop.catalogue import Goal, PageState, Product
from envs.webshop.shop import Shop

SEARCH_PAGE = 'search page'
REFUSED = 'no such button'
EMPTY = 'empty'
NEXT, BACK, BUY = 'click next', 'click back', 'click buy'
FULL_SCORE = 4
# Numbers above are shown as this, which keeps the vocabulary closed.
MAX_NUMBER = 20

_BUTTONS = {
    NEXT: f'click[{shop_lib.NEXT}]',
    BACK: f'click[{shop_lib.PREVIOUS}]',
    BUY: f'click[{shop_lib.BUY}]',
}
# Why to do something; experience texts are a reason and an action.
FIRST, FITS, NO_FIT, ALL_CHOSEN, WANTED, LACKING = (
    'first', 'fit', 'no fit', 'all chosen', 'want', 'no',
)  # fmt: skip


class Request(NamedTuple):
  """What a goal's text asks for; `cap` is the most to pay."""

  material: str
  type: str
  options: tuple[str, ...]
  cap: int


class Row(NamedTuple):
  """A product on a results page."""

  material: str
  price: int
  letter: str


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
  """What an observation says.

  Attributes:
    kind: 'start', 'search', 'results', 'item', 'chosen', 'refused', 'bought'.
    number: of the results page, or the score; 0 elsewhere.
    rows: of the results page; empty past the end.
    values: option values on sale ('item') or chosen so far ('chosen').
  """

  kind: str
  number: int = 0
  rows: tuple[Row, ...] = ()
  values: tuple[str, ...] = ()


def write_request(goal: Goal) -> str:
  """The goal as text, e.g. 'cotton shirt blue m under 30'."""
  values = ' '.join(value for _, value in goal.options)
  return f'{goal.attributes[0]} {goal.query} {values} under {goal.price_upper:.0f}'


@functools.lru_cache(maxsize=16_384)
def parse_request(text: str) -> Request:
  """Inverse of `write_request`. ValueError on a text of another form."""
  match text.split():
    case [material, kind, *options, 'under', cap] if cap.isdecimal():
      return Request(material, kind, tuple(options), int(cap))
  raise ValueError(f'not of the form "material type options under cap": {text!r}')


@functools.lru_cache(maxsize=65_536)
def parse_page(observation: str) -> Page:
  """Reads an observation; text of no other form is an item's option values."""
  match observation.split():
    case ['page', number, word] if number.isdecimal() and word == EMPTY:
      return Page('results', int(number))
    case ['page', number, *cells] if number.isdecimal() and _are_rows(cells):
      return Page('results', int(number), _parse_rows(cells))
    case ['search', 'page']:
      return Page('search')
    case ['chose', *values]:
      return Page('chosen', values=tuple(values))
    case ['score', number] if number.isdecimal():
      return Page('bought', int(number))
    case [*_, 'under', _]:
      return Page('start')
    case ['no', 'such', 'button'] | []:
      return Page('refused')
    case ['item']:  # an item without options
      return Page('item')
    case values:
      return Page('item', values=tuple(values))


def _are_rows(cells: list[str]) -> bool:
  return len(cells) % 3 == 0 and all(price.isdecimal() for price in cells[1::3])


def _parse_rows(cells: list[str]) -> tuple[Row, ...]:
  triples = zip(cells[::3], cells[1::3], cells[2::3], strict=True)
  return tuple(Row(material, int(price), letter) for material, price, letter in triples)


def search_for(request: Request) -> str:
  """The response that searches for a request."""
  return f'search {request.material} {request.type}'


def click(word: str) -> str:
  """The response that clicks a row's letter or an option's value."""
  return f'click {word}'


class CompactView:
  """Implements `envs.webshop.view.View` for catalogues of one-word values."""

  def render(
      self,
      shop: Shop,
      state: PageState,
      previous: PageState | None,
      valid: bool,
  ) -> str:
    """See the module's docstring. ValueError on pages of more than 26 rows."""
    if previous is None:
      return state.goal.instruction
    if not valid:
      return REFUSED
    match state.page:
      case 'results':
        return _write_results(shop, state)
      case 'item' if state.options:
        return ' '.join(['chose', *(value for _, value in state.options)])
      case 'item' | 'sub':
        return ' '.join(_values(shop.product(state))) or 'item'
      case 'done':
        return f'score {_quarters(state.reward)}'
      case _:
        return SEARCH_PAGE

  def to_action(self, shop: Shop, state: PageState, response: str) -> str:
    """The official action; a response outside the grammar as it is."""
    words = response.split()
    match words:
      case ['search', _, *_]:
        return f'search[{" ".join(words[1:])}]'
      case ['click', word]:
        button = _BUTTONS.get(click(word))
        return button or _to_click(shop, state, word) or response
      case _:
        return response

  def admissible(self, shop: Shop, state: PageState) -> tuple[str, ...]:
    words = list(_letters(shop.page_size))
    if state.asin is not None:
      words = _values(shop.product(state))
    clickables = shop.clickables(state)
    return ('search <words>', *(
        response for response in (*_BUTTONS, *map(click, words))
        if shop_lib.parse_action(self.to_action(shop, state, response))[1]
        in clickables
    ))

  def instructions(self) -> str:
    """Rules and action grammar."""
    return (
        'Buy what the request asks for: right material, type and options, price '
        'at most the number after "under". Answer with one of: search <words>; '
        'click <letter of a row>; click <option>; click next; click back; '
        'click buy.'
    )

  def vocabulary(self, shop: Shop) -> tuple[str, ...]:
    """Every word of observations, responses and experience texts."""
    return vocabulary(shop.products, shop.page_size)


def _write_results(shop: Shop, state: PageState) -> str:
  words = ['page', str(min(state.page_number, MAX_NUMBER))]
  asins = shop.results(state)
  for letter, asin in zip(_letters(shop.page_size), asins, strict=False):
    product = shop.by_asin[asin]
    words += [product.attributes[0], f'{product.price:.0f}', letter]
  return ' '.join(words if asins else [*words, EMPTY])


def _letters(count: int) -> str:
  if count > len(string.ascii_lowercase):
    raise ValueError(f'{count} rows a page; the compact view has 26 letters')
  return string.ascii_lowercase[:count]


def _values(product: Product) -> list[str]:
  return [value for values in product.options.values() for value in values]


def _quarters(reward: float) -> int:
  # Rounded down, so that nothing but a full reward reads as one.
  return int(reward * FULL_SCORE + 1e-9)


def _to_click(shop: Shop, state: PageState, word: str) -> str | None:
  if state.page == 'results':
    asins = dict(zip(_letters(shop.page_size), shop.results(state), strict=False))
    return f'click[{asins[word]}]' if word in asins else None
  if state.page == 'item' and word in _values(shop.product(state)):
    return f'click[{word}]'
  return None


def vocabulary(products: Iterable[Product], page_size: int = 10) -> tuple[str, ...]:
  """Every word that observations, goals, responses and experience can hold.

  Args:
    products: the catalogue.
    page_size: rows per results page; each has a letter.

  Returns:
    Words in a fixed order, none twice.
  """
  phrases = (
      SEARCH_PAGE, REFUSED, EMPTY, NEXT, BACK, BUY, FIRST, FITS, NO_FIT,
      ALL_CHOSEN, WANTED, LACKING, 'under page chose score item',
  )  # fmt: skip
  words = [word for phrase in phrases for word in phrase.split()]
  words.extend(_letters(page_size))
  numbers = set(range(MAX_NUMBER + 1))
  ordinary: set[str] = set()
  for product in products:
    numbers.add(round(product.price))
    ordinary.update(product.attributes, product.query.split(), _values(product))
  words += map(str, sorted(numbers))
  return tuple(dict.fromkeys([*words, *sorted(ordinary)]))
