"""Pass@k equals what drawing k of the n samples without replacement gives."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leafe_jax.evaluation.passk import pass_at_k, pass_at_ks, powers_up_to


def share_of_subsets(c: int, n: int, k: int) -> float:
  samples = [True] * c + [False] * (n - c)
  subsets = list(itertools.combinations(samples, k))
  return sum(map(any, subsets)) / len(subsets)


@given(st.integers(1, 9), st.data())
def test_equals_brute_force_over_all_subsets(n, data):
  k = data.draw(st.integers(1, n))
  successes = np.arange(n + 1)
  expected = [share_of_subsets(c, n, k) for c in range(n + 1)]
  np.testing.assert_allclose(pass_at_k(successes, n, k), expected, atol=1e-12)


@given(st.integers(1, 1024), st.data())
def test_equals_exact_binomials_where_floats_would_overflow(n, data):
  k = data.draw(st.integers(1, n))
  c = data.draw(st.integers(0, n))
  exact = 1 - math.comb(n - c, k) / math.comb(n, k)
  assert pass_at_k(np.array([c]), n, k)[0] == pytest.approx(exact, abs=1e-9)


@given(st.integers(1, 128), st.data())
def test_grows_with_k_and_with_successes(n, data):
  successes = np.array(sorted(data.draw(st.lists(st.integers(0, n), min_size=1))))
  values = pass_at_ks(successes, n, range(1, n + 1))
  assert np.all(np.diff(values, axis=1) >= -1e-12)
  assert np.all(np.diff(values, axis=0) >= -1e-12)
  assert np.all((values >= 0) & (values <= 1))


def test_ends_are_the_mean_and_the_share_of_tasks_solved_at_all():
  successes = np.array([0, 1, 64, 128])
  np.testing.assert_allclose(pass_at_k(successes, 128, 1), successes / 128)
  np.testing.assert_array_equal(pass_at_k(successes, 128, 128), [0, 1, 1, 1])


@pytest.mark.parametrize('k', [0, -1, 5])
def test_k_outside_of_the_samples_is_refused(k):
  with pytest.raises(ValueError, match=f'Pass@{k} .* n = 4'):
    pass_at_k(np.array([1]), 4, k)


@pytest.mark.parametrize('count', [-1, 5])
def test_impossible_counts_are_refused(count):
  with pytest.raises(ValueError, match=f'{count} successes'):
    pass_at_k(np.array([0, count]), 4, 2)


def test_reported_ks_are_powers_of_two_and_n():
  assert powers_up_to(1) == (1,)
  assert powers_up_to(2) == (1, 2)
  assert powers_up_to(100) == (1, 2, 4, 8, 16, 32, 64, 100)
  assert powers_up_to(128) == (1, 2, 4, 8, 16, 32, 64, 128)
  with pytest.raises(ValueError, match='n = 0'):
    powers_up_to(0)
