"""GRPO and GiGPO: advantages of groups, the clipped surrogate.

No value network: a group of episodes of one task from one reset state is its
own baseline (arXiv 2402.03300, section 4.1; in its multi-turn form and with
anchor states arXiv 2505.10978, sections 4.1 to 4.3).

Advantages are plain functions on numpy. The surrogate is a `losses.Loss` that
reads 'old_logprobs', 'ref_logprobs' and 'advantages' from the batch, each
[B, T] and aligned like 'weights': entry t belongs to the prediction of token t.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from leafe_jax import config as config_lib
from leafe_jax.learner import losses
from leafe_jax.learner.losses import Terms

_EPSILON = 1e-6
# As in verl: keeps exp() finite where policies have drifted far apart.
_MAX_LOG_RATIO = 20.0
_MAX_KL = 10.0


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What one episode of a group came to.

  Attributes:
    reward: of the whole episode, received at its last turn.
    valid: per turn, whether the environment accepted the action.
    anchors: per turn, what identifies the state it was taken in.
  """

  reward: float
  valid: Bool[np.ndarray, ' turns']
  anchors: tuple[str, ...]

  def __post_init__(self) -> None:
    if len(self.anchors) != len(self.valid):
      raise ValueError(
          f'{len(self.valid)} turns, but {len(self.anchors)} anchors'
      )


def advantages(
    group: Sequence[Outcome], config: config_lib.Grpo, step_weight: float
) -> list[Float[np.ndarray, ' turns']]:
  """A = A^E + step_weight * A^S, one value per turn of each episode.

  An episode alone in its group has nothing to be compared with: 0 everywhere.

  Args:
    group: episodes of one task.
    config: `invalid_penalty`, `per_turn_norm`, `std` and `gamma` count here.
    step_weight: omega of GiGPO; 0 is GRPO.
  """
  if len(group) < 2:
    return [np.zeros(len(outcome.valid)) for outcome in group]
  found = episode_advantages(group, config)
  if step_weight:
    steps = step_advantages(group, config)
    found = [a + step_weight * s for a, s in zip(found, steps, strict=True)]
  return found


def episode_advantages(
    group: Sequence[Outcome], config: config_lib.Grpo
) -> list[Float[np.ndarray, ' turns']]:
  """A^E: the episode's score against its group, copied to all its turns.

  The score is the reward minus the penalties of all invalid turns. With
  `per_turn_norm` every turn is a row of its own, as in verl-agent: its score is
  the reward minus its own penalty, and long episodes weigh more in the mean.
  """
  if config.per_turn_norm:
    rows = [o.reward - config.invalid_penalty * ~o.valid for o in group]
    flat = normalise(np.concatenate(rows), config.std)
    return np.split(flat, np.cumsum([len(row) for row in rows])[:-1])
  scores = episode_scores(group, config.invalid_penalty)
  values = normalise(scores, config.std)
  return [np.full(len(o.valid), a) for o, a in zip(group, values, strict=True)]


def episode_scores(
    group: Sequence[Outcome], invalid_penalty: float
) -> Float[np.ndarray, ' group']:
  """Reward minus the penalties of the invalid turns, per episode."""
  return np.array([o.reward - invalid_penalty * np.sum(~o.valid) for o in group])


def return_advantages(
    group: Sequence[Outcome], config: config_lib.Grpo
) -> list[Float[np.ndarray, ' turns']]:
  """A turn's discounted return against those of all turns of the group.

  Where GRPO copies the episode's score to all turns, those near its end have more
  of it here (arXiv 2603.08561). An episode alone in its group has 0 everywhere.
  """
  if len(group) < 2:
    return [np.zeros(len(outcome.valid)) for outcome in group]
  returns = [discounted_returns(outcome, config) for outcome in group]
  flat = normalise(np.concatenate(returns), config.std)
  return np.split(flat, np.cumsum([len(row) for row in returns])[:-1])


def step_advantages(
    group: Sequence[Outcome], config: config_lib.Grpo
) -> list[Float[np.ndarray, ' turns']]:
  """A^S: a turn's discounted return against all turns in the same state.

  Turns of the group with the same anchor form a group of their own; a turn
  alone in its state gets 0 (arXiv 2505.10978, equations 6 to 8).
  """
  places: dict[str, list[tuple[int, int]]] = defaultdict(list)
  for i, outcome in enumerate(group):
    for t, anchor in enumerate(outcome.anchors):
      places[anchor].append((i, t))
  returns = [discounted_returns(outcome, config) for outcome in group]
  found = [np.zeros(len(outcome.valid)) for outcome in group]
  for same in places.values():
    if len(same) < 2:
      continue
    values = normalise(np.array([returns[i][t] for i, t in same]), config.std)
    for (i, t), value in zip(same, values, strict=True):
      found[i][t] = value
  return found


def discounted_returns(
    outcome: Outcome, config: config_lib.Grpo
) -> Float[np.ndarray, ' turns']:
  """gamma^(T - t) * reward, minus the penalty of the turn itself."""
  left = np.arange(len(outcome.valid))[::-1]
  penalties = config.invalid_penalty * ~outcome.valid
  return config.gamma**left * outcome.reward - penalties


def normalise(values: Float[np.ndarray, ' n'], std: str) -> Float[np.ndarray, ' n']:
  """(x - mean) / (std + 1e-6); zeros where all are equal.

  A single value is equal to all others: 0, where verl leaves it as it is.

  Args:
    values: of one group.
    std: 'sample' (n - 1), 'population' (n), or 'none' for no division.

  Raises:
    ValueError: unknown `std`.
  """
  if std not in config_lib.STDS:
    raise ValueError(f'unknown std {std!r}; choose from {", ".join(config_lib.STDS)}')
  if not len(values) or np.all(values == values[0]):
    return np.zeros(len(values))
  centred = values - values.mean()
  if std == 'none':
    return centred
  return centred / (values.std(ddof=int(std == 'sample')) + _EPSILON)


def clipped_surrogate(
    outputs: losses.Outputs,
    batch: Mapping[str, Array],
    *,
    clip: float,
    kl: float,
    entropy: float = 0.0,
    dual_clip: float = 0.0,
) -> Terms:
  """sum_i w_i * (-min(r A, clip(r, 1 - clip, 1 + clip) A) + kl * k3 - entropy * H).

  r = pi / pi_old, the mean is over response tokens (w = 1 there). k3 is the
  low-variance estimate of KL(pi || pi_ref), see `low_variance_kl`.

  Args:
    outputs: see `losses.scores_of`.
    batch: as for `losses.weighted_nll`, and 'old_logprobs', 'ref_logprobs' and
      'advantages', each [B, T].
    clip: epsilon.
    kl: coefficient of the KL term.
    entropy: coefficient of the entropy bonus; 0 leaves it out.
    dual_clip: the most that r counts where A < 0 (arXiv 1912.09729, equation
      5); 0: no limit.
  """
  weights = losses.target_weights(batch)
  scores = losses.scores_of(outputs, batch)
  log_probs = scores.logprobs[:, 1:]
  advantage = batch['advantages'][:, 1:]
  log_ratio = log_probs - batch['old_logprobs'][:, 1:]
  gain, clipped = _clip_gain(log_ratio, advantage, clip, dual_clip)
  penalty = low_variance_kl(log_probs, batch['ref_logprobs'][:, 1:])
  terms = {
      'surrogate': -gain,
      'kl': penalty,
      'clipped': clipped.astype(jnp.float32),
      'log_ratio': jnp.abs(log_ratio),
  }
  loss = kl * penalty - gain
  if entropy:
    terms['entropy'] = scores.entropy[:, 1:]
    loss -= entropy * terms['entropy']
  # Where nothing is trained, logprobs are absent: 0 * inf must not be summed.
  trained = weights > 0
  sums = {
      name: jnp.sum(jnp.where(trained, weights * term, 0.0))
      for name, term in {'loss': loss, **terms}.items()
  }
  return Terms(total=sums.pop('loss'), weight=jnp.sum(weights), sums=sums)


def _clip_gain(
    log_ratio: Array, advantage: Array, clip: float, dual_clip: float
) -> tuple[Float[Array, 'B T'], Bool[Array, 'B T']]:
  """(what is gained, where the first clip binds), per token."""
  ratio = jnp.exp(jnp.clip(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO))
  free, held = ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage
  gain = jnp.minimum(free, held)
  if dual_clip:
    gain = jnp.where(advantage < 0, jnp.maximum(gain, dual_clip * advantage), gain)
  return gain, held < free


def low_variance_kl(
    log_probs: Float[Array, '*shape'], ref_log_probs: Float[Array, '*shape']
) -> Float[Array, '*shape']:
  """k3 = e^d - d - 1 with d = log pi_ref - log pi, never negative.

  Unbiased for KL(pi || pi_ref) on tokens drawn from pi; clamped where the
  policies have drifted far apart.
  """
  d = jnp.clip(ref_log_probs - log_probs, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)
  return jnp.clip(jnp.exp(d) - d - 1, -_MAX_KL, _MAX_KL)
