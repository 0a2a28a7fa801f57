"""Intervals cover, are paired, and repeat; McNemar's test is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from leafe_jax.evaluation.intervals import bootstrap, mcnemar


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
  values = np.random.default_rng(0).random((40, 3))
  assert bootstrap(values, seed=7) == bootstrap(values, seed=7)
  assert bootstrap(values, seed=7) != bootstrap(values, seed=8)


def test_agrees_with_scipy():
  values = np.random.default_rng(1).random(60)
  theirs = stats.bootstrap(
      (values,), np.mean, n_resamples=20_000, method='percentile',
      rng=np.random.default_rng(2),
  ).confidence_interval
  ours = bootstrap(values[:, None], resamples=20_000)[0]
  assert ours.mean == pytest.approx(values.mean())
  assert ours.lo == pytest.approx(theirs.low, abs=0.004)
  assert ours.hi == pytest.approx(theirs.high, abs=0.004)


def test_intervals_cover_the_true_mean_about_as_often_as_they_say():
  rng = np.random.default_rng(3)
  hits = 0
  for _ in range(300):
    found = bootstrap(rng.beta(1, 3, size=(80, 1)), resamples=300)[0]
    hits += found.lo <= 0.25 <= found.hi
  assert 0.90 <= hits / 300 <= 0.985


def test_pairing_removes_what_the_tasks_have_in_common():
  rng = np.random.default_rng(4)
  base = rng.random((50, 1))
  better = base + 0.05 + 0.01 * rng.random((50, 1))
  paired = bootstrap(better - base)[0]
  alone = bootstrap(better)[0]
  assert paired.lo > 0
  assert paired.hi - paired.lo < 0.1 * (alone.hi - alone.lo)


def test_a_difference_is_resampled_with_the_same_tasks_as_its_arms():
  # With the same weights the difference to 1 - a constant mirrors the interval.
  values = np.random.default_rng(5).random((30, 1))
  one, mirrored = bootstrap(values)[0], bootstrap(1 - values)[0]
  assert mirrored.lo == pytest.approx(1 - one.hi)


def test_one_task_has_no_spread():
  found = bootstrap(np.array([[0.25]]))[0]
  assert (found.mean, found.lo, found.hi) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    'shape, resamples, level', [((0, 1), 10, 0.95), ((3, 1), 0, 0.95), ((3, 1), 9, 1.0)]
)
def test_nothing_to_resample_is_refused(shape, resamples, level):
  with pytest.raises(ValueError, match='cannot resample'):
    bootstrap(np.zeros(shape), resamples, level=level)


def test_mcnemar_is_the_exact_sign_test_on_discordant_tasks():
  first = np.array([1] * 9 + [0] * 1 + [1] * 5 + [0] * 5, bool)
  second = np.array([0] * 9 + [1] * 1 + [1] * 5 + [0] * 5, bool)
  assert mcnemar(first, second) == pytest.approx(2 * 11 / 2**10)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_is_symmetric_and_a_probability(pairs):
  first, second = np.array(pairs).T
  p_value = mcnemar(first, second)
  assert 0 < p_value <= 1
  assert p_value == mcnemar(second, first)
  assert mcnemar(first, first) == 1.0


def test_mcnemar_needs_the_same_tasks():
  with pytest.raises(ValueError, match='3 and 2 tasks'):
    mcnemar(np.ones(3, bool), np.ones(2, bool))
