"""A linear head on pooled hidden states, by hand."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.learner import discriminator
from leafe_jax.policy import model
from leafe_jax.policy.sharding import make_mesh
from tests.drawn import draw_params

AGENT = np.array([[1.0, 0.0], [1.0, 2.0]], np.float32)
EXPERT = np.array([[-1.0, 0.0], [-1.0, 2.0]], np.float32)


def test_one_update_by_hand():
  judge = discriminator.Discriminator(2, 0.01, smoothing=0.1)
  head, found = judge.learn(judge.init(), AGENT, EXPERT)
  # D = 1/2 everywhere; gradient of w: mean of (1/2 - label) x = (-0.4, 0), of b: 0.
  assert found['discriminator_loss'] == pytest.approx(np.log(2), rel=1e-5)
  np.testing.assert_allclose(head.w['w_d'], [0.01, 0.0], atol=1e-6)  # Adam: the sign
  np.testing.assert_allclose(head.w['b'], 0.0, atol=1e-6)


def test_steps_like_the_experts_earn_more():
  judge = discriminator.Discriminator(2, 0.1, smoothing=0.0)
  head = judge.init()
  for _ in range(30):
    head, found = judge.learn(head, AGENT, EXPERT)
  assert found['discriminator_accuracy'] == 1.0
  agent, expert = (discriminator.rewards(head, x, 5.0) for x in (AGENT, EXPERT))
  assert agent.max() < expert.min()
  logits = EXPERT @ np.asarray(head.w['w_d']) + float(head.w['b'])
  np.testing.assert_allclose(expert, np.log1p(np.exp(-logits)), rtol=1e-5)
  assert discriminator.rewards(head, 1e3 * EXPERT, 5.0).tolist() == [5.0, 5.0]


def test_whitened_rewards_have_mean_zero_and_spread_one():
  found = discriminator.whiten(np.array([1.0, 3.0]))
  np.testing.assert_allclose(found, [-1.0, 1.0], rtol=1e-5)
  assert discriminator.whiten(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]


def test_features_are_the_mean_over_the_response_of_each_alone():
  policy = config_lib.Policy(
      num_layers=1, embed_dim=8, num_heads=1, num_kv_heads=1, head_dim=8, mlp_dim=8,
      max_length=16,
  )
  mesh = make_mesh(config_lib.Mesh())
  params = draw_params(policy, 11, mesh)
  said = [([1, 2, 3], [4, 5]), ([6], [7, 8, 9]), ([2], [2])]
  states = jax.jit(model.hidden, static_argnums=1)
  found = discriminator.Pooler(policy, mesh)(params, said, 8, 2)
  for (prompt, response), features in zip(said, found, strict=True):
    tokens = np.array([[*prompt, *response]], np.int32)
    places = np.arange(tokens.size)[None].astype(np.int32)
    hidden, _ = states(params, policy, tokens, places, np.ones_like(tokens))
    expected = np.asarray(hidden)[0, len(prompt):].mean(axis=0)
    np.testing.assert_allclose(features, expected, atol=1e-5)
