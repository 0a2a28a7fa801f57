"""Losses over packed batches.

A loss returns a sum and a weight instead of a mean: both are added up over
tokens, micro-batches and devices before the one division, so that the result
does not depend on how a batch was cut up.

A loss is a function (logits, batch) -> `Terms`; a new one (a clipped
surrogate, a pair loss) reads what else it needs from the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Terms(NamedTuple):
  """Parts of a loss, all summed over tokens.

  Attributes:
    total: sum_i w_i * loss_i.
    weight: sum_i w_i; the loss is total / weight.
    sums: further sums, reported divided by `weight`.
  """

  total: Float[Array, '']
  weight: Float[Array, '']
  sums: dict[str, Float[Array, '']]


Arrays = Mapping[str, jax.Array]
Loss = Callable[[jax.Array, Arrays], Terms]


def weighted_nll(
    logits: Float[Array, 'B T V'], batch: Mapping[str, Array]
) -> Terms:
  """sum_i w_i * -log p(token_i | tokens before it), in float32.

  With w = 1 on D_cf and w = beta on D_reh this is L_cf + beta * L_reh
  (arXiv 2603.16843, section 3.2) up to the division.

  Args:
    logits: [B, T, V], at position t for token t + 1.
    batch: 'tokens', 'weights' and 'segment_ids', each [B, T]; weights[t]
      belongs to the prediction of token t.

  Returns:
    Terms with `sums['accuracy']`: weight of the tokens that were most likely.
  """
  targets = batch['tokens'][:, 1:]
  weights = target_weights(batch)
  log_probs = token_log_probs(logits[:, :-1], targets)
  hits = jnp.argmax(logits[:, :-1], axis=-1) == targets
  return Terms(
      total=-jnp.sum(weights * log_probs),
      weight=jnp.sum(weights),
      sums={'accuracy': jnp.sum(weights * hits)},
  )


def target_weights(batch: Mapping[str, Array]) -> Float[Array, 'B T-1']:
  """Weights of tokens 1.., zero where a token starts another example."""
  segments = batch['segment_ids']
  inside = segments[:, 1:] == segments[:, :-1]
  return batch['weights'][:, 1:].astype(jnp.float32) * inside


def token_log_probs(
    logits: Float[Array, 'B T V'], targets: Int[Array, 'B T']
) -> Float[Array, 'B T']:
  """Natural log-probability of each target, softmax in float32."""
  logits = logits.astype(jnp.float32)
  picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return picked - jax.nn.logsumexp(logits, axis=-1)
