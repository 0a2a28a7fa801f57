"""States as tokens: what was before an action, and what a teacher sees beside."""

from __future__ import annotations

import numpy as np

from leafe_jax.config import Experience
from leafe_jax.experience import build, states
from leafe_jax.tree import Node, Tree, Turn


def turn(index, prompt, said, action, hint=(), fresh=False):
  return Turn(index, f'o{index}', prompt, [9], said, [-0.5] * len(said), action, action,
              hint_ids=list(hint), fresh=fresh)


def grown(hint=(40, 41), success=True):
  root = Node(0, None, 1, None, 0, [turn(1, [1], [5], 'a'), turn(2, [2], [6], 'b')])
  branch = Node(1, 0, 2, 'e', 1, [turn(2, [2], [7], 'c', hint)], success)
  return Tree('t', '', 'train', [root, branch])


def test_a_correction_is_asked_at_h_tau_and_its_teacher_sees_the_hint():
  summary = build.Summary()
  [state] = states.of_corrections([grown()], Experience(), summary)
  assert (state.task_id, state.node, state.turn) == ('t', 1, 2)
  assert state.prompt_ids == [1, 9, 5, 2, 9]
  assert state.extended_ids == [1, 9, 5, 2, 40, 41, 9]
  assert summary.cf == 1


def test_events_that_leafe_would_not_train_or_without_a_hint_are_not_asked():
  summary = build.Summary()
  assert not states.of_corrections([grown(success=False)], Experience(), summary)
  assert not states.of_corrections([grown(hint=())], Experience(), summary)
  assert summary.dropped['distilled: no hint was shown'] == 1


def test_every_state_of_an_expert_is_one():
  found = states.of_episodes([grown()])
  assert [state.prompt_ids for state in found] == [[1, 9], [1, 9, 5, 2, 9]]
  assert [state.said.response_ids for state in found] == [[5], [6]]


def test_prompts_that_begin_anew_hold_no_turn_before():
  turns = [turn(1, [1], [5], 'a'), turn(2, [8, 2], [6], 'b', fresh=True)]
  assert states.history_of(turns) == [8, 2]


def test_arrays_of_a_response_stand_behind_its_prompt():
  [state, _] = states.of_episodes([grown()])
  found = states.sequence(state, [3, 4], ids=np.array([[1, 2], [3, 4]]))
  assert found['tokens'].tolist() == [1, 9, 3, 4]
  assert found['weights'].tolist() == [0, 0, 1, 1]
  assert found['ids'].tolist() == [[0, 0], [0, 0], [1, 2], [3, 4]]
