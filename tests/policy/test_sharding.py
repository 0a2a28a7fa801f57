"""Meshes, and that no mesh changes what is computed."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from leafe_jax import config as config_lib
from leafe_jax.policy import sharding

EIGHT_DEVICES = """
import itertools
import jax, jax.numpy as jnp, numpy as np
from leafe_jax import config as C
from leafe_jax.policy import model, sharding
from leafe_jax.sampler import Request, Rules, Sampler

policy = C.Policy(num_layers=1, embed_dim=16, num_heads=4, num_kv_heads=2,
                  head_dim=8, mlp_dim=32, max_length=32)
rows = C.Sampler(page_size=4, num_pages=64, max_rows=8, prefill_buckets=(8,),
                 length_buckets=(32,))
tokens = jnp.arange(8 * 12, dtype=jnp.int32).reshape(8, 12) % 22
places = jnp.arange(12)[None].repeat(8, axis=0)

def run(sizes, devices):
  mesh = sharding.make_mesh(sizes, devices)
  params = model.init_params(policy, 22, jax.random.key(0), mesh)
  with jax.set_mesh(mesh):
    logits = jax.jit(model.forward, static_argnums=1)(
        params, policy, *(jax.device_put(x, sharding.batch_sharding(mesh, x.shape))
                          for x in (tokens, places, jnp.ones_like(places))))
  sampler = Sampler(policy, rows, mesh)
  sampler.load(params, 0)
  states = [sampler.extend(sampler.empty(), list(range(i + 1))) for i in range(8)]
  first = sampler.sample([Request(s, (1, i)) for i, s in enumerate(states)], Rules())
  again = [Request(sampler.extend(s.state, [3]), (2, i)) for i, s in enumerate(first)]
  return params, np.asarray(logits), first, sampler.sample(again, Rules())

base = run(C.Mesh(), jax.devices()[:1])
shapes = [s for s in itertools.product((1, 2, 4, 8), repeat=3) if np.prod(s) == 8]
assert len(shapes) == 10
for shape in shapes:
  params, *found = run(C.Mesh(*shape), jax.devices())
  weight = params['gate_weight_ldf']
  assert len(weight.sharding.device_set) == 8
  assert weight.sharding.is_fully_replicated == (shape == (8, 1, 1))
  np.testing.assert_allclose(found[0], base[1], atol=1e-5)
  for ours, theirs in zip(found[1] + found[2], base[2] + base[3], strict=True):
    assert ours.tokens == theirs.tokens
    np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-5)
"""


def test_a_mesh_of_one_device_is_a_mesh():
  mesh = sharding.make_mesh(config_lib.Mesh(), jax.devices()[:1])
  assert dict(mesh.shape) == dict.fromkeys(sharding.MESH_AXES, 1)


@pytest.mark.parametrize(
    ('sizes', 'message'),
    [
        (config_lib.Mesh(data=3), 'does not fit 1 device; set --config.mesh.data=1'),
        (config_lib.Mesh(data=-1, fsdp=-1), 'at most one is -1'),
        (config_lib.Mesh(tensor=0), 'sizes are positive'),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(sizes, message):
  with pytest.raises(ValueError, match=message):
    sharding.make_mesh(sizes, jax.devices()[:1])


def test_axes_follow_the_rules_and_odd_sizes_are_replicated():
  mesh = jax.sharding.AbstractMesh((2, 2, 1, 2), sharding.MESH_AXES)
  spec = sharding.partition_spec
  assert spec(('embed', 'mlp'), (8, 6), mesh) == P(('fsdp', 'expert'), ('tensor',))
  assert spec(('vocab', 'embed'), (11, 8), mesh) == P(None, ('fsdp', 'expert'))
  assert spec(('batch', None), (8, 3), mesh) == P(('data', 'fsdp', 'expert'), None)


def test_unknown_axes_and_wrong_ranks_are_refused():
  mesh = sharding.make_mesh(config_lib.Mesh(), jax.devices()[:1])
  with pytest.raises(ValueError, match="'width'; known"):
    sharding.partition_spec(('width',), (4,), mesh)
  with pytest.raises(ValueError, match='1 logical axes'):
    sharding.partition_spec(('embed',), (4, 4), mesh)


def test_constrain_without_a_mesh_leaves_values_alone():
  x = jnp.ones((2, 3))
  assert sharding.constrain(x, ('batch', None)) is x


def test_eight_devices_compute_and_sample_what_one_does():
  flags = (
      '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 '
      '--xla_llvm_disable_expensive_passes=true'
  )
  env = {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  run = subprocess.run(
      [sys.executable, '-W', 'error', '-c', EIGHT_DEVICES],
      env=env | {'PYTHONPATH': os.pathsep.join(sys.path)},
      capture_output=True,
      text=True,
      check=False,
  )
  assert run.returncode == 0, run.stderr[-3000:]
