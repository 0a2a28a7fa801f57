"""A config whose world misbehaves: always at the same actions of the same tasks.

    --config=tools/soak/troubled.py:hang,configs/webshop.py:debug

The way comes first: raise, lie, exit, hang. Those that end or stop a process need
`env.workers`, which the config then has.
"""

from __future__ import annotations

import dataclasses
import os
import runpy
import time
import zlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from envs import api, registry

# One action in so many; another process, or two seconds of waiting, cost more.
SELDOM = {'raise': 40, 'lie': 40, 'exit': 400, 'hang': 400}
_LIES: tuple[dict[str, Any], ...] = (
    {'reward': float('nan')}, {'reward': 'much'}, {'reward': None},
    {'observation': None}, {'observation': 'half a character \ud800'},
    {'observation': 'a line\u2028and\x85another\x1b[2J'}, {'terminated': 'perhaps'},
    {'info': {'score': float('inf')}}, {'info': None},
)


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The config of FILE[:VARIANT] with a troubled world. ValueError without a way."""
  way, _, path = arg.partition(',')
  if way not in SELDOM or not path:
    raise ValueError(f'{arg!r}: give WAY,FILE[:VARIANT]; the ways: {", ".join(SELDOM)}')
  file, _, variant = path.partition(':')
  config = runpy.run_path(file)['get_config'](variant)
  with config.unlocked():
    config.env.options = {
        'world': config.env.name, 'way': way, **config.env.options.to_dict()
    }
    config.env.name = 'tools.soak.troubled:make'
  if way in ('exit', 'hang'):
    config.env.workers = 1
    config.env.step_timeout = 2.0
  return config


def make(world: str, way: str, **options: Any) -> api.World:
  """The world, whose sessions misbehave."""
  made = registry.make(world, **options)
  whole = made.session
  made.session = lambda: Session(whole(), way)  # all else stays as it is
  return made


class Session(api.TextEnv):
  """A session that misbehaves at some actions."""

  def __init__(self, env: api.TextEnv, way: str):
    self._env, self._way = env, way
    self._task = ''

  def reset(self, task: api.Task, seed: int = 0) -> api.Step:
    self._task = task.id
    return self._env.reset(task, seed)

  def step(self, action: str) -> api.Step:
    mark = zlib.crc32(f'{self._task} {action}'.encode('utf-8', 'replace'))
    turn, place = divmod(mark, SELDOM[self._way])
    return self._env.step(action) if place else self._misbehave(action, turn)

  def _misbehave(self, action: str, mark: int) -> api.Step:
    if self._way == 'raise':
      raise RuntimeError(f'{action!r} broke the world')
    if self._way == 'exit':
      os._exit(3)
    while self._way == 'hang':
      time.sleep(1)
    lie = _LIES[mark % len(_LIES)]
    return dataclasses.replace(self._env.step(action), **lie)

  def snapshot(self) -> api.Snapshot:
    snapshot = self._env.snapshot()
    return dataclasses.replace(snapshot, state=(self._task, snapshot))

  def restore(self, snapshot: api.Snapshot) -> None:
    self._task, inner = snapshot.state
    self._env.restore(inner)

  def admissible(self) -> Sequence[str]:
    return self._env.admissible()

  def close(self) -> None:
    self._env.close()
