from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax.learner import losses
from leafe_jax.policy import model


def random_batch(rows: int = 3, length: int = 7, vocab: int = 5):
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(rows, length, vocab)).astype(np.float32)
  segments = np.tile([1, 1, 1, 2, 2, 2, 0], (rows, 1)).astype(np.int32)
  weights = rng.random((rows, length)).astype(np.float32) * (segments > 0)
  return logits, {
      'tokens': rng.integers(0, vocab, (rows, length)).astype(np.int32),
      'weights': weights * np.array([0, 1, 1, 0, 1, 1, 0], np.float32),
      'segment_ids': segments,
  }


def weighted_nll(logits, batch):
  return losses.weighted_nll(*jax.tree.map(jnp.asarray, (logits, batch)))


def test_the_loss_is_the_weighted_sum_of_minus_log_probabilities():
  logits, batch = random_batch()
  terms = weighted_nll(logits, batch)
  total = weight = hits = 0.0
  for row, line in enumerate(logits):
    for i in range(1, 7):
      w = batch['weights'][row, i]
      p = np.exp(line[i - 1]) / np.exp(line[i - 1]).sum()
      total -= w * np.log(p[batch['tokens'][row, i]])
      weight += w
      hits += w * (p.argmax() == batch['tokens'][row, i])
  np.testing.assert_allclose(terms.total, total, rtol=1e-5)
  np.testing.assert_allclose(terms.weight, weight, rtol=1e-6)
  np.testing.assert_allclose(terms.sums['accuracy'], hits, rtol=1e-5)


def test_a_token_that_starts_an_example_is_never_trained():
  logits, batch = random_batch()
  before = weighted_nll(logits, batch)
  batch['weights'][:, [0, 3]] = 9
  after = weighted_nll(logits, batch)
  assert before.total == after.total and before.weight == after.weight


def test_bfloat16_logits_are_normalised_in_float32():
  logits = jnp.full((1, 2, 3000), 0.001, jnp.bfloat16)
  found = losses.token_log_probs(logits[:, :1], jnp.zeros((1, 1), jnp.int32))
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, -np.log(3000), rtol=1e-5)


@pytest.fixture
def terms_of(policy):
  @jax.jit
  def compute(params, batch):
    logits = model.forward(
        params, policy, batch['tokens'], batch['positions'], batch['segment_ids']
    )
    return losses.weighted_nll(logits, batch)

  return compute


def test_kind_weights_give_cf_plus_beta_rehearsal(params, stream, terms_of):
  """L = (sum over cf + beta * sum over reh) / (weight of cf + beta * weight of reh)."""
  def parts(**kinds):
    terms = terms_of(params, next(stream(kind_weights=kinds)))
    return np.array([terms.total, terms.weight])

  cf, reh = parts(cf=1, reh=0), parts(cf=0, reh=1)
  for beta in (0.0, 0.5, 2.0):
    np.testing.assert_allclose(parts(cf=1, reh=beta), cf + beta * reh, rtol=1e-5)


def test_packing_never_changes_the_loss_of_an_example(params, stream, terms_of):
  """Each segment has the gradient and loss it would have alone in a row."""
  batch = next(stream())

  alone = {name: [] for name in batch}
  for row in range(4):
    for segment in range(1, batch['segment_ids'][row].max() + 1):
      at = batch['segment_ids'][row] == segment
      for name in batch:
        line = np.zeros(24, batch[name].dtype)
        line[: at.sum()] = 1 if name == 'segment_ids' else batch[name][row][at]
        alone[name].append(line)
  alone = {name: np.stack(lines) for name, lines in alone.items()}
  assert len(alone['tokens']) > 6
  value_and_grad = jax.jit(jax.value_and_grad(lambda p, b: terms_of(p, b).total))
  packed, single = value_and_grad(params, batch), value_and_grad(params, alone)
  np.testing.assert_allclose(packed[0], single[0], rtol=1e-5)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
      packed[1], single[1],
  )
