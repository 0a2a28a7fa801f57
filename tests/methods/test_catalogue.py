"""Methods, arms and phases fit together."""

from __future__ import annotations

import dataclasses

import pytest

from configs import webshop
from leafe_jax import experiment, settings, standing
from leafe_jax.config import Experiment, Grpo, Policy, Tune, WarmStart
from leafe_jax.methods import catalogue
from leafe_jax.methods.arms import BASE


def test_the_methods_are_those_of_the_config():
  [option] = [o for o in settings.options() if o.path == 'method']
  assert list(option.choices) == list(catalogue.METHODS)


@pytest.mark.parametrize('name', catalogue.ARMS)
def test_an_arms_weights_and_costs_come_from_its_own_phases(name):
  arm = catalogue.ARMS[name]
  phases = {phase.name for phase in arm.phases}
  assert {arm.weights} <= phases | {BASE}
  assert set(arm.costs) <= phases


def test_every_arm_can_be_named_in_a_flag():
  assert all(name.isidentifier() for name in catalogue.ARMS)


@pytest.mark.parametrize('method', catalogue.METHODS)
def test_a_method_names_known_arms_and_each_phase_once(method):
  config = dataclasses.replace(Experiment(), method=method)
  names = [phase.name for phase in experiment.phases_of(config)]
  assert len(set(names)) == len(names)
  assert f'evaluate/{catalogue.METHODS[method][-1]}' in names


def test_leafe_on_top_of_grpo_explores_with_the_weights_of_grpo():
  arm = catalogue.find_arm('leafe_grpo')
  assert [phase.name for phase in arm.phases] == [
      'grpo', 'explore_grpo', 'distill/leafe_grpo'
  ]
  assert arm.costs == ('grpo', 'explore_grpo')
  assert arm.phases[1].after == ('grpo',)
  assert set(arm.phases[2].after) == {'grpo', 'explore_grpo'}


def redone(changed, *arms, **options):
  """The phases that a changed option touches, in a run of these arms."""
  config = dataclasses.replace(
      settings.from_config_dict(webshop.get_config('debug')), arms=arms, **options
  )
  return [*standing.affected([changed], experiment.phase_inputs(config))][:-1]


def test_a_change_touches_what_reads_it_and_nothing_else():
  arms = ('base', 'rft', 'leafe_reh', 'leafe', 'dpo', 'leafe_beta_4')
  assert redone('distill.beta', *arms) == ['distill/leafe', 'evaluate/leafe']
  assert redone('dpo.beta', *arms) == ['distill/dpo', 'evaluate/dpo']
  assert redone('evaluate.bootstrap', *arms) == []
  assert redone('gate.min_parsed', *arms) == ['gate']
  assert redone('method', *arms) == []
  assert 'distill/dpo' in redone('distill.steps', *arms)
  assert redone('explore.wave_tasks', 'base', 'leafe', 'imitation') == [
      'gate', 'explore', 'distill/leafe', 'alternatives', 'distill/imitation',
      'evaluate/leafe', 'evaluate/imitation',
  ]


def test_a_phase_that_takes_over_a_budget_reads_whom_it_takes_it_from():
  arms = ('base', 'leafe', 'grpo')
  apart = redone('explore.attempts', *arms)
  assert 'explore' in apart and 'grpo' not in apart
  matched = Grpo(match_explore=True)
  assert 'grpo' in redone('explore.attempts', *arms, grpo=matched)


def test_a_sweep_reads_what_judges_it():
  arms = ('base', 'leafe')
  assert redone('evaluate.temperature', *arms) == ['evaluate/base', 'evaluate/leafe']
  swept = Tune(factors=(1.0,))
  assert 'distill/leafe' in redone('evaluate.temperature', *arms, tune=swept)


def test_an_imported_base_reads_of_its_cold_start_only_whether_there_is_one():
  policy = Policy(checkpoint='there')
  assert 'warm_start' in redone('warm_start.learning_rate', 'base')
  options = {'policy': policy, 'warm_start': WarmStart(steps=0)}
  assert redone('warm_start.learning_rate', 'base', **options) == []
  assert 'warm_start' in redone('warm_start.steps', 'base', **options)


def test_a_cold_start_belongs_to_all_seeds_and_leaves_the_import_alone():
  options = {'policy': Policy(checkpoint='there'), 'warm_start': WarmStart(steps=3)}
  names = [phase.name for phase in experiment.phases_of(
      dataclasses.replace(Experiment(), **options))]
  assert names[:2] == ['import', 'warm_start']
  kept = redone('seed', 'base', 'leafe', **options)
  assert 'explore' in kept and not {'import', 'warm_start'} & set(kept)
  for changed in ('warm_start.steps', 'warm_start.data', 'env.options'):
    assert redone(changed, 'base', **options)[0] == 'warm_start'
  assert redone('policy', 'base', **options)[0] == 'import'


def test_a_cold_start_from_files_alone_reads_no_world():
  warm = WarmStart(steps=3, data=('chats.jsonl',), num_demonstrations=0)
  options = {'policy': Policy(checkpoint='there'), 'warm_start': warm}
  assert redone('env.teacher', 'base', **options) == []
  assert 'warm_start' not in redone('env.options', 'base', **options)


def test_adapters_read_the_import_beneath_them():
  policy = Policy(checkpoint='there', lora_rank=2)
  config = dataclasses.replace(
      Experiment(), policy=policy, warm_start=WarmStart(steps=3)
  )
  inputs = experiment.phase_inputs(config)
  assert 'import' in inputs['distill/leafe'].phases
  assert inputs['import'].phases == ()


def test_no_two_arms_sample_the_same_random_numbers():
  assert len({arm.version for arm in catalogue.ARMS.values()}) == len(catalogue.ARMS)
