"""The gated delta rule: a state that tokens let fade, correct and read.

The rule is in `delta`, whose letters are used here: G key heads, R value heads that
share one, W = G * R, I and J the widths of keys and values, and C tokens of a chunk,
N chunks. Everything is float32 whatever the policy's type: the state sums over the
whole transcript.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

CHUNK = 64  # tokens of a chunk; a power of two
_PRECISE = jax.lax.Precision.HIGHEST


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


def runs_of(segment_ids: Int[Array, 'B T']) -> Int[Array, 'B T']:
  """Runs of packed rows, from 1: neighbours of one segment are of one run."""
  new = segment_ids[:, 1:] != segment_ids[:, :-1]
  return 1 + jnp.cumsum(jnp.pad(new, ((0, 0), (1, 0))), axis=1, dtype=jnp.int32)


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
  # Sums of what lies between, no differences of sums: those would lose digits, and
  # keep bits of earlier runs.
  faded = _product('nbcs,nbgrs->nbgrc', own.astype(g.dtype), g)
  behind = jnp.where(jnp.tril(own, -1)[:, :, None, None], g[..., :, None], 0)
  logs = _product('ts,nbgrsc->nbgrtc', earlier.astype(g.dtype), behind)
  between = _fade(logs, own)
  since = _fade(faded, runs == before)
  until = _fade(logs[..., -1, :], runs == last)
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
