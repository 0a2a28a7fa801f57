"""Drawing tokens from logits, one random key per row.

A token is drawn by inverting the cumulative distribution with one uniform
number. Per-row Gumbel noise over the vocabulary would cost as much as half a
decode step of a small model on CPU; one number a token costs nothing, and all
of a response's numbers are made before its decode loop starts.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32


def uniforms(keys: UInt32[Array, 'B 2'], count: int) -> Float[Array, 'B count']:
  """Numbers in [0, 1): number i of a row comes from fold_in(its key, i)."""

  def of_row(words: Array) -> Array:
    key = jax.random.wrap_key_data(words, impl='threefry2x32')
    fold = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))
    return fold(jnp.arange(count))

  return jax.vmap(of_row)(keys)


def draw(
    logits: Float[Array, 'B V'],
    uniform: Float[Array, ' B'],
    temperature: Float[Array, ''],
) -> tuple[Int[Array, ' B'], Float[Array, ' B']]:
  """One token per row.

  Args:
    logits: of the next token.
    uniform: the row's number for this token.
    temperature: divides the logits; 0 takes the largest.

  Returns:
    The tokens and their log-probabilities at temperature 1.
  """
  logprobs = jax.nn.log_softmax(logits, axis=-1)
  heat = jnp.where(temperature > 0, temperature, 1.0)
  top = jnp.max(logprobs, axis=-1, keepdims=True)
  below = jnp.cumsum(jnp.exp((logprobs - top) / heat), axis=-1)
  total = below[:, -1:]
  # Stays below the total, so that no token of probability 0 is ever drawn.
  mark = jnp.minimum(uniform[:, None] * total, jnp.nextafter(total, 0.0))
  drawn = jnp.sum(below <= mark, axis=-1)
  # The first of the largest: argmax costs ten times as much on CPU.
  places = jnp.arange(logits.shape[-1])
  largest = jnp.min(jnp.where(logprobs == top, places, places[-1]), axis=-1)
  tokens = jnp.where(temperature > 0, drawn, largest)
  tokens = tokens.astype(jnp.int32)
  return tokens, jnp.take_along_axis(logprobs, tokens[:, None], axis=-1)[:, 0]
