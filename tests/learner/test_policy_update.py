"""One step of policy optimisation on hand-made rows."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from leafe_jax.config import Grpo
from leafe_jax.experience import pipeline
from leafe_jax.learner import policy_update, scoring

CONFIG = dataclasses.replace(
    Grpo(), learning_rate=1e-2, minibatches=2, epochs=2, entropy=0.0
)


@pytest.fixture(name='rows')
def _rows():
  """Nine sequences; tokens above 16 were good, others bad."""
  rng = np.random.default_rng(0)
  sequences = []
  for length in rng.integers(6, 14, 9):
    tokens = rng.integers(1, 32, length).astype(np.int32)
    said = (np.arange(length) > 2).astype(np.float32)
    sequences.append({
        'tokens': tokens, 'weights': said, 'logprobs': -3.4 * said,
        'advantages': said * np.where(tokens > 16, 1.0, -1.0).astype(np.float32),
    })
  return pipeline.pack_rows(sequences, 24)


def step(policy, mesh, params, rows, directory, **options):
  """(parameters before, state after, metrics)."""
  before = {name: np.array(value) for name, value in params.items()}
  reference = {n: jax.device_put(v, params[n].sharding) for n, v in before.items()}
  config = dataclasses.replace(CONFIG, **options)
  update = policy_update.PolicyUpdate(policy, config, mesh, 0, directory)
  state, metrics = update(update.init_state(params), rows, reference, 1)
  return before, state, metrics


def test_every_row_is_learnt_from_once_per_epoch(
    policy, mesh, params, rows, tmp_path
):
  before, state, metrics = step(policy, mesh, params, rows, tmp_path)
  assert int(state.step) == 4
  assert metrics['weight'] == pytest.approx(rows['weights'].sum() / 2)
  assert any(np.any(before[n] != np.asarray(v)) for n, v in state.params.items())


def test_good_tokens_become_likelier_and_bad_ones_less(
    policy, mesh, params, rows, tmp_path
):
  score = scoring.Scorer(policy, mesh)
  first = score(params, rows)
  _, state, _ = step(policy, mesh, params, rows, tmp_path, old_logprobs='recomputed')
  moved = (score(state.params, rows) - first) * (rows['weights'] > 0)
  assert moved[rows['advantages'] > 0].mean() > 0 > moved[rows['advantages'] < 0].mean()


@pytest.mark.parametrize(
    ('dtype', 'option', 'recomputed'),
    [
        ('float32', 'auto', False), ('bfloat16', 'auto', True),
        ('float32', 'recomputed', True), ('bfloat16', 'sampled', False),
    ],
)
def test_in_bfloat16_old_logprobs_are_those_of_the_training_forward(
    policy, mesh, params, rows, tmp_path, dtype, option, recomputed
):
  """The gap is reported either way; it is a policy change only if not undone."""
  policy = dataclasses.replace(policy, dtype=dtype)
  _, _, metrics = step(
      policy, mesh, params, rows, tmp_path, old_logprobs=option, epochs=1,
      minibatches=1,
  )
  assert metrics['logprob_gap'] > 0.05
  assert metrics['logprob_gap_max'] > metrics['logprob_gap']
  expected = 0.0 if recomputed else metrics['logprob_gap']
  assert metrics['log_ratio'] == pytest.approx(expected, abs=1e-3)
  assert metrics['kl'] == pytest.approx(0.0, abs=1e-3)  # still at the reference


def test_without_a_kl_term_no_reference_is_read(policy, mesh, params, rows, tmp_path):
  config = dataclasses.replace(CONFIG, kl=0.0)
  update = policy_update.PolicyUpdate(policy, config, mesh, 0, tmp_path)
  state, metrics = update(update.init_state(params), rows, {}, 1)
  assert int(state.step) == 4 and np.isfinite(metrics['loss'])
