"""Worlds that break the contract: their episodes say how, and the run goes on."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

from envs import api
from leafe_jax.config import Experiment
from leafe_jax.endings import RunStopped
from leafe_jax.methods.demonstrations import MAX_BROKEN, Demonstrator, demonstrate
from leafe_jax.methods.run import Run
from leafe_jax.rollout.explore import explore
from leafe_jax.rollout.grow import Limits
from leafe_jax.rundir import RunDirectory
from tests.rollout import corridor
from tests.rollout.test_explore import CONFIG, opens_too_early


def grow(kind: type[corridor.Corridor], attempts: int = 3):
  """The tree of a task whose sessions are of a kind."""
  player = dataclasses.replace(corridor.player(opens_too_early), world=_world(kind))
  task = player.world.tasks('train')[2]
  return explore(player, [task], CONFIG, lambda task: Limits(attempts, 0), 4)[0]


def _world(kind: type[corridor.Corridor]) -> api.World:

  class World(corridor.CorridorWorld):
    session = kind

  return World()


@pytest.mark.parametrize(
    'change, message',
    [
        ({'observation': b'cell'}, "observation is b'cell'"),
        ({'observation': 'x\ud800'}, 'observation holds 0xd800'),
        ({'reward': np.nan}, 'reward is nan'),
        ({'reward': np.float32('inf')}, 'reward is inf'),
        ({'reward': None}, 'reward is None'),
        ({'reward': '1.0'}, "reward is '1.0'"),
        ({'info': {'score': 'high'}}, "info['score'] is 'high'"),
        ({'info': None}, 'info is None'),
        ({'info': {'a': [{'b': '\udc80'}]}}, "info['a'][0]['b'] holds 0xdc80"),
        ({'terminated': 'no'}, "terminated is 'no'"),
        ({'info': {'score': 2.0, 'success': True}}, r"info['score'] is 2.0"),
    ],
)
@pytest.mark.parametrize('at_start', [True, False])
def test_a_bad_answer_is_an_error_of_its_episode(change, message, at_start):

  class Bad(corridor.Corridor):

    def reset(self, task, seed=0):
      step = super().reset(task, seed)
      return dataclasses.replace(step, **change) if at_start else step

    def step(self, action):
      return dataclasses.replace(super().step(action), **change)

  tree = grow(Bad)
  assert len(tree.nodes) == 1 and tree.nodes[0].ended_by == 'error'
  expected = f"BadStep: world 'corridor', task 'door-2': {message}"
  assert (tree.nodes[0].error or '').startswith(expected)


class Panic(BaseException):
  """What extensions in other languages raise."""


class Mute(Exception):

  def __str__(self):
    raise RuntimeError('not even this')


@pytest.mark.parametrize(
    'error, said',
    [
        (SystemExit(3), 'SystemExit: 3'),
        (Panic('out of bounds'), 'Panic: out of bounds'),
        (GeneratorExit(), 'GeneratorExit: '),
        (MemoryError(), 'MemoryError: '),
        (Mute(), 'Mute: its message raises RuntimeError'),
        (OSError('half \ud800'), 'OSError: half \\ud800'),
        (OSError('x' * 10_000), 'OSError: ' + 'x' * 2000 + '... (10000 characters)'),
    ],
)
@pytest.mark.parametrize('method', ['reset', 'step', 'snapshot', 'restore', 'close'])
def test_whatever_is_raised_wherever_is_an_error_of_its_episode(error, said, method):

  def fail(*arguments):
    raise error

  tree = grow(type('Bad', (corridor.Corridor,), {method: fail}))
  errors = {node.error for node in tree.nodes}
  assert errors <= {None, said, f'CloseError: {said}'} and errors != {None}
  tree.to_json().encode()


def test_an_interrupt_at_the_terminal_is_no_error_of_an_episode():

  class Interrupted(corridor.Corridor):

    def step(self, action):
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    grow(Interrupted)


@pytest.mark.parametrize(
    'action, message',
    [
        (None, 'the action of parse_response is None'),
        (b'open', "the action of parse_response is b'open'"),
        ('\ud800', 'the action of parse_response holds 0xd800'),
    ],
)
def test_an_action_that_is_no_text_is_an_error_of_its_episode(action, message):

  class World(corridor.CorridorWorld):

    def parse_response(self, response):
      return action

  player = dataclasses.replace(corridor.player(opens_too_early), world=World())
  tasks = player.world.tasks('train')[2:3]
  tree = explore(player, tasks, CONFIG, lambda task: Limits(3, 0), 4)[0]
  assert (tree.nodes[0].error or '').startswith(f"BadStep: world 'corridor': {message}")


def test_texts_and_numbers_of_own_types_reach_the_tree_as_plain_ones():

  class Text(str):

    def encode(self, *arguments):
      raise RuntimeError('no bytes')

  class Own(corridor.Corridor):

    def step(self, action):
      step = super().step(action)
      return dataclasses.replace(step, observation=Text(step.observation))

  tree = grow(Own)
  assert tree == grow(corridor.Corridor)
  assert type(tree.nodes[0].final_observation) is str


def test_a_branch_names_its_task_too():

  class BadOnBranches(corridor.Corridor):
    restored = False

    def restore(self, snapshot):
      self.restored = True
      super().restore(snapshot)

    def step(self, action):
      step = super().step(action)
      return dataclasses.replace(step, reward=None) if self.restored else step

  errors = [node.error for node in grow(BadOnBranches).nodes]
  assert errors[0] is None and "task 'door-2': reward is None" in (errors[1] or '')


def test_scalars_of_numpy_reach_the_tree_as_pythons():

  class Numpy(corridor.Corridor):

    def step(self, action):
      step = super().step(action)
      info = {key: np.float32(v) if key == 'score' else np.bool_(v)
              for key, v in step.info.items()}
      return api.Step(np.str_(step.observation), np.float32(step.reward),
                      np.bool_(step.terminated), np.bool_(False), info)

  plain, tree = grow(corridor.Corridor), grow(Numpy)
  assert tree == plain
  assert [type(node.score) for node in tree.nodes] == [float] * len(tree.nodes)


def test_a_session_that_cannot_be_closed_is_noted_and_ends_nothing():

  class Stuck(corridor.Corridor):

    def close(self):
      raise OSError('the door is stuck')

  tree = grow(Stuck)
  assert [node.success for node in tree.nodes] == [False, False, True]
  assert {node.error for node in tree.nodes} == {
      'CloseError: OSError: the door is stuck'
  }


def test_what_broke_an_episode_is_said_before_what_broke_its_end():

  class Stuck(corridor.Corridor):

    def step(self, action):
      raise RuntimeError('caved in')

    def close(self):
      raise OSError('the door is stuck')

  assert grow(Stuck).nodes[0].error == 'RuntimeError: caved in'


def test_a_session_that_cannot_be_made_is_an_error_of_its_episode():

  class Never(corridor.Corridor):

    def __init__(self):
      raise ConnectionError('no more seats')

  tree = grow(Never)
  assert tree.nodes and {node.error for node in tree.nodes} == {
      'ConnectionError: no more seats'
  }


class _Bold(api.Teacher):

  def act(self, history, rng):
    return 'open'

  correct = advise = diagnose = act  # never asked


def test_a_broken_demonstration_stops_the_run_in_one_line():

  class Bad(corridor.Corridor):

    def step(self, action):
      return dataclasses.replace(super().step(action), observation=None)

  world = _world(Bad)
  with pytest.raises(RunStopped, match="task 'door-0': observation is None"):
    demonstrate(world, world.tasks('train')[0], _Bold(), 3, random.Random(0))


def test_a_demonstration_is_kept_when_its_session_cannot_be_closed():

  class Stuck(corridor.Corridor):

    def close(self):
      raise OSError('the door is stuck')

  world = _world(Stuck)
  demo = demonstrate(world, world.tasks('train')[0], _Bold(), 3, random.Random(0))
  assert demo.success


@pytest.mark.parametrize('error', [SystemExit(1), RuntimeError('caved in')])
def test_demonstrations_that_break_are_left_out_until_all_do(error):

  class Moody(corridor.Corridor):

    def reset(self, task, seed=0):
      if task.id in broken:
        raise error
      return super().reset(task, seed)

  world, broken = _world(Moody), {'door-1', 'door-3'}
  demonstrator = Demonstrator(world, _Bold(), 3, random.Random(0))
  found = [demonstrator.play(task) for task in world.tasks('train') * 9]
  assert [demo is not None for demo in found] == [True, False] * 18
  broken = {'door-0'}
  task = world.tasks('train')[0]
  assert [demonstrator.play(task) for _ in range(MAX_BROKEN - 2)] == [None] * 8
  with pytest.raises(RunStopped, match="task 'door-0' broke: " + type(error).__name__):
    demonstrator.play(task)


def test_a_reset_that_ends_the_episode_is_no_demonstration():

  class Over(corridor.Corridor):

    def reset(self, task, seed=0):
      info = {'success': True, 'score': 1.0}
      return dataclasses.replace(super().reset(task), terminated=True, info=info)

  world = _world(Over)
  with pytest.raises(RunStopped, match='the reset ends the episode'):
    demonstrate(world, world.tasks('train')[0], _Bold(), 3, random.Random(0))


def test_a_split_without_tasks_stops_the_run_by_name(tmp_path):

  class Empty(corridor.CorridorWorld):

    def tasks(self, split):
      return super().tasks(split) if split == 'test' else []

  run = Run(Experiment(), RunDirectory(tmp_path), 'no hash')
  run.__dict__['world'] = Empty()  # a cached property
  assert len(run.tasks('test')) == 4 and len(run.tasks('test', 2)) == 2
  with pytest.raises(RunStopped, match='the train split of corridor has no tasks'):
    run.tasks('train', 3)
