"""Supervised training as a phase: data, update, loop, checkpoints, weights."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any

from leafe_jax.config import Training
from leafe_jax.experience import pipeline
from leafe_jax.learner import losses, optimizers
from leafe_jax.learner.checkpoints import Checkpoints, save_params
from leafe_jax.learner.train import train
from leafe_jax.learner.update import init_state, make_update
from leafe_jax.methods.run import Run, imported
from leafe_jax.policy import model


def train_on(
    run: Run,
    label: str,
    directory: pathlib.Path,
    params: dict[str, Any],
    source: pipeline.Source,
    config: Training,
    kind_weights: Mapping[str, float],
    seed: int | None = None,
) -> dict[str, Any]:
  """Supervised training: `optimise` of the weighted NLL on packed examples.

  Args:
    run, label, directory, params, config: as for `optimise`.
    source: examples.
    kind_weights: loss weight per kind of example.
    seed: of their order; the run's if not given.

  Returns:
    As `optimise`, with the number of examples, and of those that are cut.
  """
  cut = pipeline.count_cut(source, config.row_length)
  packing = pipeline.Packing(config.batch_rows, config.row_length)
  seed = run.config.seed if seed is None else seed
  batches = pipeline.batches([source], packing, seed, kind_weights)
  result = optimise(
      run, label, directory, params, batches, losses.weighted_nll, config
  )
  return {**result, 'examples': len(source), 'examples_cut': cut}


def optimise(
    run: Run,
    label: str,
    directory: pathlib.Path,
    params: dict[str, Any],
    batches: Any,
    loss: losses.Loss,
    config: Training,
) -> dict[str, Any]:
  """Trains `params` and saves the result as the phase's weights.

  Adapters (from `run.start`) are trained over the run's frozen base, and are
  all that checkpoints and the phase's weights hold.

  Args:
    run: the run.
    label: of the progress bar and of the metrics.
    directory: of the phase; checkpoints go to `checkpoints`, weights to `params`.
    params: where training starts; donated.
    batches: an endless grain iterator; is closed.
    loss: of a batch.
    config: optimizer, number of updates, checkpoints.

  Returns:
    Number of updates, and the phase whose weights stayed frozen beneath the
    trained ones, if any.
  """
  frozen = run.frozen_beneath(params)
  scale = run.shape.policy.lora_rate_scale if frozen else 1.0
  optimizer = optimizers.from_config(config, scale)
  update = make_update(
      run.shape.policy, optimizer, loss, run.mesh,
      grad_accumulation=config.grad_accumulation, forward=model.token_scores,
      forward_reads=('weights',), frozen=frozen,
  )
  checkpoints = Checkpoints(directory / 'checkpoints')
  with contextlib.closing(run.writer(label.replace(' ', '_'))) as writer:
    state = train(
        init_state(params, optimizer, run.mesh), batches, update, config.steps,
        checkpoints, checkpoint_every=config.checkpoint_every, writer=writer,
        failure_dir=directory, label=label,
    )
  batches.close()
  checkpoints.close()
  save_params(directory / 'params', state.params)
  result = {'updates': config.steps}
  return {**result, 'frozen': imported(run.config)} if frozen else result
