"""A real DPO phase on the bandit's corrections."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.endings import RunStopped
from leafe_jax.experience import preferences
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.learner.scoring import Scorer
from leafe_jax.methods import collect, dpo, stage1
from leafe_jax.tree import Node, Tree, Turn
from tests.methods import bandit

DISTILL = config_lib.Distill(
    steps=8, batch_rows=4, row_length=16, checkpoint_every=3, learning_rate=1e-2
)
DPO = config_lib.Dpo(learning_rate=2e-2)


def make_run(directory, success=True, **sections):
  """A run whose trees say: 'right', not 'left'."""
  run = bandit.make_run(directory, **{'distill': DISTILL, 'dpo': DPO, **sections})
  trees = [grown(run, task, success) for task in run.tasks('train', 6)]
  explored = run.directory.phase(stage1.EXPLORE.name).dir
  collect.save_trees(collect.wave_path(explored, 0), trees)
  return run


def grown(run, task, success):
  transcript = run.transcript
  prompt = transcript.first('', 'choose', 'choose')
  opener = list(transcript.opener_ids)

  def turn(said, **hint):
    ids = transcript.response(said)
    return Turn(1, 'choose', prompt, opener, ids, [-1.0] * len(ids), said, said, **hint)

  hint = transcript.hint('right')
  root = Node(0, None, 1, None, 0, [turn('left')])
  branch = Node(1, 0, 1, 'right', 1, [turn('right', hint_ids=hint)], success)
  return Tree(task.id, 'choose', 'train', [root, branch])


def prefer(run):
  return dpo.prefer(run, run.directory.phase(dpo.DPO.name).dir)


def weights(run):
  return load_params(run.params_path(dpo.DPO.name))


@pytest.fixture(name='trained', scope='module')
def _trained(tmp_path_factory):
  run = make_run(tmp_path_factory.mktemp('straight'))
  return run, prefer(run)


def test_the_corrected_action_becomes_likelier_than_the_parents(trained):
  run, result = trained
  assert (result['pairs'], result['updates']) == (6, DISTILL.steps)
  assert result['experience']['cf'] == 6
  trees = collect.load_trees(run.directory.phase('explore').dir)
  pairs = preferences.pairs(trees[:1], run.config.experience)
  rows = preferences.rows(pairs, 32)
  score = Scorer(run.shape.policy, run.mesh)

  def lead(params):
    signs = np.where(rows['segment_ids'] % 2, 1, -1) * rows['weights']
    return np.sum(signs * score(params, rows))

  assert lead(weights(run)) > lead(run.start()) + 1


def test_a_killed_training_ends_with_the_same_bits(trained, tmp_path, monkeypatch):
  straight, result = trained
  run = make_run(tmp_path)
  start = preferences.batches

  class Dying:
    """Batches whose sixth never comes."""

    def __init__(self, *args):
      self._batches, self._left = start(*args), 5
      self.get_state, self.close = self._batches.get_state, self._batches.close

    def __next__(self):
      if not self._left:
        raise KeyboardInterrupt
      self._left -= 1
      return next(self._batches)

  with monkeypatch.context() as patch:
    patch.setattr(preferences, 'batches', Dying)
    with pytest.raises(KeyboardInterrupt):
      prefer(run)
  assert prefer(run) == result
  expected = weights(straight)
  for name, value in weights(run).items():
    np.testing.assert_array_equal(value, expected[name])


def test_adapters_are_trained_against_the_frozen_base(tmp_path):
  policy = dataclasses.replace(bandit.POLICY, lora_rank=2)
  run = make_run(tmp_path, policy=policy)
  result = prefer(run)
  assert result['frozen'] == 'warm_start'
  assert all('_lora_' in name for name in weights(run))


def test_without_a_correction_there_is_nothing_to_prefer(tmp_path):
  with pytest.raises(RunStopped, match="arm 'dpo' has nothing to learn from"):
    prefer(make_run(tmp_path, success=False))


def test_what_is_left_open_follows_distillation():
  config = config_lib.Experiment(
      distill=DISTILL, dpo=dataclasses.replace(DPO, batch_rows=3)
  )
  found = dpo.settings(config)
  assert (found.steps, found.batch_rows, found.row_length) == (8, 3, 32)
  assert (found.grad_accumulation, found.checkpoint_every) == (1, 3)
  assert found.learning_rate == DPO.learning_rate
