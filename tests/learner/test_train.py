from __future__ import annotations

import functools
import signal

import jax
import numpy as np
import pytest

from leafe_jax import stops
from leafe_jax.learner import checkpoints as ckpt
from leafe_jax.learner import losses, metrics, optimizers, train, update


class Run:
  """A training run made from scratch, as after a restart."""

  def __init__(self, policy, mesh, params, stream, directory=None, every=4):
    optimizer = optimizers.make_optimizer(1e-2, 10)
    self.update = update.make_update(policy, optimizer, losses.weighted_nll, mesh)
    copies = {k: jax.device_put(np.array(v), v.sharding) for k, v in params.items()}
    self.state = update.init_state(copies, optimizer, mesh)
    self.batches = stream()
    self.checkpoints = directory and ckpt.Checkpoints(directory)
    self.every = every
    self.seen: list[int] = []
    self.losses: list[float] = []

  def to(self, steps: int, on_step=None, **kwargs) -> update.TrainState:
    def record(step, scalars):
      self.seen.append(step)
      self.losses.append(scalars['loss'])
      if on_step:
        on_step(step, scalars)

    try:
      return train.train(
          self.state, self.batches, self.update, steps, self.checkpoints, record,
          checkpoint_every=self.every, **kwargs,
      )
    finally:
      if self.checkpoints:
        self.checkpoints.close()


@pytest.fixture
def start(policy, mesh, first_params, stream):
  return functools.partial(Run, policy, mesh, first_params, stream)


def same_bits(a, b) -> bool:
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


class Killed(BaseException):
  """Stands for the end of the process."""


def test_a_killed_run_resumes_with_the_same_bits(start, tmp_path):
  straight = start()
  expected = straight.to(10)

  def kill(step, scalars):
    if step == 6:
      raise Killed

  killed = start(tmp_path / 'c')
  with pytest.raises(Killed):
    killed.to(10, kill)
  resumed = start(tmp_path / 'c')
  found = resumed.to(10)
  assert killed.seen == [1, 2, 3, 4, 5, 6]
  assert resumed.seen == [5, 6, 7, 8, 9, 10]
  assert resumed.losses == straight.losses[4:]
  assert same_bits(found, expected)
  assert int(found.step) == 10


def test_a_run_that_is_asked_to_stop_loses_no_update(start, tmp_path, monkeypatch):
  straight = start()
  expected = straight.to(10)
  stopped = start(tmp_path / 'c')
  monkeypatch.setattr(
      stops, 'asked', lambda: signal.SIGTERM if len(stopped.seen) == 6 else 0
  )
  with pytest.raises(stops.Stopped, match='SIGTERM: saved after update 7 of 10') as end:
    stopped.to(10)
  assert end.value.exit_code == 143
  monkeypatch.undo()
  resumed = start(tmp_path / 'c')
  assert same_bits(resumed.to(10), expected)
  assert stopped.seen + resumed.seen == list(range(1, 11))


def test_a_finished_run_is_not_trained_again(start, tmp_path):
  expected = start(tmp_path / 'c').to(3)
  again = start(tmp_path / 'c')
  assert same_bits(again.to(3), expected)
  assert again.seen == []


def test_a_non_finite_update_stops_the_run_and_is_never_saved(start, tmp_path):
  run = start(tmp_path / 'c', every=1)
  good = run.update
  given = []

  def poisoned(state, batch):
    given.append(batch)
    if len(given) == 3:
      batch = {**batch, 'weights': batch['weights'] * np.float32('nan')}
    return good(state, batch)

  run.update = poisoned
  with pytest.raises(update.NonFiniteLoss, match='update 3 ') as info:
    run.to(10, failure_dir=tmp_path / 'bad')
  assert len(given) == 3
  assert run.seen == [1, 2]
  with np.load(info.value.saved) as saved:
    assert all(np.array_equal(saved[name], given[2][name]) for name in given[2])
  checkpoints = ckpt.Checkpoints(tmp_path / 'c')
  assert checkpoints.steps() == [1, 2]
  checkpoints.close()


def test_without_checkpoints_a_non_finite_update_is_seen_one_update_late(
    start, tmp_path
):
  run = start()
  good, calls = run.update, []

  def poisoned(state, batch):
    calls.append(batch)
    if len(calls) == 3:
      batch = {**batch, 'weights': batch['weights'] * np.float32('nan')}
    return good(state, batch)

  run.update = poisoned
  with pytest.raises(update.NonFiniteLoss) as info:
    run.to(10, failure_dir=tmp_path)
  assert len(calls) == 4 and info.value.step == 3
  with np.load(info.value.saved) as saved:
    assert np.array_equal(saved['tokens'], calls[2]['tokens'])


def test_scalars_reach_the_writer(start, tmp_path):
  class Memory(metrics.Nowhere):
    def __init__(self):
      self.rows = []

    def write(self, step, scalars):
      self.rows.append((step, set(scalars)))

  memory = Memory()
  start().to(2, writer=memory)
  norms = {'grad_norm', 'update_norm', 'param_norm'}
  names = {'loss', 'accuracy', 'weight', 'fill', *norms}
  assert memory.rows == [(1, names), (2, names)]
