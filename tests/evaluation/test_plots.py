"""The Pass@k figure holds every arm and repeats."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leafe_jax.evaluation.palette import inks_of
from leafe_jax.evaluation.plots import draw_passk, save_passk, spread
from tests.evaluation import runs


def test_every_arm_has_a_curve_through_its_means_and_a_label():
  results = runs.make_results()
  axes = draw_passk(results).axes[0]
  curves = [line.get_ydata() for line in axes.lines]
  expected = [
      [100 * point['mean'] for point in figures['pass_at_k'].values()]
      for figures in results['arms'].values()
  ]
  assert [list(curve) for curve in curves] == expected
  labels = ' '.join(text.get_text() for text in axes.texts)
  assert all(arm in labels for arm in results['arms'])
  assert axes.get_xscale() == 'log'


def test_the_same_results_give_the_same_bytes(tmp_path):
  for name in ('a.png', 'b.png'):
    save_passk(tmp_path / name, runs.make_results())
  first, second = ((tmp_path / name).read_bytes() for name in ('a.png', 'b.png'))
  assert first.startswith(b'\x89PNG') and first == second


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_labels_are_spread_without_changing_their_order(places):
  moved = spread(places, 0.05)
  order = sorted(range(len(places)), key=lambda i: (places[i], i))
  for low, high in itertools.pairwise(order):
    assert moved[high] - moved[low] >= 0.05 - 1e-3
  assert sum(moved) == pytest.approx(sum(places))


def test_arms_keep_their_colour_whatever_stands_beside_them():
  alone = inks_of(['base', 'leafe'])
  among = inks_of(['base', 'rft', 'leafe_reh', 'grpo', 'leafe'])
  assert {arm: among[arm] for arm in alone} == alone
  assert len({ink.light for ink in among.values()}) == 5


def test_many_arms_stay_apart_and_leave_room():
  inks = inks_of(['base', 'leafe', *(f'arm {i}' for i in range(20))])
  assert len({(ink.light, ink.dash) for ink in inks.values()}) == len(inks)
  assert [arm for arm, ink in inks.items() if ink.band] == ['base', 'leafe']
