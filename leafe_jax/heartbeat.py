"""progress.json: where a run is at this moment, for whoever looks (`tools.watch`).

The file belongs to no phase and nothing of a run reads it. A thread writes it every
few seconds, whole or not at all, so that a file system that answers slowly delays
nothing, and so that its time is a sign of life while a program compiles.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from absl import logging

from leafe_jax.files import PARTIAL

FILE = 'progress.json'
EVERY_S = 3.0
FINISHED = 'finished'

_told: dict[str, Any] = {}  # of the run that is under way in this process


def tell(**facts: Any) -> None:
  """Takes facts (JSON types) for the next writing; None takes one back."""
  _told.update(facts)


@contextlib.contextmanager
def beating(directory: pathlib.Path, every_s: float = EVERY_S) -> Iterator[None]:
  """Writes the file of a run's directory while the body runs, by process 0 alone.

  At the end it says how the body came to it: `ended` is 'finished' or one line.
  """
  from leafe_jax import hosts  # whoever looks at a run needs no jax

  _told.clear()
  tell(pid=os.getpid(), host=os.uname().nodename, every_s=every_s, began=time.time())
  with _written(directory / FILE, every_s) if hosts.is_first() else _nothing():
    try:
      yield
      tell(ended=FINISHED)
    finally:
      if 'ended' not in _told:
        tell(ended=_one_line(sys.exc_info()[1]))


@contextlib.contextmanager
def _written(path: pathlib.Path, every_s: float) -> Iterator[None]:
  over = threading.Event()
  thread = threading.Thread(
      target=_write_on, args=(path, every_s, over), name='heartbeat', daemon=True
  )
  thread.start()
  try:
    yield
  finally:
    over.set()
    thread.join(timeout=10)


def _one_line(error: BaseException | None) -> str:
  return ' '.join(f'{error}'.split())[:500] or type(error).__name__


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
  yield


def _write_on(path: pathlib.Path, every_s: float, over: threading.Event) -> None:
  last = False
  while not last:
    last = over.wait(every_s)
    try:
      _write(path, {**_told, 'time': time.time(), 'memory': memory()})
    except OSError as error:  # whoever saves next says what a full disk means
      logging.warning('%s is not written any more: %s', path, error)
      return


def _write(path: pathlib.Path, facts: Mapping[str, Any]) -> None:
  partial = path.with_name(f'{path.name}.{os.getpid()}{PARTIAL}')
  partial.write_text(json.dumps(facts), encoding='utf-8')
  os.replace(partial, path)


def memory() -> dict[str, Any]:
  """Bytes: of this process (`now`, `peak`), and of each device that says so."""
  found: dict[str, Any] = {}
  with contextlib.suppress(OSError), open('/proc/self/status', 'rb') as status:
    sizes = dict(line.split(b':', 1) for line in status if line.startswith(b'Vm'))
    kilobytes = {name: int(size.split()[0]) for name, size in sizes.items()}
    found = {'now': kilobytes[b'VmRSS'] << 10, 'peak': kilobytes[b'VmHWM'] << 10}
  devices = [stats for stats in map(_device, _devices()) if stats]
  return {**found, 'devices': devices} if devices else found


def _devices() -> list[Any]:
  """Those of this process that keep count; on CPUs none does."""
  import jax

  return jax.local_devices() if jax.default_backend() != 'cpu' else []


def _device(device: Any) -> dict[str, int]:
  stats = device.memory_stats() or {}
  names = {'now': 'bytes_in_use', 'peak': 'peak_bytes_in_use', 'limit': 'bytes_limit'}
  return {name: stats[key] for name, key in names.items() if key in stats}
