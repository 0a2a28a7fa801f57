"""Statistics of trees whose every number can be counted by hand."""

from __future__ import annotations

import json

import pytest

from leafe_jax.evaluation.stage1 import describe, first_success
from tests.evaluation import runs


@pytest.fixture(scope='module')
def figures():
  return describe(runs.all_trees())


def test_counts(figures):
  assert figures['counts'] == {
      'tasks': 3, 'nodes': 6, 'roots': 4, 'branches': 2, 'turns': 12,
      'hinted_turns': 2, 'invalid_turn_share': round(1 / 12, 6), 'successes': 2,
  }


def test_reflections(figures):
  assert figures['reflections'] == {
      'asked': 4, 'periodic': 1, 'terminal': 3, 'carry_on': 1, 'requested': 2,
      'parse_rate': 0.75, 'retry_rate': 0.25, 'request_rate': 0.5,
  }


def test_tau_is_counted_from_the_start_and_relative_to_the_turn_asked_at(figures):
  # Both usable reflections go back to turn 2 from turn 3: 2/3 is bin 7 of 10.
  assert figures['tau'] == {
      'absolute': {'1': 0, '2': 2},
      'relative': [0, 0, 0, 0, 0, 0, 2, 0, 0, 0],
      'mean_steps_back': 1.0,
  }


def test_branches_are_compared_with_their_parents(figures):
  branches = figures['branches']
  # 0.2 -> 0.5 and 0.5 -> 1.0; 'a' -> 'b' differs, 'b' -> 'b' does not.
  assert branches['improved_share'] == 1.0
  assert branches['worse_share'] == 0.0
  assert branches['action_differs_share'] == 0.5
  assert [(row['depth'], row['episodes'], row['successes']) for row in
          branches['by_depth']] == [(0, 4, 1), (1, 1, 0), (2, 1, 1)]


def test_a_branch_is_compared_with_replayed_turns_too():
  # Node 3 goes back to before its parent's first own turn.
  tree = runs.branching_tree()
  runs.make_node(tree, ['search'], tree.nodes[2], 1, 'again')
  shares = [describe([tree])['branches']['action_differs_share']]
  assert shares == [pytest.approx(1 / 3, abs=1e-6)]


def test_solved_tasks_by_how_and_after_how_many_attempts(figures):
  assert figures['solved'] == {
      'tasks': 2, 'share': round(2 / 3, 6), 'by_some_root': 1,
      'by_branches_only': 1, 'unsolved': 1, 'within_attempts': [1, 1, 1, 2],
  }


def test_endings_and_errors_are_counted_by_kind(figures):
  assert figures['ended_by'] == {'terminated': 4, 'error': 1, 'horizon': 1}
  assert figures['errors'] == {
      'turns': {'InvalidAction': 1},
      'episodes': {'TimeoutError': 1},
      'reflections': {'ReflectionError': 1},
  }


def test_a_later_root_that_solves_is_not_credited_to_branches():
  tree = runs.branching_tree()
  runs.make_node(tree, ['buy'], success=True, score=1.0)
  solved = describe([tree])['solved']
  assert (solved['by_some_root'], solved['by_branches_only']) == (1, 0)
  first = first_success(tree)
  assert first is not None and first.id == 3


def test_nothing_at_all_is_described_without_dividing_by_zero():
  figures = describe([])
  assert figures['counts']['nodes'] == 0
  assert figures['reflections']['parse_rate'] is None
  assert figures['solved']['within_attempts'] == []


def test_figures_are_json(figures):
  assert json.loads(json.dumps(figures, allow_nan=False)) == figures
