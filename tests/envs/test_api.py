"""ReplaySnapshots, and the contract on a world that replays."""

from __future__ import annotations

import random

import pytest

from envs import api
from envs.contract import EnvironmentContract


class _Counter(api.ReplaySnapshots):
  """Counts 'up' to three; optionally shows a random number from a turn on."""

  world_name = 'counter'

  def __init__(self, noisy_from: int | None = None):
    super().__init__()
    self._noisy_from = noisy_from
    self._count: int | None = None
    self._turn = 0

  def _observe(self, valid: bool) -> api.Step:
    self._turn += 1
    text = f'at {self._count}'
    if self._noisy_from is not None and self._turn >= self._noisy_from:
      text += f' noise {random.random()}'
    over = self._count == 3
    info = {'valid': valid}
    if over:
      info |= {'success': True, 'score': 1.0}
    return api.Step(text, reward=float(over), terminated=over, info=info)

  def _reset(self, task, seed):
    self._count, self._turn = 0, 0
    return self._observe(True)

  def _step(self, action):
    if self._count is None or self._count == 3:
      raise api.EpisodeOver('nothing to step')
    if action == 'up':
      self._count += 1
    return self._observe(action == 'up')


class _CounterWorld(api.World):
  name = 'counter'

  def tasks(self, split):
    api.check_split(split)
    return (api.Task(f'counter-{split}', split, f'count for {split}'),)

  def session(self):
    return _Counter()


class TestReplayedCounter(EnvironmentContract):

  def world(self):
    return _CounterWorld()

  def actions(self, task):
    return ('up', 'down', 'up', 'up')


_TASK = api.Task('t', 'train', 'count')


def test_restoring_counts_the_replayed_steps():
  session = _Counter()
  session.reset(_TASK)
  for action in ('up', 'down'):
    session.step(action)
  snapshot = session.snapshot()
  assert session.replayed_steps == 0
  session.restore(snapshot)
  session.restore(snapshot)
  assert session.replayed_steps == 4


@pytest.mark.parametrize('noisy_from', [1, 2, 3])
def test_divergence_names_the_first_turn_that_differs(noisy_from):
  session = _Counter(noisy_from)
  session.reset(_TASK)
  for action in ('up', 'down', 'up'):
    try:
      session.step(action)
    except api.EpisodeOver:
      break
  with pytest.raises(api.ReplayDiverged, match=f'turn {noisy_from}:') as raised:
    session.restore(session.snapshot())
  assert raised.value.turn == noisy_from


def test_a_replayed_snapshot_keeps_its_log_while_the_session_goes_on():
  session = _Counter()
  session.reset(_TASK)
  snapshot = session.snapshot()
  session.step('up')
  session.restore(snapshot)
  assert session.step('up').observation == 'at 1'


def test_an_empty_response_holds_no_action():
  with pytest.raises(api.InvalidAction):
    _CounterWorld().parse_response(' \n')


def test_a_world_without_a_teacher_or_vocabulary_says_so():
  world = _CounterWorld()
  with pytest.raises(NotImplementedError, match='counter'):
    world.teacher()
  with pytest.raises(NotImplementedError, match='counter'):
    world.vocabulary()


def test_step_properties_read_the_info():
  assert api.Step('x').valid
  assert not api.Step('x', info={'valid': False}).valid
  assert api.Step('x', info={'success': True, 'score': 0.5}).score == 0.5
