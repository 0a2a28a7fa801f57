"""The compact view of household games and its teacher."""

from __future__ import annotations

import functools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import api, registry
from envs.alfworld import compact
from tests.envs.alfworld_support import needs_engine

pytestmark = needs_engine

NUM_GAMES = 12


@functools.cache
def world():
  return registry.make(
      'alfworld', view='compact', max_steps=0, train_games=NUM_GAMES,
      validation_games=1, test_games=1,
  )


def play(task, choose, horizon=24) -> tuple[api.History, api.Step]:
  session = world().session()
  step = session.reset(task)
  history = api.History(task.instruction, (step.observation,), ())
  while not step.terminated and len(history.actions) < horizon:
    action = choose(history)
    step = session.step(action)
    history = api.History(
        task.instruction,
        (*history.observations, step.observation),
        (*history.actions, action),
    )
  return history, step


def test_the_script_wins_every_game_from_what_it_sees():
  teacher = world().teacher()
  for task in world().tasks('train'):
    history, step = play(task, teacher.correct)
    assert step.success, history
    assert 'no' not in history.observations


def test_the_demonstrator_sometimes_fails():
  teacher, rng = world().teacher(quality=0.5, care=0.2), random.Random(0)
  won = [
      play(task, lambda h: teacher.act(h, rng), 16)[1].success
      for task in world().tasks('train')
  ]
  assert 0 < sum(won) < len(won)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, NUM_GAMES - 1), st.integers(0, 10_000))
def test_words_diagnoses_and_advice_are_well_formed(index, seed):
  teacher = world().teacher(quality=0.5, care=0.4, reflection_quality=0.5)
  rng = random.Random(seed)
  known = set(world().vocabulary())
  history, step = play(world().tasks('train')[index], lambda h: teacher.act(h, rng), 12)
  texts = [*history.observations, *history.actions]
  diagnosis = teacher.diagnose(history, not step.success, rng)
  if diagnosis is not None:
    assert 1 <= diagnosis.turn <= len(history.actions)
    texts.append(diagnosis.experience)
    assert len(diagnosis.experience.split()) == 5
  assert not set(' '.join(texts).split()) - known


def test_the_start_says_what_is_wanted_and_what_furniture_there_is():
  for task in world().tasks('train'):
    game = world().game(task)
    page = compact.parse_page(world().session().reset(task).observation)
    assert page.request.obj == game.goal.obj.lower()
    assert page.request.wanted == compact.WANTED[game.goal.task_type]
    assert len(page.names) >= 6


def history_of(*turns: str) -> api.History:
  """From observation, action, observation, ..."""
  return api.History('', tuple(turns[::2]), tuple(turns[1::2]))


START = 'want hot apple fridge see fridge 1 microwave 1 drawer 1 countertop 1'


def test_putting_away_what_was_not_heated_is_diagnosed():
  history = history_of(
      START, 'go countertop 1', 'at countertop 1 has apple 1', 'take apple 1',
      'have apple 1', 'go fridge 1', 'at fridge 1 closed', 'open fridge 1',
      'at fridge 1 has nothing', 'put apple 1', 'put apple 1',
  )  # fmt: skip
  diagnosis = world().teacher(reflection_quality=1.0).diagnose(
      history, True, random.Random(0)
  )
  assert diagnosis == api.Diagnosis(3, 'first hot go microwave 1')


def test_leaving_what_is_closed_unopened_is_diagnosed():
  history = history_of(
      START, 'go drawer 1', 'at drawer 1 closed', 'go countertop 1',
      'at countertop 1 has nothing',
  )  # fmt: skip
  diagnosis = world().teacher(reflection_quality=1.0).diagnose(
      history, False, random.Random(0)
  )
  assert diagnosis == api.Diagnosis(2, 'hidden apple open drawer 1')


def test_advice_is_a_reason_and_the_action():
  teacher = world().teacher()
  history = history_of(START, 'go countertop 1', 'at countertop 1 has apple 1')
  assert teacher.correct(history) == 'take apple 1'
  assert teacher.advise(history, 'take apple 1') == 'here apple take apple 1'


def test_a_chance_above_one_is_refused():
  with pytest.raises(ValueError, match='care is 2'):
    world().teacher(care=2)


def test_the_text_view_has_a_teacher_in_its_own_words():
  made = registry.make('alfworld', train_games=1, validation_games=0, test_games=0)
  task = made.tasks('train')[0]
  first = made.session().reset(task).observation
  action = made.teacher().correct(api.History(task.instruction, (first,), ()))
  assert action.startswith('go to ')
