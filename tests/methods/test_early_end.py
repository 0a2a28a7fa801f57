"""Runs that find nothing to go on with: what they say and what they leave."""

from __future__ import annotations

import dataclasses
import json

import pytest

from configs import webshop
from leafe_jax import experiment, settings
from leafe_jax.config import Study
from leafe_jax.endings import EarlyEnd
from leafe_jax.methods import lengths
from leafe_jax.methods.arms import Phase
from leafe_jax.methods.collect import save_trees
from leafe_jax.methods.effort import Effort
from leafe_jax.rollout.evaluate import TaskOutcome
from leafe_jax.rundir import RunDirectory
from leafe_jax.tree import Node, Reflection, Tree, Turn

CONFIG = dataclasses.replace(
    settings.from_config_dict(webshop.get_config('debug')), arms=('base',)
)


def tree(ended_by='horizon', error=None, asked=None):
  """An episode of one turn, and a reflection on it."""
  turn = Turn(1, 'o', [1], [2], [3], [-0.5], 'r', None, error=error)
  answer = Reflection(1, True, 'raw', error=asked)
  node = Node(0, None, 1, None, 0, [turn], ended_by=ended_by, reflections=[answer])
  return Tree('a', 'buy it', 'train', [node])


def test_lengths_that_are_why_are_named_with_the_option_to_raise():
  assert lengths.trouble([tree()], CONFIG) == ''
  said = lengths.trouble(
      [tree('overlong', 'CutOff: no end', 'CutOff: no end'), tree()], CONFIG
  )
  policy, explore = CONFIG.policy, CONFIG.explore
  for sentence in (
      f'1 of 2 episodes ended as overlong, which may be why: raise '
      f'policy.max_length={policy.max_length}.',
      f'1 of 2 responses were cut off, which may be why: raise '
      f'explore.max_response_tokens={explore.max_response_tokens}.',
      f'1 of 2 reflections were cut off, which may be why: raise '
      f'explore.max_reflection_tokens={explore.max_reflection_tokens}.',
  ):
    assert sentence in said
  said = lengths.trouble([tree('overlong'), tree(), tree()], CONFIG)
  assert said == (
      f' 1 of 3 episodes ended as overlong (policy.max_length={policy.max_length}).'
  )


@pytest.fixture(name='phases')
def _phases(monkeypatch):
  """A gate that leaves a tree, and a phase that has nothing for seeds in a set."""
  fails: set[int] = set()

  def gate(run, directory):
    save_trees(directory / 'wave_0000.jsonl', [tree()])
    return {}

  def distill(run, directory):
    if run.config.seed in fails:
      raise EarlyEnd(f'nothing to learn from <seed {run.config.seed}>')
    return {}

  def evaluate(run, directory):
    outcome = TaskOutcome('a', [1, 0], [1.0, 0.0], [1, 1], {}, 'type', 'hash')
    line = json.dumps(dataclasses.asdict(outcome))
    (directory / 'wave_0000.jsonl').write_text(line + '\n')
    return {}

  report = experiment.phases_of(CONFIG)[-1]
  bodies = {'gate': gate, 'distill/x': distill, 'evaluate/base': evaluate}
  wanted = [Phase(n, (), body, lambda c: Effort()) for n, body in bodies.items()]
  monkeypatch.setattr(experiment, 'phases_of', lambda config: [*wanted, report])
  monkeypatch.setattr(experiment, '_look_ahead', lambda *_: None)
  return fails


def test_a_run_that_ends_early_reports_what_there_is(phases, tmp_path):
  phases.add(CONFIG.seed)
  with pytest.raises(EarlyEnd, match='nothing to learn'):
    experiment.run(CONFIG, tmp_path, 'h' * 64)
  page = (tmp_path / 'report' / 'index.html').read_text()
  assert 'This run ended early.' in page and 'buy it' in page
  assert 'Stopped in phase distill/x: nothing to learn from &lt;seed 0&gt;' in page
  results = json.loads((tmp_path / 'results.json').read_text())
  assert results['stopped'].startswith('Stopped in phase distill/x')
  assert not results['arms'] and results['stage1']['counts']['tasks'] == 1
  phases.clear()
  experiment.run(CONFIG, tmp_path, 'h' * 64)
  assert 'stopped' not in json.loads((tmp_path / 'results.json').read_text())
  assert 'ended early' not in (tmp_path / 'report' / 'index.html').read_text()


def test_what_was_evaluated_before_the_end_is_reported(phases, tmp_path):
  experiment.run(CONFIG, tmp_path, 'h' * 64)
  phases.add(CONFIG.seed)
  (tmp_path / 'distill' / 'x' / 'DONE.json').unlink()
  with pytest.raises(EarlyEnd):
    experiment.run(CONFIG, tmp_path, 'h' * 64)
  results = json.loads((tmp_path / 'results.json').read_text())
  assert results['arms']['base']['pass_at_k']['2']['mean'] == 1.0


def test_a_seed_that_ends_early_is_named_and_the_others_are_pooled(
    phases, tmp_path, caplog
):
  phases.add(4)
  config = dataclasses.replace(CONFIG, study=Study(seeds=(3, 4, 5)))
  experiment.run(config, tmp_path, 'h' * 64)
  results = json.loads((tmp_path / 'results.json').read_text())
  assert list(results['per_seed']) == ['3', '5']
  assert list(results['gaps']) == ['4'] and 'nothing to learn' in results['gaps']['4']
  assert 'Seed 4 is missing.' in (tmp_path / 'study.md').read_text()
  assert 'Seed 4 is missing.' in (tmp_path / 'report' / 'index.html').read_text()
  assert 'seed_4 ended early' in caplog.text
  assert RunDirectory(tmp_path / 'seed_4').path.joinpath('report/index.html').exists()


def test_a_study_without_any_finished_seed_ends_early_itself(phases, tmp_path):
  phases.update({3, 4})
  config = dataclasses.replace(CONFIG, study=Study(seeds=(3, 4)))
  with pytest.raises(EarlyEnd, match='no seed of the study .*nothing to learn'):
    experiment.run(config, tmp_path, 'h' * 64)
