"""Frozen bases in few bits, of layers that are not plain attention and MLP."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.policy import layers, lora, model, quantize, sharding, weights

pytest.importorskip('qwix', reason='quantised weights need qwix')

DELTA = config_lib.Policy(
    num_layers=1, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=24,
    layer_kinds=('delta',), delta_key_heads=2, delta_value_heads=4,
    delta_key_dim=4, delta_value_dim=6, lora_rank=2, lora_targets=('mix', 'z'),
    scan_layers=True,
)
EXPERTS = config_lib.Policy(
    num_layers=1, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=24,
    layer_kinds=('experts',), num_experts=4, experts_per_token=2, expert_dim=8,
    lora_rank=2, lora_targets=('q',), scan_layers=True,
)
TOKENS = jnp.asarray([[3, 5, 7, 2, 9, 4, 8, 6]])


@pytest.mark.parametrize(
    ('policy', 'form', 'name'),
    [(DELTA, 'nf4', 'out_weight_lwjd'), (EXPERTS, 'int8', 'edown_weight_lemd')],
    ids=['delta', 'experts'],
)
def test_a_frozen_base_runs_as_what_its_bits_spell(policy, form, name):
  policy = dataclasses.replace(policy, quantize=form)
  mesh = sharding.make_mesh(config_lib.Mesh(), jax.devices()[:1])
  rng = np.random.default_rng(0)
  base = {
      name: jnp.asarray(0.3 * rng.standard_normal(weight.shape), jnp.float32)
      for name, weight in weights.weight_table(policy, 12).items()
  }
  planned = lora.abstract_frozen(policy, 12, mesh)
  kept = {name for name, weight in planned.items() if quantize.is_quantized(weight)
          and not isinstance(weight, jax.ShapeDtypeStruct)}
  assert kept == {name for name in base if name in layers.INPUTS}
  letters = name.rsplit('_', 1)[1]
  inputs = tuple(letters.index(letter) for letter in layers.INPUTS[name])
  axes = weights.logical_axes(name)
  frozen = base | {name: quantize.quantize(base[name], form, axes, inputs, mesh)}
  spelt = base | {name: quantize.dense(frozen[name], 'float32')}

  @jax.jit
  def score(params):
    segments = jnp.ones_like(TOKENS)
    places = jnp.arange(TOKENS.shape[1])[None]
    return model.forward(params, policy, TOKENS, places, segments)

  np.testing.assert_allclose(score(frozen), score(spelt), rtol=1e-5, atol=1e-5)
