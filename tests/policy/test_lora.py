"""Adapters: nothing at first, the same on the fly as merged, small in memory."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.policy import layers, lora, model, quantize, sharding
from leafe_jax.sampler import Request, Rules, Sampler
from tests.drawn import draw_params

ROOT = pathlib.Path(__file__).resolve().parents[2]
VOCAB = 23
CONFIG = config_lib.Policy(
    num_layers=2, embed_dim=16, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=24,
    qkv_bias=True, max_length=32, lora_rank=3, lora_alpha=6.0,
)  # fmt: skip
SCANNED = dataclasses.replace(CONFIG, scan_layers=True, remat='full')
forward = jax.jit(model.forward, static_argnums=1)
scored = jax.jit(model.token_logprobs, static_argnums=1)


@pytest.fixture(scope='module')
def mesh():
  return sharding.make_mesh(config_lib.Mesh(), jax.devices()[:1])


@pytest.fixture(scope='module')
def base(mesh):
  return draw_params(CONFIG, VOCAB, mesh)


@pytest.fixture(scope='module')
def fresh(mesh):
  return lora.init_params(CONFIG, VOCAB, jax.random.key(1), mesh)


@pytest.fixture(scope='module')
def taught(fresh):
  """Adapters that do something."""
  rng = np.random.default_rng(2)
  return {
      name: array + 0.2 * rng.standard_normal(array.shape, np.float32)
      for name, array in fresh.items()
  }


@pytest.fixture(scope='module')
def rows():
  tokens = jax.random.randint(jax.random.key(3), (2, 16), 0, VOCAB)
  places = jnp.arange(16)[None].repeat(2, axis=0)
  return tokens, places % 9, 1 + places // 9


def _skip_without_qwix(form):
  if form != 'none':
    pytest.importorskip('qwix', reason='quantised weights are arrays of qwix')


def test_fresh_adapters_change_nothing(base, fresh, rows):
  joined = lora.join(base, fresh, CONFIG)
  np.testing.assert_array_equal(
      forward(joined, CONFIG, *rows), forward(base, CONFIG, *rows)
  )


def test_adapters_of_every_target_have_its_inputs_and_outputs(fresh):
  assert {name: array.shape for name, array in fresh.items()} == {
      'q_lora_a_ldr': (2, 16, 3), 'q_lora_b_lrnh': (2, 3, 4, 8),
      'k_lora_a_ldr': (2, 16, 3), 'k_lora_b_lrkh': (2, 3, 2, 8),
      'v_lora_a_ldr': (2, 16, 3), 'v_lora_b_lrkh': (2, 3, 2, 8),
      'o_lora_a_lnhr': (2, 4, 8, 3), 'o_lora_b_lrd': (2, 3, 16),
      'gate_lora_a_ldr': (2, 16, 3), 'gate_lora_b_lrf': (2, 3, 24),
      'up_lora_a_ldr': (2, 16, 3), 'up_lora_b_lrf': (2, 3, 24),
      'down_lora_a_lfr': (2, 24, 3), 'down_lora_b_lrd': (2, 3, 16),
  }  # fmt: skip
  spread = float(jnp.std(fresh['gate_lora_a_ldr']))
  assert abs(spread / (3 * 16) ** -0.5 - 1) < 0.3


@pytest.mark.parametrize('form', ['none', 'int8', 'nf4'])
@pytest.mark.parametrize('config', [CONFIG, SCANNED], ids=['unrolled', 'scanned'])
def test_merged_weights_give_the_logits_of_applied_adapters(
    base, taught, rows, mesh, form, config
):
  _skip_without_qwix(form)
  config = dataclasses.replace(config, quantize=form)
  frozen = lora.freeze(dict(base), config, mesh)
  applied = forward(lora.join(frozen, taught, config), config, *rows)
  merged = lora.merge(frozen, taught, config)
  assert merged.keys() == base.keys()
  np.testing.assert_allclose(forward(merged, config, *rows), applied, atol=2e-4)
  assert float(jnp.abs(applied - forward(base, config, *rows)).max()) > 0.05


@pytest.mark.parametrize(('form', 'most'), [('int8', 0.01), ('nf4', 0.12)])
def test_quantised_matrices_are_small_and_near_the_base(base, mesh, form, most):
  _skip_without_qwix(form)
  config = dataclasses.replace(CONFIG, quantize=form)
  frozen = lora.freeze(dict(base), config, mesh)
  for name, weight in base.items():
    spelt = quantize.dense(frozen[name], jnp.float32)
    error = jnp.linalg.norm(spelt - weight) / jnp.linalg.norm(weight)
    assert (0 < error < most) == (name in layers.INPUTS), name
    if name in layers.INPUTS:
      assert frozen[name].qvalue.dtype.itemsize == 1
      assert frozen[name].scale.size < weight.size / 4


def test_sampled_logprobs_are_those_of_training(base, taught, mesh):
  config = CONFIG
  joined = lora.join(base, taught, config)
  settings = config_lib.Sampler(
      page_size=4, num_pages=32, max_rows=2, prefill_buckets=(8,), length_buckets=(16,)
  )
  sampler = Sampler(config, settings, mesh)
  sampler.load(joined, 0)
  prompt = [3, 1, 4, 1, 5]
  state = sampler.extend(sampler.empty(), prompt)
  (sample,) = sampler.sample([Request(state, (0, 1))], Rules(max_tokens=6))
  tokens = jnp.asarray([prompt + sample.tokens], jnp.int32)
  places = jnp.arange(tokens.shape[1])[None]
  found = scored(joined, config, tokens, places, jnp.ones_like(places))
  np.testing.assert_allclose(found[0, len(prompt) :], sample.logprobs, atol=1e-4)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'lora_targets': ('q', 'head')}, 'lora_targets is head; choose from q, k'),
        ({'lora_targets': ()}, 'lora_targets is empty'),
        ({'lora_rank': -1}, 'lora_rank is -1'),
        ({'quantize': 'int3'}, "'int3'; choose from none, int8, nf4"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    lora.check(dataclasses.replace(CONFIG, **options))


def test_quantised_weights_are_not_trained_themselves():
  _skip_without_qwix('nf4')
  with pytest.raises(ValueError, match='policy.lora_rank'):
    lora.check(dataclasses.replace(CONFIG, lora_rank=0, quantize='nf4'))


EIGHT_DEVICES = """
import dataclasses, sys
import jax, numpy as np
from leafe_jax.config import Mesh, Policy
from leafe_jax.learner import losses, optimizers, update
from leafe_jax.policy import lora, model, sharding

form = sys.argv[1]
policy = Policy(num_layers=2, embed_dim=32, num_heads=4, num_kv_heads=2, head_dim=8,
                mlp_dim=32, lora_rank=4, quantize=form, scan_layers=True, remat='dots',
                logit_chunk=5)
rng = np.random.default_rng(0)
batch = {'tokens': rng.integers(0, 22, (8, 12)).astype(np.int32),
         'weights': np.ones((8, 12), np.float32),
         'segment_ids': np.ones((8, 12), np.int32),
         'positions': np.arange(12, dtype=np.int32)[None].repeat(8, axis=0)}

def run(sizes, devices):
  mesh = sharding.make_mesh(sizes, devices)
  base = model.init_params(policy, 22, jax.random.key(0), mesh)
  frozen = lora.freeze(base, policy, mesh)
  params = lora.init_params(policy, 22, jax.random.key(1), mesh)
  optimizer = optimizers.make_optimizer(1e-2, 10, warmup_fraction=0.0)
  apply = update.make_update(policy, optimizer, losses.weighted_nll, mesh,
                             forward=model.token_scores, frozen=frozen)
  state = update.init_state(params, optimizer, mesh)
  found = []
  for _ in range(3):
    state, metrics = apply(state, batch)
    found.append(float(metrics['loss']))
  return frozen, state.params, found

_, params, expected = run(Mesh(), jax.devices()[:1])
assert expected[-1] < expected[0]
for sizes in (Mesh(fsdp=8), Mesh(data=2, fsdp=2, tensor=2))[form != 'none':]:
  frozen, other, found = run(sizes, jax.devices())
  np.testing.assert_allclose(found, expected, atol=1e-4)
  for leaf in jax.tree.leaves(frozen['gate_weight_ldf'])[:1]:
    assert not leaf.sharding.is_fully_replicated
  assert not other['gate_lora_a_ldr'].sharding.is_fully_replicated
  for name, array in params.items():
    np.testing.assert_allclose(other[name], array, atol=1e-3)
"""


@pytest.mark.parametrize('form', [
    pytest.param('none', marks=pytest.mark.slow('as nf4')), 'nf4',
])
def test_eight_devices_train_what_one_does(form):
  _skip_without_qwix(form)
  flags = '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0'
  env = {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  done = subprocess.run(
      [sys.executable, '-W', 'error', '-c', EIGHT_DEVICES, form],
      cwd=ROOT, env=env | {'PYTHONPATH': os.pathsep.join(sys.path)},
      capture_output=True, text=True, check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
