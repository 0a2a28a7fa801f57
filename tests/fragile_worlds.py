"""A corridor whose sessions can be told how to break. Knows neither jax nor a policy.

'right' and 'left' move, 'open' ends the episode and succeeds at the door, 'crash'
breaks the session as the world's option says.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

from envs import api


def _hang():
  while True:
    time.sleep(1)


def _grow():
  grown = []
  while True:
    grown.append(bytearray(50_000_000))
    time.sleep(0.01)


def _employ():
  """Starts a program, as a simulator does, says which, and waits for ever."""
  program = subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL)
  os.write(1, f'{program.pid}\n'.encode())
  _hang()


def _fork():
  """Leaves a program behind that holds all that it had open."""
  if not os.fork():
    time.sleep(60)
    os._exit(0)
  os._exit(3)


class Panic(BaseException):
  """What extensions in other languages raise."""


def _panic():
  raise Panic('index out of bounds')


def _raise():
  raise RuntimeError('the corridor caved in')


WAYS = {
    'raise': _raise,
    'panic': _panic,
    'quit': lambda: sys.exit(3),
    'exit': lambda: os._exit(3),
    'fault': lambda: os.kill(os.getpid(), signal.SIGSEGV),
    'hang': _hang,
    'employ': _employ,
    'fork': _fork,
    'signal 40': lambda: os.kill(os.getpid(), 40),  # one without a name
    'grow': _grow,
}


class Session(api.TextEnv):

  def __init__(self, way, at):
    self._way, self._at = way, at
    self._state = None

  def reset(self, task, seed=0):
    if task.id == 'locked':
      self._break('reset')
    self._state = (task, 0, False)
    return api.Step('cell 0')

  def _break(self, at):
    if self._at == at:
      WAYS[self._way]()

  def step(self, action):
    if self._state is None or self._state[2]:
      raise api.EpisodeOver('no episode')
    task, cell, _ = self._state
    if action == 'crash':
      self._break('step')
    if action == 'open':
      self._state = (task, cell, True)
      success = cell == task.payload['door']
      return api.Step('opened', float(success), True,
                      info={'success': success, 'score': float(success)})
    moves = {'right': 1, 'left': -1}
    if action not in moves or cell + moves[action] < 0:
      return api.Step('wall', info={'valid': False})
    self._state = (task, cell + moves[action], False)
    return api.Step(f'cell {cell + moves[action]}')

  def snapshot(self):
    if self._state is None:
      raise api.EpisodeOver('no episode')
    self._break('snapshot')
    return api.Snapshot('fragile', self._state, 64)

  def restore(self, snapshot):
    snapshot.check('fragile', tuple)
    self._break('restore')
    self._state = snapshot.state

  def close(self):
    self._break('close')


class Bound(Session):
  """Its snapshots do not travel."""

  def snapshot(self):
    snapshot = super().snapshot()
    return dataclasses.replace(snapshot, state=(*snapshot.state, lambda: None))

  def restore(self, snapshot):
    self._state = snapshot.state[:3]


class Fragile(api.World):
  name = 'fragile'

  def __init__(self, way='raise', at='step', bound=False):
    if way == 'never':
      raise OSError('no seats')
    self._kind, self._how = (Bound if bound else Session), (way, at)

  def tasks(self, split):
    api.check_split(split)
    return [
        api.Task(f'{split}-{door}', split, f'{split} door {door}', {'door': door})
        for door in range(4)
    ]

  def session(self):
    return self._kind(*self._how)
