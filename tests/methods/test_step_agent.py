"""StepAgent on the bandit: the expert goes right."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.endings import EarlyEnd
from leafe_jax.experience import dataset, states
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.methods import collect, step_agent, step_experts, step_inverse
from leafe_jax.methods.run import BASE
from leafe_jax.sampler import Sample
from leafe_jax.tree import Tree
from tests.methods import bandit, taught_bandit
from tests.methods.taught_bandit import chance
from tests.rollout import corridor

DPO = config_lib.Dpo(
    steps=12, batch_rows=4, row_length=16, learning_rate=1e-2, checkpoint_every=2,
    grad_accumulation=1,
)
OPTIONS = config_lib.StepAgent(
    cycles=2, rounds=10, discriminator_rate=1e-2, states_per_round=0, kl=0.01
)
GRPO = dataclasses.replace(bandit.GRPO, learning_rate=1e-2, checkpoint_every=3)
BODIES = {'step_implicit': step_agent.prefer,
          'step_inverse': step_inverse.imitate_by_reward}


def make_run(directory, base, said='right', **sections):
  """A run whose experts say a word, and whose imitation is yet to come: the base."""
  run = taught_bandit.make_run(directory, base, **{
      'dpo': DPO, 'step_agent': OPTIONS, 'grpo': GRPO, **sections})
  trees = [expert(run, task, said) for task in run.tasks('train', 6)]
  place = run.directory.phase(step_experts.EXPERTS.name).dir
  collect.save_trees(collect.wave_path(place, 0), trees)
  imitation = run.directory.phase(step_experts.SFT.name).dir
  (imitation / 'params').symlink_to(base / BASE / 'params')
  return run


def expert(run, task, said):
  branch = taught_bandit.grown(run, task).nodes[1 if said == 'right' else 0]
  node = dataclasses.replace(branch, id=0, parent=None, depth=0, success=True)
  node.turns[0].hint_ids = []
  return Tree(task.id, 'choose', 'train', [node])


def train(run, arm):
  return BODIES[arm](run, run.directory.phase(f'distill/{arm}').dir)


def trained(run, arm):
  return load_params(run.params_path(f'distill/{arm}'))


@pytest.fixture(name='finished', scope='module')
def _finished(base, tmp_path_factory):
  """Arm -> (run, result)."""
  found = {}
  for arm in BODIES:
    run = make_run(tmp_path_factory.mktemp(arm), base)
    found[arm] = (run, train(run, arm))
  return found


@pytest.mark.parametrize('arm', BODIES)
def test_the_agent_learns_the_experts_choice(finished, arm):
  run, result = finished[arm]
  assert chance(run, run.start(step_experts.SFT.name), 'right') < 0.4
  assert chance(run, trained(run, arm), 'right') > 0.6
  assert json.dumps(result)


def test_pairs_of_a_cycle_can_be_read_and_equal_actions_are_counted(finished):
  run, result = finished['step_implicit']
  assert len(result['cycles']) == 2 and result['cycles'][0]['pairs']
  trained_ones = [cycle for cycle in result['cycles'] if cycle['pairs']]
  assert result['updates'] == len(trained_ones) * DPO.steps // 2
  assert result['budget']['model_calls'] == 12
  for number, cycle in enumerate(result['cycles'], start=1):
    assert cycle['pairs'] + sum(cycle['dropped'].values()) == 6
    place = run.directory.phase(f'distill/step_implicit/cycle_{number}').dir
    kinds = []
    if cycle['pairs']:
      kinds = [example.kind for example in dataset.read(place / 'data')]
    assert kinds.count('demo') == kinds.count('rejected') == cycle['pairs']
    assert cycle['asked']['env_steps'] == 0 and cycle['asked']['model_calls'] == 6


@pytest.mark.parametrize(
    ('arm', 'module', 'last'),
    [('step_implicit', step_agent, 2), ('step_inverse', step_inverse, 5)],
)  # fmt: skip
def test_a_killed_run_ends_with_the_same_bits(
    base, finished, tmp_path, monkeypatch, arm, module, last
):
  straight, expected = finished[arm]
  killed = make_run(tmp_path, base)
  respond, calls = module.respond, []

  def die(*arguments):
    calls.append(0)
    if len(calls) == last:
      raise KeyboardInterrupt
    return respond(*arguments)

  with monkeypatch.context() as patch:
    patch.setattr(module, 'respond', die)
    with pytest.raises(KeyboardInterrupt):
      train(killed, arm)
  assert train(killed, arm) == expected
  weights = trained(straight, arm)
  for name, value in trained(killed, arm).items():
    np.testing.assert_array_equal(value, weights[name])


def test_an_agent_that_does_as_the_expert_stays_as_it_is(base, tmp_path, monkeypatch):
  run = make_run(tmp_path, base)
  monkeypatch.setattr(
      step_agent, 'pair_up',
      lambda *rest: ([], step_agent.Counter({"the expert's action": 6})),
  )
  result = train(run, 'step_implicit')
  assert [cycle['pairs'] for cycle in result['cycles']] == [0, 0]
  before = load_params(run.params_path(step_experts.SFT.name))
  for name, value in trained(run, 'step_implicit').items():
    np.testing.assert_array_equal(value, before[name])


def test_states_without_room_are_left_out_and_none_left_is_said(base, tmp_path):
  run = make_run(tmp_path, base)
  assert len(step_experts.states_of(run, 16, 'x')) == 6
  with pytest.raises(EarlyEnd, match='no expert could be retraced'):
    step_experts.states_of(run, 3, 'x')


# --- pairs


def test_pairs_prefer_the_expert_and_say_why_there_are_no_more():
  player = corridor.player(lambda text, request: 'left')
  node = bandit_node(player, 'right')
  [state] = states.of_episodes([Tree('t', '', 'train', [node])])

  def sample(said, stopped=True):
    ids = player.transcript.response(said)
    return Sample((), ids, [-0.5] * len(ids), stopped)

  answers = [[sample('left')], [sample('right')], [sample('left', False)], []]
  pairs, dropped = step_agent.pair_up(player, [state] * 4, answers)
  assert dict(dropped) == {
      "the expert's action": 1, 'no action in the response': 1,
      'no room for a response': 1,
  }
  [pair] = pairs
  assert pair.chosen.ids.tolist() == [*state.prompt_ids, *state.said.response_ids]
  assert pair.rejected.ids.tolist() == [
      *state.prompt_ids, *player.transcript.response('left')
  ]
  assert pair.chosen.weights[: len(state.prompt_ids)].sum() == 0


def bandit_node(player, said):
  from leafe_jax.tree import Node, Turn

  transcript = player.transcript
  ids = transcript.response(said)
  turn = Turn(1, 'cell 0', transcript.first('', '', 'cell 0'),
              list(transcript.opener_ids), ids, [0.0] * len(ids), said, said)
  return Node(0, None, 1, None, 0, [turn], True)
