"""Early Experience acts where the expert acted, and nothing leaks between branches."""

import pytest

from leafe_jax.experience import foresight
from leafe_jax.rollout.alternatives import Expert, propose
from leafe_jax.sampler import Rules
from tests.rollout import corridor

RULES = Rules(1.0, 8, ())
ASKING = Rules(0.7, 8, ())
RESPONSES = ('right', 'right', 'open')


def grown(answer, count=2, reflect=False):
  player = corridor.player(answer)
  expert = Expert(player.world.tasks('train')[2], RESPONSES)
  (tree,) = propose(player, [expert], count, RULES, ASKING if reflect else None)
  return tree, player


def goes_left(text, request):
  """Always left; after it went wrong, right at the turn before."""
  if text.endswith('<failed>'):
    return f'<t{text.count("<act>")}> go right'
  return 'left'


def test_the_root_is_the_experts_episode():
  tree, _ = grown(goes_left)
  root = tree.nodes[0]
  assert [turn.action for turn in root.turns] == list(RESPONSES)
  assert root.success


def test_each_alternative_is_executed_in_the_experts_state():
  tree, player = grown(goes_left)
  seen = {}
  for node in tree.nodes[1:]:
    session = player.world.session()
    step = session.reset(player.world.tasks('train')[2])
    for action in RESPONSES[: node.tau - 1]:
      step = session.step(action)
    assert node.turns[0].observation == step.observation
    assert node.final_observation == session.step('left').observation
    seen[node.tau] = node.final_observation
  assert seen == {1: 'wall', 2: 'cell 0', 3: 'cell 1'}


def test_repeated_proposals_and_the_experts_own_action_are_dropped():
  tree, _ = grown(lambda text, request: 'right', count=3)
  # Turns 1 and 2 are the expert's 'right'; at turn 3 it is new, once.
  assert [node.tau for node in tree.nodes[1:]] == [3]
  assert tree.budget['env_steps'] == 1
  assert tree.budget['model_calls'] == 9


def test_a_world_that_breaks_is_data():
  tree, player = grown(lambda text, request: 'crash', count=1)
  assert [node.ended_by for node in tree.nodes[1:]] == ['error'] * 3
  assert len(foresight.world_model([tree], player.transcript)) == 1


def test_the_world_model_is_trained_on_what_the_world_answers():
  tree, player = grown(goes_left)
  found = foresight.world_model([tree], player.transcript)
  tokenizer = player.transcript.tokenizer

  def targets(example):
    ids = example.ids[example.weights > 0]
    return ' '.join(tokenizer.convert_ids_to_tokens(ids.tolist()))

  assert targets(found[0]) == '<t2> cell 1 <t3> cell 2 <t4> opened'
  assert [targets(example) for example in found[1:]] == [
      '<t2> wall', '<t3> cell 0', '<t4> cell 1',
  ]  # fmt: skip


def test_imitation_trains_the_experts_responses_alone():
  tree, player = grown(goes_left)
  (example,) = foresight.imitation([tree])
  ids = example.ids[example.weights > 0]
  text = ' '.join(player.transcript.tokenizer.convert_ids_to_tokens(ids.tolist()))
  assert text == 'right <end> right <end> open <end>'


@pytest.mark.parametrize('said, kept', [
    ('go right', [1, 2]),  # the expert's action at turns 1 and 2, not at 3
    ('go left', []),
])
def test_reflections_count_where_they_lead_to_the_experts_action(said, kept):
  def answer(text, request):
    if text.endswith('<failed>'):
      return f'<t{text.count("<act>")}> {said}'
    return 'left'

  tree, player = grown(answer, count=1, reflect=True)
  found = foresight.reflections([tree], player.transcript)
  assert [example.turn for example in found] == kept
  for example in found:
    ids = example.ids[example.weights > 0].tolist()
    text = ' '.join(player.transcript.tokenizer.convert_ids_to_tokens(ids))
    assert text == f'<t{example.turn}> {said} <end>'
