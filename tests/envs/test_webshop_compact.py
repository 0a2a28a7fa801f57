"""The compact view: every text it writes can be read back, and no word is new."""

from __future__ import annotations

import functools

import hypothesis
import pytest
from hypothesis import strategies as st

from envs.webshop import compact, embedded
from envs.webshop.catalogue import PageState
from envs.webshop.shop import Shop

VIEW = compact.CompactView()


@functools.cache
def make_shop() -> tuple[Shop, embedded.Embedded]:
  built = embedded.build(
      num_products=40, types=4, train_goals=20, validation_goals=4, test_goals=4
  )
  return Shop(built.products, page_size=3), built


def start() -> PageState:
  return PageState(goal=make_shop()[1].goals['train'][0])


def take(state: PageState, response: str) -> tuple[PageState, str]:
  shop, _ = make_shop()
  after, valid = shop.transition(state, VIEW.to_action(shop, state, response))
  return after, VIEW.render(shop, after, state, valid)


def open_first_item() -> tuple[PageState, str]:
  goal = start().goal
  state, _ = take(start(), f'search {goal.attributes[0]} {goal.query}')
  return take(state, 'click a')


def test_first_observation_is_the_request():
  shop, _ = make_shop()
  text = VIEW.render(shop, start(), None, True)
  request = compact.parse_request(text)
  goal = start().goal
  assert request.material == goal.attributes[0]
  assert request.type == goal.query
  assert request.options == tuple(value for _, value in goal.options)
  assert request.cap == goal.price_upper


def test_request_of_another_form_is_refused():
  with pytest.raises(ValueError, match='under cap.*please'):
    compact.parse_request('please find me a shirt')


def test_results_rows_name_the_products_in_search_order():
  shop, _ = make_shop()
  state, text = take(start(), f'search {start().goal.query}')
  rows = compact.parse_page(text).rows
  products = [shop.by_asin[asin] for asin in shop.results(state)]
  assert [(row.material, row.price) for row in rows] == [
      (product.attributes[0], product.price) for product in products
  ]
  assert [row.letter for row in rows] == ['a', 'b', 'c']


def test_letter_opens_its_own_row():
  shop, _ = make_shop()
  state, _ = take(start(), f'search {start().goal.query}')
  after, text = take(state, 'click b')
  product = shop.by_asin[shop.results(state)[1]]
  assert after.asin == product.asin
  assert compact.parse_page(text).values == (
      product.options['color'] + product.options['size']
  )


def test_options_accumulate_and_back_forgets_them():
  state, text = open_first_item()
  color, *_, size = compact.parse_page(text).values
  state, text = take(state, f'click {color}')
  assert text == f'chose {color}'
  state, text = take(state, f'click {size}')
  assert compact.parse_page(text) == compact.Page('chosen', values=(color, size))
  state, text = take(state, 'click back')
  assert compact.parse_page(text).kind == 'results'
  assert state.options == ()


def test_next_and_back_turn_pages():
  state, first = take(start(), f'search {start().goal.query}')
  state, second = take(state, 'click next')
  assert (compact.parse_page(second).number, second == first) == (2, False)
  state, again = take(state, 'click back')
  assert again == first
  assert take(state, 'click back')[1] == compact.REFUSED


def test_page_past_the_end_reads_as_empty():
  state, text = take(start(), f'search {start().goal.query}')
  for _ in range(30):
    state, text = take(state, 'click next')
  assert text == 'page 20 empty'
  assert compact.parse_page(text) == compact.Page('results', 20)


def test_purchase_shows_quarters_of_the_reward():
  state, _ = open_first_item()
  after, text = take(state, 'click buy')
  page = compact.parse_page(text)
  assert (page.kind, page.number) == ('bought', int(after.reward * 4))


@pytest.mark.parametrize('reward, shown', [(0.999, 3), (1.0, 4), (0.1, 0)])
def test_only_a_full_reward_reads_as_full(reward, shown):
  shop, _ = make_shop()
  state = PageState(goal=start().goal, page='done', reward=reward)
  assert VIEW.render(shop, state, start(), True) == f'score {shown}'


@pytest.mark.parametrize(
    'response', ['', 'buy', 'click', 'click z', 'search', 'click a b', 'click m']
)
def test_response_outside_the_grammar_is_refused_unchanged(response):
  shop, _ = make_shop()
  state, _ = take(start(), f'search {start().goal.query}')
  assert VIEW.to_action(shop, state, response) == response
  after, text = take(state, response)
  assert text == compact.REFUSED
  assert (after.page, after.asin) == (state.page, state.asin)


def test_page_of_more_rows_than_letters_is_refused():
  _, built = make_shop()
  shop = Shop(built.products, page_size=27)
  state, _ = shop.transition(start(), f'search[{start().goal.query}]')
  with pytest.raises(ValueError, match='27 rows'):
    VIEW.render(shop, state, start(), True)


def test_vocabulary_repeats_no_word():
  words = VIEW.vocabulary(make_shop()[0])
  assert len(set(words)) == len(words)
  assert not any(' ' in word for word in words)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(st.data())
def test_random_walks_stay_in_the_vocabulary_and_can_be_read(data):
  shop, built = make_shop()
  known = set(VIEW.vocabulary(shop))
  types = sorted({product.query for product in built.products})
  state, text = start(), VIEW.render(shop, start(), None, True)
  for _ in range(12):
    assert set(text.split()) <= known
    page = compact.parse_page(text)
    words = [row.letter for row in page.rows] + list(page.values)
    words += ['next', 'back', 'buy', 'xs']
    response = data.draw(
        st.sampled_from([f'click {w}' for w in words] + [f'search {t}' for t in types])
    )
    state, text = take(state, response)
    expected = {'results': 'results', 'done': 'bought', 'item': 'item'}
    if text != compact.REFUSED and not state.options:
      assert compact.parse_page(text).kind == expected[state.page]
    if state.page == 'done':
      break
