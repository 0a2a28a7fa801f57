"""Scores of tokens equal those of the logits, and long rows stay small."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.learner import losses
from leafe_jax.policy import (
  attention,
  layers,
  lora,
  model,
  scores,
  sharding,
  stacks,
  weights,
)  # fmt: skip
from tests.drawn import draw_params

VOCAB = 37
forward = jax.jit(model.forward, static_argnums=1)
CONFIG = config_lib.Policy(
    num_layers=2, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=24,
    tie_embeddings=False,
)  # fmt: skip


@pytest.fixture(scope='module')
def params():
  mesh = sharding.make_mesh(config_lib.Mesh(), jax.devices()[:1])
  return draw_params(CONFIG, VOCAB, mesh)


def make_batch(rows, length):
  tokens = jax.random.randint(jax.random.key(1), (rows, length), 0, VOCAB)
  places = jnp.broadcast_to(jnp.arange(length), tokens.shape)
  half = length // 2
  return {
      'tokens': tokens,
      'positions': places % half,
      'segment_ids': 1 + places // half,
      'weights': jax.random.uniform(jax.random.key(2), tokens.shape),
  }


def loss_of(params, batch, config, forward):
  rows = (batch[name] for name in ('tokens', 'positions', 'segment_ids'))
  terms = losses.weighted_nll(forward(params, config, *rows), batch)
  return terms.total, terms


@pytest.mark.parametrize('tied', [False, True])
def test_chunks_change_neither_the_loss_nor_gradients(params, tied, monkeypatch):
  """7 does not divide the 26 places: the last chunk is padded."""
  monkeypatch.setattr(scores, '_SMALL', 0)  # else all logits are kept
  config = dataclasses.replace(CONFIG, tie_embeddings=tied, num_layers=1)
  params = {k: v[:1] if k in stacks.stacked(params) else v for k, v in params.items()}
  batch = make_batch(2, 26)
  grad = jax.jit(jax.grad(loss_of, has_aux=True), static_argnums=(2, 3))
  expected = grad(params, batch, config, model.forward)
  for chunk in (0, 7):
    cut = dataclasses.replace(config, logit_chunk=chunk)
    found = grad(params, batch, cut, model.token_scores)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found, expected,
    )


@pytest.mark.parametrize('chunk', [0, 5])
def test_candidates_and_likeliest_tokens_are_those_of_the_logits(
    params, monkeypatch, chunk
):
  """Of each place: what is asked there, aligned with the token that stands there."""
  monkeypatch.setattr(scores, '_SMALL', 0)
  config = dataclasses.replace(CONFIG, logit_chunk=chunk)
  batch = make_batch(2, 12)
  rows = [batch[name] for name in ('tokens', 'positions', 'segment_ids')]
  expected = jax.nn.log_softmax(forward(params, CONFIG, *rows))
  likeliest = jax.jit(model.likeliest, static_argnums=(1, 5))
  best, ids = likeliest(params, config, *rows, 3)
  asked = jax.jit(model.candidate_logprobs, static_argnums=1)(
      params, config, *rows, ids
  )
  for row, place in np.ndindex(2, 12):
    if place % 6 == 0:  # the first of a segment
      assert not np.any(best[row, place]) and not np.any(asked[row, place])
      continue
    before = np.asarray(expected[row, place - 1])
    np.testing.assert_allclose(best[row, place], np.sort(before)[::-1][:3], rtol=1e-4)
    np.testing.assert_allclose(asked[row, place], before[ids[row, place]], rtol=1e-4)


@pytest.mark.parametrize(('share', 'chunk'), [(0.0, 7), (0.2, 3), (1.0, 7)])
def test_tokens_without_weight_are_left_out_and_nothing_else_changes(
    params, share, chunk, monkeypatch
):
  """One row has more tokens in the loss than the other; both lose none of them."""
  monkeypatch.setattr(scores, '_SMALL', 0)
  config = dataclasses.replace(CONFIG, logit_chunk=chunk)
  batch = make_batch(2, 26)
  trained = jax.random.uniform(jax.random.key(3), (2, 26)) < share
  batch['weights'] = batch['weights'] * trained.at[0, 13:].set(False)
  grad = jax.jit(jax.grad(loss_of, has_aux=True), static_argnums=(2, 3))

  def leaving_out(params, config, *rows):
    return model.token_scores(params, config, *rows, batch['weights'])

  expected = grad(params, batch, config, model.token_scores)
  found = grad(params, batch, config, leaving_out)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      found, expected,
  )


def test_what_nobody_asks_for_is_0_and_costs_no_product(params, monkeypatch):
  """The scores of 6 tokens, in the first of four chunks; the others are not run."""
  monkeypatch.setattr(scores, '_SMALL', 0)
  config = dataclasses.replace(CONFIG, logit_chunk=7)
  batch = make_batch(1, 26)
  rows = [batch[name] for name in ('tokens', 'positions', 'segment_ids')]
  weights = jnp.zeros((1, 26)).at[0, 3:24:4].set(0.5)
  calls, of_all = [], scores.of_logits

  def of_logits(logits, targets):
    jax.debug.callback(lambda: calls.append(1))
    return of_all(logits, targets)

  whole = model.token_scores(params, config, *rows)
  found = model.token_scores(params, config, *rows, weights)
  asked = np.asarray(weights[0] > 0)
  np.testing.assert_allclose(
      found.logprobs[0, asked], whole.logprobs[0, asked], rtol=1e-5
  )
  assert np.count_nonzero(found.logprobs) <= 7 < np.count_nonzero(whole.logprobs)
  monkeypatch.setattr(scores, 'of_logits', of_logits)
  model.token_scores(params, config, *rows, weights)
  jax.effects_barrier()
  assert len(calls) == 1


def test_scores_are_those_of_a_softmax():
  logits = jax.random.normal(jax.random.key(0), (3, 5)) * 2
  targets = jnp.array([0, 4, 2])
  found = scores.of_logits(logits, targets)
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  np.testing.assert_allclose(found.logprobs, np.log(p[range(3), targets]), rtol=1e-5)
  np.testing.assert_allclose(found.entropy, -(p * np.log(p)).sum(-1), rtol=1e-5)
  assert found.likeliest.tolist() == (p.argmax(-1) == targets).tolist()


def test_nothing_predicts_the_first_token_of_a_segment_or_padding():
  segments = jnp.array([[1, 1, 2, 2, 0, 0]])
  assert scores.predicted(segments).tolist() == [
      [False, True, False, True, False, False]
  ]


def _shapes(function, *args):
  """Shapes of all values in a program and the programs inside it."""
  text = str(jax.make_jaxpr(function)(*args))
  found = re.findall(r':[a-z]+\d+\[([\d,]+)\]', text)
  return {tuple(map(int, shape.split(','))) for shape in found}


def test_no_array_of_a_long_rows_step_has_all_logits_or_all_scores(params):
  """Neither T x V nor T x T / 8 appears; the check finds them where they are."""
  length, vocab = 8192, 20_011
  config = dataclasses.replace(
      CONFIG, scan_layers=True, remat='full', lora_rank=2, logit_chunk=256
  )
  table = {**weights.weight_table(config, vocab), **lora.table(config, vocab)}
  arrays = {k: jax.ShapeDtypeStruct(w.shape, jnp.float32) for k, w in table.items()}
  batch = {
      name: jax.ShapeDtypeStruct((1, length), jnp.int32)
      for name in ('tokens', 'positions', 'segment_ids', 'weights')
  }

  def sizes(config, forward):
    def step(arrays, batch):
      return jax.grad(lambda w: loss_of(w, batch, config, forward)[0])(arrays)

    return [np.prod(shape, dtype=int) for shape in _shapes(step, arrays, batch)]

  assert max(sizes(config, model.forward)) >= length * vocab
  most = max(sizes(config, model.token_scores))
  heads = CONFIG.num_heads
  assert most <= max(256 * length * heads, 256 * vocab, vocab * CONFIG.embed_dim)


def test_memory_of_a_gradient_grows_with_the_length_not_its_square(
    params, monkeypatch
):
  """What XLA sets aside for twice the tokens is little more than twice as much."""
  monkeypatch.setattr(attention, '_MAX_ROWS', 32)
  monkeypatch.setattr(attention, '_MAX_CHUNKS', 2)
  config = dataclasses.replace(
      CONFIG, scan_layers=True, remat='full', logit_chunk=128, num_layers=1
  )
  one = {k: v[:1] if k in stacks.stacked(params) else v for k, v in params.items()}

  def temporary(length):
    batch = make_batch(1, length)
    step = jax.jit(
        jax.grad(loss_of, has_aux=True), static_argnums=(2, 3)
    ).lower(one, batch, config, model.token_scores)
    return step.compile().memory_analysis().temp_size_in_bytes

  short, long = temporary(1024), temporary(2048)
  assert long < 2.3 * short


def test_blocks_of_queries_change_neither_values_nor_gradients(monkeypatch):
  """11 queries at a time where a chunk has 64."""
  shapes = ((2, 4, 150, 8), (2, 2, 150, 8), (2, 2, 150, 8))
  keys = jax.random.split(jax.random.key(0), 3)
  given = tuple(map(jax.random.normal, keys, shapes))
  segments = jnp.where(jnp.arange(150) < 33, 1, 2)[None].repeat(2, axis=0)

  def run():
    def total(given):
      mixed = attention.attend(*given, segments)
      return (mixed * jnp.cos(jnp.arange(8.0))).sum(), mixed

    return jax.jit(jax.grad(total, has_aux=True))(given)

  expected = run()
  monkeypatch.setattr(attention, '_MAX_ROWS', 11)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), run(), expected
  )


def test_bfloat16_norms_scores_and_logits_are_float32():
  """A value that bfloat16 arithmetic would lose survives each of them."""
  wide = jnp.ones((1, 4096), jnp.bfloat16)
  normed = layers.rms_norm(wide, jnp.ones(4096, jnp.bfloat16), 1e-6)
  assert float(jnp.abs(normed - 1).max()) < 0.01  # bfloat16 sums stop at 256
  found = scores.of_logits(jnp.full((1, 3000), 0.001, jnp.bfloat16), jnp.array([1]))
  assert found.logprobs.dtype == found.entropy.dtype == jnp.float32
  np.testing.assert_allclose(found.logprobs, -np.log(3000), rtol=1e-5)
  ones = jnp.ones((1, 1, 2000, 8), jnp.bfloat16)
  mixed = attention.attend(ones, ones, ones, jnp.ones((1, 2000), jnp.int32))
  np.testing.assert_allclose(mixed.astype(jnp.float32), 1, atol=0.01)
