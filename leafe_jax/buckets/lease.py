"""Who holds a run in a bucket: an object that its holder writes anew all the time.

No clock is compared with another's. The holder ends itself when it could not renew
the lease for `seconds` less a margin, by its own clock; another process takes over
when it has seen the same generation for `seconds`, by its own. Every writing names
the generation that it replaces, so of two that try only one succeeds. A holder
that is dead for certain, because it was a process of this machine, is not waited
for, nor one that let go.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from absl import logging

from leafe_jax.buckets.store import BucketError, Conflict, Store
from leafe_jax.endings import WorkdirBusy

NAME = '.lock.json'
SECONDS = 60.0
BEAT = 15.0
_MARGIN = 10.0
_POLL_S = 1.0


def _end(message: str) -> None:
  """Ends the process before it can write what is another's by now."""
  sys.stderr.write(f'leafe_jax: {message}\n')
  sys.stderr.flush()
  os._exit(1)


class Lease:
  """The right to write a run's directory.

  Args:
    store: of the run.
    seconds: without a sign of life, after which a holder counts as dead.
    beat: seconds between two signs of life.
    clock: seconds, monotonic.
    lost: called, on a thread, with the reason why the lease does not hold any more.
  """

  def __init__(
      self, store: Store, seconds: float = SECONDS, beat: float = BEAT,
      clock: Callable[[], float] = time.monotonic,
      lost: Callable[[str], None] = _end,
  ):
    self._store = store
    self._seconds, self._beat = seconds, beat
    self._clock, self._lost = clock, lost
    self._me = {**_this_process(), 'lease_s': seconds}
    self._generation = 0
    self._renewed = 0.0
    self._over = threading.Event()

  @contextlib.contextmanager
  def held(self) -> Iterator[None]:
    """Takes the lease, keeps it alive, and lets it go.

    Raises:
      WorkdirBusy: another process holds it and is alive.
      BucketError: the bucket cannot be read or written.
    """
    self._take()
    threads = [
        threading.Thread(target=duty, daemon=True) for duty in (self._keep, self._watch)
    ]
    for thread in threads:
      thread.start()
    try:
      yield
    finally:
      self._over.set()
      for thread in threads:
        thread.join()
      self._let_go()

  def _take(self) -> None:
    seen, since = -1, 0.0
    while True:
      found = self._store.read(NAME)
      content, generation = found or (b'', 0)
      holder = _parse(content)
      free = not generation or holder.get('free') or _is_dead_here(holder)
      wait = float(holder.get('lease_s') or self._seconds)
      if free or (generation == seen and self._clock() - since > wait):
        try:
          self._write(generation)
          return
        except Conflict:
          continue  # another was faster
      if seen not in (-1, generation):
        raise WorkdirBusy(
            f'{self._store.url} is in use by {_spoken(holder)}; wait for it, stop it, '
            'or give another --workdir'
        )
      if seen == -1:
        seen, since = generation, self._clock()
        logging.warning(
            '%s was held by %s: taken over if it gives no sign of life for %g s',
            self._store.url, _spoken(holder), wait,
        )
      time.sleep(min(_POLL_S, wait / 10))

  def _write(self, generation: int) -> None:
    asked = self._clock()
    content = json.dumps({**self._me, 'beat': uuid.uuid4().hex}).encode()
    self._generation = self._store.write(NAME, content, generation)
    self._renewed = asked

  def _keep(self) -> None:
    """Renews the lease until it is let go, or another's."""
    url = self._store.url
    while not self._over.wait(self._beat):
      try:
        self._write(self._generation)
      except Conflict:
        self._lost(
            f'{url}: another process took over the run, for this one gave no sign of '
            'life; what it committed before stands'
        )
        return
      except BucketError as error:
        logging.warning('%s', error)

  def _watch(self) -> None:
    """Ends what the lease allowed in time, also while a renewal waits for an answer."""
    last = self._seconds - min(_MARGIN, self._seconds / 4)
    while not self._over.wait(min(_POLL_S, self._seconds / 20)):
      if self._clock() - self._renewed > last:
        self._lost(
            f'{self._store.url}: the lease of the run could not be renewed for '
            f'{last:g} s, so another process may take over; the same command goes on '
            'from the last commit'
        )
        return

  def _let_go(self) -> None:
    try:
      content = json.dumps({**self._me, 'free': True}).encode()
      self._store.write(NAME, content, self._generation)
    except (BucketError, Conflict) as error:
      logging.warning('the lease was not given back: %s', error)


def patience(seconds: float = SECONDS) -> float:
  """How long a renewal may be tried again, in seconds."""
  return seconds / 4


@functools.cache
def _this_process() -> dict[str, Any]:
  return {
      'host': os.uname().nodename, 'pid': os.getpid(), 'machine': _machine(),
      'started': _started(os.getpid()),
  }


def _machine() -> str:
  """What two processes share if one can see that the other is dead."""
  try:
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text('ascii').strip()
    return f'{boot} {os.readlink("/proc/self/ns/pid")}'
  except OSError:
    return ''


def _started(pid: int) -> str:
  """When a process began, in ticks since the boot; empty if there is none."""
  try:
    text = pathlib.Path(f'/proc/{pid}/stat').read_text('utf-8', 'replace')
  except OSError:
    return ''
  state, *fields = text.rpartition(')')[2].split()
  return '' if state == 'Z' else fields[18]


def _is_dead_here(holder: dict[str, Any]) -> bool:
  here = bool(_machine()) and holder.get('machine') == _machine()
  pid = holder.get('pid')
  return here and isinstance(pid, int) and _started(pid) != holder.get('started')


def _parse(content: bytes) -> dict[str, Any]:
  try:
    found = json.loads(content)
  except ValueError:
    return {}
  return found if isinstance(found, dict) else {}


def _spoken(holder: dict[str, Any]) -> str:
  if not holder:
    return 'an unknown process'
  return f'process {holder.get("pid")} on {holder.get("host")}'
