"""Training adapters: the base stays, and only adapters are kept."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax.learner import checkpoints as ckpt
from leafe_jax.learner import losses, optimizers, train, update
from leafe_jax.policy import lora, model
from tests.learner.conftest import VOCAB


@pytest.fixture
def start(policy, mesh, first_params, stream):
  """Starts a training run of adapters; (state, batches, update)."""
  config = dataclasses.replace(policy, lora_rank=2, lora_targets=('q', 'down'))

  def make():
    adapters = lora.init_params(config, VOCAB, jax.random.key(1), mesh)
    optimizer = optimizers.make_optimizer(3e-2, 10)
    apply = update.make_update(
        config, optimizer, losses.weighted_nll, mesh, forward=model.token_scores,
        frozen=first_params,
    )
    return update.init_state(adapters, optimizer, mesh), stream(), apply

  return make


def _shapes(tree):
  return {leaf.shape for leaf in jax.tree.leaves(tree) if leaf.ndim}


def test_only_adapters_change_and_have_optimizer_state(start, first_params):
  before = jax.device_get(first_params)
  state, batches, apply = start()
  first = jax.device_get(state.params)
  adapters = _shapes(state.params)
  moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
  assert {leaf.shape for leaf in moments} == adapters
  assert len(moments) == 2 * len(first) == 8
  batch, found = next(batches), []
  for _ in range(8):
    state, metrics = apply(state, batch)
    found.append(float(metrics['loss']))
  assert found[-1] < found[0]
  jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(first_params))
  assert all(np.any(first[name] != array) for name, array in state.params.items())
  assert apply.num_compilations() == 1


def test_a_checkpoint_holds_adapters_alone_and_resumes_with_the_same_bits(
    start, tmp_path
):
  state, batches, apply = start()
  expected = train.train(state, batches, apply, 6)
  for steps in (4, 6):
    kept = ckpt.Checkpoints(tmp_path)
    state, batches, apply = start()
    found = train.train(state, batches, apply, steps, kept, checkpoint_every=2)
    kept.close()
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, found, expected)))
  saved = sum(path.stat().st_size for path in tmp_path.rglob('*') if path.is_file())
  assert sorted(found.params) == [
      'down_lora_a_lfr', 'down_lora_b_lrd', 'q_lora_a_ldr', 'q_lora_b_lrnh',
  ]  # fmt: skip
  assert saved < 2 * 64_000  # of two checkpoints, most of it orbax's own files


@pytest.mark.parametrize('momentum', ['float32', 'bfloat16'])
def test_moments_have_the_types_asked_for_whatever_that_of_the_weights(
    policy, mesh, first_params, stream, momentum
):
  half = dataclasses.replace(policy, param_dtype='bfloat16', dtype='bfloat16')
  params = {k: jnp.asarray(v, jnp.bfloat16) for k, v in first_params.items()}
  optimizer = optimizers.make_optimizer(1e-2, 9, momentum_dtype=momentum)
  apply = update.make_update(half, optimizer, losses.weighted_nll, mesh)
  state = update.init_state(params, optimizer, mesh)
  batches = stream()
  for _ in range(2):
    state, _ = apply(state, next(batches))
  moments = state.opt_state[1][0]
  assert {x.dtype.name for x in moments.mu.values()} == {momentum}
  assert {x.dtype.name for x in moments.nu.values()} == {'float32'}
  assert {x.dtype.name for x in state.params.values()} == {'bfloat16'}
  assert apply.num_compilations() == 1


@pytest.mark.parametrize('param_dtype', ['float32', 'bfloat16'])
def test_bfloat16_trains_near_float32(policy, mesh, first_params, stream, param_dtype):
  def losses_of(config):
    params = {k: jnp.array(v, config.param_dtype) for k, v in first_params.items()}
    optimizer = optimizers.make_optimizer(1e-2, 20, warmup_fraction=0.0)
    apply = update.make_update(config, optimizer, losses.weighted_nll, mesh)
    state, found = update.init_state(params, optimizer, mesh), []
    batch = next(stream())
    for _ in range(6):
      state, metrics = apply(state, batch)
      found.append(float(metrics['loss']))
    return np.array(found)

  half = dataclasses.replace(policy, dtype='bfloat16', param_dtype=param_dtype)
  expected, found = losses_of(policy), losses_of(half)
  np.testing.assert_allclose(found, expected, atol=0.05)
  assert found[-1] < found[0] - 0.1
  assert np.any(found != expected)
