"""Drawing tokens from logits, one random key per row.

A token is drawn by inverting the cumulative distribution with one uniform
number. Per-row Gumbel noise over the vocabulary would cost as much as half a
decode step of a small model on CPU; one number a token costs nothing, and all
of a response's numbers are made before its decode loop starts.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

_BLOCK = 64  # tokens; see `invert`


class Filters(NamedTuple):
  """[B] limits on what may be drawn; see `kept`."""

  top_k: Array
  top_p: Array
  min_p: Array


def uniforms(
    keys: UInt32[Array, 'B 2'], count: int, first: Int[Array, ' B'] | None = None
) -> Float[Array, 'B count']:
  """Numbers in [0, 1): number i of a row comes from fold_in(its key, first + i)."""
  if first is None:
    first = jnp.zeros(keys.shape[0], jnp.int32)

  def of_row(words: Array, first: Array) -> Array:
    key = jax.random.wrap_key_data(words, impl='threefry2x32')
    fold = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))
    return fold(first + jnp.arange(count))

  return jax.vmap(of_row)(keys, first)


def draw(
    logits: Float[Array, 'B V'],
    uniform: Float[Array, ' B'],
    temperature: Float[Array, ' B'] | Float[Array, ''],
    filters: Filters | None = None,
    allowed: Bool[Array, 'B V'] | None = None,
) -> tuple[Int[Array, ' B'], Float[Array, ' B']]:
  """One token per row.

  Args:
    logits: of the next token.
    uniform: the row's number for this token.
    temperature: divides the logits; 0 takes the largest.
    filters: top-k, top-p and min-p; None: none of them, at no cost.
    allowed: tokens to choose from, at least one a row; None: all.

  Returns:
    The tokens and their log-probabilities under the policy itself: at
    temperature 1, without filters, over the whole vocabulary.
  """
  open_to_all = logits
  if allowed is not None:
    open_to_all = jnp.where(allowed, logits, -jnp.inf)
  temperature = jnp.reshape(temperature, (-1, 1))
  heat = jnp.where(temperature > 0, temperature, 1.0)
  top = jnp.max(open_to_all, axis=-1, keepdims=True)
  weights = jnp.exp((open_to_all - top) / heat)
  if filters is not None:
    weights = jnp.where(kept(weights, filters), weights, 0.0)
  # The first of the largest: argmax costs ten times as much on CPU.
  places = jnp.arange(logits.shape[-1])
  largest = jnp.min(jnp.where(open_to_all == top, places, places[-1]), axis=-1)
  tokens = jnp.where(temperature[:, 0] > 0, invert(weights, uniform), largest)
  tokens = tokens.astype(jnp.int32)
  return tokens, _logprobs(logits, tokens)


def _logprobs(
    logits: Float[Array, 'B V'], tokens: Int[Array, ' B']
) -> Float[Array, ' B']:
  """Those of the tokens alone: the whole table is never written."""
  said = jnp.take_along_axis(logits, tokens[:, None], axis=-1)
  top = jnp.max(logits, axis=-1, keepdims=True)
  total = jnp.sum(jnp.exp(logits - top), axis=-1)
  return (said - top)[:, 0] - jnp.log(total)


def invert(
    weights: Float[Array, 'B V'], uniform: Float[Array, ' B']
) -> Int[Array, ' B']:
  """The first place by which the weights reach more than a share of their sum.

  In two steps, first over the sums of blocks and then within a block: running
  sums over a whole vocabulary cost 3 to 8 times as much on CPU.

  Args:
    weights: not negative, in each row one above 0; a place of weight 0 is never
      found.
    uniform: the shares, in [0, 1).
  """
  rows, size = weights.shape
  blocks = jnp.pad(weights, ((0, 0), (0, -size % _BLOCK))).reshape(rows, -1, _BLOCK)
  sums = jnp.sum(blocks, axis=-1)
  block, rest = _reach(sums, uniform * jnp.cumsum(sums, axis=-1)[:, -1])
  inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
  place, _ = _reach(inside, rest)
  return block * _BLOCK + place


def _reach(
    weights: Float[Array, 'B V'], mark: Float[Array, ' B']
) -> tuple[Int[Array, ' B'], Float[Array, ' B']]:
  """Where running sums first exceed a mark, and how far in that weight it is."""
  below = jnp.cumsum(weights, axis=-1)
  # Stays below the total, so that a place is always found.
  mark = jnp.minimum(mark, jnp.nextafter(below[:, -1], 0.0))[:, None]
  place = jnp.sum(below <= mark, axis=-1)
  before = jnp.max(jnp.where(below <= mark, below, 0.0), axis=-1)
  return place, mark[:, 0] - before


def kept(weights: Float[Array, 'B V'], filters: Filters) -> Bool[Array, 'B V']:
  """Tokens that pass, in this order, on the tempered distribution.

  top-k keeps the k heaviest (0: all; of equals the lower id). top-p keeps the
  fewest of those that reach the share p of their sum (arXiv 1904.09751). min-p
  keeps what weighs at least min_p times the heaviest (arXiv 2407.01082). The
  heaviest token always passes.
  """
  order = jnp.argsort(-weights, axis=-1, stable=True)
  heaviest_first = jnp.take_along_axis(weights, order, axis=-1)
  rank = jnp.arange(weights.shape[-1])
  top_k, top_p, min_p = (value[:, None] for value in filters)
  among = (rank < top_k) | (top_k == 0)
  heaviest_first = jnp.where(among, heaviest_first, 0.0)
  reached = jnp.cumsum(heaviest_first, axis=-1)
  before = reached - heaviest_first
  nucleus = (before < top_p * reached[:, -1:]) | (top_p >= 1)
  likely = heaviest_first >= min_p * heaviest_first[:, :1]
  passes = (among & nucleus & likely) | (rank == 0)
  return jnp.take_along_axis(passes, jnp.argsort(order, axis=-1), axis=-1)
