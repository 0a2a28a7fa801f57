"""Distilling a policy into itself: the teacher is the one that sees more.

The teacher reads the same response after a prompt that also holds privileged
text: a hint, the world's answer, a reflection. Its scores are part of the batch,
so gradients flow through the student alone. Three forms:

* `reverse`: KL(student || teacher) on tokens that the student sampled
  (SDPO, arXiv 2601.20802; as TRL writes it);
* `forward`: KL(teacher || student) over the teacher's likeliest tokens (OPSD,
  arXiv 2601.18734);
* `gated`: raises the tokens that the teacher endorses, beside a policy gradient
  (SDAR, arXiv 2605.15155).

Batches have, beside what `losses` needs, 'taught' [B, T], 1 on tokens that the
teacher scored, and 'teacher_logprobs' [B, T]; for `forward` 'candidates' and
'teacher_topk', both [B, T, K].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from leafe_jax.learner import losses
from leafe_jax.learner.losses import Loss, Terms

# As in policy gradients: keeps exp() finite where policies have drifted apart.
_MAX_LOG_RATIO = 20.0
TAUGHT_ARRAYS = ('taught', 'teacher_logprobs')


def reverse(
    outputs: losses.Outputs, batch: Mapping[str, Array], *, ratio_clip: float = 0.0
) -> Terms:
  """sum of (log pi - log pi_teacher), whose gradient is that of the reverse KL.

  The value is the estimate of the KL; its gradient is taken as (log pi - log
  pi_teacher) * d log pi, which is unbiased on tokens sampled from pi, where the
  plain gradient of the estimate would be zero in the mean.

  Args:
    outputs: see `losses.scores_of`.
    batch: 'teacher_logprobs' and 'taught'; with `ratio_clip` 'old_logprobs', too.
    ratio_clip: the most that the ratio to the policy that sampled counts; 0: the
      ratio is not used.

  Returns:
    Terms whose weight is that of all response tokens. Sums: 'divergence'; 'taught',
    the weight of tokens with a teacher.
  """
  weights, taught = losses.target_weights(batch), _taught(batch)
  logprobs = losses.scores_of(outputs, batch).logprobs[:, 1:]
  # Where nobody taught there may be no number: 0 * inf must not be summed.
  teacher = jnp.where(taught > 0, batch['teacher_logprobs'][:, 1:], logprobs)
  gap = jax.lax.stop_gradient(logprobs - teacher)
  if ratio_clip:
    drift = jax.lax.stop_gradient(logprobs) - batch['old_logprobs'][:, 1:]
    drift = jnp.clip(drift, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    scale = jnp.minimum(jnp.exp(drift), ratio_clip)
  else:
    scale = jnp.ones_like(gap)
  # Worth the gap, with the gradient of gap * log pi.
  loss = scale * gap * (1 + logprobs - jax.lax.stop_gradient(logprobs))
  return Terms(
      total=jnp.sum(taught * loss),
      weight=jnp.sum(weights),
      sums={'divergence': jnp.sum(taught * gap), 'taught': jnp.sum(taught)},
  )


def gated(
    outputs: losses.Outputs, batch: Mapping[str, Array], *, sharpness: float = 10.0
) -> Terms:
  """sum of g * (log pi_teacher - log pi) with g = sigmoid(sharpness * the same).

  The gate g is not differentiated, so the gradient is -g * d log pi: minimising
  raises a token, the more the teacher prefers it, and leaves alone what the
  teacher rejects.

  Args:
    outputs: see `losses.scores_of`.
    batch: as for `reverse`.
    sharpness: beta of the gate.

  Returns:
    Terms whose weight is that of all response tokens. Sums: 'gate'; 'endorsed',
    the weight of tokens that the teacher finds likelier; 'taught'.
  """
  weights, taught = losses.target_weights(batch), _taught(batch)
  logprobs = losses.scores_of(outputs, batch).logprobs[:, 1:]
  teacher = jnp.where(taught > 0, batch['teacher_logprobs'][:, 1:], 0.0)
  gap = teacher - logprobs
  gate = jax.lax.stop_gradient(jax.nn.sigmoid(sharpness * gap))
  return Terms(
      total=jnp.sum(taught * gate * gap),
      weight=jnp.sum(weights),
      sums={
          'gate': jnp.sum(taught * gate), 'endorsed': jnp.sum(taught * (gap > 0)),
          'taught': jnp.sum(taught),
      },
  )


def forward(
    logprobs: Float[Array, 'B T K'], batch: Mapping[str, Array], *, clip: float = 0.0
) -> Terms:
  """sum_i w_i * sum_k q_k (log q_k - log pi_k) over the teacher's tokens k.

  A token that is imitated has one candidate, itself, with q = 1: its term is
  -log pi. Candidates with q = 0 fill the rest.

  Args:
    logprobs: of the student, see `model.candidate_logprobs`.
    batch: 'weights' and 'segment_ids' [B, T], 'teacher_topk' [B, T, K]: log q,
      -inf where there is no candidate.
    clip: the most that any of a token's terms counts: all of them shrink by the
      same factor, so that what is clipped keeps its direction (clipped one by one,
      as in OPSD, the likeliest token's term stops to pull and the others' pull on,
      away from the teacher); 0: no limit.
  """
  weights = losses.target_weights(batch)
  log_q = batch['teacher_topk'][:, 1:].astype(jnp.float32)
  there = jnp.isfinite(log_q)
  log_q = jnp.where(there, log_q, 0.0)
  q = jnp.where(there, jnp.exp(log_q), 0.0)
  terms = q * (log_q - jnp.where(there, logprobs[:, 1:], 0.0))
  divergence = jnp.sum(terms, axis=-1)
  loss, clipped = divergence, jnp.zeros_like(divergence)
  if clip:
    largest = jax.lax.stop_gradient(jnp.max(terms, axis=-1))
    loss = divergence * jnp.minimum(1.0, clip / jnp.maximum(largest, clip))
    clipped = (largest > clip).astype(jnp.float32)
  return Terms(
      total=jnp.sum(weights * loss),
      weight=jnp.sum(weights),
      sums={
          'divergence': jnp.sum(weights * divergence),
          'clipped_kl': jnp.sum(weights * clipped),
      },
  )


def rehearsed(outputs: losses.Outputs, batch: Mapping[str, Array]) -> Terms:
  """`reverse` where there is a teacher, and the NLL where there is none."""
  taught = _taught(batch)
  alone = jnp.pad(losses.target_weights(batch) - taught, ((0, 0), (1, 0)))
  imitated = losses.weighted_nll(outputs, {**batch, 'weights': alone})
  distilled = reverse(outputs, batch)
  return Terms(distilled.total + imitated.total, distilled.weight, distilled.sums)


def beside(first: Loss, second: Loss, weight: float, name: str) -> Loss:
  """The sum of two losses over the same tokens, the second `weight` times.

  Args:
    first: its weight is that of the sum.
    second: is reported, unweighted, as `name`.
    weight: of the second.
    name: of the metric.
  """

  def both(outputs: Any, batch: Mapping[str, Array]) -> Terms:
    one, two = first(outputs, batch), second(outputs, batch)
    sums = {**two.sums, name: two.total, **one.sums}
    return Terms(one.total + weight * two.total, one.weight, sums)

  return both


def _taught(batch: Mapping[str, Array]) -> Float[Array, 'B T-1']:
  """Loss weights of the tokens that a teacher scored."""
  return losses.target_weights(batch) * (batch['taught'][:, 1:] > 0)
