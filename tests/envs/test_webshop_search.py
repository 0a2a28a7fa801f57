"""BM25: analysis, lengths, order."""

from __future__ import annotations

import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from envs import bm25


@pytest.mark.parametrize(
    ('text', 'terms'),
    [
        ("The women's running SHOES", ['women', 'run', 'shoe']),
        ('a 2.5 inch, 1,000 pcs', ['2.5', 'inch', '1,000', 'pc']),
        ('wi-fi 16" x 16"', ['wi', 'fi', '16', 'x', '16']),
        ('size:small size: small', ['size:smal', 'size', 'small']),
        ('红色 ✔️fresh 🌸🌸', ['红', '色', '✔️', 'fresh', '🌸', '🌸']),
        ('... -- !', []),
        ('psychology sensibly', ['psycholog', 'sensibl']),
    ],
)
def test_text_becomes_the_terms_that_lucene_makes(text, terms):
  assert bm25.analyse(text) == terms


@pytest.mark.parametrize(
    ('length', 'stored'),
    [(0, 0), (23, 23), (39, 39), (40, 40), (41, 40), (42, 42), (57, 56),
     (107, 104), (1000, 984)],
)  # fmt: skip
def test_lengths_lose_their_low_bits(length, stored):
  assert bm25.quantise_length(length) == stored


@hypothesis.given(st.integers(0, 10**6), st.integers(0, 1000))
def test_stored_lengths_keep_their_order_and_three_bits(length, more):
  stored = bm25.quantise_length(length)
  assert stored <= bm25.quantise_length(length + more)
  assert length - stored <= max(length - 24, 0) / 8


def test_a_score_is_bm25_without_the_factor_k1_plus_1():
  index = bm25.Index(['red shirt red', 'blue shirt', 'hose'], ['a', 'b', 'c'])
  idf = math.log(1 + (3 - 1 + 0.5) / 1.5)
  norm = 0.9 * (0.6 + 0.4 * 3 / 2)
  expected = [idf * 2 / (2 + norm), 0, 0]
  np.testing.assert_allclose(index.scores('red'), expected)
  np.testing.assert_allclose(index.scores('red red'), np.multiply(2, expected))


def test_ties_are_broken_by_identifier():
  index = bm25.Index(['hose', 'hose', 'shirt'], ['z', 'a', 'm'])
  assert index.top('hose', 5) == [1, 0]


def test_only_matching_documents_are_found_and_at_most_as_many_as_asked():
  index = bm25.Index(['a red shirt', 'red hose', 'pump'], ['a', 'b', 'c'])
  assert sorted(index.top('red', 5)) == [0, 1]
  assert len(index.top('red', 1)) == 1
  assert index.top('the of and', 5) == []
  assert index.top('', 5) == []


def test_an_empty_index_finds_nothing():
  assert bm25.Index([], []).top('red', 3) == []
