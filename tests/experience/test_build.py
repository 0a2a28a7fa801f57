from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leafe_jax import config as config_lib
from leafe_jax.experience import build
from leafe_jax.experience.examples import Example
from leafe_jax.tree import Node, Tree, Turn

CONFIG = config_lib.Experience()
HINT = 900


def rehearse(tree: Tree, **changes) -> list[Example]:
  config = dataclasses.replace(CONFIG, **changes)
  return build.rehearsal([tree], config, random.Random(0))


def correct(tree: Tree, **changes) -> list[Example]:
  return build.counterfactual([tree], dataclasses.replace(CONFIG, **changes))


def trained(example: Example) -> list[int]:
  return example.ids[example.weights > 0].tolist()


def responses(*turns: Turn) -> list[int]:
  return [token for turn in turns for token in turn.response_ids]


def test_rehearsal_trains_exactly_the_responses_of_a_success(grower):
  g = grower()
  node = g.add(['a', 'b', 'c'], success=True)
  (example,) = rehearse(g.tree)
  assert trained(example) == responses(*node.turns)
  expected = [t for turn in node.turns
              for t in (*turn.prompt_ids, *turn.opener_ids, *turn.response_ids)]
  assert example.ids.tolist() == expected
  assert example.weights[0] == 0
  assert (example.kind, example.task_id, example.node) == ('reh', 'task', 0)


def test_rehearsal_of_a_branch_trains_the_replayed_prefix_but_no_hinted_turn(grower):
  g = grower()
  root = g.add(['a', 'b', 'c'])
  branch = g.add(['x', 'y'], root, tau=2, success=True)
  (example,) = rehearse(g.tree)
  assert trained(example) == responses(root.turns[0], branch.turns[1])
  assert HINT not in example.ids
  (hinted,) = rehearse(g.tree, reh_hinted=True)
  assert trained(hinted) == responses(root.turns[0], *branch.turns)
  (own,) = rehearse(g.tree, reh_prefix=False)
  assert trained(own) == responses(branch.turns[1])


def test_a_shared_turn_is_rehearsed_once(grower):
  g = grower()
  root = g.add(['a', 'b', 'c'], success=True)
  one = g.add(['x', 'y'], root, tau=2, success=True)
  two = g.add(['z', 'w'], root, tau=3, success=True)
  tokens = sorted(t for example in rehearse(g.tree) for t in trained(example))
  assert tokens == sorted(responses(*root.turns, one.turns[1], two.turns[1]))


def test_an_episode_without_anything_new_to_rehearse_is_dropped_and_counted(grower):
  g = grower()
  root = g.add(['a', 'b'], success=True)
  g.add(['x'], root, tau=2, success=True)
  summary = build.Summary()
  found = build.rehearsal([g.tree], CONFIG, random.Random(0), summary)
  assert [example.node for example in found] == [0]
  assert summary.dropped['reh: nothing left to train'] == 1
  assert (summary.successes, summary.drawn, summary.reh) == (2, 2, 1)


def test_rehearsal_ends_with_its_last_trained_response(grower):
  g = grower()
  root = g.add(['a', 'b'], success=True)
  g.add(['x', 'y', 'z'], root, tau=2, success=True)
  for example in rehearse(g.tree):
    assert example.weights[-1] == 1


def test_rehearsal_draws_the_asked_share_of_successes(grower):
  trees = []
  for i in range(10):
    g = grower(f'task{i}')
    g.add(['a'], success=True)
    g.add(['b'])
    trees.append(g.tree)
  config = dataclasses.replace(CONFIG, reh_fraction=0.3)
  drawn = [e.task_id for e in build.rehearsal(trees, config, random.Random(1))]
  assert len(drawn) == 3
  assert drawn == [e.task_id for e in build.rehearsal(trees, config, random.Random(1))]
  assert drawn != [e.task_id for e in build.rehearsal(trees, config, random.Random(5))]


def test_counterfactual_trains_the_correction_alone_and_without_the_hint(grower):
  g = grower()
  root = g.add(['a', 'b', 'c'])
  branch = g.add(['x', 'y'], root, tau=2, success=True)
  (example,) = correct(g.tree)
  prefix = [t for turn in root.turns[:1]
            for t in (*turn.prompt_ids, *turn.opener_ids, *turn.response_ids)]
  turn = branch.turns[0]
  ids = [*prefix, *turn.prompt_ids, *turn.opener_ids, *turn.response_ids]
  assert example.ids.tolist() == ids
  assert trained(example) == turn.response_ids
  assert (example.kind, example.node, example.turn) == ('cf', branch.id, 2)


def test_the_parents_action_again_is_no_correction(grower):
  g = grower()
  root = g.add(['a', 'b'])
  g.add(['b', 'c'], root, tau=2, success=True)
  assert correct(g.tree, cf_filter='all') == []


def test_a_correction_at_tau_is_compared_with_the_replayed_turn_of_the_parent(grower):
  g = grower()
  root = g.add(['a', 'b', 'c'])
  branch = g.add(['x'], root, tau=3)
  g.add(['a', 'w'], branch, tau=1, success=True)
  found = correct(g.tree, cf_filter='all')
  assert [example.node for example in found] == [branch.id]


def test_a_response_without_an_action_is_never_a_correction(grower):
  g = grower()
  root = g.add(['a', 'b'])
  g.add([None, 'c'], root, tau=1, success=True)
  g.add([], root, tau=2)
  summary = build.Summary()
  config = dataclasses.replace(CONFIG, cf_filter='all')
  assert build.counterfactual([g.tree], config, summary) == []
  assert summary.dropped['cf: no action in the response'] == 1
  assert summary.dropped['cf: no response'] == 1


@pytest.mark.parametrize('tau, credited', [(1, False), (2, False), (3, True)])
def test_a_descendant_credits_only_an_action_that_it_kept(grower, tau, credited):
  g = grower()
  root = g.add(['a', 'b', 'c', 'd'])
  failed = g.add(['x', 'y', 'z'], root, tau=2)
  g.add(['q', 'r', 's'], failed, tau=tau, success=True)
  assert build.credited_success(g.tree, failed) is credited
  nodes = [example.node for example in correct(g.tree)]
  assert (failed.id in nodes) is credited


def test_credit_is_lost_at_the_first_rollback_that_discards_the_action(grower):
  g = grower()
  root = g.add(['a', 'b', 'c', 'd'])
  first = g.add(['x', 'y', 'z'], root, tau=2)
  second = g.add(['k'], first, tau=1)
  g.add(['m', 'n'], second, tau=3, success=True)
  assert not build.credited_success(g.tree, first)


def test_filters_are_nested(grower):
  g = grower()
  root = g.add(['a', 'b', 'c'], score=0.5)
  solved = g.add(['x'], root, tau=1, success=True)
  better = g.add(['y'], root, tau=2, score=0.7)
  worse = g.add(['z'], root, tau=3, score=0.2)
  kept = {f: {e.node for e in correct(g.tree, cf_filter=f)}
          for f in ('success', 'improved', 'all')}
  assert kept['success'] == {solved.id}
  assert kept['improved'] == {solved.id, better.id}
  assert kept['all'] == {solved.id, better.id, worse.id}
  with pytest.raises(ValueError, match="'best'.*success, improved, all"):
    correct(g.tree, cf_filter='best')


def test_the_cap_keeps_successes_first_then_the_shallow_ones(grower):
  g = grower()
  root = g.add(['a', 'b', 'c', 'd'])
  failed = g.add(['x', 'y', 'z'], root, tau=2)
  deep = g.add(['q'], failed, tau=4, success=True)
  shallow = g.add(['r'], root, tau=3, success=True)
  order = [e.node for e in correct(g.tree, cf_filter='all', cf_per_task=3)]
  assert order == [failed.id, shallow.id, deep.id]
  other = g.add(['s'], root, tau=1)
  order = [e.node for e in correct(g.tree, cf_filter='all', cf_per_task=9)]
  assert order[-1] == other.id
  assert len(correct(g.tree, cf_per_task=1)) == 1


def test_equal_corrections_count_once(grower):
  g = grower()
  one = g.add(['a', 'b'])
  two = g.add(['a', 'c'])
  g.add(['x'], one, tau=1, success=True)
  g.add(['x'], two, tau=1, success=True)
  summary = build.Summary()
  assert len(build.counterfactual([g.tree], CONFIG, summary)) == 1
  assert summary.dropped['cf: repeats another event'] == 1


@pytest.mark.parametrize('response, cited', [
    ('The lesson says so. click b', True),
    ('As in an EARLIER attempt, click b', True),
    ('hints tell me: click b', True),
    ('I know the blue shirt in size small is here. click b', True),
    ('I know the blue shirt. click b', False),
    ('A hinted price. click b', False),
])
def test_citations_are_words_about_the_hint_or_long_quotes(response, cited):
  turn = Turn(1, 'o', [1], [2], [3], [0.0], response, action='click b')
  e = 'you chose wrong: the blue shirt in size small is better'
  assert build.cites_hint(turn, e) is cited


def test_an_action_may_be_what_the_hint_proposed():
  action = 'search red cotton shirt size small women'
  turn = Turn(1, 'o', [1], [2], [3], [0.0], action, action=action)
  assert not build.cites_hint(turn, f'go back and {action}')


def test_the_citation_filter_can_be_turned_off(grower):
  g = grower()
  root = g.add(['a', 'b'])
  branch = g.add(['x'], root, tau=1, success=True)
  branch.turns[0].response = 'the lesson says x'
  assert correct(g.tree) == []
  assert len(correct(g.tree, citation_filter=False)) == 1


def leak_into_prompt(root: Node, branch: Node) -> None:
  turn = branch.turns[0]
  turn.prompt_ids = [*turn.prompt_ids, *turn.hint_ids]


def leak_into_opener(root: Node, branch: Node) -> None:
  turn = branch.turns[0]
  turn.opener_ids = [*turn.hint_ids, *turn.opener_ids]


def leak_into_later_turn(root: Node, branch: Node) -> None:
  turn = branch.turns[1]
  turn.prompt_ids = [*branch.turns[0].hint_ids, *turn.prompt_ids]


def leak_of_bare_words(root: Node, branch: Node) -> None:
  branch.turns[0].prompt_ids = [*branch.turns[0].prompt_ids, 7]


@pytest.mark.parametrize('leak', [
    leak_into_prompt, leak_into_opener, leak_into_later_turn, leak_of_bare_words
])
def test_a_hint_left_in_a_prompt_is_refused(grower, leak):
  g = grower()
  root = g.add(['a', 'b', 'c'])
  branch = g.add(['x', 'y'], root, tau=2, success=True)
  leak(root, branch)
  with pytest.raises(build.HintLeak, match="'task', node 1") as info:
    rehearse(g.tree)
  assert (info.value.task_id, info.value.node) == ('task', 1)
  if leak is not leak_into_later_turn:
    with pytest.raises(build.HintLeak):
      correct(g.tree)


def test_words_of_the_hint_in_an_observation_are_no_leak(grower):
  g = grower()
  root = g.add(['a', 'b'])
  branch = g.add(['x', 'y'], root, tau=2, success=True)
  for turn in (root.turns[1], *branch.turns):
    turn.prompt_ids = [7, 901, 7, *turn.prompt_ids]
  assert len(correct(g.tree)) == 1
  assert rehearse(g.tree)


def test_the_summary_counts_events_and_thin_tasks(grower):
  g = grower()
  root = g.add(['a', None, 'c'])
  g.add(['x'], root, tau=3, success=True)
  g.add(['y'], root, tau=2)
  empty = grower('other')
  empty.add(['a'])
  examples, summary = build.build([g.tree, empty.tree], CONFIG, random.Random(0))
  assert [example.kind for example in examples] == ['reh', 'cf']
  assert (summary.tasks, summary.tasks_below_cap) == (2, 2)
  assert (summary.events, summary.events_after_error) == (2, 1)
  assert summary.error_share == 0.5
  assert (summary.cf, summary.cf_tokens, summary.reh_tokens) == (1, 2, 4)
  assert summary.dropped['cf: not success'] == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_any_tree_gives_examples_that_train_responses_only(grower, data):
  g = grower()
  for _ in range(data.draw(st.integers(1, 7))):
    action = st.sampled_from(['a', 'b', 'c', None])
    actions = data.draw(st.lists(action, min_size=1, max_size=4))
    parents = [None, *(node for node in g.tree.nodes if node.last_turn)]
    parent = data.draw(st.sampled_from(parents))
    tau = 1 if parent is None else data.draw(st.integers(1, parent.last_turn))
    g.add(actions, parent, tau, success=data.draw(st.booleans()))
  config = dataclasses.replace(CONFIG, cf_filter='all')
  found, summary = build.build([g.tree], config, random.Random(0))
  once = [t for e in found if e.kind == 'reh' for t in trained(e)]
  assert len(once) == summary.reh_tokens
  assert len(once) <= sum(len(t.response_ids) for n in g.tree.nodes for t in n.turns)
  for example in found:
    path = g.tree.path(g.tree.nodes[example.node])
    assert set(trained(example)) <= {t for turn in path for t in turn.response_ids}
    assert HINT not in example.ids
    assert np.array_equal(np.unique(example.weights), [0, 1])
