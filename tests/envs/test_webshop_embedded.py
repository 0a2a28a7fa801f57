"""The generated shop: its goals can be met, and its splits share nothing."""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import pathlib
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

from envs.api import SPLITS, observation_hash
from envs.webshop import embedded, reward
from envs.webshop.catalogue import Goal, Product
from envs.webshop.shop import Shop


@functools.cache
def default() -> embedded.Embedded:
  return embedded.build()


def hash_of(built) -> str:
  return observation_hash(repr((built.products, built.goals)))


def satisfying(goal: Goal, products: tuple[Product, ...]) -> set[str]:
  """Asins that earn 1.0 by the shop's own rules, wanted options chosen."""
  found = set()
  for product in products:
    have = {value for values in product.options.values() for value in values}
    chosen = [value for _, value in goal.options if value in have]
    if reward.grade(product, goal, chosen).reward == 1.0:
      found.add(product.asin)
  return found


def test_same_options_give_the_same_shop():
  assert embedded.build() == default()


def test_other_processes_build_the_same_shop():
  code = 'from envs.webshop import embedded; print(hash_of(embedded.build()))'
  source = inspect.getsource(hash_of)
  script = f'from envs.api import observation_hash\n{source}\n{code}'
  for hash_seed in ('1', '2'):
    output = subprocess.run(
        [sys.executable, '-c', script],
        env={**os.environ, 'PYTHONHASHSEED': hash_seed},
        cwd=pathlib.Path(embedded.__file__).parents[2],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert output.stdout.strip() == hash_of(default())


def test_another_seed_gives_another_shop():
  assert embedded.build(seed=1).products != default().products


def test_products_have_distinct_ten_letter_asins():
  asins = [product.asin for product in default().products]
  assert len(set(asins)) == 360
  assert {len(asin) for asin in asins} == {10}


def test_every_split_has_the_promised_number_of_goals():
  sizes = {split: len(goals) for split, goals in default().goals.items()}
  assert sizes == {'train': 480, 'validation': 100, 'test': 150}


def test_no_goal_text_occurs_twice():
  texts = [goal.instruction for split in SPLITS for goal in default().goals[split]]
  assert len(set(texts)) == len(texts)


def test_every_target_satisfies_its_goal_and_no_product_serves_two_splits():
  """Graded by the shop's reward, not by the generator's own test."""
  built = default()
  found: dict[str, set[str]] = {}
  for split in SPLITS:
    found[split] = set()
    for goal in built.goals[split][::3]:
      asins = satisfying(goal, built.products)
      assert goal.asin in asins
      found[split] |= asins
  for one, other in itertools.combinations(SPLITS, 2):
    assert not found[one] & found[other]


def test_search_ignores_the_material():
  """Otherwise the first page would hold nothing but fitting rows."""
  shop = Shop(default().products, page_size=3)
  for material in embedded.MATERIALS[:4]:
    assert shop.search((material,)) == ()
    assert shop.search((material, 'shirt')) == shop.search(('shirt',))


def test_option_values_are_graded_as_different_from_each_other():
  goal = default().goals['test'][0]
  words = embedded.COLOURS + embedded.SIZES
  names = ['color'] * len(embedded.COLOURS) + ['size'] * len(embedded.SIZES)
  product = default().products[0]
  for (name, wanted), chosen in itertools.product(
      zip(names, words, strict=True), words
  ):
    one = Goal(**{
        field: getattr(goal, field) for field in goal.__dataclass_fields__
    } | {'options': ((name, wanted),)})
    share = reward.grade(product, one, [chosen]).r_option
    assert share == float(chosen == wanted), (wanted, chosen)


def test_decay_moves_targets_towards_the_first_page():
  def on_first_page(rank_decay: float) -> int:
    built = embedded.build(rank_decay=rank_decay)
    shop = Shop(built.products)
    return sum(
        goal.asin in shop.search((goal.query,))[:3] for goal in built.goals['train']
    )

  assert on_first_page(0.6) > 1.5 * on_first_page(0.95)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'types': 99}, 'types is 99; it must be between 1 and 24'),
        ({'materials': 0}, 'materials is 0'),
        ({'values_per_option': 6}, 'values_per_option is 6'),
        ({'rank_decay': 1.5}, 'rank_decay is 1.5'),
        ({'num_products': 24}, 'raise num_products'),
    ],
)
def test_bad_option_is_refused_by_name(options, message):
  with pytest.raises(ValueError, match=message):
    embedded.build(**options)


@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(
    st.integers(0, 10**6), st.integers(2, 4), st.integers(0, 3), st.integers(5, 8)
)
def test_goals_of_any_shop_can_be_met(seed, materials, cap_slack, price_levels):
  built = embedded.build(
      num_products=80, types=4, materials=materials, cap_slack=cap_slack,
      price_levels=price_levels, train_goals=9, validation_goals=2, test_goals=3,
      seed=seed,
  )  # fmt: skip
  for goals in built.goals.values():
    for goal in goals:
      assert goal.asin in satisfying(goal, built.products)
