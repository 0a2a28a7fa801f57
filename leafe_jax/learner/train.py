"""The training loop of the warm start and of distillation."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from absl import logging

from leafe_jax import stops
from leafe_jax.learner import metrics as metrics_lib
from leafe_jax.learner import update as update_lib
from leafe_jax.learner.checkpoints import Checkpoints
from leafe_jax.learner.update import TrainState
from leafe_jax.progress import Progress

OnStep = Callable[[int, Mapping[str, float]], None]


class Batches(Protocol):
  """A data stream with a position (`experience.pipeline.batches`)."""

  def __next__(self) -> Any: ...

  def get_state(self) -> Any: ...

  def set_state(self, state: Any) -> None: ...


class _Pending(NamedTuple):
  """An update whose metrics were not looked at yet."""

  step: int
  metrics: Mapping[str, jax.Array]
  batch: Mapping[str, np.ndarray]


def train(
    state: TrainState,
    batches: Batches,
    update: Callable[..., tuple[TrainState, update_lib.Metrics]],
    steps: int,
    checkpoints: Checkpoints | None = None,
    on_step: OnStep | None = None,
    *,
    checkpoint_every: int = 0,
    writer: metrics_lib.Writer | None = None,
    failure_dir: str | os.PathLike[str] = '.',
    label: str = 'train',
) -> TrainState:
  """Trains up to update number `steps`, from the last checkpoint if there is one.

  Metrics are read one update late, so that the device never waits for the
  host, but before every checkpoint: no checkpoint holds a non-finite update.

  Args:
    state: the fresh state; donated, or replaced by the checkpoint's.
    batches: endless stream; left right after the last batch used.
    update: from `update.make_update`.
    steps: updates of the whole run, those before a resume included.
    checkpoints: where to resume from and save to; None for neither.
    on_step: called with each update's number and metrics, in order.
    checkpoint_every: updates between checkpoints; 0: only the last.
    writer: gets the metrics.
    failure_dir: where the batch of a non-finite update goes.
    label: of the progress bar.

  Returns:
    The state after update `steps`.

  Raises:
    NonFiniteLoss: the loss or the gradients are not finite.
    Stopped: the run was asked to stop; the state is saved.
  """
  state = _resume(state, batches, checkpoints)
  report = _Reporter(on_step, writer or metrics_lib.Nowhere(), failure_dir)
  keeper = _Keeper(checkpoints, checkpoint_every, steps)
  done = int(jax.device_get(state.step))
  with jax.transfer_guard('disallow'), Progress(label, steps, 'update', done) as bar:
    for step in range(done + 1, steps + 1):
      batch = next(batches)
      state, metrics = update(state, batch)
      report.add(_Pending(step, metrics, batch))
      keeper.keep(step, state, batches, report)
      bar.show(report.last)
      bar.advance()
    report.flush()
  keeper.finish()
  return state


def _resume(
    state: TrainState, batches: Batches, checkpoints: Checkpoints | None
) -> TrainState:
  restored = None if checkpoints is None else checkpoints.restore(state)
  if restored is None:
    return state
  logging.info('resuming after update %d', restored.step)
  batches.set_state(restored.cursor)
  return restored.state


@dataclasses.dataclass(frozen=True)
class _Keeper:
  """Saves every `every` updates and the last one, where there are checkpoints."""

  checkpoints: Checkpoints | None
  every: int
  last: int

  def keep(
      self, step: int, state: TrainState, batches: Batches, report: _Reporter
  ) -> None:
    """Saves what is due. Stopped, with the state saved: the run was asked to stop."""
    signal = 0 if step == self.last else stops.ask()
    if self.checkpoints is not None:
      self.checkpoints.poll()
      due = step == self.last or (self.every and step % self.every == 0)
      if signal or due:
        report.flush()
        self.checkpoints.save(step, state, cursor=batches.get_state())
    if signal:
      self.finish()
      raise stops.Stopped(signal, self._saved(step))

  def _saved(self, step: int) -> str:
    if self.checkpoints is None:
      return f'update {step} of {self.last} was not saved, this phase keeps none'
    return f'saved after update {step} of {self.last}'

  def finish(self) -> None:
    """Waits until what is being written is complete."""
    if self.checkpoints is not None:
      self.checkpoints.poll(wait=True)


class _Reporter:
  """Looks at metrics one update late and hands them on."""

  def __init__(
      self,
      on_step: OnStep | None,
      writer: metrics_lib.Writer,
      failure_dir: str | os.PathLike[str],
  ):
    self._on_step = on_step
    self._writer = writer
    self._failure_dir = pathlib.Path(failure_dir)
    self._pending: _Pending | None = None
    self.last: dict[str, str] = {}

  def add(self, pending: _Pending) -> None:
    self.flush()
    self._pending = pending

  def flush(self) -> None:
    """Reads what is pending. Raises NonFiniteLoss."""
    if self._pending is None:
      return
    step, metrics, batch = self._pending
    self._pending = None
    scalars = {k: float(v) for k, v in jax.device_get(dict(metrics)).items()}
    update_lib.check_finite(step, scalars, batch, self._failure_dir)
    scalars['fill'] = float(np.mean(batch['segment_ids'] > 0))
    self.last = {'loss': f'{scalars["loss"]:.4f}'}
    self._writer.write(step, scalars)
    if self._on_step is not None:
      self._on_step(step, scalars)
