"""Stage 1 grows the tree it should: order, limits, hints, failures as data."""

import dataclasses

import pytest

from envs import api
from leafe_jax.config import Explore
from leafe_jax.rollout.explore import explore
from leafe_jax.rollout.grow import Limits
from leafe_jax.tree import Tree
from tests.rollout import corridor

CONFIG = dataclasses.replace(
    Explore(), num_roots=1, reflect_every=0, max_depth=3, max_requests=3, restart=False
)


def grow(answer, door=2, config=CONFIG, attempts=8, env_steps=0, horizon=6, rows=4):
  player = corridor.player(answer, horizon)
  task = player.world.tasks('train')[door]
  limits = Limits(attempts, env_steps)
  trees = explore(player, [task], config, lambda task: limits, rows)
  return trees[0], player


def opens_too_early(text, request):
  """Opens at once unless told otherwise; always advises to go on at turn 1."""
  if text.endswith('<failed>'):
    return f'<t{text.count("right") + 1}> go right'
  return 'right' if '<hint>' in text else 'open'


def test_a_failure_is_reflected_rolled_back_and_fixed():
  tree, _ = grow(opens_too_early, door=2, attempts=8)
  assert [node.parent for node in tree.nodes] == [None, 0, 1]
  assert [node.success for node in tree.nodes] == [False, False, True]
  assert [node.tau for node in tree.nodes] == [1, 1, 2]
  actions = [turn.action for turn in tree.path(tree.nodes[2])]
  assert actions == ['right', 'right', 'open']
  observations = [turn.observation for turn in tree.path(tree.nodes[2])]
  assert observations == ['cell 0', 'cell 1', 'cell 2']


def test_the_hint_is_seen_at_tau_only_and_leaves_no_trace():
  seen = []

  def answer(text, request):
    seen.append(text)
    return opens_too_early(text, request)

  tree, player = grow(answer)
  hinted = [turn.hinted for turn in tree.nodes[2].turns]
  assert hinted == [True, False]
  after = [text for text in seen if text.endswith('<t3> cell 2 <act>')]
  assert after and all('<hint>' not in text for text in after)


def test_branch_scope_keeps_the_hint_for_the_whole_branch():
  config = dataclasses.replace(CONFIG, hint_scope='branch')
  tree, _ = grow(
      lambda text, request: '<t1> go right' if '<failed>' in text
      else 'open' if text.count('right') > 2 or '<hint>' not in text else 'right',
      config=config, attempts=2,
  )
  assert all(turn.hinted for turn in tree.nodes[1].turns)
  # Training prompts never hold it, whatever the scope.
  hint = tree.nodes[1].turns[0].hint_ids[0]
  assert all(hint not in turn.prompt_ids for turn in tree.nodes[1].turns)


def test_the_queue_is_first_in_first_out():
  config = dataclasses.replace(CONFIG, num_roots=2, max_depth=9)
  tree, _ = grow(
      lambda text, request: '<t1> go left' if '<failed>' in text else 'open',
      config=config, attempts=6,
  )
  assert [node.parent for node in tree.nodes] == [None, None, 0, 1, 2, 3]
  assert [node.depth for node in tree.nodes] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize('attempts', [1, 3, 5])
def test_attempts_are_never_exceeded(attempts):
  config = dataclasses.replace(CONFIG, restart=True, num_roots=2)
  tree, _ = grow(
      lambda text, request: '<t1> go left' if '<failed>' in text else 'open',
      config=config, attempts=attempts,
  )
  assert len(tree.nodes) == attempts
  assert tree.budget['episodes'] == attempts


def test_env_steps_stop_new_episodes_and_exclude_replayed_ones():
  config = dataclasses.replace(CONFIG, restart=True)
  tree, _ = grow(lambda text, request: 'right', config=config, attempts=0, env_steps=20)
  assert tree.budget['env_steps'] == sum(len(node.turns) for node in tree.nodes)
  assert 20 <= tree.budget['env_steps'] < 20 + 6


def test_depth_is_limited():
  config = dataclasses.replace(CONFIG, max_depth=2)
  tree, _ = grow(
      lambda text, request: '<t1> go left' if '<failed>' in text else 'open',
      config=config, attempts=20,
  )
  assert max(node.depth for node in tree.nodes) == 2
  deepest = [node for node in tree.nodes if node.depth == 2]
  assert all(not node.reflections for node in deepest)


def test_reflections_in_progress_branch_while_the_parent_goes_on():
  config = dataclasses.replace(CONFIG, reflect_every=2)
  tree, _ = grow(
      lambda text, request: '<t2> go open' if '<reflect>' in text
      else 'open' if '<hint>' in text else 'right',
      door=1, config=config, attempts=2,
  )
  root, branch = tree.nodes
  assert [r.turn for r in root.reflections] == [2, 4, 6]
  assert [r.terminal for r in root.reflections] == [False, False, True]
  assert [r.requested for r in root.reflections] == [True, False, False]
  assert len(root.turns) == 6 and root.ended_by == 'horizon'
  assert branch.tau == 2 and branch.success


def test_on_reflect_stop_ends_the_parent():
  config = dataclasses.replace(CONFIG, reflect_every=2, on_reflect='stop')
  tree, _ = grow(
      lambda text, request: '<t2> go open' if '<reflect>' in text
      else 'open' if '<hint>' in text else 'right',
      door=1, config=config, attempts=2,
  )
  assert tree.nodes[0].ended_by == 'stopped'
  assert len(tree.nodes[0].turns) == 2


def test_declining_in_progress_asks_for_nothing():
  config = dataclasses.replace(CONFIG, reflect_every=1)
  tree, _ = grow(
      lambda text, request: '<none>' if '<going>' in text
      else '<t1> go left' if '<failed>' in text else 'right',
      config=config, attempts=1,
  )
  asked = tree.nodes[0].reflections
  assert [r.requested for r in asked] == [False] * 5 + [True]
  assert [r.error for r in asked] == [None] * 6


def test_an_unusable_reflection_is_retried_once_then_recorded():
  keys = []

  def answer(text, request):
    if '<failed>' in text:
      keys.append(request.key)
      return 'go go'
    return 'open'

  tree, _ = grow(answer, door=1, attempts=4)
  reflection = tree.nodes[0].reflections[0]
  assert reflection.attempts == 2
  assert reflection.error.startswith('ReflectionError')
  assert not reflection.requested and len(tree.nodes) == 1
  assert len(set(keys)) == 2  # the retry is another draw
  assert tree.budget['reflections'] == 2


def test_a_crashing_environment_is_data():
  tree, _ = grow(lambda text, request: 'crash', attempts=3)
  node = tree.nodes[0]
  assert node.ended_by == 'error'
  assert 'caved in' in node.error and 'caved in' in node.turns[0].error
  assert tree.budget['episodes'] == len(tree.nodes)


def test_a_transcript_that_grows_too_long_is_data():
  player = corridor.player(lambda text, request: 'right')
  player.sampler.max_length = 8
  task = player.world.tasks('train')[0]
  trees = explore(player, [task], CONFIG, lambda task: Limits(1, 0), 2)
  assert trees[0].nodes[0].ended_by == 'overlong'
  assert len(trees[0].nodes[0].turns) == 1


def test_a_tau_before_the_branch_belongs_to_the_ancestor():
  def answer(text, request):
    if '<failed>' in text:
      late = text.count('<t3>') and 'left' not in text
      return '<t2> go open' if late else '<t1> go open'
    if '<hint>' in text:
      return 'left'
    return 'open' if 'left' in text else 'right'

  tree, _ = grow(answer, door=3, attempts=3, horizon=3)
  grandchild = tree.nodes[2]
  assert (grandchild.parent, grandchild.tau) == (1, 1)
  assert len(tree.path(grandchild)) == len(grandchild.turns)


def test_trees_survive_their_serial_form():
  tree, _ = grow(opens_too_early)
  assert Tree.from_json(tree.to_json()) == tree


def test_many_tasks_share_batches_and_equal_their_lonely_selves():
  player = corridor.player(opens_too_early)
  tasks = player.world.tasks('train')
  together = explore(player, tasks, CONFIG, lambda task: Limits(8, 0), 4)
  assert max(player.sampler.batches) > 1
  for door, tree in enumerate(together):
    alone, _ = grow(opens_too_early, door=door)
    assert [n.parent for n in tree.nodes] == [n.parent for n in alone.nodes]
    assert [n.success for n in tree.nodes] == [n.success for n in alone.nodes]


def test_a_world_that_cannot_open_a_task_is_data():
  player = corridor.player(lambda text, request: 'open')

  def collapse(self, task, seed=0):
    raise RuntimeError('no corridor here')

  player.world.session = type('Ruin', (corridor.Corridor,), {'reset': collapse})
  task = player.world.tasks('train')[0]
  [tree] = explore(player, [task], CONFIG, lambda task: Limits(8, 0), 4)
  assert {node.ended_by for node in tree.nodes} == {'error'}
  assert 'no corridor here' in tree.nodes[0].error
  assert tree.budget['episodes'] == len(tree.nodes)


def test_a_state_that_cannot_be_restored_is_data_and_exploring_goes_on():
  player = corridor.player(opens_too_early)

  def diverge(self, snapshot):
    raise api.ReplayDiverged(2, 'aa', 'bb')

  player.world.session = type('Drift', (corridor.Corridor,), {'restore': diverge})
  task = player.world.tasks('train')[2]
  config = dataclasses.replace(CONFIG, num_roots=2)
  [tree] = explore(player, [task], config, lambda task: Limits(4, 0), 4)
  broken = [node for node in tree.nodes if node.parent is not None]
  assert broken and all('ReplayDiverged' in node.error for node in broken)
  assert tree.budget['episodes'] == len(tree.nodes)


def test_stacked_hints_show_the_ancestors_first():
  config = dataclasses.replace(CONFIG, stack_hints=True)
  tree, player = grow(opens_too_early, door=3, config=config)
  marks = [turn.hint_ids for turn in tree.nodes[2].turns if turn.hinted]
  hint = player.transcript.hint('go right')
  assert marks[0] == hint + hint
