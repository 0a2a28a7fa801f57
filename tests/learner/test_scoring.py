"""Scores of many sequences are those of each alone."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from leafe_jax.learner import scoring
from leafe_jax.learner.scoring import Likeliest, Scorer
from tests.learner.conftest import VOCAB

LENGTH = 12


@pytest.mark.parametrize('chunk', [scoring.CHUNK, 2])
def test_each_sequence_gets_its_own_scores(policy, mesh, params, monkeypatch, chunk):
  monkeypatch.setattr(scoring, 'CHUNK', chunk)
  rng = np.random.default_rng(0)
  sequences = [rng.integers(0, VOCAB, n).tolist() for n in (5, 12, 3, 4, 7)]
  score, likeliest = Scorer(policy, mesh), Likeliest(policy, mesh, 3)
  found = scoring.score_sequences(score, params, sequences, LENGTH, 2)
  best = scoring.score_sequences(likeliest, params, sequences, LENGTH, 2)
  places = np.arange(LENGTH, dtype=np.int32)[None]
  for ids, values, (logprobs, tokens) in zip(sequences, found, best, strict=True):
    row = {
        'tokens': np.pad(np.array(ids, np.int32), (0, LENGTH - len(ids)))[None],
        'positions': places, 'segment_ids': (places < len(ids)).astype(np.int32),
    }
    size = len(ids)
    alone = jax.tree.map(lambda x, size=size: x[0, :size], likeliest(params, row))
    np.testing.assert_allclose(values, score(params, row)[0, :size], atol=1e-5)
    np.testing.assert_allclose(logprobs, alone[0], atol=1e-5)
    np.testing.assert_array_equal(tokens[1:], alone[1][1:])


def test_a_sequence_longer_than_a_row_is_refused(policy, mesh, params):
  with pytest.raises(ValueError, match='13 tokens; rows have 12'):
    scoring.score_sequences(Scorer(policy, mesh), params, [[1] * 13], LENGTH, 2)
