"""Starts the processes of a run, waits for their end and reads what they said."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
_PAUSE = 0.02  # seconds between two looks at a process


class Ending(NamedTuple):
  """How one start of a run came to its end.

  Attributes:
    codes: exit codes of its processes, negative for a signal.
    text: what they wrote to stdout and stderr.
    seconds: from the start to the end.
    hung: whether it had to be killed for taking longer than it may.
  """

  codes: tuple[int, ...]
  text: str
  seconds: float
  hung: bool = False

  @property
  def whole(self) -> bool:
    """Whether all processes say that the run is finished."""
    return not self.hung and not any(self.codes)


Disturb = Callable[[Sequence[subprocess.Popen]], None]


class Player:
  """Plays one run directory with one config.

  Attributes:
    workdir: of the run.
    options: --config=... and overrides, as of `leafe_jax.main`.
    log: file that everything said is added to.
    limit: seconds that a start may take.
    processes: of the run.
  """

  def __init__(
      self, workdir: pathlib.Path, options: Sequence[str], log: pathlib.Path,
      limit: float, processes: int = 1,
  ):
    self.workdir = workdir
    self.options = tuple(options)
    self.log = log
    self.limit = limit
    self.processes = processes

  def start(self, disturb: Disturb | None = None, limit_bytes: int = 0) -> Ending:
    """Starts the run and waits for its end.

    Args:
      disturb: is given the processes as soon as they are started.
      limit_bytes: most bytes of a file that they may write; 0: any.
    """
    begun = time.monotonic()
    offset = self.log.stat().st_size if self.log.exists() else 0
    with open(self.log, 'ab') as log:
      started = [self._spawn(i, flags, log, limit_bytes) for i, flags in self._flags()]
      try:
        if disturb is not None:
          disturb(started)
        hung = not _wait(started, begun + self.limit)
      finally:
        _end(started)
    text = self.log.read_bytes()[offset:].decode('utf-8', 'replace')
    codes = tuple(process.returncode for process in started)
    return Ending(codes, text, time.monotonic() - begun, hung)

  def command(self) -> list[str]:
    """What a process is started with, before its own flags."""
    return [sys.executable, '-m', 'leafe_jax.main', *self.options]

  def _flags(self) -> list[tuple[int, list[str]]]:
    if self.processes == 1:
      return [(0, [])]
    joined = [
        f'--coordinator=localhost:{_free_port()}',
        f'--num_processes={self.processes}',
    ]
    return [(i, [*joined, f'--process_id={i}']) for i in range(self.processes)]

  def _spawn(
      self, number: int, flags: Sequence[str], log, limit_bytes: int
  ) -> subprocess.Popen:
    command = [*self.command(), *flags, f'--workdir={self.workdir}']
    if limit_bytes:
      command = ['prlimit', f'--fsize={limit_bytes}', '--', *command]
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log,
        stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, 'PYTHONUNBUFFERED': '1'},
    )


def _free_port() -> int:
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]


def _wait(started: Sequence[subprocess.Popen], deadline: float) -> bool:
  """Whether all processes ended in time."""
  while any(process.poll() is None for process in started):
    if time.monotonic() > deadline:
      return False
    time.sleep(_PAUSE)
  return True


def _end(started: Sequence[subprocess.Popen]) -> None:
  for process in started:
    if process.poll() is None:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()


def wait_until(
    processes: Sequence[subprocess.Popen], seconds: float, ready: Callable[[], bool]
) -> bool:
  """Waits until something is there; False if a process or the time ends before."""
  deadline = time.monotonic() + seconds
  while not ready():
    if time.monotonic() > deadline or any(p.poll() is not None for p in processes):
      return False
    time.sleep(_PAUSE)
  return True
