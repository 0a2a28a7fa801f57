"""The shop itself: which pages exist and what an action does on them.

A `Shop` is immutable and shared; a session is one `PageState` that `transition`
maps to the next. Two things of the original are left out: the search prefixes
<r>, <a>, <c>, <q> (debugging aids, one of them random) and the browser pages.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from envs import bm25
from envs.webshop import reward as rewards
from envs.webshop.catalogue import PageState, Product

BACK = 'back to search'
PREVIOUS = '< prev'
NEXT = 'next >'
BUY = 'buy now'
SUB_PAGES = ('Description', 'Features', 'Reviews', 'Attributes')
_SUB_PAGE_BY_BUTTON = {name.lower(): name for name in SUB_PAGES}
_CACHED_SEARCHES = 50_000
# Longer queries are looked up each time: they would fill the memory.
_CACHED_LENGTH = 400


def parse_action(action: str) -> tuple[str, str]:
  """('click', 'buy now') of 'click[Buy Now]'; ('', '') where none is found."""
  # As the original's '(.+)\[(.+)\]' reads it, but in linear time.
  line = action.partition('\n')[0]
  end = line.rfind(']')
  start = line.rfind('[', 1, max(end - 1, 0))
  return (line[:start], line[start + 1 : end].lower()) if start > 0 else ('', '')


def index_text(product: Product) -> str:
  """What the search engine sees of a product."""
  options = ', and '.join(
      f'{name}: {", ".join(values)}' for name, values in product.options.items()
  )
  bullet = product.bullets[0] if product.bullets else ''
  return f'{product.title} {product.description} {bullet} {options}'.lower()


class Shop:
  """Products, search index and rules.

  Attributes:
    products: everything on sale, in catalogue order.
    by_asin: the same by asin.
    page_size: products per results page.
    max_hits: products per search.
    show_attributes: whether item pages have an 'Attributes' button.
  """

  def __init__(
      self,
      products: Sequence[Product],
      page_size: int = 10,
      max_hits: int = 50,
      show_attributes: bool = False,
  ):
    """Indexes the products. ValueError on bad sizes or a repeated asin."""
    for name, value in (('page_size', page_size), ('max_hits', max_hits)):
      if value < 1:
        raise ValueError(f'{name} is {value}; it must be at least 1')
    self.products = tuple(products)
    self.by_asin = {product.asin: product for product in self.products}
    if len(self.by_asin) != len(self.products):
      raise ValueError('two products share an asin')
    self.page_size = page_size
    self.max_hits = max_hits
    self.show_attributes = show_attributes
    self._index = bm25.Index(
        map(index_text, self.products), list(self.by_asin)
    )
    self._search = functools.lru_cache(_CACHED_SEARCHES)(self._search_uncached)
    self._values = {p.asin: _option_by_value(p) for p in self.products}
    self._item_buttons = (BACK, PREVIOUS) + tuple(
        name.lower() for name in self.sub_pages
    ) + (BUY,)  # fmt: skip

  @property
  def sub_pages(self) -> tuple[str, ...]:
    """Buttons of an item page that lead to more text."""
    return SUB_PAGES if self.show_attributes else SUB_PAGES[:3]

  def search(self, keywords: tuple[str, ...]) -> tuple[str, ...]:
    """Asins found, best first, at most `max_hits`."""
    query = ' '.join(keywords)
    cached = len(query) <= _CACHED_LENGTH
    return self._search(query) if cached else self._search_uncached(query)

  def _search_uncached(self, query: str) -> tuple[str, ...]:
    numbers = self._index.top(query, self.max_hits)
    return tuple(self.products[number].asin for number in numbers)

  def results(self, state: PageState) -> tuple[str, ...]:
    """Asins on the results page that `state` is on; empty past the end."""
    first = (state.page_number - 1) * self.page_size
    return self.search(state.keywords)[first : first + self.page_size]

  def product(self, state: PageState) -> Product:
    """The product being looked at. ValueError where there is none."""
    if state.asin is None:
      raise ValueError(f'page {state.page!r} shows no product')
    return self.by_asin[state.asin]

  def clickables(self, state: PageState) -> tuple[str, ...]:
    """What `click[...]` accepts, lower case, in the original's order.

    'search' is listed on the search page, as in the original, but does nothing.
    """
    match state.page:
      case 'search':
        return ('search',)
      case 'results':
        turn = (PREVIOUS, NEXT) if state.page_number > 1 else (NEXT,)
        return (BACK, *turn, *(asin.lower() for asin in self.results(state)))
      case 'item':
        values = self._values[self.product(state).asin]
        return tuple(dict.fromkeys((*self._item_buttons, *values)))
      case 'sub':
        return (BACK, PREVIOUS)
      case _:
        return ()

  def transition(self, state: PageState, action: str) -> tuple[PageState, bool]:
    """The state after an official action, and whether it was accepted.

    Pure. A refused action leaves everything as it was but for `steps`.
    """
    kind, argument = parse_action(action)
    changes: dict[str, object] | None = None
    if state.page != 'done' and kind == 'search':
      changes = _fresh(page='results', keywords=tuple(argument.split(' ')))
    elif kind == 'click' and argument in self.clickables(state):
      changes = self._click(state, argument)
    valid = changes is not None
    return dataclasses.replace(
        state, steps=state.steps + 1, **(changes or {})
    ), valid

  def _click(self, state: PageState, target: str) -> dict[str, object] | None:
    """What changes on a click on something clickable; None for nothing."""
    if target == BACK:
      return _fresh(page='search', keywords=(), visited=())
    match state.page:
      case 'results':
        return self._click_result(state, target)
      case 'item':
        return self._click_item(state, target)
      case 'sub':
        return {'page': 'item', 'sub_page': None}
      case _:
        return None

  def _click_result(self, state: PageState, target: str) -> dict[str, object]:
    if target == NEXT:
      return {'page_number': state.page_number + 1}
    if target == PREVIOUS:
      return {'page_number': state.page_number - 1}
    asin = next(asin for asin in self.results(state) if asin.lower() == target)
    visited = tuple(dict.fromkeys((*state.visited, asin)))
    return {'page': 'item', 'asin': asin, 'options': (), 'visited': visited}

  def _click_item(self, state: PageState, target: str) -> dict[str, object]:
    if target == PREVIOUS:
      return {'page': 'results', 'asin': None, 'options': ()}
    if target == BUY:
      return {'page': 'done', 'reward': self.reward(state).reward}
    if target in _SUB_PAGE_BY_BUTTON and target in self._item_buttons:
      return {'page': 'sub', 'sub_page': _SUB_PAGE_BY_BUTTON[target]}
    name = self._values[self.product(state).asin][target]
    chosen = {**dict(state.options), name: target}
    return {'options': tuple(chosen.items())}

  def reward(self, state: PageState) -> rewards.RewardInfo:
    """Grades buying what `state` shows, with the options chosen so far."""
    chosen = [value for _, value in state.options]
    return rewards.grade(self.product(state), state.goal, chosen)


def _fresh(**changes: object) -> dict[str, object]:
  """Changes that also forget where the session was."""
  cleared = {'page_number': 1, 'asin': None, 'options': (), 'sub_page': None}
  return {**cleared, **changes}


def _option_by_value(product: Product) -> dict[str, str]:
  """Which option a value sets; the last one where several have it."""
  return {
      value: name for name, values in product.options.items() for value in values
  }
