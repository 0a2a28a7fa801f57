"""A task whose prompt is too long for a transcript ends no run: it is counted."""

from __future__ import annotations

import dataclasses
import functools
import json

import pytest

from envs import api
from leafe_jax.config import Ace, Evaluate
from leafe_jax.endings import RunStopped
from leafe_jax.evaluation.tables import render_tables, trouble_notes
from leafe_jax.memory.playbook import Playbook
from leafe_jax.memory.rules import ADD, Edit
from leafe_jax.methods import ace_roles, grpo, jerp, reflector, stage1
from leafe_jax.methods.arms import Arm
from leafe_jax.methods.collect import load_trees
from leafe_jax.methods.phases import evaluations
from leafe_jax.methods.reflector import Case
from leafe_jax.methods.reporting import collect_results, report, transcripts_of
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.samples import play_groups
from leafe_jax.sampler import Rules
from leafe_jax.tree import Tree
from tests.methods import bandit
from tests.methods.test_ace import _Roles, chat_player
from tests.rollout import corridor

GRPO = dataclasses.replace(bandit.GRPO, steps=2, group_size=4, minibatches=1)
LONG = ' '.join(['choose'] * 3 * bandit.POLICY.max_length)


class Wordy(bandit.Bandit):
  """Begins some tasks with more words than a transcript holds."""

  def reset(self, task, seed=0):
    step = super().reset(task, seed)
    return api.Step(LONG) if task.payload.get('wordy') else step


class WordyWorld(bandit.BanditWorld):

  def __init__(self, wordy):
    self._wordy = wordy

  def tasks(self, split):
    return [
        dataclasses.replace(task, payload={'wordy': number in self._wordy})
        for number, task in enumerate(super().tasks(split))
    ]

  def session(self):
    return Wordy()


def make_run(directory, wordy=(1,), **sections):
  evaluate = dataclasses.replace(
      Evaluate(), num_tasks=6, num_samples=4, split='test', bootstrap=20
  )
  run = bandit.make_run(directory, evaluate=evaluate, **sections)
  run.__dict__['world'] = WordyWorld(wordy)
  return run


def finish(run, phase):
  place = run.directory.phase(phase.name)
  result = phase.body(run, place.dir)
  place.complete({**result, 'wall_s': 0.0, 'speed': {}})
  return json.loads(json.dumps(result))


def test_explored_sampled_trained_evaluated_and_reported(tmp_path):
  run = make_run(tmp_path, grpo=dataclasses.replace(GRPO, tasks_per_step=6))
  explored = finish(run, stage1.EXPLORE)
  sampled = finish(run, stage1.SAMPLE)
  trees = {
      name: load_trees(run.directory.phase(name).dir) for name in ('explore', 'sample')
  }
  for found in trees.values():
    wordy = found[1]
    assert {node.ended_by for node in wordy.nodes} == {'overlong'}
    assert not any(node.turns for node in wordy.nodes)
    assert wordy.budget['env_steps'] == 0
    assert wordy.budget['overlong'] == wordy.budget['episodes'] == len(wordy.nodes)
    assert all(tree.budget['env_steps'] and not tree.budget['overlong']
               for tree in found if tree is not wordy)
  # It is not tried as often as the budget of episodes would let it.
  assert explored['budget']['overlong'] == 3 and sampled['budget']['overlong'] == 1
  trained = finish(run, grpo.GRPO)
  assert 0 < trained['budget']['overlong'] < trained['budget']['episodes']
  base = Arm('base', 'the policy before any training')
  [evaluation] = evaluations(base, run.config.evaluate)
  evaluated = finish(run, evaluation)
  assert evaluated['budget']['overlong'] == 4

  run.config = dataclasses.replace(run.config, arms=('base',))
  results = collect_results(run)
  assert results['arms']['base']['overlong_share'] == pytest.approx(1 / 6, abs=1e-5)
  assert results['stage1']['ended_by']['overlong'] == 3
  note = 'Ended as overlong (no room in policy.max_length): base 16.7 %.'
  assert trouble_notes(results)[0] == note and note in render_tables(results)
  report(run, tmp_path)
  page = (tmp_path / 'report' / 'index.html').read_text()
  assert note in page and 'Experience trees and evaluated episodes' in page
  shown = transcripts_of(run)
  assert shown.total == len(shown.chosen) == 6
  wordy = shown.chosen[1]
  assert (wordy.tree.task_id, wordy.solved, wordy.samples) == ('test-1', 0, 4)
  assert wordy.tree.nodes[0].ended_by == 'overlong'


def test_a_step_whose_tasks_are_all_overlong_has_no_update(tmp_path):
  options = dataclasses.replace(GRPO, tasks_per_step=1, steps=6)
  run = make_run(tmp_path, grpo=options)
  result = grpo.grpo(run, run.directory.phase('grpo').dir)
  assert result['budget']['overlong'] == options.group_size
  assert result['updates'] == 5 * options.minibatches


def test_training_that_never_had_an_update_stops_and_says_why(tmp_path):
  run = make_run(tmp_path, wordy=range(6), grpo=GRPO)
  with pytest.raises(RunStopped, match=r'too long .* policy.max_length=32'):
    grpo.grpo(run, run.directory.phase('grpo').dir)


def test_episodes_longer_than_a_row_are_left_out_whole_and_counted(tmp_path, caplog):
  options = dataclasses.replace(bandit.GRPO, steps=2, row_length=8)
  run = make_run(tmp_path, wordy=(), grpo=options)
  caplog.set_level('WARNING')
  result = grpo.grpo(run, run.directory.phase('grpo').dir)
  assert 0 < result['updates'] <= 2 * options.minibatches  # of a few short ones
  assert 'longer than grpo.row_length=8' in caplog.text


def test_rules_that_fill_the_prompt_end_episodes_and_no_run():
  player = corridor.player(lambda text, request: 'right')
  player.sampler.max_length = 40
  rules = Rules(1.0, 8, ())
  notebook = jerp.RuleNotebook(player.world, jerp.Jerp(), rules, seed=0)
  for number in range(6):
    text = ' '.join(['go'] * (9 + number))
    notebook.book.pool('corridor').apply(Edit(ADD, (), text), 1)
  tasks = player.world.tasks('train')[:1]
  groups = play_groups(player, tasks, 2, rules, 4, 'jerp', notebook.recall)
  assert {node.ended_by for node in groups[0].nodes} == {'overlong'}
  assert groups[0].budget['overlong'] == 2
  notebook.learn(1, tasks, groups, player, Ledger())


def learn(player, book, task):
  groups = play_groups(player, [task], 1, Rules(1.0, 8, ()), 4, 'ace')
  ledger = Ledger()
  applied = ace_roles.learn(
      player, [task], groups, book.best(9), book, Ace(), Rules(0.7, 8, ()), 1, ledger
  )
  return applied, ledger


def test_a_role_whose_prompt_is_too_long_is_asked_once_and_logged():
  roles = _Roles('[]')
  player = chat_player(roles)
  task = player.world.tasks('train')[2]
  player.sampler.max_length = 400  # bytes; the reflector's words alone are longer
  book = Playbook()
  applied, ledger = learn(player, book, task)
  assert (applied, ledger.reflections, roles.asked) == (0, 1, [])
  [entry] = book.log
  assert 'reflector: Overlong: no room' in json.dumps(entry)


def test_a_reflection_for_a_playbook_or_a_rule_that_finds_no_room_is_logged():
  player = corridor.player(lambda text, request: 'open')
  task = player.world.tasks('train')[2]
  groups = play_groups(player, [task], 1, Rules(1.0, 8, ()), 4, 'ace')
  player.sampler.max_length = 9
  book = Playbook()
  read = functools.partial(
      ace_roles.learn, player, [task], groups, [], book, Ace(), Rules(0.7, 8, ()), 1
  )
  assert read(Ledger()) == 0
  assert 'Overlong: no room' in json.dumps(book.log)
  case = Case(task, groups[0], [], [], [])
  [[proposal]] = reflector.propose(
      player, [case], jerp.Jerp(), Rules(0.7, 8, ()), 1, Ledger()
  )
  assert proposal.line.startswith('(Overlong: no room')


def test_a_rule_prompt_that_is_too_long_is_logged():
  player = chat_player(lambda text, request: 'open')
  player.sampler.max_length = 400
  task = player.world.tasks('train')[2]
  tree = Tree(task.id, task.instruction, task.split)
  [[proposal]] = reflector.propose(
      player, [Case(task, tree, [], [], [])], jerp.Jerp(), Rules(), 1, Ledger()
  )
  assert proposal.line.startswith('(Overlong: no room')
