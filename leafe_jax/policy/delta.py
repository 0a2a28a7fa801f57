"""Gated DeltaNet: layers that remember in a matrix of fixed size (arXiv 2412.06464).

Such a layer keeps, per value head, one matrix S from keys to values. A token
lets it fade, replaces what its key finds there, and reads with its query:

    S <- exp(g) S;   S <- S + beta k (v - S^T k)^T;   out = S^T q

Before that q, k and v pass a short causal convolution over the last tokens. So
what a layer knows of a transcript is `Memory`, S and the inputs that the
convolution still sees: as large after a thousand tokens as after one, and of no
use for any other length of the transcript.

Reading one token takes the rule as it stands (`delta_rule.step`). Many are read in
chunks (`delta_rule.read_chunks`): within a chunk the replacements are a triangular
system, between chunks one product carries S on. Runs of tokens that know nothing of
each other, as in packed rows, are told apart by `runs`: neither S nor the convolution
passes from one to the next.

Letters of the weights, beside those of `model`:

    p channel of the convolution (queries, keys, values),
    c tap, w value head, j width of a value head

and in shapes G key heads, R value heads that share one, W = G * R, I and J the
widths of keys and values, C - 1 the tokens that the convolution looks back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import delta_rule, layers, sharding
from leafe_jax.policy.delta_rule import Tokens

# Weights of a head that are exponents: never rounded to halves to save a cast.
WIDE = ('fade_log_lw', 'fade_bias_lw')
_EPS = 1e-6  # of the norm of queries and keys, whatever the policy's


class Memory(NamedTuple):
  """What a layer knows of the tokens read.

  Attributes:
    state: [B, W, I, J] S of every value head, float32.
    tail: [B, C - 1, P] the last inputs of the convolution, oldest first.
  """

  state: Array
  tail: Array


def nothing_read(
    config: config_lib.Policy, rows: int, dtype: str | None = None
) -> Memory:
  """The memory before the first token; `dtype` of the tail: the policy's."""
  heads, taps = config.delta_value_heads, config.delta_taps
  shape = (rows, heads, config.delta_key_dim, config.delta_value_dim)
  return Memory(
      jnp.zeros(shape, jnp.float32),
      jnp.zeros((rows, taps - 1, channels(config)), dtype or config.dtype),
  )


def mix(
    x: Float[Array, 'B T D'],
    weights: Mapping[str, Array],
    config: config_lib.Policy,
    memory: Memory,
    runs: Int[Array, 'B T'] | None = None,
    known: Bool[Array, 'B T'] | None = None,
) -> tuple[Float[Array, 'B T D'], Memory]:
  """What a layer adds to the residual stream, and its memory after the tokens.

  Args:
    x: normed inputs.
    weights: of the layer.
    config: sizes.
    memory: of the tokens before.
    runs: see `delta_rule.read_chunks`; None: all tokens go on from `memory`.
    known: which tokens count, the first ones of every row; None: all.
  """
  rows, length, _ = x.shape
  if runs is None:
    runs = jnp.zeros((rows, length), jnp.int32)
  joined = layers.project('btd,dp->btp', x, weights, 'mix_weight_ldp')
  mixed = convolve(joined, memory.tail, weights['taps_lpc'], runs)
  tokens = _tokens(x, mixed, weights, config)
  count = jnp.full((rows,), length)
  if known is not None:  # the others change nothing
    count = jnp.sum(known, axis=1)
    g, beta = (jnp.where(known[..., None], y, 0) for y in (tokens.g, tokens.beta))
    tokens = tokens._replace(g=g, beta=beta)
  if length == 1:
    out, state = delta_rule.step(tokens, memory.state)
  else:
    out, state = delta_rule.read_chunks(tokens, runs, memory.state)
  tail = tail_after(joined, memory.tail, count)
  return _put_out(out, x, weights, config), Memory(state, tail)


def _tokens(
    x: Float[Array, 'B T D'],
    mixed: Float[Array, 'B T P'],
    weights: Mapping[str, Array],
    config: config_lib.Policy,
) -> Tokens:
  """Queries, keys and values of the convolution's output, and the gates."""
  rows, length, _ = x.shape
  keys = config.delta_key_heads * config.delta_key_dim
  q, k, v = jnp.split(mixed.astype(jnp.float32), (keys, 2 * keys), axis=-1)
  heads = (rows, length, -1)
  q, k = (_unit(y.reshape(*heads, config.delta_key_dim)) for y in (q, k))
  fade = layers.project('btd,dw->btw', x, weights, 'fade_weight_ldw')
  beta = layers.project('btd,dw->btw', x, weights, 'beta_weight_ldw')
  wide = fade.astype(jnp.float32) + weights['fade_bias_lw'].astype(jnp.float32)
  rate = jnp.exp(weights['fade_log_lw'].astype(jnp.float32))
  tokens = Tokens(
      q=q * config.delta_key_dim**-0.5, k=k,
      v=v.reshape(*heads, config.delta_value_dim),
      g=-rate * jax.nn.softplus(wide),
      beta=jax.nn.sigmoid(beta).astype(jnp.float32),
  )
  return Tokens(*map(_by_heads, tokens))


def _by_heads(x: Float[Array, 'B T W *J']) -> Float[Array, 'B T W *J']:
  """Heads over `tensor`: the cuts of the joined product are not those of heads."""
  return sharding.constrain(x, ('batch', 'length', 'heads', None)[: x.ndim])


def _unit(x: Float[Array, '... I']) -> Float[Array, '... I']:
  """Vectors of length 1."""
  return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + _EPS)


def _put_out(
    out: Float[Array, 'B T W J'],
    x: Float[Array, 'B T D'],
    weights: Mapping[str, Array],
    config: config_lib.Policy,
) -> Float[Array, 'B T D']:
  """Norm and gate of every head, and the projection back to the stream."""
  gate = layers.project('btd,dwj->btwj', x, weights, 'z_weight_ldwj')
  out = out.astype(x.dtype)
  normed = layers.rms_norm(out, weights['out_norm_lj'], config.norm_eps)
  gated = normed.astype(jnp.float32) * jax.nn.silu(gate.astype(jnp.float32))
  gated = gated.astype(x.dtype)
  return layers.project('btwj,wjd->btd', gated, weights, 'out_weight_lwjd')


def spreads(config: config_lib.Policy) -> dict[str, float | None]:
  """Every weight of these layers and what it starts from, see `weights.Weight`."""
  into = config.embed_dim**-0.5
  width = config.delta_value_heads * config.delta_value_dim
  return {
      'mix_weight_ldp': into,
      'taps_lpc': config.delta_taps**-0.5,
      'z_weight_ldwj': into,
      'fade_weight_ldw': into,
      'beta_weight_ldw': into,
      'fade_log_lw': 2.0,  # heads that forget at once, and over hundreds of tokens
      'fade_bias_lw': 0.0,
      'out_norm_lj': None,
      'out_weight_lwjd': (2 * config.num_layers * width) ** -0.5,
  }


def axis_sizes(config: config_lib.Policy) -> dict[str, int]:
  """By letter. ValueError: key heads that do not divide the value heads."""
  if config.delta_value_heads % config.delta_key_heads:
    raise ValueError(
        f'delta_key_heads {config.delta_key_heads} does not divide'
        f' delta_value_heads {config.delta_value_heads}'
    )
  return {
      'p': channels(config),
      'c': config.delta_taps,
      'w': config.delta_value_heads,
      'j': config.delta_value_dim,
  }


def channels(config: config_lib.Policy) -> int:
  """P: queries, keys and values side by side."""
  keys = config.delta_key_heads * config.delta_key_dim
  return 2 * keys + config.delta_value_heads * config.delta_value_dim


def convolve(
    x: Float[Array, 'B T P'],
    tail: Float[Array, 'B C-1 P'],
    taps: Float[Array, 'P C'],
    runs: Int[Array, 'B T'],
) -> Float[Array, 'B T P']:
  """Causal convolution of each channel and SiLU; other runs count as zeros.

  Args:
    x: inputs.
    tail: those before them, of run 0.
    taps: the last one is for the token itself.
    runs: see `delta_rule.read_chunks`.
  """
  length, count = x.shape[1], taps.shape[1]
  wide = jnp.concatenate([tail.astype(x.dtype), x], axis=1)
  all_runs = jnp.pad(runs, ((0, 0), (count - 1, 0)))
  total = jnp.zeros(x.shape, jnp.float32)
  for tap in range(count):
    own = all_runs[:, tap : tap + length] == runs
    seen = jnp.where(own[..., None], wide[:, tap : tap + length], 0)
    total += seen.astype(jnp.float32) * taps[:, tap].astype(jnp.float32)
  return jax.nn.silu(total).astype(x.dtype)


def tail_after(
    x: Float[Array, 'B T P'], tail: Float[Array, 'B C-1 P'], count: Int[Array, ' B']
) -> Float[Array, 'B C-1 P']:
  """The convolution's last inputs after `count` tokens of every row."""
  wide = jnp.concatenate([tail, x.astype(tail.dtype)], axis=1)
  size = tail.shape[1]
  if x.shape[1] == 1:
    return jnp.where((count > 0)[:, None, None], wide[:, 1:], tail)
  places = count[:, None] + jnp.arange(size)
  return jnp.take_along_axis(wide, places[..., None], axis=1)
