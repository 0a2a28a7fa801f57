"""verifiers both ways: its environments played here, ours as one of its own."""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import pathlib
import threading

import pytest

from envs import api, registry
from envs.adapters.verifiers.backstage import EpisodeFailed, NoAnswer
from envs.contract import EnvironmentContract
from tests.fragile_worlds import Fragile

vf = pytest.importorskip('verifiers.v1', reason="pip install 'verifiers==0.4.0'")
FRAGILE = 'tests.fragile_worlds:Fragile'
FEW = {'train_tasks': 3, 'validation_tasks': 1, 'test_tasks': 2}
MADE = []


@functools.cache
def world(taskset: str, **options) -> api.World:
  own = ('timeout', 'test_tasks')
  rest = FEW | {name: options.pop(name) for name in own if name in options}
  MADE.append(registry.make('verifiers', taskset=taskset, options=options, **rest))
  return MADE[-1]


@pytest.fixture(scope='module', autouse=True)
def _tasksets():
  patch = pytest.MonkeyPatch()
  patch.syspath_prepend(str(pathlib.Path(__file__).parent / 'tasksets'))
  yield
  while MADE:
    MADE.pop().close()
  world.cache_clear()
  patch.undo()


class TestGuessing(EnvironmentContract):
  num_strange = 6
  strange_bout = 3

  def world(self):
    return world('guess-a-number')

  def actions(self, task):
    return ('5', 'nine', '0')


class TestOneAnswer(EnvironmentContract):
  num_strange = 4
  strange_bout = 2

  def world(self):
    return world('one-answer')

  def actions(self, task):
    return ('it is 0',)


def test_an_episode_is_a_conversation_and_its_reward_the_environments():
  made = world('guess-a-number')
  session, task = made.session(), made.tasks('train')[1]
  assert made.instructions() == 'Say a number, no words.'
  first = api.Step('Which number from 0 to 9?', info={'valid': True})
  assert session.reset(task) == first
  assert session.step('5').observation == 'higher'
  last = session.step('7')
  assert (last.reward, last.score, last.success) == (0.5, 0.5, False)
  assert last.terminated and last.info['reward'] == {'speed': 0.5}


def test_a_reward_function_judges_the_one_answer():
  made = world('one-answer')
  session = made.session()
  for answer, success in (('it is 2', True), ('it is 3', False)):
    assert session.reset(made.tasks('train')[1]).observation == '1 + 1?'
    assert session.step(answer).success is success


def test_an_environment_that_raises_costs_one_episode():
  made = world('guess-a-number', way='raise')
  session, task = made.session(), made.tasks('train')[1]
  session.reset(task)
  with pytest.raises(EpisodeFailed, match='OSError.*the oracle is out'):
    session.step('crash')
  assert session.reset(task).observation == 'Which number from 0 to 9?'


def test_an_environment_that_hangs_costs_one_episode():
  made = world('guess-a-number', way='hang', timeout=1.0)
  session, task = made.session(), made.tasks('train')[1]
  session.reset(task)
  with pytest.raises(NoAnswer, match='no answer within 1 s'):
    session.step('crash')
  assert session.reset(task).observation == 'Which number from 0 to 9?'
  assert session.step('5').observation == 'higher'


def test_many_sessions_play_at_a_time():
  made = world('guess-a-number')
  sessions = [made.session() for _ in range(6)]
  for session, task in zip(sessions, made.tasks('train') * 2, strict=True):
    session.reset(task)
  assert [session.step('5').observation for session in sessions] == [
      'lower', 'higher', 'lower'] * 2  # fmt: skip


@pytest.mark.parametrize(
    'options, said',
    [
        ({}, "name a taskset: taskset='textarena'"),
        ({'taskset': 'no-such-thing'}, "taskset 'no-such-thing' not found"),
        ({'taskset': 'guess-a-number', 'options': {'sise': 3}}, 'sise'),
        ({'taskset': 'guess-a-number', 'success_reward': 0}, 'success_reward is 0'),
        ({'taskset': 'guess-a-number'}, 'has 12 tasks, and .* ask for 140'),
        ({'taskset': 'one-answer', 'env': 'user-sim'}, 'the players assistant, user'),
    ],
)
def test_what_cannot_be_played_is_refused(options, said):
  with pytest.raises(ValueError, match=said):
    registry.make('verifiers', **options)


def test_a_world_of_ours_over_verifiers_is_the_world_itself():
  made = world('leafe-worlds', world=FRAGILE, test_tasks=0)
  here, there = Fragile().session(), made.session()
  ours = Fragile().tasks('train')[2]
  first = here.reset(ours)
  shown = there.reset(made.tasks('train')[2]).observation
  assert shown == f'{ours.instruction}\n\n{first.observation}'
  for action in ('right', 'nonsense', 'left', 'right', 'right'):
    snapshot = there.snapshot()
    expected = here.step(action)
    assert there.step(action).observation == expected.observation
    there.restore(snapshot)
    assert there.step(action).observation == expected.observation
  ours_last, last = here.step('open'), there.step('open')
  assert (last.reward, last.success, last.score) == (1.0, True, ours_last.score)


class Model(http.server.ThreadingHTTPServer):
  """A model that says what it is to say, turn by turn, and keeps what it was told."""

  def __init__(self, *answers: str):
    self.told: list[list[dict]] = []
    outer = self

    class Handler(http.server.BaseHTTPRequestHandler):

      def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        outer.told.append(body['messages'])
        turn = sum(message['role'] == 'assistant' for message in body['messages'])
        message = {'role': 'assistant', 'content': answers[turn]}
        reply = json.dumps({
            'id': 'x', 'object': 'chat.completion', 'created': 0, 'model': 'm',
            'choices': [{'index': 0, 'message': message, 'finish_reason': 'stop'}],
        }).encode()
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

      def log_message(self, *_):
        pass

    super().__init__(('127.0.0.1', 0), Handler)
    threading.Thread(target=self.serve_forever, daemon=True).start()

  @property
  def url(self) -> str:
    return f'http://127.0.0.1:{self.server_address[1]}/v1'


def run_episode(model: Model, index: int, **options):
  """An episode of our package, as verifiers runs it."""
  leafe_worlds = pytest.importorskip('leafe_worlds')
  env = leafe_worlds.load_environment(world=FRAGILE, **options)
  task = list(env.taskset)[index]
  client = vf.EvalClientConfig(base_url=model.url, api_key_var='NO_KEY')

  async def play():
    async with env.serving():
      return await env.run_episode(task, vf.ModelContext(model='m', client=client))

  return asyncio.run(play())


def test_verifiers_plays_a_world_of_ours_and_scores_it():
  with Model('right', 'up', 'right', 'open') as model:
    episode = run_episode(model, 2)
    model.shutdown()
  assert episode.ok, episode.errors
  trace = episode.traces[0]
  assert trace.reward == 1.0
  assert trace.metrics == {'success': 1.0, 'return': 1.0, 'turns': 4.0, 'valid': 0.75}
  last = [(message['role'], message['content']) for message in model.told[-1]]
  assert last == [
      ('user', 'train door 2\n\ncell 0'), ('assistant', 'right'), ('user', 'cell 1'),
      ('assistant', 'up'), ('user', 'wall'), ('assistant', 'right'), ('user', 'cell 2'),
  ]  # fmt: skip


def test_the_turns_of_an_episode_are_limited():
  with Model('right', 'right', 'right') as model:
    episode = run_episode(model, 2, horizon=2)
    model.shutdown()
  assert episode.ok and episode.traces[0].reward == 0.0
  assert len(model.told) == 2


def test_a_world_that_raises_is_the_error_of_one_episode():
  with Model('crash') as model:
    episode = run_episode(model, 1, way='raise')
    model.shutdown()
  assert not episode.ok
  said = f'{[*episode.errors, *episode.traces[0].errors]}'
  assert 'the corridor caved in' in said
