"""The tasks of a world, as verifiers has them."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from typing import Any

from envs import api, registry

vf: Any = importlib.import_module('verifiers.v1')


class WorldTasksetConfig(vf.TasksetConfig):
  """Which world, and which of its tasks."""

  world: str = 'webshop'
  """One of `envs.registry.names()`, or your own as package.module:function."""
  options: dict[str, Any] = {}
  """Of the world."""
  split: str = 'train'
  horizon: int = 15
  """Turns of an episode."""


class WorldTaskData(vf.TaskData):
  """A task without what the agent must not see; `idx` finds that again."""

  instruction: str
  kind: str


class WorldTask(vf.Task[WorldTaskData]):
  """Nothing of its own: `environment.WorldEnv` plays and scores it."""


class WorldTaskset(vf.Taskset[WorldTask, WorldTasksetConfig]):
  """See the module."""

  @functools.cached_property
  def world(self) -> api.World:
    """Made when first asked for."""
    world = registry.make(self.config.world, **self.config.options)
    world.prepare()
    return world

  @functools.cached_property
  def tasks(self) -> dict[str, api.Task]:
    """By id. ValueError where there are none."""
    found = {task.id: task for task in self.world.tasks(self.config.split)}
    if not found:
      raise ValueError(f'{self.config.world} has no tasks in {self.config.split!r}')
    return found

  def load(self) -> Iterator[WorldTask]:
    rules = self.world.instructions() or None
    for task in self.tasks.values():
      data = WorldTaskData(
          id=task.id, name=task.id, system_prompt=rules,
          instruction=task.instruction, kind=self.world.task_type(task),
      )
      yield WorldTask(data, self.config.task)
