"""What a run trains, as far as memory is concerned: shapes, and what lies beside.

Made from a config by the same functions that make the updates themselves.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import optax

from leafe_jax.config import Experiment, Grpo, Training
from leafe_jax.learner import (
  dpo,
  losses,
  optimizers,
  policy_update,
  self_distillation,
)
from leafe_jax.learner.losses import Loss
from leafe_jax.learner.update import BATCH_ARRAYS


@dataclasses.dataclass(frozen=True)
class Job:
  """The updates of one phase.

  Attributes:
    name: what it is.
    rows: of a batch, at most.
    length: tokens of a row.
    grad_accumulation: micro-batches of an update.
    optimizer: whose state it keeps.
    loss: of a batch.
    arrays: names of a batch's arrays.
    logit_copies: arrays like a chunk's logits that are there at a time.
    whole: all weights are trained, also where the policy has adapters.
    plays: the sampler's pages stay, for episodes between the updates.
    reference: the base's weights stay beside those that are trained.
  """

  name: str
  rows: int
  length: int
  grad_accumulation: int
  optimizer: optax.GradientTransformation
  loss: Loss
  arrays: tuple[str, ...] = BATCH_ARRAYS
  logit_copies: int = 2
  whole: bool = False
  plays: bool = False
  reference: bool = False


def supervised(name: str, config: Training, *, whole: bool = False) -> Job:
  """Imitation of packed examples: the warm start, distillation."""
  return Job(
      name, config.batch_rows, config.row_length, config.grad_accumulation,
      optimizers.from_config(config), losses.weighted_nll, whole=whole,
  )


def preference(config: Training, beta: float) -> Job:
  """DPO; the reference's scores are part of the batch, its weights are gone."""
  loss = functools.partial(dpo.preference_loss, beta=beta)
  job = supervised('dpo', config)
  return dataclasses.replace(job, loss=loss, arrays=(*BATCH_ARRAYS, 'ref_logprobs'))


def on_policy(name: str, config: Training) -> Job:
  """Distillation of fresh responses; planned as that of their sampled tokens."""
  job = supervised(name, config)
  arrays = (*BATCH_ARRAYS, *self_distillation.TAUGHT_ARRAYS)
  return dataclasses.replace(
      job, loss=self_distillation.rehearsed, arrays=arrays, plays=True, reference=True
  )


def group_policy(
    name: str, config: Experiment, *, asks: bool = False,
    wrap: Callable[[Loss], Loss] | None = None, arrays: tuple[str, ...] = (),
) -> Job:  # fmt: skip
  """GRPO and its kin; every episode may be as long as a row.

  Args:
    name: of the arm.
    config: of the run.
    asks: the base is asked for lessons, or teaches, so it stays.
    wrap: makes of the surrogate what is minimised; None: just that.
    arrays: further ones that this reads.
  """
  grpo = config.grpo
  episodes = grpo.tasks_per_step * grpo.group_size
  loss = policy_update.make_loss(grpo)
  return Job(
      name, policy_update.round_up(-(-episodes // grpo.minibatches)),
      grpo.row_length or config.policy.max_length, grpo.grad_accumulation,
      policy_update.make_optimizer(grpo), (wrap or (lambda x: x))(loss),
      (*BATCH_ARRAYS, *policy_update.MORE_ARRAYS, *arrays),
      logit_copies=4 if grpo.entropy else 2, plays=True,
      reference=bool(grpo.kl) or asks,
  )


def distillation(config: Experiment) -> Job:
  return supervised('distillation', config.distill)


def updates(config: Grpo) -> int:
  """Most updates of a GRPO phase."""
  return config.steps * config.epochs * config.minibatches
