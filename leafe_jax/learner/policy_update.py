"""One step of policy optimisation: packed episodes in, better weights out.

Every step scores its rows with the acting policy and with the frozen
reference, then makes `epochs` passes of `minibatches` updates. The number of
rows changes from step to step; minibatches are padded up to a few sizes, so
that few programs are compiled.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from leafe_jax import config as config_lib
from leafe_jax.learner import optimizers, policy_gradient
from leafe_jax.learner.losses import Loss
from leafe_jax.learner.scoring import Scorer, score_sequences
from leafe_jax.learner.update import (
  TrainState,
  check_finite,
  init_state,
  make_update,
  pad_rows,
)
from leafe_jax.policy import model

Rows = Mapping[str, np.ndarray]
# Of a batch, beside those that every loss takes.
MORE_ARRAYS = ('advantages', 'old_logprobs', 'ref_logprobs')


@dataclasses.dataclass(frozen=True)
class Gap:
  """How far sampling and the training forward disagree, over response tokens.

  Attributes:
    mean, largest: of |log p_training - log p_sampling|.
    routes: share of the tokens at which other experts were asked, in any layer;
      None without experts.
  """

  mean: float
  largest: float
  routes: float | None

  def metrics(self) -> dict[str, float]:
    found = {'logprob_gap': self.mean, 'logprob_gap_max': self.largest}
    return found if self.routes is None else {**found, 'routes_apart': self.routes}


def make_optimizer(
    config: config_lib.Grpo, rate_scale: float = 1.0
) -> optax.GradientTransformation:
  """The optimizer of a phase, `rate_scale` times as fast."""
  return optimizers.make_optimizer(
      rate_scale * config.learning_rate,
      config.steps * config.epochs * config.minibatches,
      warmup_fraction=config.warmup_fraction, schedule='constant',
      weight_decay=config.weight_decay, clip_norm=config.clip_norm, b2=config.b2,
  )


def make_loss(config: config_lib.Grpo) -> Loss:
  """The clipped surrogate with the config's terms."""
  return functools.partial(
      policy_gradient.clipped_surrogate,
      clip=config.clip, kl=config.kl, entropy=config.entropy,
      dual_clip=config.dual_clip,
  )


class PolicyUpdate:
  """update(state, rows, step) -> (state, metrics).

  Args:
    policy_config, mesh, frozen: as for `update.make_update`.
    config: options.
    seed: of the order of the rows.
    failure_dir: where the batch of a non-finite update goes.
    wrap: makes of the surrogate what is minimised.
  """

  def __init__(
      self,
      policy_config: config_lib.Policy,
      config: config_lib.Grpo,
      mesh: Mesh,
      seed: int,
      failure_dir: str | os.PathLike[str],
      frozen: Mapping[str, Any] | None = None,
      wrap: Callable[[Loss], Loss] = lambda surrogate: surrogate,
  ):
    self._config = config
    self._mesh = mesh
    self._seed = seed
    self._failure_dir = pathlib.Path(failure_dir)
    self._recompute = (
        config.old_logprobs == 'recomputed'
        or (config.old_logprobs == 'auto' and policy_config.dtype != 'float32')
    )
    self._score = Scorer(policy_config, mesh, frozen)
    scale = policy_config.lora_rate_scale if frozen else 1.0
    self._optimizer = make_optimizer(config, scale)
    self._update = make_update(
        policy_config, self._optimizer, wrap(make_loss(config)), mesh,
        grad_accumulation=config.grad_accumulation, forward=model.token_scores,
        forward_reads=('weights',), frozen=frozen,
    )

  def init_state(self, params: model.Params) -> TrainState:
    """A fresh state around `params`, which the first update donates."""
    return init_state(params, self._optimizer, self._mesh)

  def __call__(
      self, state: TrainState, rows: Rows, reference: model.Params, step: int,
      again: bool = False,
  ) -> tuple[TrainState, dict[str, float]]:  # fmt: skip
    """All updates of one step, or of one pass of it.

    Args:
      state: donated.
      rows: packed [N, T]: tokens, weights, segment_ids, positions, advantages,
        logprobs and, with experts, routes (at sampling time).
      reference: weights of the frozen reference policy.
      step: number of the step; with the seed it fixes the order of the rows.
      again: the weights are not those that sampled any more, so that the old
        log-probabilities are those of the training forward.

    Returns:
      The new state; means of the updates' metrics, and the `Gap`.

    Raises:
      NonFiniteLoss: the loss or the gradients are not finite.
    """
    recompute = again or self._recompute
    batch, gap = self._with_logprobs(rows, state.params, reference, recompute)
    found = []
    for number, part in enumerate(self._minibatches(batch, step)):
      state, metrics = self._update(state, part)
      scalars = {k: float(v) for k, v in jax.device_get(metrics).items()}
      check_finite(
          (step - 1) * self._config.epochs * self._config.minibatches + number + 1,
          scalars, part, self._failure_dir,
      )
      found.append(scalars)
    means = {name: float(np.mean([m[name] for m in found])) for name in found[0]}
    return state, {**means, **gap.metrics()}

  def score(
      self, params: model.Params, sequences: Sequence[Sequence[int]], row_length: int
  ) -> list[np.ndarray]:
    """Log-probabilities of the tokens of each sequence, by the training forward."""
    config = self._config
    episodes = config.tasks_per_step * config.group_size
    rows = -(-self._minibatch_rows(episodes) // config.grad_accumulation)
    return score_sequences(self._score, params, sequences, row_length, rows)

  def _with_logprobs(
      self, rows: Rows, params: model.Params, reference: model.Params,
      recompute: bool,
  ) -> tuple[Rows, Gap]:  # fmt: skip
    """Adds old and reference log-probabilities to the rows."""
    batch = dict(rows)
    sampled, routes = batch.pop('logprobs'), batch.pop('routes', None)
    training, of_training = self._scores(params, rows)
    trained = batch['weights'] > 0
    apart = np.abs(training - sampled)[trained]
    elsewhere = None
    if routes is not None and of_training is not None:
      elsewhere = float((routes != of_training)[trained].mean())
    gap = Gap(float(apart.mean()), float(apart.max()), elsewhere)
    batch['old_logprobs'] = training if recompute else sampled
    batch['ref_logprobs'] = (
        self._scores(reference, rows)[0] if self._config.kl else training
    )
    return batch, gap

  def _scores(
      self, params: model.Params, rows: Rows
  ) -> tuple[np.ndarray, np.ndarray | None]:
    """Log-probabilities by the training forward, and routes where there are any."""
    # No more rows at a time than an update has in memory.
    whole = self._minibatch_rows(len(rows['tokens']))
    size = -(-whole // self._config.grad_accumulation)
    count = len(rows['tokens'])
    found = [
        self._score.with_routes(params, part)
        for part in _parts(rows, range(count), size)
    ]
    return jax.tree.map(lambda *x: np.concatenate(x)[:count], *found)

  def _minibatches(self, batch: Rows, step: int) -> Iterator[Rows]:
    count = len(batch['tokens'])
    size = self._minibatch_rows(count)
    for epoch in range(self._config.epochs):
      order = list(range(count))
      random.Random(f'{self._seed}/minibatches/{step}/{epoch}').shuffle(order)
      share = -(-count // self._config.minibatches)
      for start in range(0, count, share):
        yield from _parts(batch, order[start : start + share], size)

  def _minibatch_rows(self, count: int) -> int:
    return round_up(-(-count // self._config.minibatches))


def _parts(rows: Rows, order: Sequence[int], size: int) -> Iterator[Rows]:
  """The rows in that order, `size` at a time, the last part padded."""
  for start in range(0, len(order), size):
    chosen = np.asarray(order[start : start + size])
    yield {name: pad_rows(value[chosen], size) for name, value in rows.items()}


def round_up(count: int) -> int:
  """The next of four sizes per power of two: at most a quarter is padding."""
  unit = 1 << max(0, count.bit_length() - 3)
  return -(-count // unit) * unit
