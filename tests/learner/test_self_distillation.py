"""Losses that pull a policy towards itself with more in its prompt."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax.learner import losses, policy_gradient
from leafe_jax.learner import self_distillation as distillation
from tests.learner.test_policy_gradient import rows

SURROGATE = {'clip': 0.2, 'kl': 0.01}


def one_token(student, teacher, token=0):
  """A batch of one response token: (logits, batch, its log-probability)."""
  logits = jnp.log(jnp.array([[student, student]], jnp.float32))
  batch = {
      'tokens': np.array([[1, token]]), 'segment_ids': np.ones((1, 2), np.int32),
      'weights': np.array([[0.0, 1.0]], np.float32),
      'taught': np.array([[0.0, 1.0]], np.float32),
      'teacher_logprobs': np.log(np.array([[1.0, teacher]], np.float32)),
      'old_logprobs': np.log(np.array([[1.0, student[token]]], np.float32)),
      'ref_logprobs': np.log(np.array([[1.0, student[token]]], np.float32)),
      'advantages': np.zeros((1, 2), np.float32),
  }
  return logits, batch


def descent(loss, logits):
  """What a small step down the gradient adds to each token's log-probability."""
  before = jax.nn.log_softmax(logits[0, 0])
  after = jax.nn.log_softmax((logits - 1e-2 * jax.grad(loss)(logits))[0, 0])
  return after - before


def test_the_gated_term_raises_what_the_hinted_self_endorses():
  """The sign: a step down makes it likelier, and hardly moves what is rejected."""

  def term(x, batch):
    return distillation.gated(x, batch, sharpness=10.0).total

  endorsed, batch = one_token((0.2, 0.8), 0.9)
  up = descent(lambda x: term(x, batch), endorsed)[0]
  assert up > 0
  rejected, batch = one_token((0.2, 0.8), 0.02)
  assert abs(descent(lambda x: term(x, batch), rejected)[0]) < 1e-6 * up


def test_the_gate_by_hand():
  student, teacher, sharpness = 0.2, 0.3, 5.0
  logits, batch = one_token((student, 1 - student), teacher)
  delta = np.log(teacher / student)
  gate = 1 / (1 + np.exp(-sharpness * delta))
  terms = distillation.gated(logits, batch, sharpness=sharpness)
  np.testing.assert_allclose(terms.total, gate * delta, rtol=1e-5)
  np.testing.assert_allclose(terms.sums['gate'], gate, rtol=1e-5)
  gradient = jax.grad(lambda x: distillation.gated(x, batch, sharpness=5.0).total)
  # -g * d log p(0) / d logits
  np.testing.assert_allclose(
      gradient(logits)[0, 0], -gate * np.array([1 - student, student - 1]), rtol=1e-5
  )


def test_reverse_kl_on_sampled_tokens_moves_both_ways():
  for teacher, sign in [(0.9, 1), (0.02, -1)]:
    logits, batch = one_token((0.2, 0.8), teacher)
    moved = descent(lambda x, b=batch: distillation.reverse(x, b).total, logits)
    assert np.sign(moved[0]) == sign


def test_in_expectation_over_samples_it_is_the_gradient_of_the_reverse_kl():
  p, q = (np.random.default_rng(0).dirichlet(np.ones(5)) for _ in range(2))
  p, q = p.astype(np.float32), np.roll(q, 2).astype(np.float32)
  logits = jnp.log(jnp.array([[p, p]]))

  def kl(x):
    logp = jax.nn.log_softmax(x[0, 0])
    return jnp.sum(jnp.exp(logp) * (logp - jnp.log(q)))

  expected = 0.0
  for token in range(5):
    _, batch = one_token(p, q[token], token)
    gradient = jax.grad(lambda x, b=batch: distillation.reverse(x, b).total)
    expected += p[token] * gradient(logits)
  np.testing.assert_allclose(expected, jax.grad(kl)(logits), atol=1e-6)


def test_old_responses_count_at_most_so_much():
  logits, batch = one_token((0.4, 0.6), 0.9)
  plain = distillation.reverse(logits, batch).total
  batch['old_logprobs'] = np.log(np.array([[1.0, 0.01]], np.float32))
  np.testing.assert_allclose(
      distillation.reverse(logits, batch, ratio_clip=2.0).total, 2 * plain, rtol=1e-5
  )
  batch['old_logprobs'] = np.log(np.array([[1.0, 0.8]], np.float32))
  np.testing.assert_allclose(
      distillation.reverse(logits, batch, ratio_clip=2.0).total, plain / 2, rtol=1e-5
  )


def test_tokens_nobody_taught_count_only_in_the_mean():
  logits, batch = rows(1)
  taught = (batch['weights'] > 0) & (np.arange(12) % 2 == 0)
  batch |= {'taught': taught.astype(np.float32),
            'teacher_logprobs': np.where(taught, -1.0, np.inf).astype(np.float32)}
  for term in (distillation.reverse, distillation.gated):
    found = term(logits, batch)
    assert np.isfinite(found.total)
    assert found.weight == losses.target_weights(batch).sum()
    gradient = jax.grad(lambda x, t=term: t(x, batch).total)(logits)
    idle = np.pad(~taught[:, 1:], [(0, 0), (0, 1)], constant_values=True)
    assert not np.any(np.asarray(gradient)[idle])


def test_beside_a_surrogate_the_terms_add_up():
  logits, batch = rows(2)
  batch |= {'taught': batch['weights'],
            'teacher_logprobs': batch['ref_logprobs']}

  def surrogate(outputs, batch):
    return policy_gradient.clipped_surrogate(outputs, batch, **SURROGATE)

  both = distillation.beside(surrogate, distillation.gated, 0.1, 'gated')
  found, policy = both(logits, batch), surrogate(logits, batch)
  gated = distillation.gated(logits, batch)
  np.testing.assert_allclose(found.total, policy.total + 0.1 * gated.total, rtol=1e-5)
  assert found.weight == policy.weight
  assert {'surrogate', 'gated', 'gate', 'endorsed'} <= set(found.sums)


# --- over the teacher's likeliest tokens


def candidates(student, teacher, clip=0.0):
  """(loss, gradient for the student's logits) of one token with all candidates."""
  ids = np.arange(len(teacher))
  batch = {
      'segment_ids': np.ones((1, 2), np.int32),
      'weights': np.array([[0.0, 1.0]], np.float32),
      'teacher_topk': np.log(np.array([[teacher, teacher]], np.float32)),
      'candidates': np.array([[ids, ids]], np.int32),
  }

  def loss(x):
    logp = jax.nn.log_softmax(x)
    return distillation.forward(jnp.stack([logp, logp])[None], batch, clip=clip).total

  return jax.value_and_grad(loss)(jnp.log(jnp.array(student, jnp.float32)))


def test_forward_kl_by_hand():
  student, teacher = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7])
  value, gradient = candidates(student, teacher)
  np.testing.assert_allclose(
      value, np.sum(teacher * np.log(teacher / student)), rtol=1e-5
  )
  np.testing.assert_allclose(gradient, student - teacher, atol=1e-6)


def test_clipping_bounds_what_a_token_counts_and_keeps_its_direction():
  student, teacher = [0.05, 0.9, 0.05], [0.98, 0.01, 0.01]
  value, free = candidates(student, teacher)
  bounded, clipped = candidates(student, teacher, clip=0.05)
  largest = 0.98 * np.log(0.98 / 0.05)
  np.testing.assert_allclose(bounded, value * 0.05 / largest, rtol=1e-4)
  np.testing.assert_allclose(clipped, free * 0.05 / largest, rtol=1e-3)
  assert clipped[0] < 0  # a step down still raises what the teacher wants


def test_clipping_leaves_small_differences_alone():
  close = ([0.5, 0.5], [0.52, 0.48])
  np.testing.assert_allclose(candidates(*close)[1], candidates(*close, clip=0.05)[1])


def test_a_teacher_that_is_sure_is_a_target():
  """Rehearsal beside distillation: -log p of the token."""
  value, _ = candidates([0.25, 0.75], [1.0, 1e-30])
  assert value == pytest.approx(np.log(4), rel=1e-5)
