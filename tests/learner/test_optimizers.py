from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.learner import optimizers


def test_warm_up_rises_to_the_peak_and_the_cosine_falls_to_zero():
  rate = optimizers.make_schedule(1e-3, 100, 0.1, 'cosine')
  values = np.array([float(rate(i)) for i in range(101)])
  assert 0 < values[0] < 2e-4
  assert values.argmax() == 10
  np.testing.assert_allclose(values[10], 1e-3, rtol=1e-6)
  assert (np.diff(values[:11]) > 0).all() and (np.diff(values[10:]) < 0).all()
  np.testing.assert_allclose(values[100], 0, atol=1e-9)


def test_a_constant_schedule_stays_at_the_peak():
  rate = optimizers.make_schedule(1e-3, 100, 0.0, 'constant')
  assert {float(np.float32(rate(i))) for i in (0, 50, 99)} == {float(np.float32(1e-3))}


def test_an_unknown_schedule_is_refused_by_name():
  with pytest.raises(ValueError, match="'linear'; choose from cosine, constant"):
    optimizers.make_schedule(1e-3, 10, 0.0, 'linear')


def test_decay_touches_matrices_only(policy, params):
  decayed = {name for name, yes in optimizers.is_matrix(params).items() if yes}
  assert 'q_weight_ldnh' in decayed and 'embed_vd' in decayed
  assert not any('norm' in name or 'bias' in name for name in decayed)
  config = config_lib.Distill(weight_decay=0.5, learning_rate=0.1, warmup_fraction=0.0)
  optimizer = optimizers.from_config(config)
  zeros = {name: np.zeros_like(value) for name, value in params.items()}
  updates = jax.jit(lambda p: optimizer.update(zeros, optimizer.init(p), p)[0])(params)
  moved = {name for name, value in updates.items() if np.any(value)}
  assert moved == decayed
  np.testing.assert_allclose(updates['embed_vd'], -0.05 * params['embed_vd'], rtol=1e-5)


def test_gradients_are_clipped_by_their_global_norm():
  grads = {'a': jnp.full(3, 100.0), 'b': jnp.full(1, 100.0)}
  params = {'a': jnp.zeros(3), 'b': jnp.zeros(1)}
  optimizer = optimizers.make_optimizer(1e-3, 10, clip_norm=1.0)
  _, state = optimizer.update(grads, optimizer.init(params), params)
  first_moment = state[1][0].mu['a']
  np.testing.assert_allclose(first_moment, 0.1 * 0.5, rtol=1e-5)
