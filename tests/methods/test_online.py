"""Real training runs on a bandit, and the parts of a step."""

from __future__ import annotations

import dataclasses
import json
import signal

import numpy as np
import pytest

from envs import api
from leafe_jax import stops
from leafe_jax.config import Grpo
from leafe_jax.endings import RunStopped
from leafe_jax.learner import policy_gradient
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.learner.policy_update import round_up
from leafe_jax.methods import grpo, online
from leafe_jax.tree import Node, Tree, Turn
from tests.methods import bandit


@pytest.fixture(name='trained', scope='module')
def _trained(tmp_path_factory):
  """(run, result) of GRPO on the bandit."""
  run = bandit.make_run(tmp_path_factory.mktemp('straight'))
  return run, grpo.grpo(run, run.directory.phase('grpo').dir)


def weights(run):
  return load_params(run.params_path('grpo'))


def test_grpo_learns_which_arm_pays(trained):
  _, result = trained
  assert np.mean(result['success'][:2]) < 0.3
  assert np.mean(result['success'][-2:]) > 0.8
  assert result['updates'] == 24


def test_every_episode_is_in_the_bill(trained):
  _, result = trained
  assert result['budget']['episodes'] == 12 * 4 * 8
  assert result['budget']['env_steps'] == result['budget']['model_calls']


def test_a_killed_run_ends_with_the_same_bits(trained, tmp_path, monkeypatch):
  straight, result = trained
  run = bandit.make_run(tmp_path)
  directory = run.directory.phase('grpo').dir
  take_step = online.OnlineTraining._step

  def die_in_step_8(self, state, step, *rest):
    if step == 8:
      raise KeyboardInterrupt
    return take_step(self, state, step, *rest)

  with monkeypatch.context() as patch:
    patch.setattr(online.OnlineTraining, '_step', die_in_step_8)
    with pytest.raises(KeyboardInterrupt):
      grpo.grpo(run, directory)
  assert grpo.grpo(run, directory) == result
  expected = weights(straight)
  for name, value in weights(run).items():
    np.testing.assert_array_equal(value, expected[name])


def test_a_run_that_is_asked_to_stop_loses_no_step(trained, tmp_path, monkeypatch):
  _, result = trained
  run = bandit.make_run(tmp_path)
  directory = run.directory.phase('grpo').dir
  taken = []
  take_step = online.OnlineTraining._step

  def note(self, state, step, *rest):
    taken.append(step)
    return take_step(self, state, step, *rest)

  monkeypatch.setattr(online.OnlineTraining, '_step', note)
  with monkeypatch.context() as patch:
    patch.setattr(stops, 'asked', lambda: signal.SIGTERM if 8 in taken else 0)
    with pytest.raises(stops.Stopped, match='SIGTERM'):
      grpo.grpo(run, directory)
  assert bandit.GRPO.checkpoint_every > 1  # step 7 was not due
  assert grpo.grpo(bandit.make_run(tmp_path), directory) == result
  assert taken == [*range(1, 9), *range(8, 13)]


def test_a_step_that_is_stopped_goes_on_after_what_was_said_in_it(
    tmp_path, monkeypatch
):
  options = {
      'sampler': dataclasses.replace(
          bandit.SAMPLER, dispatch_rows=2, decode_chunk=2, checkpoint_every=8
      ),
      'grpo': dataclasses.replace(bandit.GRPO, steps=2),
  }
  polls, said = [], []  # of step 2; what was sampled before it
  stepping = online.OnlineTraining._step

  def step(self, state, number, *rest):
    if number == 2:
      polls.append(0)
      said.append(self._run.sampler.stats.sampled_tokens)
    return stepping(self, state, number, *rest)

  def asked():
    polls.append(0) if polls else None
    return signal.SIGTERM if len(polls) > 7 else 0

  def train(name):
    run = bandit.make_run(tmp_path / name, **options)
    return run, grpo.grpo(run, run.directory.phase('grpo').dir)

  monkeypatch.setattr(online.OnlineTraining, '_step', step)
  straight, whole = train('straight')
  polls.clear()
  with monkeypatch.context() as patch:
    patch.setattr(stops, 'asked', asked)
    with pytest.raises(stops.Stopped, match='after step 1 of 2'):
      train('stopped')
  place = tmp_path / 'stopped' / 'grpo'
  assert (place / 'journal_0002.jsonl').read_text().count('kept')
  again, result = train('stopped')
  assert result == whole and not list(place.glob('journal*'))
  in_step_2 = straight.sampler.stats.sampled_tokens - said[0]
  assert said[-1] == 0 and again.sampler.stats.sampled_tokens <= in_step_2 - 8
  expected = weights(straight)
  for name, value in weights(again).items():
    np.testing.assert_array_equal(value, expected[name])


def test_gigpo_trains_within_its_limit_of_environment_steps(tmp_path):
  options = dataclasses.replace(
      bandit.GRPO, max_env_steps=80, old_logprobs='recomputed'
  )
  run = bandit.make_run(tmp_path, grpo=options)
  result = grpo.gigpo(run, run.directory.phase('gigpo').dir)
  per_step = 4 * 8 * 2  # at most
  assert 80 <= result['budget']['env_steps'] < 80 + per_step
  assert len(result['success']) < options.steps
  assert json.dumps(result)


def test_matching_an_exploration_needs_one(tmp_path):
  options = dataclasses.replace(bandit.GRPO, match_explore=True)
  run = bandit.make_run(tmp_path, grpo=options)
  with pytest.raises(RunStopped, match='--config.arms=base,leafe,grpo'):
    grpo.grpo(run, run.directory.phase('grpo').dir)
  run.directory.phase('explore').complete({'budget': {'env_steps': 7}})
  assert online._env_step_limit(run) == 7


# --- the parts of a step


def episode(number, *turns, success=False, ended_by='terminated'):
  """Turns as (observation, response, valid)."""
  made = [
      Turn(i, seen, [1, 2], [3], [4, 5], [-0.5, -0.25], said, said, valid=valid)
      for i, (seen, said, valid) in enumerate(turns, start=1)
  ]
  return Node(number, None, 1, None, 0, made, success, float(success), ended_by)


def test_each_response_token_has_the_advantage_of_its_turn():
  node = episode(0, ('a', 'x', True), ('b', 'y', True))
  found = online.sequence(node, np.array([1.5, -2.0]))
  assert found['tokens'].tolist() == [1, 2, 3, 4, 5] * 2
  assert found['weights'].tolist() == [0, 0, 0, 1, 1] * 2
  assert found['advantages'].tolist() == [0, 0, 0, 1.5, 1.5, 0, 0, 0, -2, -2]
  assert found['logprobs'].tolist() == [0, 0, 0, -0.5, -0.25] * 2


def test_outcomes_know_reward_refusals_and_states():
  node = episode(0, ('a', 'x', True), ('b', 'y', False), ('a', 'x', True), success=True)
  found = online.outcome_of(node, Grpo())
  assert found.reward == 10.0
  assert found.valid.tolist() == [True, False, True]
  assert found.anchors[0] == found.anchors[2] != found.anchors[1]


def test_figures_count_broken_episodes_and_groups_that_teach_nothing():
  same = Tree('t', '', 'train', [episode(0, ('a', 'x', True)),
                                 episode(1, ('a', 'y', True)),
                                 episode(2, ended_by='error')])
  mixed = Tree('u', '', 'train', [episode(0, ('a', 'x', False)),
                                  episode(1, ('a', 'y', True), success=True),
                                  episode(2, ('a', 'y', True))])
  found = online.describe([same, mixed], Grpo())
  assert found['degenerate_groups'] == 0.5
  assert found['broken'] == pytest.approx(1 / 6)
  assert found['success'] == pytest.approx(1 / 6)
  assert found['invalid'] == pytest.approx(1 / 5)


def test_a_group_with_one_usable_episode_teaches_nothing_and_is_counted():
  lone = Tree('t', '', 'train', [episode(0, ('a', 'x', True), success=True),
                                 episode(1, ended_by='error')])
  assert online.describe([lone], Grpo())['degenerate_groups'] == 1.0
  node, other = lone.nodes
  assert online.counts(node) and not online.counts(other)
  found = policy_gradient.advantages([online.outcome_of(node, Grpo())], Grpo(), 1.0)
  assert not np.any(found[0])


def test_steps_pass_over_all_tasks_before_any_comes_again():
  tasks = [api.Task(str(i), 'train', '') for i in range(10)]
  steps = [online.tasks_of_step(tasks, 3, step, 'seed') for step in range(1, 7)]
  first = [task.id for step in steps[:3] for task in step]
  assert len(set(first)) == 9
  assert first != [task.id for step in steps[3:] for task in step]
  assert steps == [online.tasks_of_step(tasks, 3, step, 'seed') for step in range(1, 7)]
  assert len(online.tasks_of_step(tasks, 99, 5, 'seed')) == 10


def test_few_sizes_and_little_padding():
  sizes = [round_up(count) for count in range(1, 257)]
  assert all(
      count <= size <= 1.25 * count
      for count, size in zip(range(1, 257), sizes, strict=True)
  )
  assert len(set(sizes)) <= 4 * 8
