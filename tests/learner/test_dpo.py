"""The pair loss against the published formula, and what it teaches."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafe_jax.experience import examples, pipeline, preferences
from leafe_jax.experience.preferences import Pair
from leafe_jax.learner import dpo, losses, optimizers, update
from leafe_jax.learner.scoring import Scorer
from leafe_jax.policy import model
from tests.learner.conftest import VOCAB

LENGTH = 24


def make_pairs(count, seed=0, vocab=VOCAB):
  rng = np.random.default_rng(seed)

  def draw(most):
    return rng.integers(1, vocab, rng.integers(1, most + 1)).tolist()

  found = []
  for i in range(count):
    history, answers = draw(5), (draw(3), draw(3))
    kinds = (examples.COUNTERFACTUAL, examples.REJECTED)
    found.append(Pair(*(
        examples.make([(history, 0.0), (answer, 1.0)], kind, 't', i)
        for kind, answer in zip(kinds, answers, strict=True)
    )))
  return found


def batch_of(pairs, seed=0):
  """Packed rows of them, with a made-up reference."""
  batch = preferences.rows(pairs, LENGTH)
  rng = np.random.default_rng(seed)
  shape = batch['tokens'].shape
  batch['ref_logprobs'] = rng.normal(-2, 0.5, shape).astype(np.float32)
  return batch


def log_p(logits, batch, row, t):
  x = logits[row, t - 1].astype(np.float64)
  return (x - x.max() - np.log(np.exp(x - x.max()).sum()))[batch['tokens'][row, t]]


def published_loss(logits, batch, beta, sft_weight):
  """Equation 7 of 2305.18290 and equation 1 of 2404.19733, pair by pair."""
  total, count = 0.0, 0
  for row, segments in enumerate(batch['segment_ids']):
    for pair in range(1, segments.max() // 2 + 1):
      ratio = {}
      for name, segment in [('chosen', 2 * pair - 1), ('rejected', 2 * pair)]:
        places = np.flatnonzero((segments == segment) & (batch['weights'][row] > 0))
        scores = np.array([log_p(logits, batch, row, t) for t in places])
        ratio[name] = np.sum(scores - batch['ref_logprobs'][row, places])
        if name == 'chosen':
          nll = -np.mean(scores)
      margin = beta * (ratio['chosen'] - ratio['rejected'])
      total += np.log1p(np.exp(-margin)) + sft_weight * nll
      count += 1
  return total, count


@pytest.mark.parametrize('sft_weight', [0.0, 0.5])
@pytest.mark.parametrize('seed', range(3))
def test_the_loss_is_the_published_one(seed, sft_weight):
  pairs = make_pairs(9, seed)
  batch = batch_of(pairs, seed)
  rng = np.random.default_rng(seed)
  logits = rng.normal(0, 1, (*batch['tokens'].shape, VOCAB)).astype(np.float32)
  terms = dpo.preference_loss(logits, batch, beta=0.3, sft_weight=sft_weight)
  total, count = published_loss(logits, batch, 0.3, sft_weight)
  assert float(terms.weight) == count == len(pairs)
  np.testing.assert_allclose(float(terms.total), total, rtol=1e-5)
  assert 0 <= float(terms.sums['accuracy']) <= count
  np.testing.assert_allclose(
      terms.sums['chosen_reward'] - terms.sums['rejected_reward'],
      terms.sums['margin'], atol=1e-4,
  )


@jax.jit
@functools.partial(jax.value_and_grad, argnums=0)
def loss_of(logits, batch):
  return dpo.preference_loss(logits, batch, beta=0.1, sft_weight=1.0).total


@settings(max_examples=30)
@given(st.integers(0, 99), st.integers(1, 6))
def test_nothing_but_responses_counts(seed, count):
  """Whatever the scores of prompts, first tokens and padding are."""
  batch = batch_of(make_pairs(count, seed), seed)
  batch = {name: update.pad_rows(value, 6) for name, value in batch.items()}
  rng = np.random.default_rng(seed)
  logits = rng.normal(0, 1, (*batch['tokens'].shape, VOCAB)).astype(np.float32)
  idle = np.pad(np.asarray(losses.target_weights(batch)) == 0, [(0, 0), (1, 0)],
                constant_values=True)
  references = np.where(idle, -np.inf, batch['ref_logprobs']).astype(np.float32)
  # The logits at t - 1 predict token t.
  predicts = np.pad(~idle[:, 1:], [(0, 0), (0, 1)])
  noise = rng.normal(0, 9, logits.shape).astype(np.float32)
  first, gradient = loss_of(logits, batch)
  second, _ = loss_of(
      np.where(predicts[..., None], logits, noise),
      {**batch, 'ref_logprobs': references},
  )
  np.testing.assert_allclose(first, second, rtol=1e-6)
  assert not np.any(np.asarray(gradient)[~predicts])


def test_a_batch_of_padding_is_no_pair():
  batch = {name: np.zeros_like(value) for name, value in
           batch_of(make_pairs(2)).items()}
  logits = np.zeros((*batch['tokens'].shape, VOCAB), np.float32)
  terms = dpo.preference_loss(logits, batch, beta=0.1, sft_weight=1.0)
  assert float(terms.weight) == float(terms.total) == 0


def references_of(policy, mesh, params, pairs):
  score = Scorer(policy, mesh)
  return dpo.reference_logprobs(score, params, pairs, LENGTH, batch_rows=2)


def test_references_are_those_of_each_sequence_alone(
    policy, mesh, params, monkeypatch
):
  pairs = make_pairs(7)
  halves = [half for pair in pairs for half in (pair.chosen, pair.rejected)]
  lengths = np.array([[len(half)] for half in halves])
  places = np.arange(LENGTH, dtype=np.int32)[None].repeat(len(halves), 0)
  tokens = [np.pad(half.ids, (0, LENGTH - len(half))) for half in halves]
  alone = Scorer(policy, mesh)(params, {
      'tokens': np.stack(tokens), 'positions': places,
      'segment_ids': (places < lengths).astype(np.int32),
  })
  expected = np.concatenate([
      row[: len(half)] for row, half in zip(alone, halves, strict=True)
  ])
  for chunk in (dpo.CHUNK, 3):
    monkeypatch.setattr(dpo, 'CHUNK', chunk)
    found = references_of(policy, mesh, params, pairs)
    assert [len(scores) for scores in found] == [len(pair) for pair in pairs]
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-5)


def train(policy, mesh, params, pairs, steps, **options):
  """(metrics of the updates, trained weights)."""
  references = references_of(policy, mesh, params, pairs)
  packing = pipeline.Packing(batch_rows=4, row_length=LENGTH, bins=4)
  batches = preferences.batches(pairs, references, packing, seed=0)
  optimizer = optimizers.make_optimizer(1e-2, steps)
  step = update.make_update(
      policy, optimizer, functools.partial(dpo.preference_loss, **options), mesh,
      forward=model.token_scores,
  )
  state, found = update.init_state(params, optimizer, mesh), []
  for _ in range(steps):
    state, metrics = step(state, next(batches))
    found.append({name: float(value) for name, value in metrics.items()})
  batches.close()
  return found, state.params


def test_training_starts_at_the_reference_and_raises_the_chosen_actions(
    policy, mesh, params, first_params
):
  pairs = make_pairs(12)
  metrics, trained = train(
      policy, mesh, params, pairs, 40, beta=0.1, sft_weight=0.0
  )
  assert metrics[0]['loss'] == pytest.approx(np.log(2), abs=1e-4)
  assert metrics[0]['margin'] == pytest.approx(0, abs=1e-4)
  assert metrics[-1]['loss'] < 0.6 * metrics[0]['loss']
  assert metrics[-1]['accuracy'] == 1
  before = references_of(policy, mesh, first_params, pairs)
  after = references_of(policy, mesh, trained, pairs)

  def preference(scores):
    return [
        np.sum(pair.chosen.weights * s[: len(pair.chosen)])
        - np.sum(pair.rejected.weights * s[len(pair.chosen) :])
        for pair, s in zip(pairs, scores, strict=True)
    ]

  assert np.all(np.array(preference(after)) > preference(before))


def test_far_from_the_reference_the_loss_stays_finite():
  batch = batch_of(make_pairs(3))
  batch['ref_logprobs'] = np.where(batch['segment_ids'] % 2, 1e4, -1e4)
  logits = jnp.zeros((*batch['tokens'].shape, VOCAB))
  terms = dpo.preference_loss(logits, batch, beta=1.0)
  assert np.isfinite(float(terms.total))
