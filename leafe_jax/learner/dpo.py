"""Direct preference optimisation on packed pairs (arXiv 2305.18290).

Batches are those of `experience.preferences`: in a row, segment 2 k - 1 holds
the chosen sequence of pair k and segment 2 k the rejected one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from leafe_jax.experience import preferences
from leafe_jax.experience.preferences import Pair
from leafe_jax.learner import losses
from leafe_jax.learner.losses import Terms
from leafe_jax.learner.update import pad_rows

# Pairs that are packed and scored together; bounds the memory this takes.
_CHUNK = 512


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
  weights = losses.target_weights(batch)
  log_probs = losses.scores_of(outputs, batch).logprobs[:, 1:]
  # Where nothing is trained, logprobs are absent: 0 * inf must not be summed.
  trained = weights > 0
  ratios = jnp.where(trained, log_probs - batch['ref_logprobs'][:, 1:], 0.0)
  nll = jnp.where(trained, -log_probs, 0.0)
  segments = batch['segment_ids'][:, 1:]
  chosen = segments % 2 == 1

  def of_pairs(values: Array) -> Float[Array, 'B P']:
    return _sum_pairs(weights * values, segments)

  chosen_reward = beta * of_pairs(ratios * chosen)
  rejected_reward = beta * of_pairs(ratios * ~chosen)
  margin = chosen_reward - rejected_reward
  there = of_pairs(trained) > 0
  loss = -jax.nn.log_sigmoid(margin)
  if sft_weight:
    tokens = jnp.maximum(of_pairs(trained & chosen), 1.0)
    loss += sft_weight * of_pairs(nll * chosen) / tokens
  sums = {
      'accuracy': margin > 0, 'margin': margin, 'chosen_reward': chosen_reward,
      'rejected_reward': rejected_reward,
  }
  return Terms(
      total=jnp.sum(loss * there),
      weight=jnp.sum(there.astype(jnp.float32)),
      sums={name: jnp.sum(value * there) for name, value in sums.items()},
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
    score: Callable[[Any, Mapping[str, np.ndarray]], np.ndarray],
    params: Any,
    found: Sequence[Pair],
    row_length: int,
    batch_rows: int,
) -> list[Float[np.ndarray, ' tokens']]:
  """Log-probabilities under the frozen reference, as `preferences.batches` asks.

  Args:
    score: a `policy_gradient.Scorer`.
    params: of the reference.
    found: pairs that fit into rows of `row_length` tokens.
    row_length: tokens per packed row.
    batch_rows: rows scored at a time.
  """
  scores: list[np.ndarray] = []
  for start in range(0, len(found), _CHUNK):
    chunk = found[start : start + _CHUNK]
    rows = preferences.rows(chunk, row_length)
    flat = np.zeros(sum(map(len, chunk)) + 1, np.float32)  # 0: padding
    for first in range(0, len(rows['tokens']), batch_rows):
      part = {
          name: pad_rows(value[first : first + batch_rows], batch_rows)
          for name, value in rows.items()
      }
      flat[part['place']] = score(params, part)
    scores += np.split(flat[1:], np.cumsum([len(pair) for pair in chunk])[:-1])
  return scores
