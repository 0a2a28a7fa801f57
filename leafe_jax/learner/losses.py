"""Losses over packed batches.

A loss returns a sum and a weight instead of a mean: both are added up over
tokens, micro-batches and devices before the one division, so that the result
does not depend on how a batch was cut up.

A loss is a function (outputs, batch) -> `Terms`; a new one (a clipped
surrogate, a pair loss) reads what else it needs from the batch. The outputs
are those of the forward pass that `update.make_update` was given: `Scores` of
every token from `model.token_scores`, which is what to use, since the logits
of long rows do not fit into memory; or logits [B, T, V] from `model.forward`.
`scores_of` makes the former of either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from leafe_jax.policy import experts
from leafe_jax.policy import scores as scores_lib
from leafe_jax.policy.scores import Scores


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
Outputs = Scores | jax.Array
Loss = Callable[[Any, Arrays], Terms]


def weighted_nll(outputs: Outputs, batch: Mapping[str, Array]) -> Terms:
  """sum_i w_i * -log p(token_i | tokens before it), in float32.

  With w = 1 on D_cf and w = beta on D_reh this is L_cf + beta * L_reh
  (arXiv 2603.16843, section 3.2) up to the division.

  Args:
    outputs: see `scores_of`.
    batch: 'tokens', 'weights' and 'segment_ids', each [B, T]; weights[t]
      belongs to the prediction of token t.

  Returns:
    Terms with `sums['accuracy']`: weight of the tokens that were most likely.
  """
  weights = target_weights(batch)
  found = scores_of(outputs, batch)
  return Terms(
      total=-jnp.sum(weights * found.logprobs[:, 1:]),
      weight=jnp.sum(weights),
      sums={'accuracy': jnp.sum(weights * found.likeliest[:, 1:])},
  )


def with_experts(terms: Terms, load: experts.Load, weight: float) -> Terms:
  """A loss, and how busy the experts are.

  Args:
    terms: of the loss.
    load: of all layers, [L, E].
    weight: of `experts.imbalance` in the loss; 0: it is only reported.

  Returns:
    Terms with `sums['experts_imbalance']`, `sums['experts_busiest']` (tokens of the
    busiest expert of a layer, in those of a mean one; the mean and, as '_max', the
    worst layer) and `sums['experts_idle']` (share that no token went to).
  """
  busiest = experts.busiest(load)
  figures = {
      'experts_imbalance': experts.imbalance(load),
      'experts_busiest': jnp.mean(busiest),
      'experts_busiest_max': jnp.max(busiest),
      'experts_idle': jnp.mean(load.tokens == 0),
  }
  sums = {name: terms.weight * figure for name, figure in figures.items()}
  total = terms.total
  if weight:
    total = total + weight * sums['experts_imbalance']
  return Terms(total, terms.weight, {**terms.sums, **sums})


def scores_of(outputs: Outputs, batch: Mapping[str, Array]) -> Scores:
  """Scores [B, T] of the batch's tokens.

  Args:
    outputs: these already, or logits [B, T, V], at position t for token t + 1.
    batch: 'tokens' and 'segment_ids', each [B, T].
  """
  if isinstance(outputs, Scores):
    return outputs
  found = scores_lib.of_logits(outputs, scores_lib.next_tokens(batch['tokens']))
  return scores_lib.align(found, batch['segment_ids'])


def target_weights(batch: Mapping[str, Array]) -> Float[Array, 'B T-1']:
  """Weights of tokens 1.., zero where a token starts another example."""
  segments = batch['segment_ids']
  inside = segments[:, 1:] == segments[:, :-1]
  return batch['weights'][:, 1:].astype(jnp.float32) * inside


def token_log_probs(
    logits: Float[Array, 'B T V'], targets: Int[Array, 'B T']
) -> Float[Array, 'B T']:
  """Natural log-probability of each target, softmax in float32."""
  return scores_lib.of_logits(logits, targets).logprobs
