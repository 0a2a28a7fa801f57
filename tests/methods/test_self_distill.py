"""Self-distillation on the bandit: who knows it with a hint learns it without."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.endings import EarlyEnd
from leafe_jax.experience import examples
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.methods import collect, online, opd, self_distill, stage1
from leafe_jax.methods.run import BASE
from leafe_jax.tree import Node, Tree, Turn
from tests.methods import bandit, taught_bandit
from tests.methods.taught_bandit import chance

DISTILL = config_lib.Distill(
    steps=24, batch_rows=4, row_length=24, checkpoint_every=6, learning_rate=1e-2
)
OPTIONS = config_lib.SelfDistill(refresh=6, top_k=8)
GRPO = dataclasses.replace(
    bandit.GRPO, steps=6, tasks_per_step=3, checkpoint_every=2, learning_rate=1e-2
)


def make_run(directory, base, success=True, **sections):
  run = taught_bandit.make_run(directory, base, **{
      'distill': DISTILL, 'self_distill': OPTIONS, 'grpo': GRPO, **sections})
  trees = [taught_bandit.grown(run, task, success) for task in run.tasks('train', 6)]
  explored = run.directory.phase(stage1.EXPLORE.name).dir
  collect.save_trees(collect.wave_path(explored, 0), trees)
  return run


def distill(run):
  return opd.distill(run, run.directory.phase(opd.PHASE.name).dir)


def trained(run, phase):
  return load_params(run.params_path(phase))


def test_the_base_needs_a_hint(base, tmp_path):
  run = make_run(tmp_path, base)
  params = trained(run, BASE)
  assert chance(run, params, 'right') < 0.4
  assert chance(run, params, 'right', 'right') > 0.9
  assert chance(run, params, 'right', 'nothing') > 0.9


@pytest.fixture(name='distilled', scope='module')
def _distilled(base, tmp_path_factory):
  """(run, result) of leafe_opd."""
  run = make_run(tmp_path_factory.mktemp('opd'), base)
  return run, distill(run)


def test_leafe_opd_says_without_the_hint_what_it_would_say_with_it(distilled):
  run, result = distilled
  assert result['events'] == 6 and result['updates'] == DISTILL.steps
  # Rehearsal has nothing here: the success was hinted.
  assert result['experience']['reh'] == 0
  assert chance(run, trained(run, opd.PHASE.name), 'right') > 0.8
  rounds = DISTILL.steps // OPTIONS.refresh
  assert result['budget']['model_calls'] == 6 * rounds
  assert result['budget']['sampled_tokens'] == 6 * rounds
  assert result['budget']['env_steps'] == result['budget']['episodes'] == 0
  assert json.dumps(result)


@pytest.mark.slow('as with the likeliest tokens')
def test_on_sampled_tokens_it_learns_as_well(base, tmp_path):
  options = dataclasses.replace(OPTIONS, divergence='reverse')
  run = make_run(tmp_path, base, self_distill=options)
  distill(run)
  assert chance(run, trained(run, opd.PHASE.name), 'right') > 0.8


def test_a_killed_distillation_ends_with_the_same_bits(
    base, distilled, tmp_path, monkeypatch
):
  straight, expected = distilled
  killed = make_run(tmp_path, base)
  take_round = opd.OnPolicy._round

  def die(self, state, update, done, *rest):
    if done == 12:
      raise KeyboardInterrupt
    return take_round(self, state, update, done, *rest)

  with monkeypatch.context() as patch:
    patch.setattr(opd.OnPolicy, '_round', die)
    with pytest.raises(KeyboardInterrupt):
      distill(killed)
  assert distill(killed) == expected
  assert bits(killed, opd.PHASE.name) == bits(straight, opd.PHASE.name)


def bits(run, phase):
  return {name: value.tobytes() for name, value in trained(run, phase).items()}


def test_rehearsed_tokens_have_a_teacher_who_is_sure(base, tmp_path):
  run = make_run(tmp_path, base)
  example = examples.make([([4, 5], 0.0), ([6], 1.0)], 'reh')
  found = opd._Forward(run, DISTILL, {}).imitated(example, 2.0)
  assert found['weights'].tolist() == [0, 0, 2]
  assert found['candidates'][:, 0].tolist() == [4, 5, 6]
  assert np.exp(found['teacher_topk'][2]).tolist() == [1.0, *[0.0] * 7]
  found = opd._Reverse(run, DISTILL, {}).imitated(example, 2.0)
  assert found['weights'].tolist() == [0, 0, 2] and not found['taught'].any()


def test_nothing_to_distil_is_said(base, tmp_path):
  with pytest.raises(EarlyEnd, match='leafe_opd.*experience.cf_filter'):
    distill(make_run(tmp_path, base, success=False))


# Rewards that are all alike leave the gated term as the one thing to learn from.
FLAT = dataclasses.replace(GRPO, reward_scale=1e-9, kl=0.0, entropy=0.0)
STRONG = dataclasses.replace(OPTIONS, gate_weight=1.0)
SECTIONS = {'sdpo': {}, 'sdar': {'grpo': FLAT, 'self_distill': STRONG}}


@pytest.fixture(name='online_runs', scope='module')
def _online_runs(base, tmp_path_factory):
  """Arm -> (run, result)."""
  found = {}
  for arm, sections in SECTIONS.items():
    run = make_run(tmp_path_factory.mktemp(arm), base, **sections)
    found[arm] = (run, play(run, arm))
  return found


def play(run, arm):
  return getattr(self_distill, arm)(run, run.directory.phase(arm).dir)


def test_sdpo_learns_from_what_the_world_answered(online_runs):
  run, result = online_runs['sdpo']
  assert np.mean(result['success'][:1]) < 0.5
  assert chance(run, trained(run, 'sdpo'), 'right') > 0.8
  # Each episode is paid for as in GRPO; the teacher costs no step.
  assert result['budget']['episodes'] == 6 * 3 * 8
  assert result['budget']['env_steps'] == result['budget']['model_calls']


def test_sdar_learns_from_the_reflections_of_failed_episodes_alone(online_runs):
  run, result = online_runs['sdar']
  before = chance(run, trained(run, BASE), 'right')
  assert result['budget']['reflections'] > 0
  assert chance(run, trained(run, 'sdar'), 'right') > max(0.7, before + 0.2)


# --- the parts of a step


def episode(number, *turns, success=False):
  """Turns as (prompt, response); the world answers with their number."""
  made = [
      Turn(i, f'seen {i}', prompt, [9], said, [-0.5] * len(said), 'x', 'x')
      for i, (prompt, said) in enumerate(turns, start=1)
  ]
  return Node(number, None, 1, None, 0, made, success, ended_by='terminated',
              final_observation='end')


def test_a_hint_speaks_of_those_who_came_there_by_the_same_turns():
  same = episode(0, ([1, 2], [5]), ([3], [6]))
  also = episode(1, ([1, 2], [5]), ([3], [7]), success=True)
  other = episode(2, ([1, 2], [8]), ([3], [6]))
  tree = Tree('t', '', 'train', [same, also, other])
  place = (1, 2, 9, 5, 3)
  found = list(self_distill.hinted(tree, {place: [40, 41]}))
  assert [(s.node, s.turn) for s in found] == [(0, 2), (1, 2)]
  assert found[0].extended_ids == [1, 2, 9, 5, 3, 40, 41, 9]


def test_teachers_scores_fall_on_the_responses_they_are_of():
  node = episode(0, ([1, 2], [5, 6]), ([3], [7]))
  tree = Tree('t', '', 'train', [node])
  arrays = online.sequence(node, np.zeros(2))
  found = self_distill.annotate(
      {('t', 0, 2): np.array([-0.25])}, tree, node, arrays
  )
  assert found['tokens'].tolist() == [1, 2, 9, 5, 6, 3, 9, 7]
  assert found['taught'].tolist() == [0] * 7 + [1]
  assert found['teacher_logprobs'].tolist() == [0] * 7 + [-0.25]


def test_the_world_answers_every_turn():
  node = episode(0, ([1], [5]), ([3], [7]))
  assert list(self_distill.answers(node)) == ['seen 2', 'end']
