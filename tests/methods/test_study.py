"""Finished runs are pooled into one report, whoever made them."""

import dataclasses
import json

import pytest

from configs import webshop
from leafe_jax import settings
from leafe_jax.endings import RunStopped
from leafe_jax.methods import study
from leafe_jax.methods.run import Run
from leafe_jax.methods.tuning import tuned
from leafe_jax.rollout.evaluate import TaskOutcome
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rundir import RunDirectory

TASKS = ('a', 'b', 'c')


def finished_run(path, seed, counts, n=4, hashes=('1', '2', '3')):
  """A run's directory with the outcomes of its arms and nothing else."""
  config = settings.from_config_dict(webshop.get_config('debug'))
  config = dataclasses.replace(config, seed=seed, arms=tuple(counts))
  directory = RunDirectory(path)
  directory.save_config(settings.to_dict(config))
  directory.phase('gate').complete({'parsed': 1.0})
  for phase in ('explore', 'sample'):
    directory.phase(phase).complete({'budget': Ledger(episodes=seed + 1).as_dict()})
  for arm, successes in counts.items():
    lines = [
        json.dumps(dataclasses.asdict(TaskOutcome(
            task, [1] * c + [0] * (n - c), [0.0] * n, [1] * n, {}, f'type {c}', hash
        )))
        for task, c, hash in zip(TASKS, successes, hashes, strict=True)
    ]
    place = directory.phase(f'evaluate/{arm}')
    (place.dir / 'wave_0000.jsonl').write_text('\n'.join(lines) + '\n')
    place.complete({})
  (path / 'results.json').write_text('{}')
  return study.open_run(path)


def test_seeds_are_pooled_and_runs_of_a_seed_complete_each_other(tmp_path):
  runs = [
      finished_run(tmp_path / 'a', 0, {'base': (0, 1, 4), 'leafe': (4, 4, 4)}),
      finished_run(tmp_path / 'b', 1, {'base': (0, 0, 4)}),
      finished_run(tmp_path / 'c', 1, {'base': (0, 0, 4), 'leafe': (0, 4, 4)}),
  ]
  page = study.write_pooled(runs, tmp_path / 'all', 'x' * 64)
  results = json.loads((tmp_path / 'all' / 'results.json').read_text())
  assert list(results['arms']) == ['base', 'leafe']
  base = results['arms']['base']['pass_at_k']['1']['mean']
  assert base == pytest.approx((0 + 0.25 + 1 + 0 + 0 + 1) / 6, abs=1e-6)
  assert results['per_seed']['1']['leafe']['4'] == pytest.approx(2 / 3, abs=1e-6)
  assert results['budget']['leafe']['episodes'] == 1 + 2
  assert results['tasks']['ids'] == {'a': 'type 0', 'b': 'type 1', 'c': 'type 4'}
  assert results['by_type']['type 0']['arms']['leafe']['1']['mean'] == 0.5
  text = (tmp_path / 'all' / 'study.md').read_text()
  assert '| leafe - base |' in text
  assert '| type 4 | 1 |' in text and results['tasks']['sha256'] in text
  assert 'Seed by seed' in page.read_text()


def test_runs_of_a_seed_that_disagree_are_refused(tmp_path):
  runs = [
      finished_run(tmp_path / 'a', 0, {'base': (0, 1, 4)}),
      finished_run(tmp_path / 'b', 0, {'base': (1, 1, 4)}),
  ]
  with pytest.raises(ValueError, match="two different arms 'base'"):
    study.pooled_results(runs, 'x' * 64)


def test_runs_on_tasks_of_other_data_are_refused(tmp_path):
  runs = [
      finished_run(tmp_path / 'a', 0, {'base': (0, 1, 4)}),
      finished_run(tmp_path / 'b', 1, {'base': (1, 1, 4)}, hashes=('1', 'x', '3')),
  ]
  with pytest.raises(ValueError, match='task b asks for one thing in one run'):
    study.pooled_results(runs, 'x' * 64)


def test_a_directory_without_a_finished_run_is_refused(tmp_path):
  with pytest.raises(ValueError, match='holds no finished run'):
    study.open_run(tmp_path)


def test_a_finished_run_that_was_changed_is_refused_by_name(tmp_path):
  finished_run(tmp_path, 0, {'base': (0, 1, 4)})
  path = tmp_path / 'evaluate' / 'base' / 'wave_0000.jsonl'
  path.write_text(path.read_text().replace('0, 0, 0, 0', '1, 0, 0, 0', 1))
  with pytest.raises(RunStopped, match=r'base/wave_0000.jsonl differs.*start the run'):
    study.open_run(tmp_path)
  (tmp_path / 'evaluate' / 'base' / 'DONE.json').unlink()
  with pytest.raises(ValueError, match='evaluate/base is not finished'):
    study.open_run(tmp_path)


def test_each_seed_is_a_run_of_its_own():
  config = settings.from_config_dict(webshop.get_config('study'))
  found = study.seeds_of(config)
  assert list(found) == ['seed_0', 'seed_1', 'seed_2']
  assert [c.seed for c in found.values()] == [0, 1, 2]
  assert not any(c.study.seeds for c in found.values())


def test_the_first_seed_chooses_the_learning_rates_of_all(tmp_path):
  config = settings.from_config_dict(webshop.get_config('study'))
  first, *others = study.seeds_of(config).values()
  assert not first.tune.like
  assert {other.tune.like for other in others} == {'../seed_0'}
  place = RunDirectory(tmp_path / 'seed_0').phase('distill/rft')
  place.complete({'learning_rate': 0.25, 'sweep': {}})
  run = Run(others[0], RunDirectory(tmp_path / 'seed_1'), '')
  distill = run.config.distill
  found = tuned(run, 'distill/rft', distill, lambda c, _: dataclasses.asdict(c))
  assert found['learning_rate'] == 0.25
  with pytest.raises(RunStopped, match='no learning rate.*distill/leafe'):
    tuned(run, 'distill/leafe', others[0].distill, lambda *_: {})
