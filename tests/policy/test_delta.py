"""Gated DeltaNet: chunks equal steps, and packed rows know nothing of each other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafe_jax import config as config_lib
from leafe_jax.policy import delta, delta_rule

POLICY = config_lib.Policy(
    embed_dim=20, delta_key_heads=3, delta_value_heads=6, delta_key_dim=6,
    delta_value_dim=10, delta_taps=4, norm_eps=1e-6,
)


def by_steps(tokens, runs, state):
  """The rule as the paper writes it, a token at a time, for one row of arrays."""
  q, k, v, g, beta = (np.asarray(part[0], np.float64) for part in tokens)
  state, run, out = np.asarray(state[0], np.float64), 0, []
  shared = v.shape[1] // k.shape[1]
  for t in range(len(v)):
    state = state if runs[0, t] == run else np.zeros_like(state)
    run = runs[0, t]
    for w in range(v.shape[1]):
      key, query = k[t, w // shared], q[t, w // shared]
      faded = np.exp(g[t, w]) * state[w]
      change = beta[t, w] * (v[t, w] - faded.T @ key)
      state[w] = faded + np.outer(key, change)
      out.append(state[w].T @ query)
  return np.reshape(out, (1, *v.shape)), state[None]


def draw_tokens(seed, length, alike=0.0, groups=2, heads=4, key=5, value=3):
  rng = np.random.default_rng(seed)

  def unit(x):
    x = x * (1 - alike) + alike
    return x / np.linalg.norm(x, axis=-1, keepdims=True)

  arrays = [
      unit(rng.normal(size=(1, length, groups, key))),
      unit(rng.normal(size=(1, length, groups, key))),
      rng.normal(size=(1, length, heads, value)),
      -np.exp(rng.normal(size=(1, length, heads)) * 3 - 3),
      rng.uniform(size=(1, length, heads)),
  ]
  state = rng.normal(size=(1, heads, key, value))
  return delta_rule.Tokens(*map(jnp.float32, arrays)), jnp.float32(state)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**20),
    lengths=st.sampled_from(((2, 64), (23, 8), (40, 1), (40, 16))),
    cuts=st.sets(st.integers(0, 39), max_size=6),
    alike=st.sampled_from((0.0, 1.0)),
)
def test_chunks_equal_steps_whatever_their_size_and_where_runs_begin(
    seed, lengths, cuts, alike
):
  length, size = lengths
  tokens, state = draw_tokens(seed, length, alike)
  new = np.isin(np.arange(length), list(cuts))
  runs = np.cumsum(new)[None]
  out, after = _read(tokens, jnp.asarray(runs), state, size)
  expected, left = by_steps(tokens, runs, state)
  np.testing.assert_allclose(out, expected, atol=2e-5)
  np.testing.assert_allclose(after, left, atol=2e-5)


# Compiling takes longer than all that is computed here.
_read = jax.jit(delta_rule.read_chunks, static_argnums=3)
mix = jax.jit(
    lambda x, weights, *rest, **more: delta.mix(x, weights, POLICY, *rest, **more)
)


def test_one_token_at_a_time_equals_all_at_once():
  tokens, state = draw_tokens(3, 19)
  whole, after = _read(tokens, jnp.zeros((1, 19), jnp.int32), state)
  outs, step = [], jax.jit(delta_rule.step)
  for t in range(19):
    out, state = step(delta_rule.Tokens(*(x[:, t : t + 1] for x in tokens)), state)
    outs.append(out)
  np.testing.assert_allclose(jnp.concatenate(outs, axis=1), whole, atol=1e-5)
  np.testing.assert_allclose(state, after, atol=1e-5)


def test_equal_keys_that_replace_each_other_lose_no_digits():
  """Powers of the system's matrix would grow to 1e17 here and cancel."""
  length = 64
  tokens, state = draw_tokens(0, length, alike=1.0)
  tokens = tokens._replace(g=0 * tokens.g, beta=0 * tokens.beta + 1)
  runs = jnp.zeros((1, length), jnp.int32)
  out, _ = _read(tokens, runs, state)
  expected, _ = by_steps(tokens, np.zeros((1, length)), state)
  np.testing.assert_allclose(out, expected, atol=1e-5)


def test_strong_fading_gives_finite_gradients():
  tokens, state = draw_tokens(1, 40)
  tokens = tokens._replace(g=tokens.g * 0 - 80.0)
  runs = jnp.asarray(np.repeat([1, 2, 3, 4], 10)[None])

  def total(tokens):
    return jnp.sum(delta_rule.read_chunks(tokens, runs, state)[0] ** 2)

  for gradient in jax.jit(jax.grad(total))(tokens):
    assert np.isfinite(gradient).all()


def draw_weights(config=POLICY, seed=0):
  rng, p, w = np.random.default_rng(seed), delta.channels(config), 6
  d, j = config.embed_dim, config.delta_value_dim
  shapes = {
      'mix_weight_ldp': (d, p), 'taps_lpc': (p, config.delta_taps),
      'z_weight_ldwj': (d, w, j), 'fade_weight_ldw': (d, w),
      'beta_weight_ldw': (d, w), 'fade_log_lw': (w,), 'fade_bias_lw': (w,),
      'out_norm_lj': (j,), 'out_weight_lwjd': (w, j, d),
  }
  return {name: jnp.float32(rng.normal(size=s) * 0.4) for name, s in shapes.items()}


def draw_inputs(rows, length, seed=1):
  x = np.random.default_rng(seed).normal(size=(rows, length, POLICY.embed_dim))
  return jnp.float32(x)


def test_packed_runs_equal_runs_alone_and_know_nothing_of_each_other():
  weights, x = draw_weights(), draw_inputs(1, 47)
  segments = jnp.asarray([[1] * 11 + [2] * 2 + [3] * 30 + [0] * 4])
  runs, empty = delta_rule.runs_of(segments), delta.nothing_read(POLICY, 1)

  def pack(x):
    return mix(x, weights, empty, runs)[0]

  packed = pack(x)
  for start, stop in ((0, 11), (13, 43)):
    alone, _ = mix(x[:, start:stop], weights, empty)
    np.testing.assert_allclose(packed[:, start:stop], alone, atol=1e-5)
  # Not a bit of a later run depends on an earlier one, nor does its gradient.
  other = pack(x.at[:, :11].set(100.0))
  np.testing.assert_array_equal(other[:, 11:], packed[:, 11:])
  gradient = jax.jit(jax.grad(lambda x: jnp.sum(pack(x)[:, 13:43] ** 2)))(x)
  assert not np.any(gradient[:, :13]) and np.all(np.any(gradient[:, 13:43], axis=-1))


def test_reading_in_parts_equals_reading_at_once():
  weights, x = draw_weights(), draw_inputs(2, 21)
  whole, last = mix(x, weights, delta.nothing_read(POLICY, 2))
  memory, outs, start = delta.nothing_read(POLICY, 2), [], 0
  for size in (1, 1, 9, 1, 9):  # shorter than the convolution, and longer
    out, memory = mix(x[:, start : start + size], weights, memory)
    outs.append(out)
    start += size
  np.testing.assert_allclose(jnp.concatenate(outs, axis=1), whole, atol=1e-5)
  for one, other in zip(memory, last):
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize('length', [1, 8])
def test_places_that_do_not_count_leave_the_memory_as_it_is(length):
  weights, x = draw_weights(), draw_inputs(3, length)
  memory = delta.Memory(*(
      jnp.float32(np.random.default_rng(2).normal(size=part.shape))
      for part in delta.nothing_read(POLICY, 3)
  ))
  counts = np.array([0, 1, length])
  known = jnp.arange(length) < counts[:, None]
  _, after = mix(x, weights, memory, known=known)
  for row, count in enumerate(counts):
    own = delta.Memory(*(y[row : row + 1] for y in memory))
    if count:
      _, own = mix(x[row : row + 1, :count], weights, own)
    for one, other in zip(own, after):
      np.testing.assert_allclose(other[row], one[0], atol=1e-5)


def load_reference():
  torch = pytest.importorskip('torch')
  pytest.importorskip('transformers')
  from transformers.models.qwen3_5 import modeling_qwen3_5 as theirs
  from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

  config = Qwen3_5TextConfig(
      hidden_size=POLICY.embed_dim, num_hidden_layers=4, vocab_size=10,
      linear_num_key_heads=3, linear_num_value_heads=6, linear_key_head_dim=6,
      linear_value_head_dim=10, rms_norm_eps=POLICY.norm_eps,
  )
  module = theirs.Qwen3_5GatedDeltaNet(config, 0)
  weights = draw_weights()
  flat = {name: torch.tensor(np.asarray(x)) for name, x in weights.items()}
  tensors = {
      'in_proj_qkv.weight': flat['mix_weight_ldp'].T,
      'conv1d.weight': flat['taps_lpc'][:, None],
      'in_proj_z.weight': flat['z_weight_ldwj'].flatten(1).T,
      'in_proj_a.weight': flat['fade_weight_ldw'].T,
      'in_proj_b.weight': flat['beta_weight_ldw'].T,
      'A_log': flat['fade_log_lw'], 'dt_bias': flat['fade_bias_lw'],
      'norm.weight': flat['out_norm_lj'],
      'out_proj.weight': flat['out_weight_lwjd'].flatten(0, 1).T,
  }
  module.load_state_dict(tensors)
  return torch, module, weights


@pytest.mark.parametrize('length', [3, 70])
def test_a_layer_equals_that_of_transformers_with_its_gradients(length):
  torch, module, weights = load_reference()
  x = draw_inputs(2, length)
  given = torch.tensor(np.asarray(x), requires_grad=True)
  expected = module(given)
  (expected**2).sum().backward()

  @jax.jit
  def total(x, weights):
    out, _ = mix(x, weights, delta.nothing_read(POLICY, 2))
    return jnp.sum(out**2), out

  grad = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
  (_, out), (to_x, to_weights) = grad(x, weights)
  np.testing.assert_allclose(out, expected.detach().numpy(), atol=1e-4)
  _assert_near(to_x, given.grad.numpy())
  _assert_near(to_weights['mix_weight_ldp'].T, module.in_proj_qkv.weight.grad.numpy())
  _assert_near(to_weights['fade_log_lw'], module.A_log.grad.numpy())
  _assert_near(to_weights['taps_lpc'], module.conv1d.weight.grad[:, 0].numpy())


def _assert_near(found, wanted):
  found = np.asarray(found)
  assert np.linalg.norm(found - wanted) <= 1e-4 * np.linalg.norm(wanted) + 1e-7


@pytest.mark.slow('two programs for one tolerance')
def test_half_precision_stays_near_the_whole():
  weights, x = draw_weights(), draw_inputs(2, 40)
  half = dataclasses.replace(POLICY, dtype='bfloat16')
  whole, _ = mix(x, weights, delta.nothing_read(POLICY, 2))
  out, memory = delta.mix(
      x.astype(jnp.bfloat16), weights, half, delta.nothing_read(half, 2)
  )
  assert out.dtype == jnp.bfloat16 and memory.state.dtype == jnp.float32
  error = np.linalg.norm(out.astype(jnp.float32) - whole) / np.linalg.norm(whole)
  assert error < 0.03
