from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax.learner import losses, optimizers, policy_gradient, update


def make(policy, mesh, **kwargs):
  optimizer = optimizers.make_optimizer(1e-2, 50, warmup_fraction=0.0)
  return optimizer, update.make_update(
      policy, optimizer, losses.weighted_nll, mesh, **kwargs
  )


def copy(tree):
  return jax.tree.map(jnp.copy, tree)


def test_updates_lower_the_loss_and_compile_once(policy, mesh, params, stream):
  optimizer, apply = make(policy, mesh)
  state = update.init_state(params, optimizer, mesh)
  batch = next(stream())
  found = []
  for _ in range(12):
    state, metrics = apply(state, batch)
    found.append({name: float(value) for name, value in metrics.items()})
  assert found[-1]['loss'] < found[0]['loss'] - 0.1
  assert all(m['grad_norm'] > 0 and m['update_norm'] > 0 for m in found)
  assert found[0]['weight'] == batch['weights'].sum()
  assert int(state.step) == 12
  assert apply.num_compilations() == 1


def test_the_old_state_is_donated(policy, mesh, params, stream):
  optimizer, apply = make(policy, mesh)
  state = update.init_state(params, optimizer, mesh)
  new, _ = apply(state, next(stream()))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new))


def test_micro_batches_change_nothing(policy, mesh, params, stream):
  """3 does not divide the 4 rows: rows of padding are added."""
  batch = next(stream())
  found = []
  for grad_accumulation in (1, 2, 3):
    optimizer, apply = make(policy, mesh, grad_accumulation=grad_accumulation)
    state = update.init_state(copy(params), optimizer, mesh)
    found.append(jax.tree.leaves(apply(state, batch)))
  for other in found[1:]:
    for a, b in zip(found[0], other, strict=True):
      np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)


def test_rows_of_padding_change_nothing(policy, mesh, params, stream):
  batch = next(stream())
  padded = {name: update.pad_rows(value, 7) for name, value in batch.items()}
  assert padded['tokens'].shape == (7, 24)
  metrics = []
  for one in (batch, padded):
    optimizer, apply = make(policy, mesh)
    metrics.append(apply(update.init_state(copy(params), optimizer, mesh), one)[1])
  for name in metrics[0]:
    np.testing.assert_allclose(metrics[0][name], metrics[1][name], rtol=1e-4)


def test_a_batch_of_padding_moves_nothing(policy, mesh, params):
  optimizer, apply = make(policy, mesh)
  before = jax.device_get(copy(params))
  empty = {name: np.zeros((4, 24), np.float32 if name == 'weights' else np.int32)
           for name in ('tokens', 'weights', 'segment_ids', 'positions')}
  state, metrics = apply(update.init_state(params, optimizer, mesh), empty)
  jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(state.params))
  assert float(metrics['loss']) == 0 and float(metrics['weight']) == 0


def test_moments_are_sharded_like_their_weights(policy, mesh, params):
  optimizer, _ = make(policy, mesh)
  state = update.abstract_state(params, optimizer, mesh)
  moments = state.opt_state[1][0]
  for name, weight in params.items():
    assert moments.mu[name].sharding == weight.sharding
    assert moments.nu[name].shape == weight.shape
  real = update.init_state(params, optimizer, mesh)
  same = jax.tree.map(
      lambda a, b: (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding),
      state, real,
  )
  assert all(jax.tree.leaves(same))


def test_an_update_is_lowered_without_weights(policy, mesh, params):
  optimizer, apply = make(policy, mesh)
  state = update.abstract_state(params, optimizer, mesh)
  assert apply.lower(state, 4, 24).compile().memory_analysis() is not None


def test_an_update_is_traced_for_the_arrays_of_its_loss(policy, mesh, params):
  optimizer = optimizers.make_optimizer(1e-2, 10)
  loss = functools.partial(policy_gradient.clipped_surrogate, clip=0.2, kl=0.1)
  apply = update.make_update(policy, optimizer, loss, mesh)
  state = update.abstract_state(params, optimizer, mesh)
  arrays = (*update.BATCH_ARRAYS, 'advantages', 'old_logprobs', 'ref_logprobs')
  shapes = [x.shape for x in apply.trace(state, 4, 24, arrays).in_avals[0][1].values()]
  assert shapes == 7 * [(4, 24)]
  with pytest.raises(KeyError, match='advantages'):
    apply.trace(state, 4, 24)


@pytest.mark.parametrize('bad', ['loss', 'grad_norm'])
def test_a_non_finite_update_saves_its_batch(tmp_path, bad):
  metrics = {'loss': 1.0, 'grad_norm': 1.0}
  batch = {'tokens': np.arange(6).reshape(2, 3)}
  update.check_finite(3, metrics, batch, tmp_path)
  assert list(tmp_path.iterdir()) == []
  metrics[bad] = float('nan')
  with pytest.raises(update.NonFiniteLoss, match=f'update 3 .*{bad}=nan') as info:
    update.check_finite(3, metrics, batch, tmp_path)
  with np.load(info.value.saved) as saved:
    assert np.array_equal(saved['tokens'], batch['tokens'])
