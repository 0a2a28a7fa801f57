"""Apps of OpenEnv servers for tests: worlds of ours, and environments of its own."""

from __future__ import annotations

import importlib
import os
import random
from typing import Any

import pydantic

from envs.serving import openenv_app
from tests.envs import small_shop
from tests.fragile_worlds import Fragile

starlette: Any = importlib.import_module('starlette.applications')
routing: Any = importlib.import_module('starlette.routing')
_openenv: Any = importlib.import_module('openenv.core.env_server')


NONSENSE = (
    '{',
    '[]',
    '{"type": "state", "data": {}}',
    '{"type": "observation", "data": {"observation": 3}}',
    '{"type": "observation", "data": {"observation": {}, "done": 7}}',
    '{"type": "observation", "data": {"observation": {"text": "x"}, "reward": NaN}}',
    '{"type": "observation", "data": {"observation": {"text": 5}}}',
)


def ours(world, snapshot_bytes=1e8):
  return openenv_app.make_app(openenv_app.Served(world, snapshot_bytes), 64)


class Roomy(Fragile):
  """Where one session hangs, others go on."""

  places = 8


def dying():
  return ours(Fragile(way='exit'))


class Guess(_openenv.Action):
  number: int


class Hint(_openenv.Observation):
  text: str
  tries: int = pydantic.Field(default=0)


class Guessing(_openenv.Environment):
  """As one writes an environment for OpenEnv: a number from 0 to 9, by its seed."""

  SUPPORTS_CONCURRENT_SESSIONS = True

  def __init__(self):
    super().__init__()
    self._secret, self._state = -1, _openenv.State()

  def reset(self, seed=None, episode_id=None):
    self._secret = random.Random(seed).randrange(10)
    self._state = _openenv.State(episode_id=episode_id, step_count=0)
    return Hint(text='guess')

  def step(self, action, timeout_s=None):
    self._state.step_count += 1
    right = action.number == self._secret
    text = 'right' if right else 'higher' if action.number < self._secret else 'lower'
    return Hint(
        text=text, tries=self._state.step_count, done=right, reward=float(right)
    )

  @property
  def state(self):
    return self._state


class Unseeded(Guessing):
  """Another game at each reset."""

  def reset(self, seed=None, episode_id=None):
    hint = super().reset(seed, episode_id)
    return hint.model_copy(update={'text': f'guess {os.urandom(4).hex()}'})


def theirs(kind=Guessing, sessions=None):
  return _openenv.create_fastapi_app(kind, Guess, Hint, max_concurrent_envs=sessions)


class Malformed:
  """Answers what OpenEnv would, but in a session, where it answers nonsense."""

  def __init__(self, nonsense):
    self._nonsense, self._else = nonsense, theirs()

  async def __call__(self, scope, receive, send):
    if scope['type'] != 'websocket':
      await self._else(scope, receive, send)
      return
    await send({'type': 'websocket.accept'})
    while (await receive())['type'] != 'websocket.disconnect':
      await send({'type': 'websocket.send', 'text': self._nonsense})


def many():
  """A server of many, each at a path of its own."""
  apps = {
      'shop': ours(small_shop.world()),
      'fragile': ours(Fragile()),
      'forgetful': ours(Fragile(), 1),
      'hanging': ours(Roomy(way='hang')),
      'guessing': theirs(sessions=32),
      'lonely': theirs(),  # one session at a time, as OpenEnv has it unless told
      'unseeded': theirs(Unseeded, 32),
  }
  apps |= {f'malformed{i}': Malformed(text) for i, text in enumerate(NONSENSE)}
  return starlette.Starlette(
      routes=[routing.Mount(f'/{path}', app) for path, app in apps.items()]
  )
