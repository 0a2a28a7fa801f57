"""Gated DeltaNet: layers that remember in a matrix of fixed size (arXiv 2412.06464).

Such a layer keeps, per value head, one matrix S from keys to values. A token
lets it fade, replaces what its key finds there, and reads with its query:

    S <- exp(g) S;   S <- S + beta k (v - S^T k)^T;   out = S^T q

Before that q, k and v pass a short causal convolution over the last tokens. So
what a layer knows of a transcript is `Memory`, S and the inputs that the
convolution still sees: as large after a thousand tokens as after one, and of no
use for any other length of the transcript.

Reading one token takes the rule as it stands (`step`). Many are read in chunks
(`read_chunks`): within a chunk the replacements are a triangular system, between
chunks one product carries S on. Runs of tokens that know nothing of each other,
as in packed rows, are told apart by `runs`: neither S nor the convolution passes
from one to the next.

Letters of the weights, beside those of `model`:

    p channel of the convolution (queries, keys, values),
    c tap, w value head, j width of a value head

and in shapes G key heads, R value heads that share one, W = G * R, I and J the
widths of keys and values, C - 1 the tokens that the convolution looks back.
Everything here is float32 whatever the policy's type: S sums over the whole
transcript.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import layers

CHUNK = 64  # tokens of a chunk; a power of two
# Weights of a head that are exponents: never rounded to halves to save a cast.
WIDE = ('fade_log_lw', 'fade_bias_lw')
_EPS = 1e-6  # of the norm of queries and keys, whatever the policy's
_PRECISE = jax.lax.Precision.HIGHEST


class Memory(NamedTuple):
  """What a layer knows of the tokens read.

  Attributes:
    state: [B, W, I, J] S of every value head, float32.
    tail: [B, C - 1, P] the last inputs of the convolution, oldest first.
  """

  state: Array
  tail: Array


class Tokens(NamedTuple):
  """What the rule takes of every token.

  Attributes:
    q, k: [B, T, G, I] of length 1; queries are divided by sqrt(I) beside that.
    v: [B, T, W, J]
    g: [B, T, W] logarithm of what stays of S, at most 0.
    beta: [B, T, W] how much of what a key finds is replaced, 0 to 1.
  """

  q: Array
  k: Array
  v: Array
  g: Array
  beta: Array


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
    runs: see `read_chunks`; None: all tokens go on from `memory`.
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
    out, state = step(tokens, memory.state)
  else:
    out, state = read_chunks(tokens, runs, memory.state)
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
  return Tokens(
      q=q * config.delta_key_dim**-0.5, k=k,
      v=v.reshape(*heads, config.delta_value_dim),
      g=-rate * jax.nn.softplus(wide),
      beta=jax.nn.sigmoid(beta).astype(jnp.float32),
  )


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
  """Every weight of these layers and what it starts from, see `model.Weight`."""
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
    runs: see `read_chunks`.
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


def step(tokens: Tokens, state: Float[Array, 'B W I J']) -> tuple[Array, Array]:
  """One token: out [B, 1, W, J] and the state after it."""
  q, k, v, g, beta = (part[:, 0] for part in tokens)
  groups = v.shape[1] // k.shape[1]
  q, k = (jnp.repeat(part, groups, axis=1) for part in (q, k))
  state = state * jnp.exp(g)[..., None, None]
  found = jnp.einsum('bwij,bwi->bwj', state, k, precision=_PRECISE)
  change = (v - found) * beta[..., None]
  state = state + k[..., None] * change[..., None, :]
  out = jnp.einsum('bwij,bwi->bwj', state, q, precision=_PRECISE)
  return out[:, None], state


def read_chunks(
    tokens: Tokens,
    runs: Int[Array, 'B T'],
    state: Float[Array, 'B W I J'],
    size: int = CHUNK,
) -> tuple[Float[Array, 'B T W J'], Float[Array, 'B W I J']]:
  """Many tokens, `size` at a time: what they read, and the state after them.

  Args:
    tokens: of every row.
    runs: which run a token belongs to; never falls along a row. Run 0 goes on
      from `state`, later ones begin with nothing.
    state: before the first token. What comes out is of the last token's run.
    size: of a chunk, a power of two.
  """
  rows, length, heads, width = tokens.v.shape
  groups = tokens.k.shape[2]
  size = min(size, 1 << (length - 1).bit_length())
  chunks, runs = _cut(tokens, runs, size)
  parts = _within_chunks(chunks, runs)

  def carry(state: Array, chunk: _Parts) -> tuple[Array, Array]:
    new = chunk.values - _product('bgrci,bgrij->bgrcj', chunk.lookups, state)
    out = _product('bgrci,bgrij->bgrcj', chunk.queries, state)
    out += _product('bgrcs,bgrsj->bgrcj', chunk.scores, new)
    state = state * chunk.stays[..., None, None]
    return state + _product('bgrci,bgrcj->bgrij', chunk.keys, new), out

  apart = state.reshape(rows, groups, heads // groups, *state.shape[2:])
  after, out = jax.lax.scan(carry, apart, parts)
  out = jnp.moveaxis(out, (0, 4), (1, 2)).reshape(rows, -1, heads, width)
  return out[:, :length], after.reshape(state.shape)


class _Parts(NamedTuple):
  """What `read_chunks` carries the state along with; N chunks lead.

  Attributes:
    values: [N, B, G, R, C, J] what would be put in if the state were empty.
    lookups: [N, B, G, R, C, I] by which the state lowers it.
    queries: [N, B, G, R, C, I] what the tokens ask of the state.
    scores: [N, B, G, R, C, C] by which they read what the chunk puts in.
    keys: [N, B, G, R, C, I] under which the next chunk finds it.
    stays: [N, B, G, R] what stays of the state.
  """

  values: Array
  lookups: Array
  queries: Array
  scores: Array
  keys: Array
  stays: Array


def _cut(tokens: Tokens, runs: Array, size: int) -> tuple[Tokens, Array]:
  """Chunks [N, B, G, (R,) size, ...]; what fills the last one changes nothing."""
  rows, length = runs.shape
  groups = tokens.k.shape[2]
  pad = -length % size

  def cut(x: Array, *heads: int) -> Array:
    x = jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2))
    x = x.reshape(rows, -1, size, *heads, *x.shape[3:])
    return jnp.moveaxis(x, (1, 2), (0, 2 + len(heads)))

  by_group = (groups, tokens.v.shape[2] // groups)
  chunks = Tokens(
      cut(tokens.q, groups), cut(tokens.k, groups), cut(tokens.v, *by_group),
      cut(tokens.g, *by_group), cut(tokens.beta, *by_group),
  )
  runs = jnp.pad(runs, ((0, 0), (0, pad)), mode='edge')
  return chunks, runs.reshape(rows, -1, size).swapaxes(0, 1)


def _within_chunks(chunks: Tokens, runs: Int[Array, 'N B C']) -> _Parts:
  """All that does not depend on the state (section 3.3 of the paper)."""
  q, k, v, g, beta = chunks
  size, last = runs.shape[-1], runs[..., -1:]
  before = jnp.pad(last[:-1], ((1, 0), (0, 0), (0, 0)))  # run of the state
  earlier = jnp.tril(jnp.ones((size, size), bool))
  own = (runs[..., :, None] == runs[..., None, :]) & earlier
  # Sums of a run alone: differences of sums over all keep bits of earlier runs.
  faded = _product('nbcs,nbgrs->nbgrc', own.astype(g.dtype), g)
  between = _fade(faded[..., :, None] - faded[..., None, :], own)
  since = _fade(faded, runs == before)
  until = _fade(faded[..., -1:] - faded, runs == last)
  alike = _product('nbgci,nbgsi->nbgcs', k, k)[:, :, :, None]
  asked = _product('nbgci,nbgsi->nbgcs', q, k)[:, :, :, None]
  inverse = _invert(alike * between * beta[..., None])
  k, q = k[:, :, :, None], q[:, :, :, None]

  def solve(x: Array) -> Array:
    return _product('nbgrcs,nbgrsx->nbgrcx', inverse, x)

  return _Parts(
      values=solve(beta[..., None] * v),
      lookups=solve((beta * since)[..., None] * k),
      queries=since[..., None] * q,
      scores=asked * between,
      keys=until[..., None] * k,
      stays=_fade(faded[..., -1], (last == before)[..., 0]),
  )


def _fade(logs: Array, seen: Bool[Array, 'N B *C']) -> Array:
  """exp of logarithms [N, B, G, R, *C] where something is seen, 0 elsewhere."""
  seen = seen[:, :, None, None]
  # Elsewhere exp may overflow, and its gradient with it.
  return jnp.where(seen, jnp.exp(jnp.where(seen, logs, 0)), 0)


@jax.custom_vjp
def _invert(system: Float[Array, '... C C']) -> Float[Array, '... C C']:
  """Inverse of I + what is below the diagonal of `system`.

  Blocks on the diagonal are joined two by two, which takes products alone; a
  series of powers would take fewer, and cancel where keys are alike.
  """
  size, lead = system.shape[-1], system.shape[:-2]
  inverse = jnp.ones((*lead, size, 1, 1), system.dtype)
  width = 1
  while width < size:
    apart = system.reshape(*lead, size // (2 * width), 2 * width, -1, 2 * width)
    blocks = jnp.moveaxis(jnp.diagonal(apart, axis1=-4, axis2=-2), -1, -3)
    upper, lower = inverse[..., ::2, :, :], inverse[..., 1::2, :, :]
    corner = _product('...ab,...bc->...ac', blocks[..., width:, :width], upper)
    corner = -_product('...ab,...bc->...ac', lower, corner)
    top = jnp.concatenate([upper, jnp.zeros_like(upper)], axis=-1)
    bottom = jnp.concatenate([corner, lower], axis=-1)
    inverse = jnp.concatenate([top, bottom], axis=-2)
    width *= 2
  return inverse[..., 0, :, :]


def _invert_forward(system: Array) -> tuple[Array, Array]:
  inverse = _invert(system)
  return inverse, inverse


def _invert_backward(inverse: Array, cotangent: Array) -> tuple[Array]:
  """d(X^-1) = -X^-1 dX X^-1, of what `_invert` looks at."""
  change = _product('...ba,...bc->...ac', inverse, cotangent)
  change = _product('...ab,...cb->...ac', change, inverse)
  return (-jnp.tril(change, -1),)


_invert.defvjp(_invert_forward, _invert_backward)


def _product(form: str, left: Array, right: Array) -> Array:
  return jnp.einsum(form, left, right, precision=_PRECISE)


def runs_of(segment_ids: Int[Array, 'B T']) -> Int[Array, 'B T']:
  """Runs of packed rows, from 1: neighbours of one segment are of one run."""
  new = segment_ids[:, 1:] != segment_ids[:, :-1]
  return 1 + jnp.cumsum(jnp.pad(new, ((0, 0), (1, 0))), axis=1, dtype=jnp.int32)
