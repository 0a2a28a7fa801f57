"""Phases in their order: the gate, where a run stops, what it says beforehand."""

import dataclasses
import logging as python_logging
import types

import pytest

from configs import webshop
from leafe_jax import experiment, settings
from leafe_jax.config import Study
from leafe_jax.methods import catalogue, outlook, study
from leafe_jax.methods.arms import Phase
from leafe_jax.methods.effort import Effort
from leafe_jax.methods.run import Run
from leafe_jax.planning import memory
from leafe_jax.rundir import RunDirectory
from tools import targets

CONFIG = settings.from_config_dict(webshop.get_config('debug'))


def names(*arms):
  config = dataclasses.replace(CONFIG, arms=arms)
  return [phase.name for phase in experiment.phases_of(config)]


def test_the_gate_stands_before_stage_1_alone():
  assert names('base') == ['warm_start', 'evaluate/base', 'report']
  assert 'gate' not in names('base', 'grpo', 'ace', 'advice', 'imitation')
  assert names('base', 'leafe')[:4] == [
      'warm_start', 'gate', 'explore', 'distill/leafe'
  ]
  assert names('leafe_grpo')[:4] == ['warm_start', 'grpo', 'gate', 'explore_grpo']


def test_every_arm_that_explores_passes_the_gate_once():
  for arm in catalogue.ARMS.values():
    found = names(arm.name)
    explores = [n for n in found if n.startswith(('explore', 'sample', 'refine'))]
    assert found.count('gate') == bool(explores)
    assert not explores or found.index('gate') < found.index(explores[0])


@pytest.fixture(name='done')
def _done(monkeypatch):
  """Names of phases as they are run, which do nothing else."""
  found = []

  def phase(name):
    def body(run, directory):
      found.append(name)
      return {}

    return Phase(name, (), body, lambda config: Effort())

  phases = [phase(name) for name in ('warm_start', 'explore', 'report')]
  monkeypatch.setattr(experiment, 'phases_of', lambda config: phases)
  return found


def test_a_run_stops_after_a_phase_and_goes_on(done, tmp_path, caplog):
  caplog.set_level(python_logging.INFO, logger='absl')
  experiment.run(CONFIG, tmp_path, 'hash', 'explore')
  assert done == ['warm_start', 'explore']
  [line] = [r.getMessage() for r in caplog.records if 'stopped after' in r.getMessage()]
  assert f'stopped after explore, which is in {tmp_path}/explore' in line
  assert 'without --until goes on' in line
  experiment.run(CONFIG, tmp_path, 'hash', 'explore')
  assert done == ['warm_start', 'explore']
  experiment.run(CONFIG, tmp_path, 'hash')
  assert done == ['warm_start', 'explore', 'report']


def test_every_run_of_a_study_stops_and_nothing_is_pooled(done, tmp_path, monkeypatch):
  monkeypatch.setattr(study, 'write_pooled', None)
  config = dataclasses.replace(CONFIG, study=Study(seeds=(3, 4)))
  experiment.run(config, tmp_path, 'hash', 'warm_start')
  assert done == ['warm_start'] * 2
  assert RunDirectory(tmp_path / 'seed_4').phase('warm_start').done()


def test_the_outlook_bounds_what_the_phases_do():
  config = dataclasses.replace(CONFIG, arms=('base', 'leafe', 'dpo', 'grpo'))
  efforts = outlook.efforts(experiment.phases_of(config), config)
  explore, horizon = config.explore, config.env.horizon
  trees = efforts['explore']
  assert trees.episodes == explore.num_tasks * explore.attempts
  actions = trees.episodes * horizon * explore.max_response_tokens
  reflections = trees.episodes * (1 + horizon // explore.reflect_every)
  asked = 2 * reflections * explore.max_reflection_tokens
  assert trees.sampled == actions + asked
  distill = efforts['distill/leafe']
  assert distill.updates == config.distill.steps
  assert distill.trained == distill.updates * (
      config.distill.batch_rows * config.distill.row_length)
  assert efforts['grpo'].plays is False and efforts['grpo'].episodes == (
      config.grpo.steps * config.grpo.tasks_per_step * config.grpo.group_size)
  swept = dataclasses.replace(config, tune=dataclasses.replace(
      config.tune, factors=(0.3, 1.0), num_tasks=2, num_samples=4))
  twice = outlook.efforts(experiment.phases_of(swept), swept)['distill/leafe']
  assert (twice.updates, twice.episodes) == (2 * distill.updates, 2 * 2 * 4)


def test_a_run_says_beforehand_what_a_plan_says_without_starting(tmp_path, caplog):
  caplog.set_level(python_logging.INFO, logger='absl')
  config = dataclasses.replace(CONFIG, arms=('base', 'leafe'))
  run = Run(config, RunDirectory(tmp_path), 'hash')
  experiment._look_ahead(run, experiment.phases_of(config))
  logged = '\n'.join(record.getMessage() for record in caplog.records)
  values = webshop.get_config('debug')
  values.arms = ('base', 'leafe')
  found = experiment.look_ahead(targets.make_target(values, 1))
  assert found.phases() in logged
  assert memory.table(found.plan, memory.device_limit()).splitlines()[0] in logged
  lines = found.phases().splitlines()
  assert [line.split()[0] for line in lines[1:-1]] == [*found.efforts]
  assert {len(line) for line in lines[:-1]} == {len(lines[0])}


def test_the_time_left_is_that_of_phases_like_those_to_come():
  judged, trained = Effort(episodes=8, sampled=90), Effort(updates=4, trained=700)
  efforts = {
      'explore': Effort(episodes=8, sampled=90), 'distill/leafe': trained,
      'distill/longer': trained.times(2), 'evaluate/base': judged,
      'evaluate/leafe': judged, 'report': Effort(),
  }

  def left(*names, **seconds):
    done = {name.replace('_', '/'): value for name, value in seconds.items()}
    return outlook.time_left(names, efforts, done)

  everything = ('distill/leafe', 'evaluate/base', 'report')
  assert left(*everything) == 'not known yet: distill/leafe, evaluate/base'
  # Equal counts of another kind, or more of the same kind, say nothing.
  assert left('evaluate/base', explore=5) == 'not known yet: evaluate/base'
  assert left('distill/longer', distill_leafe=5) == 'not known yet: distill/longer'
  assert left('evaluate/leafe', evaluate_base=90) == (
      'about 90 s: evaluate/leafe 90 s (as evaluate/base)'
  )
  assert left('distill/leafe', 'evaluate/leafe', evaluate_base=600) == (
      'about 10 min: evaluate/leafe 10 min (as evaluate/base); '
      'not known yet: distill/leafe'
  )
  assert not left('report', explore=5)


def test_a_phase_starts_with_the_time_that_phases_done_before_tell(
    tmp_path, monkeypatch, caplog
):
  caplog.set_level(python_logging.INFO, logger='absl')
  now = iter(range(0, 10_000, 300))
  clock = types.SimpleNamespace(monotonic=lambda: next(now), time=lambda: 0.0)
  monkeypatch.setattr(experiment, 'time', clock)

  def phase(name):
    return Phase(name, (), lambda run, directory: {}, lambda config: Effort(episodes=3))

  phases = [phase(f'evaluate/{name}') for name in ('base', 'leafe', 'grpo')]
  monkeypatch.setattr(experiment, 'phases_of', lambda config: phases)
  # What an earlier start has begun was not measured from its beginning.
  (RunDirectory(tmp_path).phase('evaluate/base').dir / 'wave').write_text('')
  experiment.run(CONFIG, tmp_path, 'hash')
  said = [line for line in caplog.messages if ': starts' in line]
  assert said == [
      'phase evaluate/base: starts; left: not known yet: '
      'evaluate/base, evaluate/leafe, evaluate/grpo',
      'phase evaluate/leafe: starts; left: not known yet: '
      'evaluate/leafe, evaluate/grpo',
      'phase evaluate/grpo: starts; left: about 5 min: evaluate/grpo 5 min '
      '(as evaluate/leafe)',
  ]
