"""OpenEnv both ways: its environments played here, ours served to it."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest

from envs import api, registry
from envs.adapters.openenv import client
from envs.adapters.openenv.local import LocalServer
from envs.contract import EnvironmentContract, play
from tests.envs import small_shop
from tests.fragile_worlds import Fragile

openenv = pytest.importorskip('openenv', reason="pip install -e '.[openenv]'")
pytest.importorskip('fastmcp', reason='openenv is there without what it needs')
APPS = 'tests.envs.served_worlds'
FEW = {'train_tasks': 4, 'validation_tasks': 2, 'test_tasks': 2}
TASK = {'split': 'train', 'index': 1}


@pytest.fixture(scope='module', autouse=True)
def _served():
  """One server, of many worlds at paths of their own."""
  local = LocalServer(f'{APPS}:many')
  URL[:] = [local.url()]
  world.cache_clear()
  yield
  local.close()


URL = []  # of the server


@functools.cache
def world(path: str, **options) -> api.World:
  return registry.make('openenv', url=f'{URL[0]}/{path}', **options)


class TestServedShop(EnvironmentContract):
  """Ours, by its own snapshots."""

  num_strange = 300

  def world(self):
    return world('shop')

  def actions(self, task):
    return (
        'search[red shirt]', 'click[next >]', 'click[< prev]', 'click[b000000001]',
        'click[red]', 'click[small]', 'click[buy now]',
    )  # fmt: skip


class TestServedAndReplayed(EnvironmentContract):
  """Ours, played again instead."""

  num_strange = 100
  strange_bout = 50

  def world(self):
    return world('fragile', snapshots='replay')

  def actions(self, task):
    return ('right', 'left', 'right', 'open')


class TestGuessing(EnvironmentContract):
  """One written for OpenEnv, with a field that is a number."""

  num_strange = 60
  strange_bout = 20

  def world(self):
    return world('guessing', observe='text', **FEW)

  def actions(self, task):
    return ('0', 'nine', '1', '2', '3', '4', '5', '6', '7', '8', '9')


def test_a_world_served_and_played_is_the_world_itself():
  here, there = small_shop.world(), world('shop')
  for split in api.SPLITS:
    pairs = list(zip(here.tasks(split), there.tasks(split), strict=True))
    for ours, theirs in pairs:
      assert (ours.id, ours.instruction) == (theirs.id, theirs.instruction)
      assert here.task_type(ours) == there.task_type(theirs)
  assert there.instructions() == here.instructions()
  ours, theirs = here.session(), there.session()
  index = len(here.tasks('train')) - 1
  assert ours.reset(here.tasks('train')[index], 3) == theirs.reset(
      there.tasks('train')[index], 3
  )
  kept = []
  for action in TestServedShop().actions(here.tasks('train')[index]):
    assert theirs.admissible() == list(ours.admissible())
    kept.append((ours.snapshot(), theirs.snapshot()))
    assert kept[-1][0].num_bytes == kept[-1][1].num_bytes
    assert ours.step(action) == theirs.step(action)
  for mine, yours in kept[::-1]:
    ours.restore(mine)
    theirs.restore(yours)
    assert ours.step('click[back to search]') == theirs.step('click[back to search]')
  assert theirs.replayed_steps == 0


def test_success_is_what_the_rewards_sum_up_to():
  made = world('guessing', observe='text', **FEW)
  session = made.session()
  assert session.reset(made.tasks('train')[0]).observation == 'guess'
  steps = play(session, '9876543210')
  last = steps[-1]
  assert (last.observation, last.reward, last.score) == ('right', 1.0, 1.0)
  assert last.terminated and last.success
  assert not any('success' in step.info for step in steps[:-1])


def test_a_server_that_dies_costs_what_was_asked_of_it_alone():
  made = registry.make('openenv', app=f'{APPS}:dying', timeout=60.0)
  session = made.session()
  task = made.tasks('train')[2]
  session.reset(task)
  session.step('right')
  snapshot = session.snapshot()
  with pytest.raises(client.ServerLost, match='the server is gone: Connection'):
    session.step('crash')
  assert session.step('right') == api.Step('cell 2')  # came back by itself
  session.restore(snapshot)  # which the new server does not know
  assert session.step('right') == api.Step('cell 2')
  assert session.replayed_steps == 2
  made.close()


@pytest.mark.parametrize(
    'app, kind, said',
    [
        ('hanging', client.ServerTimeout, 'no answer to step within 2 s'),
        ('fragile', client.ServerError, 'RuntimeError: the corridor caved in'),
    ],
)
def test_what_happens_to_an_episode_is_its_own(app, kind, said):
  made = world(app, timeout=2.0 if app == 'hanging' else 60.0)
  session, task = made.session(), made.tasks('train')[0]
  session.reset(task)
  with pytest.raises(kind, match=said):
    session.step('crash')
  other = made.session()
  assert other.reset(task) == api.Step('cell 0')
  assert session.reset(task) == api.Step('cell 0')


def test_a_late_answer_is_not_that_of_the_next_request():
  """The stock client's fault number one: every reply one request late."""
  made = world('hanging', timeout=1.0)
  session, task = made.session(), made.tasks('train')[0]
  session.reset(task)
  session.step('right')
  with pytest.raises(client.ServerTimeout):
    session.step('crash')
  assert session.step('right') == api.Step('cell 2')


def test_a_snapshot_that_was_let_go_is_played_again():
  made = world('forgetful')
  session, task = made.session(), made.tasks('train')[0]
  session.reset(task)
  kept = []
  for _ in range(3):
    kept.append(session.snapshot())
    session.step('right')
  session.restore(kept[2])
  assert session.replayed_steps == 0
  session.restore(kept[1])
  assert session.step('right') == api.Step('cell 2')
  assert session.replayed_steps == 1


def test_a_server_for_one_session_says_so():
  made = world('lonely', **FEW)
  first, second = made.session(), made.session()
  first.reset(made.tasks('train')[0])
  with pytest.raises(client.ServerFull, match='max_concurrent_envs'):
    second.reset(made.tasks('train')[0])
  first.close()
  assert second.reset(made.tasks('train')[0]).observation.startswith('{"text": "guess"')


def test_a_game_that_its_seed_does_not_decide_cannot_go_back():
  made = world('unseeded', observe='text', **FEW)
  session = made.session()
  session.reset(made.tasks('train')[0])
  snapshot = session.snapshot()
  session.step('3')
  with pytest.raises(api.ReplayDiverged, match='turn 1'):
    session.restore(snapshot)


@pytest.mark.parametrize(
    'number, said',
    list(enumerate([
        'answers no JSON', 'no observation', 'no observation', 'observation is 3',
        'done is 7', 'it must be a finite number', 'observation is 5',
    ])),
)  # fmt: skip
def test_a_malformed_reply_is_named(number, said):
  made = world(f'malformed{number}', observe='text', **FEW)
  with pytest.raises(client.BadReply, match=said):
    made.session().reset(made.tasks('train')[0])


def test_what_is_no_server_of_openenv_is_refused():
  with socket.create_server(('127.0.0.1', 0)) as silent:
    url = f'http://127.0.0.1:{silent.getsockname()[1]}'
    with pytest.raises(client.NoServer, match='timed out'):
      registry.make('openenv', url=url, timeout=0.3)
  with pytest.raises(client.NoServer, match='no OpenEnv server answers at'):
    registry.make('openenv', url=url)
  with pytest.raises(ValueError, match='is no address; write http://HOST:PORT'):
    registry.make('openenv', url='localhost:8000')
  with pytest.raises(ValueError, match="give one of url='http"):
    registry.make('openenv')
  with pytest.raises(client.NoServer, match='exit code 1; see what it wrote'):
    registry.make('openenv', app='tests.envs.served_worlds:nothing')
  with pytest.raises(ValueError, match="snapshots='server': this server has none"):
    world('guessing', snapshots='server')
  with pytest.raises(ValueError, match="tasks='server': this server has no tasks"):
    world('guessing', tasks='server')


class Program:
  """tools.serve_env in a process."""

  def __init__(self, *flags: str, **env: str):
    command = [sys.executable, '-m', 'tools.serve_env', '--port=0', *flags]
    self.process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **env},
    )  # fmt: skip

  def url(self) -> str:
    assert self.process.stdout is not None
    found = re.search(r'http\S+', self.process.stdout.readline())
    assert found is not None
    return found[0]


@pytest.fixture
def program():
  """Starts programs that are ended at the end."""
  made = []

  def start(*flags: str, **env: str) -> Program:
    made.append(Program(*flags, **env))
    return made[-1]

  yield start
  for each in made:
    each.process.kill()
    each.process.communicate()


def test_the_program_serves_with_workers_limits_and_a_token(program):
  env, ways = '--env=tests.fragile_worlds:Fragile', '--options={"way": "hang"}'
  started = program(
      env, ways, '--workers=1', '--step_timeout=2', '--token_var=SECRET', SECRET='s3'
  )
  url = started.url()
  with pytest.raises(client.NoServer, match='401'):
    registry.make('openenv', url=url)
  os.environ['SECRET'] = 's3'
  made = registry.make('openenv', url=url, token_var='SECRET')
  del os.environ['SECRET']
  task, bad, good = made.tasks('train')[0], made.session(), made.session()
  assert bad.reset(task) == good.reset(task) == Fragile().session().reset(task)
  with pytest.raises(client.ServerError, match='StepTimeout: .*no answer within 2 s'):
    bad.step('crash')
  assert good.step('right') == api.Step('cell 1')
  assert (made.name, made.ours) != ('', False)
  started.process.send_signal(signal.SIGTERM)
  assert started.process.wait(20) in (0, -signal.SIGTERM)
  with pytest.raises(api.EnvError):
    good.step('right')


def test_openenvs_own_client_plays_and_makes_the_extra_calls(program):
  url = program('--env=tests.fragile_worlds:Fragile').url()

  async def play():
    async with openenv.GenericEnvClient(base_url=url) as theirs:
      first = await theirs.reset(split='train', index=1)
      assert first.observation['instruction'] == 'train door 1'
      kept = await theirs.step({'text': '', 'call': 'snapshot'})
      moved = await theirs.step({'text': ' right ', 'call': 'answer'})
      assert moved.observation['text'] == 'cell 1'
      back = {'text': '', 'call': 'restore', 'snapshot': kept.observation['snapshot']}
      await theirs.step(back)
      again = await theirs.step({'text': 'right'})
      assert again.observation == moved.observation
      with pytest.raises(RuntimeError, match='UnknownSnapshot'):
        await theirs.step({'text': '', 'call': 'restore', 'snapshot': 'none'})
      with pytest.raises(RuntimeError, match='VALIDATION_ERROR'):
        await theirs.step({'words': 'right'})
      return (await theirs.step({'text': 'right'})).observation['text']

  assert asyncio.run(play()) == 'cell 2'
  with urllib.request.urlopen(f'{url}/health', timeout=10) as reply:
    assert json.load(reply)['status'] == 'healthy'


@pytest.mark.parametrize(
    'flags, said',
    [
        (['--host=0.0.0.0'], 'clients must bring a token'),
        (['--env=nothing'], "unknown environment 'nothing'"),
        (['--options=3'], 'must be an object'),
        (['--step_timeout=3'], 'need --workers of at least 1'),
        (['--token_var=NOT_SET'], 'this variable is empty'),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_line(program, flags, said):
  started = program('--env=tests.fragile_worlds:Fragile', *flags)
  _, errors = started.process.communicate(timeout=60)
  assert said in errors and started.process.returncode == 2
  assert len(errors.strip().splitlines()) == 1


def test_many_sessions_play_at_a_time():
  made = world('shop')
  task = made.tasks('train')[0]
  actions = TestServedShop().actions(task)
  alone = made.session()
  expected = [alone.reset(task), *map(alone.step, actions)]
  found = {}

  def play(number):
    session = made.session()
    found[number] = [session.reset(task), *map(session.step, actions)]

  threads = [threading.Thread(target=play, args=(n,)) for n in range(16)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert list(found.values()) == [expected] * 16
