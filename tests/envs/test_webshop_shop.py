"""Pages, buttons and actions of the shop engine."""

from __future__ import annotations

import dataclasses

import hypothesis
import pytest
from hypothesis import strategies as st

from envs.webshop import pages
from envs.webshop.catalogue import PageState
from envs.webshop.shop import Shop, parse_action
from tests.envs import small_shop

_SHOP = small_shop.shop()
_START = PageState(goal=small_shop.goal())


def _after(*actions: str, shop: Shop = _SHOP) -> PageState:
  state = _START
  for action in actions:
    state, valid = shop.transition(state, action)
    assert valid, f'{action} was refused on {state.page}'
  return state


_ITEM = ('search[red shirt]', 'click[b000000001]')


def test_a_search_lists_the_best_product_first():
  assert _SHOP.results(_after('search[red cotton shirt]'))[0] == 'B000000001'


def test_results_are_cut_into_pages_and_end_in_an_empty_one():
  found = _SHOP.search(('shirt',))
  assert len(found) == 3
  first = _after('search[shirt]')
  second = _after('search[shirt]', 'click[next >]')
  third = _after('search[shirt]', 'click[next >]', 'click[next >]')
  assert _SHOP.results(first) + _SHOP.results(second) == found
  assert _SHOP.results(third) == ()
  assert 'next >' in _SHOP.clickables(third)


def test_previous_is_offered_from_the_second_page_on():
  assert '< prev' not in _SHOP.clickables(_after('search[shirt]'))
  second = _after('search[shirt]', 'click[next >]')
  assert '< prev' in _SHOP.clickables(second)
  back, _ = _SHOP.transition(second, 'click[< prev]')
  assert back.page_number == 1


def test_a_search_is_accepted_on_every_page_but_the_last():
  for actions in ((), ('search[hose]',), _ITEM, (*_ITEM, 'click[reviews]')):
    state, valid = _SHOP.transition(_after(*actions), 'search[wool]')
    assert valid
    assert (state.page, state.asin, state.options) == ('results', None, ())
  assert not _SHOP.transition(_after(*_ITEM, 'click[buy now]'), 'search[x]')[1]


def test_the_last_choice_of_an_option_wins_and_keeps_its_place():
  state = _after(*_ITEM, 'click[red]', 'click[small]', 'click[blue]')
  assert state.options == (('color', 'blue'), ('size', 'small'))


def test_a_value_of_two_options_sets_the_last_of_them():
  state = _after('search[hose]', 'click[b000000004]', 'click[red]')
  assert state.options == (('trim', 'red'),)
  assert _SHOP.clickables(state).count('red') == 1


def test_leaving_an_item_forgets_its_options_and_a_sub_page_keeps_them():
  chosen = _after(*_ITEM, 'click[red]', 'click[features]', 'click[< prev]')
  assert chosen.options == (('color', 'red'),)
  assert _after(*_ITEM, 'click[red]', 'click[< prev]').options == ()


def test_clicks_ignore_case():
  assert _after('search[RED COTTON]', 'click[B000000001]').asin == 'B000000001'


@pytest.mark.parametrize(
    'action',
    ['', 'buy now', 'click[]', 'click[search]', 'click[buy now]', 'Search[x]',
     'think[hmm]', 'click[b000000004]', 'click[next >]'],
)  # fmt: skip
def test_a_refused_action_changes_only_the_step_count(action):
  state, valid = _SHOP.transition(_START, action)
  assert not valid
  assert state == dataclasses.replace(_START, steps=1)


@pytest.mark.parametrize(
    ('action', 'parts'),
    [('click[Buy Now]', ('click', 'buy now')), ('search[a b] c', ('search', 'a b')),
     ('search', ('', '')), ('[x]', ('', '')), ('a[b][c]', ('a[b]', 'c'))],
)  # fmt: skip
def test_actions_are_parsed_as_the_original_does(action, parts):
  assert parse_action(action) == parts


def test_attributes_can_be_shown():
  shop = small_shop.shop(show_attributes=True)
  state = _after(*_ITEM, 'click[attributes]', shop=shop)
  text = pages.TextView().render(shop, state, None, True)
  assert 'soft cotton' in text
  assert 'attributes' not in _SHOP.clickables(_after(*_ITEM))


def test_a_full_purchase_scores_one():
  state = _after(*_ITEM, 'click[red]', 'click[small]', 'click[buy now]')
  assert (state.page, state.reward) == ('done', 1.0)


@pytest.mark.parametrize('options', [{'page_size': 0}, {'max_hits': 0}])
def test_a_senseless_size_is_refused(options):
  with pytest.raises(ValueError, match=f'{next(iter(options))} is 0'):
    small_shop.shop(**options)


def test_a_repeated_asin_is_refused():
  with pytest.raises(ValueError, match='asin'):
    Shop(small_shop.PRODUCTS * 2)


_WORDS = st.sampled_from(['shirt', 'wool', 'hose', 'red', 'nothing'])
_CHOICES = st.lists(st.integers(0, 1000) | _WORDS, max_size=12)


@hypothesis.given(_CHOICES)
@hypothesis.settings(max_examples=60, deadline=None)
def test_every_listed_button_works_and_every_page_renders(choices):
  state, view = _START, pages.TextView()
  for choice in choices:
    buttons = [b for b in _SHOP.clickables(state) if b != 'search']
    if isinstance(choice, str) or not buttons:
      action = f'search[{choice}]'
    else:
      action = f'click[{buttons[choice % len(buttons)]}]'
    before = state
    state, valid = _SHOP.transition(before, action)
    assert valid
    assert state.steps == before.steps + 1
    assert view.render(_SHOP, state, before, True)
    if state.page == 'done':
      assert 0.0 <= state.reward <= 1.0
      break


def test_the_search_page_reads_as_in_the_original():
  text = pages.TextView().render(_SHOP, _START, None, True)
  assert text == 'WebShop [SEP] Instruction: [SEP] a red shirt [SEP] Search'


def test_rich_text_marks_buttons_and_names_what_was_clicked():
  text = pages.TextView(rich=True).render(
      _SHOP, _after(*_ITEM, 'click[blue]'), None, True
  )
  assert text.startswith('You have clicked blue.\n')
  assert '[clicked button] blue [clicked button_]' in text
  assert '[button] red [button_]' in text


def test_a_receipt_sorts_options_and_escapes_quotes():
  state = dataclasses.replace(
      _after(*_ITEM), page='done', options=(('z', "men's"), ('a', 'b'))
  )
  text = pages.TextView().render(_SHOP, state, None, True)
  assert '{"a": "b", "z": "men\\u0027s"}' in text
