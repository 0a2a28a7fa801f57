"""Sessions in worker processes: the same answers, and losses that stay small."""

from __future__ import annotations

import functools
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from envs import api
from envs.contract import EnvironmentContract
from envs.remote.process import Process
from envs.remote.protocol import StepTimeout, WorkerLost
from envs.remote.world import RemoteWorld
from tests.fragile_worlds import Fragile

NAME = 'tests.fragile_worlds:Fragile'
TASK = api.Task('t', 'train', 'go', {'door': 2})


def over(workers=1, limit=0.0, memory_gb=0.0, **options):
  connect = functools.partial(Process, NAME, options, memory_gb)
  return RemoteWorld(Fragile(**options), connect, workers, limit)


@pytest.fixture
def remote():
  """Makes remote worlds that are closed at the end."""
  made = []

  def make(*arguments, **options):
    made.append(over(*arguments, **options))
    return made[-1]

  yield make
  for world in made:
    world.close()


@pytest.fixture(scope='module')
def shared():
  world = over()
  yield world
  world.close()


class TestRemoteContract(EnvironmentContract):
  num_strange = 1000

  @pytest.fixture(autouse=True)
  def _shared(self, shared):
    self._world = shared

  def world(self):
    return self._world

  def actions(self, task):
    return ('right', 'left', 'right', 'open')


def test_answers_are_those_of_a_session_in_process(shared):
  here, there = Fragile().session(), shared.session()
  assert there.reset(TASK) == here.reset(TASK)
  for action in ('right', 'nonsense', 'left', 'left', 'right', 'right', 'open'):
    assert there.step(action) == here.step(action)


@pytest.mark.parametrize(
    'way, said',
    [
        ('quit', 'SystemExit: 3'),
        ('panic', 'Panic: index out of bounds'),
        ('raise', 'RuntimeError: the corridor caved in'),
    ],
)
def test_what_a_session_raises_keeps_its_name_and_the_worker_lives(remote, way, said):
  world = remote(way=way)
  bad, good = world.session(), world.session()
  bad.reset(TASK)
  good.reset(TASK)
  with pytest.raises(api.EnvError) as error:
    bad.step('crash')
  assert f'{type(error.value).__name__}: {error.value}' == said
  assert good.step('right') == api.Step('cell 1')


@pytest.mark.parametrize(
    'way, settings, kind, said',
    [
        ('exit', {}, WorkerLost, 'it ended with exit code 3'),
        ('fault', {}, WorkerLost, 'it was killed by SIGSEGV'),
        ('signal 40', {}, WorkerLost, 'it was killed by signal 40'),
        ('fork', {}, WorkerLost, 'it ended with exit code 3'),
        ('hang', {'limit': 3.0}, StepTimeout, 'no answer within 3 s'),
        ('grow', {'memory_gb': 0.3}, WorkerLost, 'it grew over 0.3 GB'),
    ],
)
def test_a_lost_worker_is_the_error_of_one_session(remote, way, settings, kind, said):
  world = remote(way=way, **settings)
  bad, reset, kept = world.session(), world.session(), world.session()
  for session in (bad, reset, kept):
    session.reset(TASK)
    session.step('right')
  kept.snapshot()
  kept.step('right')
  with pytest.raises(kind) as error:
    bad.step('crash')
  assert type(error.value) is kind
  assert str(error.value) == f"world 'fragile', task 't', step: {said}"
  assert reset.step('right') == api.Step('cell 2')
  assert kept.step('right') == api.Step('cell 3')
  assert not reset.replayed_steps and not kept.replayed_steps
  bad.close()


@pytest.mark.parametrize('at', ['reset', 'snapshot', 'restore', 'close'])
def test_whatever_a_session_is_asked_may_end_its_worker(remote, at):
  world = remote(way='exit', at=at)
  task = api.Task('locked' if at == 'reset' else 't', 'train', 'go', {'door': 2})
  session = world.session()

  def work():
    session.reset(task)
    session.restore(session.snapshot()) if at == 'restore' else getattr(session, at)()

  with pytest.raises(WorkerLost, match=f'{at}: it ended with exit code 3'):
    work()
  session.close()
  other = world.session()
  assert other.reset(TASK) == api.Step('cell 0')


def test_a_stopped_worker_that_takes_no_message_is_given_up(remote):
  world = remote(limit=2.0)
  session = world.session()
  session.reset(TASK)
  os.kill(world._workers[0].side().pid, signal.SIGSTOP)
  with pytest.raises(StepTimeout, match='step: no answer within 2 s'):
    session.step('x' * 10_000_000)  # more than the socket holds
  assert world.session().reset(TASK) == api.Step('cell 0')


def test_snapshots_that_do_not_travel_are_played_again(remote):
  world = remote(bound=True)
  session, other = world.session(), world.session()
  session.reset(TASK)
  session.step('right')
  snapshot = session.snapshot()
  session.step('right')
  for taken in (session, other):
    taken.restore(snapshot)
    assert taken.step('right') == api.Step('cell 2')
    assert taken.replayed_steps == 1


def test_sessions_are_spread_over_the_workers_and_go_with_their_owners(remote):
  world = remote(2)
  sessions = [world.session() for _ in range(4)]
  for session in sessions:
    session.reset(TASK)
  pids = [session._side.pid for session in sessions]
  assert sorted(map(pids.count, pids)) == [2, 2, 2, 2]
  workers = list(world._workers)
  session = sessions.pop(0)
  session.close()
  session.close()
  del session, sessions[0]
  assert sorted(len(worker.open) for worker in workers) == [1, 1]


def test_a_world_that_cannot_be_made_there_says_why(remote):
  connect = functools.partial(Process, NAME, {'way': 'never'})
  world = RemoteWorld(Fragile(), connect, 1)
  with pytest.raises(WorkerLost, match='cannot make its world: OSError: no seats'):
    world.prepare()
  with pytest.raises(WorkerLost, match="task 't', start of a worker: it cannot make"):
    world.session().reset(TASK)
  world.close()


def test_a_worker_and_its_programs_end_with_the_run_in_the_middle_of_a_step():
  program = textwrap.dedent("""
      import os, pickle, sys
      from envs import api
      from envs.remote.process import Process
      from envs.remote.protocol import Request, encode
      process = Process('tests.fragile_worlds:Fragile', {'way': 'employ'})
      process.wait()
      task = api.Task('t', 'train', 'go')
      process.ask(encode(Request(0, 'reset', (task, 0))), 0)
      process._connection.send_bytes(encode(Request(0, 'step', ('crash',))))
      print(process.pid, flush=True)
      sys.stdin.read()
  """)
  run = subprocess.Popen(
      [sys.executable, '-c', program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
      text=True,
  )
  with run:
    assert run.stdout
    worker, started = int(run.stdout.readline()), int(run.stdout.readline())
    assert _lives(worker) and _lives(started)
    run.kill()
  while _lives(worker) or _lives(started):
    time.sleep(0.05)


def _lives(pid):
  try:
    state = pathlib.Path(f'/proc/{pid}/stat').read_text('ascii')
  except (FileNotFoundError, ProcessLookupError):  # gone, before or while it is read
    return False
  return state.rpartition(')')[2].split()[0] != 'Z'
