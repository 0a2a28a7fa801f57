"""A world as an OpenEnv server (openenv 0.10; BSD-3).

Its sessions are those of OpenEnv's clients, one a connection; its tasks are OpenEnv's
Task API. Every answer is checked before it leaves, and what the world raises is told
by its name: 'EpisodeOver: ...'.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import pydantic

from envs import api, boundary
from envs.serving import wire
from envs.serving.snapshots import Shelf

T = TypeVar('T')
# Not at hand where it is linted without the package.
_openenv: Any = importlib.import_module('openenv.core.env_server')


class ServedError(Exception):
  """What a world raised, 'Type: message': all of it that a client is told."""


class WorldAction(_openenv.Action):
  """A step: an action, or one of the extra calls of `wire`."""

  text: str = pydantic.Field(description='the action, as the world reads it')
  call: Literal['act', 'answer', 'snapshot', 'restore', 'choices'] = pydantic.Field(
      default='act',
      description=(
          "'act' takes the action; 'answer' finds it in a model's whole response "
          "first; 'snapshot' keeps the present state, 'restore' comes back to one; "
          "'choices' lists what does something now"
      ),
  )
  snapshot: str = pydantic.Field(default='', description="the name, for 'restore'")


class WorldObservation(_openenv.Observation):
  """What `envs.api.Step` holds, and what the extra calls answer."""

  text: str = ''
  terminated: bool = False
  truncated: bool = False
  info: dict[str, Any] = {}
  instruction: str = pydantic.Field(default='', description='of the task, at reset')
  rules: str = pydantic.Field(default='', description='how to play, at reset')
  snapshot: str = pydantic.Field(default='', description='the name of what was kept')
  num_bytes: int = 0
  choices: list[str] = []


class WorldState(_openenv.State):
  """Where a session stands."""

  world: str = ''
  task: str = ''
  split: str = ''


class Served:
  """A world, and what its sessions share.

  Args:
    world: to be served.
    snapshot_bytes: that clients' snapshots may take, together.
  """

  def __init__(self, world: api.World, snapshot_bytes: float):
    self.world = world
    self.shelf = Shelf(snapshot_bytes)
    self._places = threading.BoundedSemaphore(world.places)
    self.tasks = {split: world.tasks(split) for split in api.SPLITS}
    self.by_id = {task.id: task for tasks in self.tasks.values() for task in tasks}

  def attempt(self, work: Callable[[], T]) -> T:
    """What `work` returns, in one of the world's places. Raises ServedError."""
    with self._places:
      result, error = boundary.attempt(work)
    if error is not None:
      raise ServedError(error)
    return result  # type: ignore[return-value]

  def choose(self, split: str, index: int | None, id: str, seed: int) -> api.Task:
    """The task that a reset asks for. ServedError names what it lacks."""
    if id:
      if id not in self.by_id:
        raise ServedError(f'ValueError: there is no task {id!r}')
      return self.by_id[id]
    if split not in self.tasks or not self.tasks[split]:
      known = [name for name, tasks in self.tasks.items() if tasks]
      raise ServedError(f'ValueError: no tasks in split {split!r}; there are {known}')
    tasks = self.tasks[split]
    index = seed % len(tasks) if index is None else index
    if not 0 <= index < len(tasks):
      raise ServedError(
          f'ValueError: task {index} of {split}; there are 0 to {len(tasks) - 1}'
      )
    return tasks[index]


class WorldEnvironment(_openenv.Environment):
  """A session, as OpenEnv has it."""

  SUPPORTS_CONCURRENT_SESSIONS = True

  def __init__(self, served: Served):
    super().__init__()
    self._served = served
    self._env: api.TextEnv | None = None
    self._task = api.Task('', '', '')
    self._state = WorldState(world=served.world.name)

  def reset(
      self, seed: int | None = None, episode_id: str | None = None,
      split: str = 'train', index: int | None = None, task: str = '',
  ) -> WorldObservation:
    """Begins an episode.

    Args:
      seed: of the episode.
      episode_id: kept in the state.
      split, index: of the task; without an index the seed chooses.
      task: the task's id, instead.
    """
    self._task = self._served.choose(split, index, task, seed or 0)
    step = self._served.attempt(
        lambda: self._checked(self._session().reset(self._task, seed or 0))
    )
    self._state = WorldState(
        episode_id=episode_id, world=self._served.world.name, task=self._task.id,
        split=self._task.split,
    )
    observation = _observe(step)
    observation.instruction = self._task.instruction
    observation.rules = self._served.world.instructions()
    return observation

  def _session(self) -> api.TextEnv:
    if self._env is None:
      self._env = self._served.world.session()
    return self._env

  def _checked(self, step: Any) -> api.Step:
    return api.checked(step, self._served.world, self._task)

  def step(
      self, action: WorldAction, timeout_s: float | None = None
  ) -> WorldObservation:
    """Takes an action or makes an extra call; time is limited by the server."""
    del timeout_s
    call = getattr(self, f'_{action.call}')
    return self._served.attempt(lambda: call(action))

  def _act(self, action: WorldAction) -> WorldObservation:
    step = self._checked(self._session().step(action.text))
    self._state.step_count += 1
    return _observe(step)

  def _answer(self, action: WorldAction) -> WorldObservation:
    try:
      text = self._served.world.parse_response(action.text)
    except api.InvalidAction as refusal:
      return WorldObservation(text=str(refusal), info={'valid': False}, reward=0.0)
    return self._act(WorldAction(text=text))

  def _snapshot(self, action: WorldAction) -> WorldObservation:
    snapshot = self._session().snapshot()
    name = self._served.shelf.put(snapshot)
    return WorldObservation(snapshot=name, num_bytes=int(snapshot.num_bytes))

  def _restore(self, action: WorldAction) -> WorldObservation:
    self._session().restore(self._served.shelf.get(action.snapshot))
    return WorldObservation(snapshot=action.snapshot)

  def _choices(self, action: WorldAction) -> WorldObservation:
    return WorldObservation(choices=[str(c) for c in self._session().admissible()])

  @property
  def state(self) -> WorldState:
    return self._state

  def get_metadata(self) -> Any:
    world = self._served.world
    return _openenv_types().EnvironmentMetadata(
        name=world.name, version=wire.VERSION,
        description=world.instructions() or world.name,
    )

  def close(self) -> None:
    env, self._env = self._env, None
    if env is not None:
      self._served.attempt(env.close)

  def list_splits(self) -> list[str]:
    """As OpenEnv's Task API, like the next ones."""
    return [split for split, tasks in self._served.tasks.items() if tasks]

  def list_tasks(self, split: str) -> list[dict[str, Any]]:
    return self.get_task_range(split)

  def num_tasks(self, split: str) -> int:
    return len(self._tasks(split))

  def get_task(self, split: str, index: int) -> dict[str, Any]:
    if index < 0:
      raise IndexError(index)
    return self._describe(self._tasks(split)[index], index)

  def get_task_range(
      self, split: str, start: int | None = None, stop: int | None = None
  ) -> list[dict[str, Any]]:
    tasks = self._tasks(split)
    return [
        self._describe(tasks[index], index)
        for index in range(*slice(start, stop).indices(len(tasks)))
    ]

  def _tasks(self, split: str) -> Sequence[api.Task]:
    return self._served.tasks.get(split, ())

  def _describe(self, task: api.Task, index: int) -> dict[str, Any]:
    """What an agent may know of a task."""
    kind = self._served.world.task_type(task)
    return {
        'id': task.id, 'index': index, 'instruction': task.instruction, 'type': kind,
    }


def _observe(step: api.Step) -> WorldObservation:
  return WorldObservation(
      done=step.terminated or step.truncated, reward=step.reward,
      text=step.observation, terminated=step.terminated, truncated=step.truncated,
      info=dict(step.info),
  )


def _openenv_types() -> Any:
  return importlib.import_module('openenv.core.env_server.types')


def make_app(served: Served, max_sessions: int, idle_s: float = 0) -> Any:
  """The server, as an ASGI app.

  Args:
    served: what is served.
    max_sessions: at a time; one more is refused.
    idle_s: seconds after which a session that nobody asks is closed; 0: never.
  """

  def world_session() -> WorldEnvironment:
    return WorldEnvironment(served)

  limits = _openenv.ConcurrencyConfig(
      max_concurrent_envs=max_sessions, session_timeout=idle_s or None
  )
  return _openenv.create_fastapi_app(
      world_session, WorldAction, WorldObservation, concurrency_config=limits,
      env_name=served.world.name, state_cls=WorldState, mode='simulation',
  )
