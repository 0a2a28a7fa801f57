"""Sokoban's rules: moves, rewards, and many rooms at once by the same ones."""

from __future__ import annotations

import functools
import random

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from envs.sokoban import batch, engine, levels
from envs.sokoban.engine import ACTIONS, State

STEP, ON, OFF, DONE = -0.1, 1.0, -1.0, 10.0


def room(*rows: str) -> State:
  return engine.parse(rows)


def play(state: State, *actions: str) -> tuple[State, list[float]]:
  rewards = []
  for action in actions:
    state, reward = engine.move(state, ACTIONS.index(action))
    rewards.append(reward)
  return state, rewards


@functools.cache
def starts() -> tuple[State, ...]:
  made = levels.build(
      7, 8, 2, 3, max_moves=30, train_levels=40, validation_levels=0, test_levels=0
  )
  return tuple(level.start for level in made['train'])


def test_a_room_survives_writing_and_reading():
  text = '######\n#S_X_#\n#_√_O#\n#_X__#\n######'
  assert engine.write(engine.parse(text.split('\n'))) == text


@pytest.mark.parametrize(
    'rows, message',
    [
        (['####', '#PX#', '####'], '1 boxes and 0 targets'),
        (['#####', '#_XO#', '#####'], '0 players'),
        (['#####', '#PXO_', '#####'], 'outer wall'),
        (['#####', '#PX?#', '#####'], "symbol '\\?'"),
        (['#####', '#PXO#', '####'], 'row 2 is 4 wide'),
        ([], '0 players'),
    ],
)
def test_a_broken_room_is_refused_with_the_reason(rows, message):
  with pytest.raises(ValueError, match=message):
    engine.parse(rows)


def test_the_last_box_on_a_target_ends_the_game_with_the_bonus():
  state, rewards = play(room('######', '#PX_O#', '######'), 'right', 'right')
  assert rewards == pytest.approx([STEP, STEP + ON + DONE])
  assert state.solved


def test_a_box_that_leaves_a_target_costs_what_it_earned():
  start = room('#######', '#P√_XO#', '#######')
  state, rewards = play(start, 'right')
  assert rewards == pytest.approx([STEP + OFF])
  assert engine.write(state) == '#######\n#_SXXO#\n#######'


def test_a_push_from_target_to_target_earns_nothing():
  start = room('#######', '#P√OX_#', '#######')
  assert play(start, 'right')[1] == pytest.approx([STEP])


@pytest.mark.parametrize(
    'rows',
    [
        ('#####', '#PX##', '##_O#', '#####'),
        ('######', '#PX√_#', '#_O__#', '######'),
    ],
)
def test_what_is_blocked_does_not_move_but_takes_time(rows):
  start = room(*rows)
  state, rewards = play(start, 'right', 'up')
  assert rewards == [STEP, STEP]
  assert state == start._replace(steps=2)


@hypothesis.given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 39))
def test_walls_boxes_and_player_stay_apart(actions, number):
  state = starts()[number]
  boxes = state.boxes.bit_count()
  for action in actions:
    state, _ = engine.move(state, action)
    assert state.boxes.bit_count() == boxes
    assert not state.boxes & state.room.walls
    assert not (state.boxes | state.room.walls) >> state.player & 1


@pytest.mark.parametrize('max_steps', [0, 17])
def test_a_batch_plays_as_single_games_do(max_steps):
  rng = random.Random(0)
  states = [*starts(), *(s._replace(steps=3) for s in starts())]
  games = batch.Batch.of(states, max_steps)
  for _ in range(60):
    actions = [rng.randrange(4) for _ in states]
    rewards = games.step(np.array(actions))
    for i, (state, action) in enumerate(zip(states, actions)):
      over = state.solved or 0 < max_steps <= state.steps
      states[i], reward = (state, 0.0) if over else engine.move(state, action)
      assert rewards[i] == pytest.approx(reward)
    expected = batch.Batch.of(states, max_steps)
    for name in ('boxes', 'player', 'steps', 'solved', 'over'):
      np.testing.assert_array_equal(getattr(games, name), getattr(expected, name))


def test_a_copy_of_a_batch_does_not_change_and_can_be_gone_back_to():
  games = batch.Batch.of(starts())
  actions = np.arange(len(starts())) % 4
  games.step(actions)
  kept = games.copy()
  branch = kept.copy()
  rewards = [games.step((actions + i) % 4) for i in range(12)]
  again = [branch.step((actions + i) % 4) for i in range(12)]
  np.testing.assert_array_equal(rewards, again)
  np.testing.assert_array_equal(games.boxes, branch.boxes)
  assert kept.steps.tolist() == [1] * len(starts())


def test_finished_games_can_be_replaced():
  games = batch.Batch.of(starts())
  kept = games.copy()
  games.replace(np.array([0, 2]), kept.take(np.array([5, 6])))
  np.testing.assert_array_equal(games.targets[[0, 2]], kept.targets[5:7])
  np.testing.assert_array_equal(kept.targets[0], batch.Batch.of(starts()).targets[0])


def test_a_batch_of_different_sizes_is_refused():
  with pytest.raises(ValueError, match='a batch needs one size'):
    batch.Batch.of([starts()[0], room('######', '#PX_O#', '######')])
