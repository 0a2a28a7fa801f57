"""Products of halves: right values, right gradients, and the fast form."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.learner import losses, optimizers, update
from leafe_jax.policy import lora, model, products, scores, sharding
from tests.drawn import draw_params

FORMS = {
    'into heads': ('btd,dnh->btnh', (2, 6, 8), (8, 3, 4)),
    'out of heads': ('btnh,nhd->btd', (2, 6, 3, 4), (3, 4, 8)),
    'table': ('td,vd->tv', (6, 8), (10, 8)),
    'head': ('btd,dv->btv', (2, 6, 8), (8, 10)),
    'scores': ('bkrh,bksh->bkrs', (2, 3, 6, 4), (2, 3, 5, 4)),
    'mix': ('bkrs,bksh->bkrh', (2, 3, 6, 5), (2, 3, 5, 4)),
    'transposed keys': ('bkrh,bkhs->bkrs', (2, 3, 6, 4), (2, 3, 4, 5)),
    'pages': ('btkgh,bskh->bkgts', (2, 4, 3, 2, 4), (2, 5, 3, 4)),
    'mix of pages': ('bkgts,bskh->btkgh', (2, 3, 2, 4, 5), (2, 5, 3, 4)),
    'one row': ('btd,df->btf', (1, 1, 8), (8, 6)),
    'one of everything': ('bkrh,bksh->bkrs', (1, 1, 1, 4), (1, 1, 1, 4)),
    'odd': ('btd,df->btf', (1, 7, 5), (5, 3)),
}
TINY = config_lib.Policy(
    num_layers=1, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=24,
    dtype='bfloat16',
)  # fmt: skip


@pytest.fixture(scope='module')
def mesh():
  return sharding.make_mesh(config_lib.Mesh(), jax.devices()[:1])


def arrays(shapes):
  keys = jax.random.split(jax.random.key(0), len(shapes))
  return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes)]


def near(found, wanted):
  wide = np.asarray(found, np.float32)
  scale = np.abs(wanted).max()
  np.testing.assert_allclose(wide, wanted, atol=0.02 * scale, rtol=0.02)


@pytest.mark.parametrize('name', FORMS)
def test_halves_have_the_values_and_gradients_of_einsum(name):
  form, *shapes = FORMS[name]
  left, right = arrays(shapes)
  half = left.astype(jnp.bfloat16)
  wanted, pull = jax.vjp(lambda a, b: jnp.einsum(form, a, b), left, right)
  product, pull_half = jax.vjp(
      jax.jit(lambda a, b: products.einsum(form, a, b)), half, right
  )
  assert product.dtype == jnp.bfloat16
  near(product, wanted)
  [cotangent] = arrays([wanted.shape])
  to_left, to_right = pull_half(cotangent.astype(jnp.bfloat16))
  assert (to_left.dtype, to_right.dtype) == (jnp.bfloat16, jnp.float32)
  for found, expected in zip((to_left, to_right), pull(cotangent), strict=True):
    near(found, expected)


def test_a_weights_gradient_is_not_rounded_to_the_products_type():
  x, weight = (jnp.ones(shape, jnp.bfloat16) for shape in ((257, 4), (4, 4)))
  gradient = jax.grad(
      lambda w: products.einsum('td,df->tf', x, w).astype(jnp.float32).sum()
  )(weight.astype(jnp.float32))
  assert gradient.tolist() == [[257.0] * 4] * 4  # bfloat16 has no 257


def test_float32_is_plain_einsum():
  for form, *shapes in FORMS.values():
    left, right = arrays(shapes)
    np.testing.assert_array_equal(
        products.einsum(form, left, right), jnp.einsum(form, left, right)
    )


def test_the_result_may_be_wider_than_the_product():
  left, right = arrays([(4, 8), (8, 4)])
  wide = products.einsum('td,df->tf', left.astype(jnp.bfloat16), right, jnp.float32)
  assert wide.dtype == jnp.float32
  halves = (x.astype(jnp.bfloat16).astype(jnp.float32) for x in (left, right))
  np.testing.assert_allclose(wide, jnp.einsum('td,df->tf', *halves), rtol=1e-5)


def training_step(config, mesh, rows, length):
  """An update's program, its state and a batch."""
  weights = draw_params(config, 64, mesh)
  frozen = {}
  if config.lora_rank:
    frozen = lora.freeze(weights, config, mesh)
    weights = lora.init_params(config, 64, jax.random.key(1), mesh)
  optimizer = optimizers.from_config(config_lib.Training())
  state = update.init_state(weights, optimizer, mesh)
  step = update.make_update(
      config, optimizer, losses.weighted_nll, mesh, frozen=frozen,
      forward=model.token_scores,
  )
  tokens = np.random.default_rng(0).integers(0, 64, (rows, length), np.int32)
  batch = {
      'tokens': tokens,
      'positions': np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape),
      'segment_ids': np.ones_like(tokens),
      'weights': np.ones(tokens.shape, np.float32),
  }
  return step, state, batch


def _slow(*case):
  return pytest.param(*case, marks=pytest.mark.slow('as its neighbours'))


@pytest.mark.parametrize(
    ('shape', 'change'),
    [
        ((2, 64), {}),
        _slow((1, 130), {'num_kv_heads': 2}),
        _slow((1, 7), {'num_layers': 2, 'scan_layers': True, 'remat': 'full'}),
        ((1, 7), {'remat': 'dots', 'tie_embeddings': False, 'lora_rank': 2}),
        _slow((1, 7), {'num_heads': 1, 'qkv_bias': True, 'qk_norm': True}),
    ],
    ids=str,
)
def test_every_policy_trains_in_bfloat16(shape, change, mesh):
  # XLA on CPU may merge a transpose into a product of halves, which it then
  # cannot run at all.
  step, state, batch = training_step(dataclasses.replace(TINY, **change), mesh, *shape)
  _, metrics = step(state, batch)
  assert np.isfinite(metrics['loss']) and np.isfinite(metrics['grad_norm'])
  assert metrics['grad_norm'] > 0


def test_no_product_of_a_training_step_is_widened_first(mesh):
  # Not of the very smallest shapes: those are quicker widened.
  config = dataclasses.replace(TINY, embed_dim=64, head_dim=64, mlp_dim=128)
  step, state, _ = training_step(config, mesh, 2, 64)
  lowered = step.trace(state, 2, 64).lower()
  program = lowered.compile().as_text()
  widened = []
  for part in program.split('\n\n'):  # names are unique in a computation
    types = dict(re.findall(r'(%[\w.-]+) = (\w+)\[', part))
    found = re.findall(r' dot\((%[\w.-]+), (%[\w.-]+)\)', part)
    widened += [{types[name] for name in pair} != {'bf16'} for pair in found]
  assert widened and not any(widened)


def test_log_probabilities_have_the_gradient_that_autodiff_finds():
  [logits] = arrays([(3, 5, 11)])
  targets = jnp.arange(15).reshape(3, 5) % 11
  weights = jnp.arange(15.0).reshape(3, 5)

  def plain(logits):
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)
    return jnp.sum(weights * chosen[..., 0])

  found = jax.grad(lambda x: jnp.sum(weights * scores.of_logits(x, targets).logprobs))
  np.testing.assert_allclose(found(logits), jax.grad(plain)(logits), atol=1e-5)
