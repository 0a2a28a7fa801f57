"""The four parts of a purchase, and which of them an episode came to.

The names are RetroAgent's (arXiv 2603.08561). Its policy judges them from what it
read; the shop knows: it walks the pages of the episode again, which is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from envs.webshop import reward as rewards
from envs.webshop.catalogue import PageState
from envs.webshop.shop import Shop
from envs.webshop.view import View

SEARCH, FILTER, SELECT, PURCHASE = 'search', 'filter', 'select', 'purchase'
SUBTASKS: Mapping[str, str] = {
    SEARCH: 'search so that a product of the wanted kind is on a results page',
    FILTER: 'open a product of that kind with the wanted attributes and price',
    SELECT: 'choose all wanted options of such a product',
    PURCHASE: 'buy it',
}


def completed(
    shop: Shop, view: View, start: PageState, actions: Sequence[str]
) -> list[str]:
  """Names of `SUBTASKS` that were completed on the way.

  Args:
    shop, view: of the world.
    start: where the episode began.
    actions: of the episode, in the view's grammar.
  """
  done = {name for state in _walk(shop, view, start, actions)
          for name in _at(shop, state)}
  return [name for name in SUBTASKS if name in done]


def _walk(
    shop: Shop, view: View, state: PageState, actions: Sequence[str]
) -> Iterator[PageState]:
  for action in actions:
    state, _ = shop.transition(state, view.to_action(shop, state, action))
    yield state


def _at(shop: Shop, state: PageState) -> Iterator[str]:
  """What a page shows to be done."""
  if state.page == 'results':
    kinds = (rewards.grade_type(shop.by_asin[asin], state.goal)[0]
             for asin in shop.results(state))
    if 1.0 in kinds:
      yield SEARCH
  elif state.page in ('item', 'done'):
    found = shop.reward(state)
    if found.r_type == found.r_att == 1.0 and found.r_price:
      yield FILTER
      if found.r_option in (None, 1.0):
        yield SELECT
        if state.page == 'done':
          yield PURCHASE
