"""What the controls change in Stage 1, and that they change nothing else."""

import dataclasses

from leafe_jax.rollout.explore import explore
from leafe_jax.rollout.grow import Limits
from tests.rollout import corridor
from tests.rollout.test_explore import CONFIG, opens_too_early


def grow(answer, door=2, attempts=8, horizon=6, **changes):
  player = corridor.player(answer, horizon)
  config = dataclasses.replace(CONFIG, **changes)
  task = player.world.tasks('train')[door]
  (tree,) = explore(player, [task], config, lambda _: Limits(attempts, 0), 4)
  return tree


def walks_and_opens(text, request):
  """Two steps right, then opens; blames the last turn."""
  if text.endswith('<failed>'):
    return '<t3> go left'
  return 'right' if text.count('right') < 2 else 'open'


def test_a_random_turn_replaces_the_named_one():
  trees = [grow(walks_and_opens, door=door, turn='random') for door in (1, 3)]
  named = {r.tau for tree in trees for n in tree.nodes for r in n.reflections}
  assert named <= {1, 2, 3}
  assert len(named) > 1  # the policy always says 3
  for tree in trees:
    for node in tree.nodes:
      assert node.parent is None or node.tau in named


def test_random_turns_depend_on_the_task_and_the_node_alone():
  first = grow(walks_and_opens, door=1, turn='random')
  again = grow(walks_and_opens, door=1, turn='random')
  assert first.to_json() == again.to_json()


def test_without_feedback_a_branch_sees_no_hint():
  seen = []

  def answer(text, request):
    seen.append(text)
    return opens_too_early(text, request)

  tree = grow(answer, feedback='none', attempts=2)
  assert [node.parent for node in tree.nodes] == [None, 0]
  assert all('<hint>' not in text for text in seen)
  assert not any(turn.hinted for node in tree.nodes for turn in node.turns)
  # Asked all the same: the two explorations differ in the hint alone.
  assert tree.nodes[0].reflections[0].requested


def test_refinement_starts_over_knowing_how_the_last_attempt_ended():
  tree = grow(walks_and_opens, door=1, feedback='outcome', max_depth=2, attempts=9)
  assert [node.parent for node in tree.nodes] == [None, 0, 1]
  assert [node.tau for node in tree.nodes] == [1, 1, 1]
  assert tree.nodes[1].experience == 'open opened'
  assert not any(node.reflections for node in tree.nodes)
  assert tree.budget['reflections'] == 0


def test_a_chain_of_refinements_is_followed_by_a_new_one():
  tree = grow(
      walks_and_opens, door=1, feedback='outcome', max_depth=1, attempts=4,
      restart=True,
  )  # fmt: skip
  assert [node.parent for node in tree.nodes] == [None, 0, None, 2]


def corrects_itself(text, request):
  """Opens a step too late; knows that it is the third turn's fault."""
  if text.endswith('<failed>'):
    return '<t3> go open'
  if '<hint>' in text:
    return 'open'
  return 'right' if text.count('right') < 3 else 'open'


def test_a_noisy_rollback_leaves_the_environment_one_action_behind():
  clean = grow(corrects_itself, door=2, attempts=2)
  assert clean.nodes[1].success
  noisy = grow(corrects_itself, door=2, attempts=2, replay_noise=1.0)
  branch = noisy.nodes[1]
  # The policy still believes that it stands in cell 2.
  assert branch.turns[0].observation == 'cell 2'
  assert not branch.success
