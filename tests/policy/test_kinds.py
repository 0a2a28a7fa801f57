"""Layers of several kinds: patterns, loops over them, and what windows hide."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.policy import attention, kinds, lora, model, sharding, weights
from tests.policy.test_attention import make_inputs, reference

VOCAB, LENGTH = 13, 24
# Two periods and a layer more.
MIXED = config_lib.Policy(
    num_layers=5, embed_dim=16, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=24,
    layer_kinds=('sliding', 'full'), window=3, rope_local_theta=100.0, qk_norm=True,
    norm_plus_one=True, post_norms=True, activation='gelu_tanh', embed_scale=4.0,
    attention_scale=0.25,
)  # fmt: skip
FULL, SLIDING = kinds.Kind(), kinds.Kind(window=4)
forward = jax.jit(model.forward, static_argnums=1)


def random_params(policy):
  rng = np.random.default_rng(0)
  return {
      name: jnp.asarray(0.3 * rng.standard_normal(weight.shape), jnp.float32)
      for name, weight in weights.weight_table(policy, VOCAB).items()
  }


def make_rows(*lengths):
  """A row that packs sequences of these lengths, padded to LENGTH."""
  pad = (0, LENGTH - sum(lengths))
  segments = np.concatenate([np.full(n, i + 1) for i, n in enumerate(lengths)])
  positions = np.concatenate([np.arange(n) for n in lengths])
  tokens = np.random.default_rng(0).integers(0, VOCAB, LENGTH)
  rows = [tokens, np.pad(positions, pad), np.pad(segments, pad)]
  return [jnp.asarray(row[None], jnp.int32) for row in rows]


@pytest.mark.parametrize(
    ('every', 'expected'),
    [
        ([FULL] * 7, [(1, 7)]),
        ([SLIDING] * 5 + [FULL], [(1, 5), (1, 1)]),
        (([SLIDING] * 5 + [FULL]) * 4 + [SLIDING] * 2, [(6, 4), (1, 2)]),  # Gemma 3 1B
        ([FULL] * 28 + [SLIDING] * 4, [(1, 28), (1, 4)]),  # Qwen2, max_window_layers
        ([FULL, SLIDING, FULL], [(1, 1), (1, 1), (1, 1)]),
    ],
)  # fmt: skip
def test_layers_are_cut_into_spans_that_repeat(every, expected):
  spans = kinds.spans(tuple(every))
  assert [(len(span.kinds), span.repeats) for span in spans] == expected
  assert [kind for span in spans for kind in span.kinds * span.repeats] == every


def test_a_pattern_is_as_short_as_it_can_be():
  assert kinds.pattern(['a', 'b', 'a', 'b', 'a']) == ('a', 'b')
  assert kinds.pattern(['a', 'b', 'a', 'a']) == ('a', 'b', 'a')
  assert kinds.pattern(['a'] * 4) == ('a',)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'layer_kinds': ('full', 'wide')}, "layer_kinds has 'wide'; choose from full"),
        ({'layer_kinds': ('sliding',)}, 'give policy.window'),
    ],
)
def test_kinds_that_do_not_exist_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    kinds.of_layers(config_lib.Policy(**options))


@pytest.mark.parametrize('form', ['xla', 'splash'])
@pytest.mark.parametrize('window', [1, 7, 150])
def test_a_window_hides_what_is_before_it(form, window):
  inputs = make_inputs(rows=2)
  mixed = attention.attend(*inputs, form, window)
  np.testing.assert_allclose(mixed, reference(*inputs, window), atol=2e-5)


def test_blocks_of_queries_have_windows_too(monkeypatch):
  monkeypatch.setattr(attention, '_MAX_ROWS', 16)
  inputs = make_inputs(rows=1)
  mixed = attention.attend(*inputs, 'xla', 33)
  np.testing.assert_allclose(mixed, reference(*inputs, 33), atol=2e-5)


def test_loops_and_layers_one_by_one_agree_gradients_too():
  params, rows = random_params(MIXED), make_rows(9, 12)

  def run(**options):
    policy = dataclasses.replace(MIXED, **options)

    def loss(params):
      return model.token_logprobs(params, policy, *rows).sum()

    return jax.jit(jax.value_and_grad(loss))(params)

  jax.tree.map(
      lambda ours, theirs: np.testing.assert_allclose(
          ours, theirs, rtol=2e-4, atol=2e-4
      ),
      run(scan_layers=True, remat='full'), run(),
  )


def test_packed_sequences_do_not_see_each_other():
  params = random_params(MIXED)
  tokens, positions, segments = make_rows(9, 12)
  packed = forward(params, MIXED, tokens, positions, segments)[0]
  for start, length in [(0, 9), (9, 12)]:
    alone = jnp.pad(tokens[:, start : start + length], ((0, 0), (0, LENGTH - length)))
    _, places, own = make_rows(length)
    expected = forward(params, MIXED, alone, places, own)[0, :length]
    np.testing.assert_allclose(packed[start : start + length], expected, atol=2e-4)


def test_a_token_reaches_as_far_as_its_windows():
  policy = dataclasses.replace(MIXED, layer_kinds=('sliding',), num_layers=2)
  params, (tokens, positions, segments) = random_params(policy), make_rows(LENGTH)
  changed = tokens.at[0, 4].set((tokens[0, 4] + 1) % VOCAB)
  before = forward(params, policy, tokens, positions, segments)[0]
  after = forward(params, policy, changed, positions, segments)[0]
  seen = np.flatnonzero(np.abs(before - after).max(axis=-1) > 1e-6)
  assert seen.tolist() == [4, 5, 6, 7, 8]  # two layers, each two further


def test_layers_without_rope_do_not_know_places():
  policy = dataclasses.replace(MIXED, layer_kinds=('no_rope',))
  tokens, positions, segments = make_rows(LENGTH)
  params = random_params(policy)
  here = forward(params, policy, tokens, positions, segments)
  there = forward(params, policy, tokens, 5 * positions + 2, segments)
  np.testing.assert_array_equal(here, there)


def test_adapters_of_layers_that_differ_merge():
  policy = dataclasses.replace(MIXED, lora_rank=2, scan_layers=True)
  base, mesh = random_params(policy), sharding.make_mesh(config_lib.Mesh())
  adapters = lora.init_params(policy, VOCAB, jax.random.key(0), mesh)
  adapters = {name: x + 0.1 for name, x in adapters.items()}
  rows = make_rows(9, 12)
  beside = forward(lora.join(base, adapters, policy), policy, *rows)
  merged = forward(lora.merge(base, adapters, policy), policy, *rows)
  np.testing.assert_allclose(beside, merged, atol=2e-3)


@pytest.mark.slow('the parity of Gemma 3 shows it')
def test_a_fresh_norm_changes_nothing_whatever_it_adds_to_its_weight():
  mesh = sharding.make_mesh(config_lib.Mesh())
  plain = dataclasses.replace(MIXED, norm_plus_one=False)
  rows = make_rows(9, 12)
  ours, theirs = (
      forward(model.init_params(p, VOCAB, jax.random.key(0), mesh), p, *rows)
      for p in (MIXED, plain)
  )
  np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_windows_lower_for_a_tpu(monkeypatch):
  monkeypatch.setattr(sharding, 'target_platform', lambda: 'tpu')
  policy = dataclasses.replace(
      MIXED, scan_layers=True, head_dim=128, dtype='bfloat16', window=100
  )
  params = {
      name: jax.ShapeDtypeStruct(weight.shape, jnp.float32)
      for name, weight in weights.weight_table(policy, VOCAB).items()
  }
  rows = [jax.ShapeDtypeStruct((1, 256), jnp.int32)] * 3

  def loss(params, *rows):
    return model.token_logprobs(params, policy, *rows).sum()

  traced = jax.jit(jax.grad(loss)).trace(params, *rows)
  assert 'splash' in traced.lower(lowering_platforms=('tpu',)).as_text()
