"""The experts of a layer, against transformers' block."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.policy import experts

POLICY = config_lib.Policy(
    num_layers=3, embed_dim=24, num_experts=5, experts_per_token=3, expert_dim=14
)  # fmt: skip
NAMES = (experts.ROUTER, *experts.INPUTS)


def weights_of(config=POLICY, dtype='float32'):
  sizes = {'e': config.num_experts, 'd': config.embed_dim, 'm': config.expert_dim}
  found = {}
  for key, name in zip(jax.random.split(jax.random.key(1), 4), NAMES, strict=True):
    shape = [sizes[letter] for letter in name.rsplit('_l', 1)[1]]
    found[name] = (jax.random.normal(key, shape) / shape[-2] ** 0.5).astype(dtype)
  return found


def inputs(rows=2, length=7, dtype='float32'):
  return jax.random.normal(jax.random.key(2), (rows, length, 24)).astype(dtype)


def block_of(torch, config, weights):
  """transformers' block with our weights."""
  modeling = pytest.importorskip('transformers.models.qwen3_moe.modeling_qwen3_moe')
  theirs = modeling.Qwen3MoeConfig(
      hidden_size=config.embed_dim, moe_intermediate_size=config.expert_dim,
      num_experts=config.num_experts, num_experts_per_tok=config.experts_per_token,
      norm_topk_prob=config.renormalise_experts,
  )
  block = modeling.Qwen3MoeSparseMoeBlock(theirs)
  router, gate, up, down = (
      torch.tensor(np.asarray(weights[name], np.float32)) for name in NAMES
  )
  with torch.no_grad():
    block.gate.weight.copy_(router.T)
    both = torch.cat([gate, up], dim=2).transpose(1, 2)
    block.experts.gate_up_proj.copy_(both)
    block.experts.down_proj.copy_(down.transpose(1, 2))
  return block


@pytest.mark.parametrize('renormalise', [True, False])
def test_values_and_gradients_are_those_of_transformers(renormalise):
  torch = pytest.importorskip('torch')
  config = dataclasses.replace(POLICY, renormalise_experts=renormalise)
  weights, x = weights_of(), inputs()
  given = jax.random.normal(jax.random.key(3), x.shape)
  run = jax.jit(lambda x, weights: experts.forward(x, weights, config)[0])
  found, pull = jax.vjp(run, x, weights)
  to_x, to_weights = pull(given)

  block = block_of(torch, config, weights)
  theirs = torch.tensor(np.asarray(x), requires_grad=True)
  expected = block(theirs)
  expected.backward(torch.tensor(np.asarray(given)))
  np.testing.assert_allclose(found, expected.detach(), atol=1e-5)
  np.testing.assert_allclose(to_x, theirs.grad, atol=1e-5)
  gate, up = block.experts.gate_up_proj.grad.transpose(1, 2).chunk(2, dim=2)
  down = block.experts.down_proj.grad.transpose(1, 2)
  grads = (block.gate.weight.grad.T, gate, up, down)
  for name, gradient in zip(NAMES, grads, strict=True):
    np.testing.assert_allclose(to_weights[name], gradient, atol=1e-5, err_msg=name)
  assert np.abs(to_weights[experts.ROUTER]).max() > 1e-3


def test_the_loss_of_imbalance_is_that_of_transformers():
  torch = pytest.importorskip('torch')
  modeling = pytest.importorskip('transformers.models.qwen3_moe.modeling_qwen3_moe')
  known = jnp.arange(7) < jnp.array([[7], [4]])
  layers, logits = [], []
  for seed in (4, 5, 6):
    x = inputs() + jax.random.normal(jax.random.key(seed), (24,))
    routes = experts.route(x, weights_of(), POLICY)
    layers.append(experts.load(routes, known))
    router = weights_of()[experts.ROUTER]
    logits.append(torch.tensor(np.asarray(x @ router).reshape(-1, 5)))
  loads = jax.tree.map(lambda *x: jnp.stack(x), *layers)
  expected = modeling.load_balancing_loss_func(
      tuple(logits), 5, 3, torch.tensor(np.asarray(known, np.int64)))
  assert float(experts.imbalance(loads)) == pytest.approx(float(expected), rel=1e-5)
  assert float(experts.imbalance(loads)) > 3  # 3 where all are equally busy
  np.testing.assert_array_equal(loads.tokens.sum(1), [3 * 11] * 3)  # none is dropped
  busiest = loads.tokens.max(1) / (3 * 11 / 5)
  np.testing.assert_allclose(experts.busiest(loads), busiest, rtol=1e-6)


def test_a_router_does_not_round_in_bfloat16():
  """Shares that are a rounding of bfloat16 apart are told apart."""
  weights = weights_of()
  router = jnp.zeros((24, 5)).at[0].set(jnp.array([1, 1 + 2**-10, 0, 0, 0.5]))
  x = jnp.zeros((1, 1, 24), jnp.bfloat16).at[..., 0].set(1)
  routes = experts.route(x, {**weights, experts.ROUTER: router}, POLICY)
  assert routes.experts[0, 0].tolist() == [1, 0, 4]
  assert routes.gains.dtype == jnp.float32


def test_a_token_s_output_does_not_depend_on_what_stands_beside_it():
  weights, x = weights_of(), inputs(3, 11)
  run = jax.jit(lambda x: experts.forward(x, weights, POLICY)[0])
  alone = jnp.concatenate([run(x[:, i : i + 1]) for i in range(11)], axis=1)
  np.testing.assert_allclose(run(x), alone, atol=1e-5)


def test_fingerprints_are_of_sets():
  every = np.array([[i, j, k] for i in range(16) for j in range(i) for k in range(j)])
  prints = np.asarray(experts.fingerprint(jnp.asarray(every)))
  assert len(set(prints.tolist())) == len(every)
  turned = experts.fingerprint(jnp.asarray(every[:, ::-1]))
  np.testing.assert_array_equal(prints, turned)


EIGHT_DEVICES = """
import itertools
import jax, jax.numpy as jnp, numpy as np
from leafe_jax import config as C
from leafe_jax.policy import experts, sharding
from tests.policy.test_experts import NAMES, POLICY, weights_of

config = C.Policy(**{**POLICY.__dict__, 'num_experts': 8})
weights = weights_of(config)
x, given = (jax.random.normal(jax.random.key(i), (8, 6, 24)) for i in (2, 3))

def run(mesh, rows):
  axes = {name: ('experts', 'embed', 'mlp') for name in NAMES}
  axes[experts.ROUTER] = ('embed', None)
  axes['edown_weight_lemd'] = ('experts', 'mlp', 'embed')
  shapes = {name: weight.shape for name, weight in weights.items()}
  put = jax.device_put(weights, sharding.shardings(mesh, axes, shapes))
  def call(x, weights):
    y, routes = experts.forward(x, weights, config)
    return (y * given[:rows]).sum(), (y, routes.experts)
  with jax.set_mesh(mesh):
    placed = jax.device_put(x[:rows], sharding.batch_sharding(mesh, x[:rows].shape))
    run = jax.jit(jax.value_and_grad(call, argnums=(0, 1), has_aux=True))
    compiled = run.lower(placed, put).compile()
    out = jax.tree.map(np.asarray, compiled(placed, put))
  return out, put, compiled.as_text()

for rows, sizes in (8, (1, 1, 1, 8)), (8, (1, 2, 2, 2)), (3, (1, 1, 2, 4)):
  base = run(sharding.make_mesh(C.Mesh(), jax.devices()[:1]), rows)[0]
  found, put, text = run(sharding.make_mesh(C.Mesh(*sizes), jax.devices()), rows)
  shard = put['egate_weight_ledm'].addressable_shards[0].data.shape
  assert shard == (8 // sizes[3], 24 // sizes[1], 14 // sizes[2]), shard
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, base)
  assert 'f32[8,24,14]' not in text  # no device has all experts

# A whole policy: its scores, its samples and their routes.
from leafe_jax.policy import model
from leafe_jax.sampler import Request, Rules, Sampler
from tests.policy.test_qwen3_moe import POLICY as whole, ROWS

tokens = jnp.arange(8 * 6, dtype=jnp.int32).reshape(8, 6) % 22
places = jnp.arange(6)[None].repeat(8, axis=0)

def play(sizes, devices):
  mesh = sharding.make_mesh(sizes, devices)
  params = model.init_params(whole, 22, jax.random.key(0), mesh)
  with jax.set_mesh(mesh):
    found = jax.jit(model.token_scores, static_argnums=1)(
        params, whole, *(jax.device_put(x, sharding.batch_sharding(mesh, x.shape))
                         for x in (tokens, places, jnp.ones_like(places))))
  sampler = Sampler(whole, ROWS, mesh)
  sampler.load(params, 0)
  states = [sampler.extend(sampler.empty(), list(range(i + 1))) for i in range(4)]
  requests = [Request(state, (1, i)) for i, state in enumerate(states)]
  samples = sampler.sample(requests, Rules(max_tokens=6))
  return jax.tree.map(np.asarray, found), [(s.tokens, s.routes) for s in samples]

one = play(C.Mesh(), jax.devices()[:1])
many = play(C.Mesh(fsdp=2, tensor=2, expert=2), jax.devices())
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), many[0], one[0])
assert many[1] == one[1]
"""


def test_experts_lie_on_eight_devices():
  """Values, gradients and routes are those of one device."""
  flags = (
      '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 '
      '--xla_llvm_disable_expensive_passes=true'
  )
  env = {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  result = subprocess.run(
      [sys.executable, '-c', EIGHT_DEVICES], env=env, capture_output=True, text=True
  )
  assert result.returncode == 0, result.stderr[-3000:]
