"""What a run does that is asked to stop."""

import json
import os
import signal
import subprocess
import sys
import types
from typing import Any

import numpy as np
import pytest

from leafe_jax import hosts, stops
from leafe_jax.rollout.play import Rows, ask
from leafe_jax.sampler import Rules
from tests.rollout import corridor

LOOP = '''
import signal, sys, time
from leafe_jax import stops
# Whoever runs the tests may ignore them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if sys.argv[2] == 'ignores':
  signal.signal(signal.SIGHUP, signal.SIG_IGN)
stops.listen(float(sys.argv[1]))
print('ready', flush=True)
while not (stops.asked() and sys.argv[2] != 'does not'):
  time.sleep(0.01)
raise SystemExit(stops.Stopped(stops.asked(), '').exit_code)
'''


def signalled(grace_s, heeds, *signals):
  """Exit code and last words of a process that gets signals."""
  process = subprocess.Popen(
      [sys.executable, '-c', LOOP, str(grace_s), heeds],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  assert process.stdout is not None
  assert process.stdout.readline() == 'ready\n'
  for number in signals:
    process.send_signal(number)
  try:
    _, words = process.communicate(timeout=60)
  finally:
    process.kill()
  return process.returncode, words


@pytest.mark.parametrize(
    ('number', 'code'),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)],
)
def test_a_loop_that_asks_leaves_with_the_signals_code(number, code):
  assert signalled(60, 'heeds', number) == (code, '')


def test_one_that_does_not_ask_ends_after_its_grace():
  code, words = signalled(0.1, 'does not', signal.SIGTERM)
  assert code == 143
  assert words.count('\n') == 1 and '--grace_s' in words


def test_a_second_signal_ends_it_at_once():
  code, words = signalled(60, 'does not', signal.SIGTERM, signal.SIGINT)
  assert code in (130, 143) and words == ''


def test_what_is_ignored_stays_so():
  code, _ = signalled(60, 'ignores', signal.SIGHUP, signal.SIGHUP, signal.SIGTERM)
  assert code == 143


def test_an_alarm_is_no_wish_to_stop():
  heard, told = os.pipe()
  os.write(told, bytes([signal.SIGALRM, signal.SIGTERM]))
  assert stops._next(heard, 10) == signal.SIGTERM
  assert stops._next(heard, 0) == 0


def test_the_message_names_signal_loss_and_remedy():
  error = stops.Stopped(signal.SIGTERM, 'saved after update 3 of 9')
  assert str(error) == (
      'stopped by SIGTERM: saved after update 3 of 9; the same command goes on'
  )


def test_rows_are_left_before_the_next_poll(monkeypatch):
  nobody: Any = types.SimpleNamespace(journal=None, sampler=None)
  monkeypatch.setattr(stops, 'asked', lambda: signal.SIGINT)
  with pytest.raises(stops.Stopped, match='SIGINT.*waves of episodes'):
    Rows(nobody).poll()


def test_the_wish_of_another_process_comes_with_what_is_exchanged(monkeypatch):
  calls = []

  def gather(array):
    calls.append(array)
    other = array.copy()
    if array.size == 3:  # the header
      other[2] = signal.SIGTERM
    return np.stack([array, other])

  monkeypatch.setattr(hosts, 'count', lambda: 2)
  monkeypatch.setattr(hosts.multihost_utils, 'process_allgather', gather)
  monkeypatch.setattr(hosts._Process, 'agreed', 0)
  assert not stops.asked() and not calls  # costs nothing
  hosts.exchange(b'moves')
  assert stops.asked() == signal.SIGTERM and len(calls) == 2
  monkeypatch.setattr(hosts._Process, 'agreed', 0)
  assert stops.ask() == signal.SIGTERM and len(calls) == 3  # the header alone


def test_what_process_0_does_alone_can_be_left_with_the_code_for_all(monkeypatch):
  monkeypatch.setattr(hosts, 'count', lambda: 2)
  monkeypatch.setattr(hosts._Process, 'wish', signal.SIGTERM)
  monkeypatch.setattr(hosts._Process, 'agreed', 0)
  said = []

  def gather(array):
    said.append(array)
    return np.stack([array, array])

  monkeypatch.setattr(hosts.multihost_utils, 'process_allgather', gather)
  with pytest.raises(stops.Stopped):
    hosts.first(lambda: stops.check('nothing'))
  assert json.loads(said[-1].tobytes().rstrip(b'\0'))['exit_code'] == 143


def test_a_long_question_is_left_between_two_dispatches(monkeypatch):
  player = corridor.player(lambda text, request: 'right')
  ask(player, [], Rules())
  monkeypatch.setattr(stops, 'ask', lambda: signal.SIGTERM)
  with pytest.raises(stops.Stopped, match='finished before is saved'):
    ask(player, [], Rules())
