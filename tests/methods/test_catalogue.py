"""Methods, arms and phases fit together."""

from __future__ import annotations

import dataclasses

import pytest

from leafe_jax import experiment, settings
from leafe_jax.config import Experiment
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
  assert 'grpo' in arm.phases[-1].reads


def test_no_two_arms_sample_the_same_random_numbers():
  assert len({arm.version for arm in catalogue.ARMS.values()}) == len(catalogue.ARMS)
