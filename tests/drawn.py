"""Weights of the right shapes and spreads, drawn by numpy: nothing to compile."""

import jax
import numpy as np

from leafe_jax.policy import model, weights


def _values(rng, weight):
  if weight.std is None:  # the scale of a norm
    return np.ones(weight.shape, np.float32)
  return weight.std * rng.standard_normal(weight.shape, np.float32)


def draw_params(policy, vocab_size, mesh, seed=0):
  """As `model.init_params` gives them, with other numbers."""
  rng = np.random.default_rng(seed)
  table = weights.weight_table(policy, vocab_size)
  drawn = {
      name: _values(rng, weight).astype(policy.param_dtype)
      for name, weight in table.items()
  }
  return jax.device_put(drawn, model.param_shardings(policy, vocab_size, mesh))
