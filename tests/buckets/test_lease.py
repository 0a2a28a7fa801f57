"""Who holds a run: never two, and never one that is dead for long."""

import json
import subprocess
import threading
import time

import pytest

from leafe_jax.endings import WorkdirBusy


def _lease(url, lost=None, **options):
  from leafe_jax.buckets.lease import Lease
  from leafe_jax.buckets.store import Store

  told = [] if lost is None else lost
  store = Store(url, patience_s=options.pop('patience_s', 2))
  return Lease(store, lost=told.append, **{'seconds': 1.5, 'beat': 0.2, **options})


def _held_by(url, **holder):
  """The lock of a process that was killed."""
  from leafe_jax.buckets.lease import NAME
  from leafe_jax.buckets.store import Store

  store, found = Store(url), Store(url).read(NAME)
  content = json.dumps({'host': 'other', 'pid': 7, 'lease_s': 1.0, **holder})
  store.write(NAME, content.encode(), found[1] if found else 0)


def test_a_second_process_is_refused_and_told_by_whom(url):
  refused = pytest.raises(WorkdirBusy, match=r'in use by process \d+ on .*; wait for')
  with _lease(url).held(), refused, _lease(url).held():
    pass
  with _lease(url).held():  # let go, it is free at once
    pass


def test_a_silent_holder_elsewhere_is_waited_for_and_followed(url):
  _held_by(url)
  start = time.monotonic()
  # The clocks of hosts need not agree, nor mean anything.
  with _lease(url, clock=lambda: time.monotonic() - 1e9).held():
    assert time.monotonic() - start >= 1.0


def test_a_dead_process_of_this_machine_is_not_waited_for(url):
  from leafe_jax.buckets import lease as lease_lib

  process = subprocess.Popen(['sleep', '60'])
  _held_by(
      url, pid=process.pid, machine=lease_lib._machine(), lease_s=1000,
      started=lease_lib._started(process.pid),
  )
  process.kill()
  process.wait()
  start = time.monotonic()
  with _lease(url).held():
    assert time.monotonic() - start < 1.0


def test_a_reused_number_is_not_taken_for_the_dead_process(url):
  from leafe_jax.buckets import lease as lease_lib

  me = lease_lib._this_process()
  assert not lease_lib._is_dead_here(dict(me))
  assert lease_lib._is_dead_here({**me, 'started': '1'})
  assert not lease_lib._is_dead_here({**me, 'started': '1', 'machine': 'another'})


def test_whoever_was_overtaken_is_told(url):
  lost = []
  with _lease(url, lost).held():
    _held_by(url)
    deadline = time.monotonic() + 10
    while not lost and time.monotonic() < deadline:
      time.sleep(0.05)
  assert 'another process took over' in lost[0]


def test_whoever_cannot_renew_ends_before_another_begins(url, line):
  lost = []
  with _lease(url, lost, seconds=2.0, patience_s=0.3).held():
    line.faults = [503] * 1000
    start = time.monotonic()
    while not lost and time.monotonic() < start + 10:
      time.sleep(0.02)
    assert time.monotonic() - start < 2.0
    line.faults = []
  assert 'could not be renewed' in lost[0]


def test_of_many_that_start_at_once_one_wins(url):
  won, refused = [], []
  gate = threading.Barrier(4)

  def start():
    gate.wait()
    try:
      with _lease(url).held():
        won.append(1)
        time.sleep(3)
    except WorkdirBusy:
      refused.append(1)

  threads = [threading.Thread(target=start) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert (len(won), len(refused)) == (1, 3)
