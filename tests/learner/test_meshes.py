"""No mesh changes what is learnt, and checkpoints move between meshes."""

import os
import subprocess
import sys

SCRIPT = """
import dataclasses, functools, pathlib, sys
import jax, numpy as np
from leafe_jax import config as C
from leafe_jax.learner import checkpoints, dpo, losses, optimizers, update
from leafe_jax.policy import model, scores, sharding

root = pathlib.Path(sys.argv[1])
policy = C.Policy(num_layers=1, embed_dim=16, num_heads=8, num_kv_heads=8,
                  head_dim=4, mlp_dim=32, max_length=32)
rng = np.random.default_rng(0)
batch = dict(
    tokens=rng.integers(0, 24, (8, 12)).astype(np.int32),
    weights=rng.random((8, 12), np.float32),
    segment_ids=np.ones((8, 12), np.int32),
    positions=np.arange(12, dtype=np.int32)[None].repeat(8, 0))
optimizer = optimizers.make_optimizer(1e-2, 10, warmup_fraction=0.0)

def mesh_of(*sizes):
  count = int(np.prod(sizes))
  return sharding.make_mesh(C.Mesh(*sizes), jax.devices()[:count])

def fresh(mesh):
  params = model.init_params(policy, 24, jax.random.key(0), mesh)
  return update.init_state(params, optimizer, mesh)

def train(mesh):
  state, found = fresh(mesh), []
  apply = update.make_update(policy, optimizer, losses.weighted_nll, mesh)
  for _ in range(3):
    state, metrics = apply(state, batch)
    found.append((float(metrics['loss']), float(metrics['grad_norm'])))
  return state, found

def numbers(state):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]

def moved(step, mesh, params_only=False):
  if params_only:
    return checkpoints.load_params(
        root / 'params', model.abstract_params(policy, 24, mesh))
  target = update.abstract_state(
      model.abstract_params(policy, 24, mesh), optimizer, mesh)
  saved = checkpoints.Checkpoints(root / 'c')
  found = saved.restore(target)
  saved.close()
  assert found.step == step
  return found.state

base, expected = train(mesh_of(1, 1, 1))
base = numbers(base)
for shape in [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2), (4, 2, 1), (1, 2, 4)]:
  state, found = train(mesh_of(*shape))
  np.testing.assert_allclose(found, expected, rtol=1e-4, err_msg=str(shape))
  for ours, theirs in zip(numbers(state), base, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=2e-4, err_msg=str(shape))

# Pairs stay whole on the devices that hold their rows, and tokens without weight
# are left out in all rows alike: of three chunks of four, as many as a row needs.
scores._SMALL = 0
cut = dataclasses.replace(policy, logit_chunk=5)
pairs = dict(
    batch, ref_logprobs=-rng.random((8, 12), np.float32),
    weights=(rng.random((8, 12)) < 0.3).astype(np.float32),
    segment_ids=np.repeat(np.int32([[1, 2, 3, 4, 0]]), [3, 3, 2, 3, 1], 1).repeat(8, 0),
    positions=np.int32([[0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 2, 0]]).repeat(8, 0))
prefer = functools.partial(dpo.preference_loss, beta=0.5, sft_weight=0.1)
found = []
skip = ('weights',)
for shape, reads in [((1, 1, 1), ()), ((2, 2, 2), skip), ((1, 8, 1), skip)]:
  mesh = mesh_of(*shape)
  apply = update.make_update(
      cut, optimizer, prefer, mesh, forward=model.token_scores, forward_reads=reads)
  _, metrics = apply(fresh(mesh), pairs)
  found.append([float(metrics[n]) for n in ('loss', 'weight', 'margin', 'grad_norm')])
assert 0 < found[0][1] <= 16
np.testing.assert_allclose(found[1:], found[:1] * 2, rtol=1e-4)

# Saved on 8 devices (2, 2, 2), in shards; read on 4, on 1 and on 8 again.
state, _ = train(mesh_of(2, 2, 2))
value = numbers(state)
saved = checkpoints.Checkpoints(root / 'c')
saved.save(3, state)
saved.close()
checkpoints.save_params(root / 'params', state.params)
for shape in [(1, 4, 1), (2, 1, 2), (1, 1, 1), (1, 8, 1)]:
  mesh = mesh_of(*shape)
  found = moved(3, mesh)
  leaf = found.params['gate_weight_ldf']
  assert leaf.sharding.device_set == set(mesh.devices.flat)
  for ours, theirs in zip(numbers(found), value, strict=True):
    np.testing.assert_array_equal(ours, theirs, err_msg=str(shape))
  params = moved(3, mesh, params_only=True)
  np.testing.assert_array_equal(
      params['gate_weight_ldf'], state.params['gate_weight_ldf'])
"""


def test_meshes_of_eight_learn_the_same_and_checkpoints_fit_all(tmp_path):
  flags = (
      '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 '
      '--xla_llvm_disable_expensive_passes=true'
  )
  run = subprocess.run(
      [sys.executable, '-W', 'error', '-c', SCRIPT, str(tmp_path)],
      env={
          **os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu',
          'PYTHONPATH': os.pathsep.join(sys.path),
      },
      capture_output=True, text=True, check=False,
  )
  assert run.returncode == 0, run.stderr[-3000:]
