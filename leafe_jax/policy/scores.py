"""What training needs to know of every token, without the logits of all.

The logits of a batch, [B, T, V] in float32, are its largest array by far when
the vocabulary is large: 5 GB for one row of 8192 tokens and 151k words. Here
they exist for a few tokens at a time and are recomputed in the backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import layers, sharding


class Scores(NamedTuple):
  """Of every token, given those before it in its segment.

  Attributes:
    logprobs: [B, T] natural log-probability, float32.
    likeliest: [B, T] whether no token was likelier.
    entropy: [B, T] of the distribution that it was drawn from, in nats.

  All are 0 where nothing predicts a token: the first of a segment, padding.
  """

  logprobs: Array
  likeliest: Array
  entropy: Array


def of_logits(
    logits: Float[Array, '*B V'], targets: Int[Array, '*B']
) -> Scores:
  """Scores of the targets, each under its own logits; softmax in float32."""
  logits = logits.astype(jnp.float32)
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  total = jax.nn.logsumexp(logits, axis=-1)
  mean = jnp.sum(jnp.exp(logits - total[..., None]) * logits, axis=-1)
  best = jnp.argmax(logits, axis=-1) == targets
  return Scores(chosen - total, best, total - mean)


def of_hidden(
    params: Mapping[str, Array],
    config: config_lib.Policy,
    hidden: Float[Array, 'B T D'],
    targets: Int[Array, 'B T'],
) -> Scores:
  """Scores of the targets from the last layer's output, chunk by chunk.

  Args:
    params: weights; of the final norm and the unembedding.
    config: `logit_chunk` says how many tokens of a row make a chunk.
    hidden: output of the last layer.
    targets: the token that each place is to predict.
  """

  def score(hidden: Array, targets: Array) -> Scores:
    return of_logits(layers.unembed(params, hidden, config), targets)

  length = hidden.shape[1]
  count = -(-length // config.logit_chunk) if config.logit_chunk else 1
  if count <= 1:
    return score(hidden, targets)
  size = -(-length // count)

  def cut(x: Array) -> Array:
    full = jnp.pad(x, ((0, 0), (0, count * size - length)) + ((0, 0),) * (x.ndim - 2))
    return jnp.moveaxis(full.reshape(x.shape[0], count, size, *x.shape[2:]), 1, 0)

  def step(carry: None, chunk: tuple[Array, Array]) -> tuple[None, Scores]:
    hidden = sharding.constrain(chunk[0], ('batch', 'length', None))
    return carry, jax.checkpoint(score, prevent_cse=False)(hidden, chunk[1])

  _, chunks = jax.lax.scan(step, None, (cut(hidden), cut(targets)))
  rows = hidden.shape[0]
  return jax.tree.map(
      lambda x: jnp.moveaxis(x, 0, 1).reshape(rows, -1)[:, :length], chunks
  )


def next_tokens(tokens: Int[Array, 'B T']) -> Int[Array, 'B T']:
  """The token that each place is to predict; 0 at the end of a row."""
  return jnp.pad(tokens[:, 1:], ((0, 0), (0, 1)))


def align(scores: Scores, segment_ids: Int[Array, 'B T']) -> Scores:
  """From the places that predict to the tokens that are predicted."""
  known = predicted(segment_ids)

  def shift(x: Array) -> Array:
    return jnp.where(known, jnp.pad(x[:, :-1], ((0, 0), (1, 0))), 0)

  return Scores(*map(shift, scores))


def predicted(segment_ids: Int[Array, 'B T']) -> Bool[Array, 'B T']:
  """Whether a token follows another one of its segment; False for padding."""
  same = (segment_ids[:, 1:] == segment_ids[:, :-1]) & (segment_ids[:, 1:] > 0)
  return jnp.pad(same, ((0, 0), (1, 0)))
