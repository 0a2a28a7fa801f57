"""The transformer's forward pass: what it may see, and that its forms agree."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from leafe_jax import config as config_lib
from leafe_jax.policy import attention, model, sharding, weights

VOCAB = 13
WIDTH = 16
CONFIG = config_lib.Policy(
    num_layers=2,
    embed_dim=16,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=24,
    qkv_bias=True,
    qk_norm=True,
    tie_embeddings=False,
)
forward = jax.jit(model.forward, static_argnums=1)
token_logprobs = jax.jit(model.token_logprobs, static_argnums=1)


@pytest.fixture(scope='module')
def params():
  mesh = sharding.make_mesh(config_lib.Mesh(), jax.devices()[:1])
  params = model.init_params(CONFIG, VOCAB, jax.random.key(0), mesh)
  # Away from ones and zeros, so that a forgotten scale or bias shows.
  rng = np.random.default_rng(1)
  return {
      name: value + 0.1 * rng.standard_normal(value.shape, np.float32)
      for name, value in params.items()
  }


def make_rows(*lengths):
  """One row that packs sequences of these lengths; one width, one program."""
  rng = np.random.default_rng(0)
  total = sum(lengths)
  pad = WIDTH - total
  segments = np.concatenate([np.full(n, i + 1) for i, n in enumerate(lengths)])
  positions = np.concatenate([np.arange(n) for n in lengths])
  rows = [rng.integers(0, VOCAB, total), positions, segments]
  return [jnp.asarray(np.pad(row, (0, pad))[None], jnp.int32) for row in rows]


def test_a_token_does_not_change_the_logits_before_it(params):
  tokens, positions, segments = make_rows(9)
  changed = tokens.at[0, 6].set((tokens[0, 6] + 1) % VOCAB)
  before = forward(params, CONFIG, tokens, positions, segments)
  after = forward(params, CONFIG, changed, positions, segments)
  np.testing.assert_array_equal(before[0, :6], after[0, :6])
  assert float(jnp.abs(before[0, 6:9] - after[0, 6:9]).max(axis=-1).min()) > 1e-4


def test_packed_sequences_equal_sequences_alone(params):
  tokens, positions, segments = make_rows(5, 7)
  packed = forward(params, CONFIG, tokens, positions, segments)[0]
  for start, stop in ((0, 5), (5, 12)):
    pad = ((0, 0), (0, WIDTH - stop + start))
    part = [jnp.pad(x[:, start:stop], pad) for x in (tokens, positions, segments)]
    alone = forward(params, CONFIG, *part)[0, : stop - start]
    np.testing.assert_allclose(packed[start:stop], alone, atol=1e-5)


@pytest.mark.parametrize(
    'options', [{'scan_layers': True}, {'remat': 'full'}, {'remat': 'dots'}]
)
def test_scan_and_remat_change_neither_values_nor_gradients(params, options):
  rows = make_rows(6, 4)
  other = dataclasses.replace(CONFIG, **options)

  def loss(params, config):
    return model.token_logprobs(params, config, *rows).sum()

  value_and_grad = jax.jit(jax.value_and_grad(loss), static_argnums=1)
  expected, found = value_and_grad(params, CONFIG), value_and_grad(params, other)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), expected, found
  )


@pytest.mark.parametrize('length', [40, 150])
def test_attention_equals_the_library_form(length):
  shapes = ((2, 4, length, 8), (2, 2, length, 8), (2, 2, length, 8))
  keys = jax.random.split(jax.random.key(0), 3)
  q, k, v = map(jax.random.normal, keys, shapes)
  segments = jnp.where(jnp.arange(length) < 33, 1, 2)[None].repeat(2, axis=0)
  found = attention.attend(q, k, v, segments)
  place = jnp.arange(length)
  mask = (place[:, None] >= place) & (segments[:, :, None] == segments[:, None])
  lead = [x.transpose(0, 2, 1, 3) for x in (q, k, v)]
  expected = jax.nn.dot_product_attention(*lead, mask=mask[:, None])
  np.testing.assert_allclose(found, expected.transpose(0, 2, 1, 3), atol=1e-5)


def test_token_logprobs_are_those_of_the_logits(params):
  rows = make_rows(4, 3)
  tokens, _, _ = rows
  found = token_logprobs(params, CONFIG, *rows)[0]
  table = jax.nn.log_softmax(forward(params, CONFIG, *rows)[0])
  for place in range(WIDTH):
    known = place in (1, 2, 3, 5, 6)
    expected = table[place - 1, tokens[0, place]] if known else 0.0
    np.testing.assert_allclose(found[place], expected, atol=1e-5)


def test_bfloat16_computes_float32_logits_near_the_float32_ones(params):
  rows = make_rows(8)
  half = dataclasses.replace(CONFIG, dtype='bfloat16')
  found = forward(params, half, *rows)
  assert found.dtype == jnp.float32
  expected = forward(params, CONFIG, *rows)
  np.testing.assert_allclose(found, expected, atol=0.15)
  assert float(jnp.abs(found - expected).max()) > 0


def test_the_module_holds_the_weights_of_the_table_with_their_axes(params):
  module = nnx.eval_shape(lambda: model.Transformer(CONFIG, VOCAB, nnx.Rngs(0)))
  table = weights.weight_table(CONFIG, VOCAB)
  found = {name: value.shape for name, value in module.params().items()}
  assert found == {name: weight.shape for name, weight in table.items()}
  assert module.q_weight_ldnh.get_metadata()['logical_axes'] == (
      'layers', 'embed', 'heads', 'head_dim',
  )  # fmt: skip
  nnx.update(module, params)
  rows = make_rows(5)
  found = jax.jit(lambda module, *rows: module(*rows))(module, *rows)
  expected = forward(params, CONFIG, *rows)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_kv_heads_that_do_not_divide_the_heads_are_refused():
  bad = dataclasses.replace(CONFIG, num_kv_heads=3)
  with pytest.raises(ValueError, match='num_kv_heads 3 does not divide num_heads 4'):
    weights.weight_table(bad, VOCAB)


def test_angles_are_computed_once_not_for_every_head_and_layer(params):
  tokens = jnp.zeros((2, 6), jnp.int32)
  positions = jnp.broadcast_to(jnp.arange(6), (2, 6))
  compiled = forward.lower(
      params, CONFIG, tokens, positions, jnp.ones_like(tokens)
  ).compile()
  assert compiled.as_text().count(' cosine(') == 1


def test_a_weight_drawn_as_a_list_has_the_numbers_of_its_own_shape(monkeypatch):
  weight = weights.Weight((3, 5, 7), ('layers', 'embed', 'mlp'), 0.3)
  listed = weight.initial(jax.random.key(1), 'float32')
  monkeypatch.setattr(weights, '_LIST', 0)
  np.testing.assert_array_equal(listed, weight.initial(jax.random.key(1), 'float32'))
