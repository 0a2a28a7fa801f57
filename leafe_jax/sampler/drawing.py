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
  logprobs = jax.nn.log_softmax(logits, axis=-1)
  open_to_all = logprobs
  if allowed is not None:
    open_to_all = jnp.where(allowed, logprobs, -jnp.inf)
  temperature = jnp.reshape(temperature, (-1, 1))
  heat = jnp.where(temperature > 0, temperature, 1.0)
  top = jnp.max(open_to_all, axis=-1, keepdims=True)
  weights = jnp.exp((open_to_all - top) / heat)
  if filters is not None:
    weights = jnp.where(kept(weights, filters), weights, 0.0)
  below = jnp.cumsum(weights, axis=-1)
  total = below[:, -1:]
  # Stays below the total, so that no token of probability 0 is ever drawn.
  mark = jnp.minimum(uniform[:, None] * total, jnp.nextafter(total, 0.0))
  drawn = jnp.sum(below <= mark, axis=-1)
  # The first of the largest: argmax costs ten times as much on CPU.
  places = jnp.arange(logits.shape[-1])
  largest = jnp.min(jnp.where(open_to_all == top, places, places[-1]), axis=-1)
  tokens = jnp.where(temperature[:, 0] > 0, drawn, largest).astype(jnp.int32)
  return tokens, jnp.take_along_axis(logprobs, tokens[:, None], axis=-1)[:, 0]


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
