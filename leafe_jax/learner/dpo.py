"""Direct preference optimisation on packed pairs (arXiv 2305.18290).

Batches are those of `experience.preferences`: in a row, segment 2 k - 1 holds
the chosen sequence of pair k and segment 2 k the rejected one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from leafe_jax.experience import preferences
from leafe_jax.experience.preferences import Pair
from leafe_jax.learner import losses
from leafe_jax.learner.losses import Terms
from leafe_jax.learner.scoring import CHUNK, Score, score_places


def preference_loss(
    outputs: losses.Outputs,
    batch: Mapping[str, Array],
    *,
    beta: float,
    sft_weight: float = 0.0,
) -> Terms:
  """sum over pairs of -log sigmoid(beta * (r_chosen - r_rejected)).

  r is the log-ratio of policy to reference, summed over a response
  (arXiv 2305.18290, equation 7). With `sft_weight` the NLL per token of the
  chosen response is added (arXiv 2404.19733, equation 1).

  Args:
    outputs: see `losses.scores_of`.
    batch: as for `losses.weighted_nll`, and 'ref_logprobs' [B, T].
    beta: how dear it is to leave the reference.
    sft_weight: of the additional term.

  Returns:
    Terms whose weight is the number of pairs. Sums: 'accuracy', pairs with the
    chosen response ahead; 'margin', the argument of the sigmoid;
    'chosen_reward' and 'rejected_reward', beta * r.
  """
  found = _read_pairs(outputs, batch)
  chosen_reward, rejected_reward = beta * found.chosen, beta * found.rejected
  margin = chosen_reward - rejected_reward
  loss = sft_weight * found.chosen_nll - jax.nn.log_sigmoid(margin)
  sums = {
      'accuracy': margin > 0, 'margin': margin, 'chosen_reward': chosen_reward,
      'rejected_reward': rejected_reward,
  }
  return Terms(
      total=jnp.sum(loss * found.there),
      weight=jnp.sum(found.there.astype(jnp.float32)),
      sums={name: jnp.sum(value * found.there) for name, value in sums.items()},
  )


class _Pairs(NamedTuple):
  """What a batch says of its pairs, each [B, P].

  Attributes:
    chosen, rejected: log-ratios to the reference, summed over the response.
    chosen_nll: per token.
    there: whether there is such a pair.
  """

  chosen: Array
  rejected: Array
  chosen_nll: Array
  there: Array


def _read_pairs(outputs: losses.Outputs, batch: Mapping[str, Array]) -> _Pairs:
  weights = losses.target_weights(batch)
  log_probs = losses.scores_of(outputs, batch).logprobs[:, 1:]
  segments = batch['segment_ids'][:, 1:]
  chosen = segments % 2 == 1

  def total(values: Array, where: Array) -> Float[Array, 'B P']:
    # Where nothing is trained, logprobs are absent: 0 * inf must not be summed.
    terms = jnp.where(where & (weights > 0), weights * values, 0.0)
    return _sum_pairs(terms, segments)

  ratios = log_probs - batch['ref_logprobs'][:, 1:]
  tokens = total(jnp.ones_like(weights), chosen)
  return _Pairs(
      total(ratios, chosen), total(ratios, ~chosen),
      total(-log_probs, chosen) / jnp.maximum(tokens, 1.0), tokens > 0,
  )


def _sum_pairs(
    values: Float[Array, 'B T'], segment_ids: Float[Array, 'B T']
) -> Float[Array, 'B P']:
  """Sums over both sequences of each pair; column 0 is padding's."""
  count = values.shape[1] // 2 + 2  # a sequence has at least one token

  def of_row(values: Array, pair: Array) -> Array:
    return jax.ops.segment_sum(values, pair, count)

  return jax.vmap(of_row)(values, (segment_ids + 1) // 2)


def reference_logprobs(
    score: Score,
    params: Any,
    found: Sequence[Pair],
    row_length: int,
    batch_rows: int,
) -> list[Float[np.ndarray, ' tokens']]:
  """Log-probabilities under the frozen reference, as `preferences.batches` asks.

  Args:
    score: a `scoring.Scorer`.
    params: of the reference.
    found: pairs that fit into rows of `row_length` tokens.
    row_length: tokens per packed row.
    batch_rows: rows scored at a time.
  """
  scores: list[np.ndarray] = []
  for start in range(0, len(found), CHUNK):
    chunk = found[start : start + CHUNK]
    rows, lengths = preferences.rows(chunk, row_length), [*map(len, chunk)]
    flat = score_places(score, params, rows, sum(lengths), batch_rows)
    scores += np.split(flat, np.cumsum(lengths)[:-1])
  return scores
