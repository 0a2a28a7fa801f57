"""A transport to a process of this machine, over a socket.

The process is started afresh, not forked: a run holds threads and devices. It
leads a session of its own, so that an interrupt at the terminal does not reach it
and killing it takes along the programs that it has started.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from envs.remote.protocol import Reply, StepTimeout, WorkerLost, decode

_START = (
    'import json, sys; sys.path[:] = json.loads(sys.argv[1]); '
    'from envs.remote import worker; worker.main(*map(int, sys.argv[2:]))'
)
_GLANCE = 0.25  # seconds between two looks at a process that is busy
_PAGE = os.sysconf('SC_PAGE_SIZE')
_SIGNALS = {number.value: number.name for number in signal.Signals}  # not all have one


class Process:
  """A process with a world. Starts at once; `wait` before the first `ask`.

  Args:
    name, options: of the world, as for `registry.make`.
    memory_gb: most resident memory, in 1e9 bytes; 0: no limit.
  """

  def __init__(self, name: str, options: Mapping[str, Any], memory_gb: float = 0):
    ours, theirs = socket.socketpair()
    life, self._life = os.pipe()
    with theirs:
      command = [sys.executable, '-c', _START, json.dumps(sys.path)]
      command += [str(theirs.fileno()), str(life)]
      self._process = subprocess.Popen(
          command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(), life),
          start_new_session=True,
      )
    os.close(life)
    self._connection = Connection(ours.detach())
    self._memory_gb = memory_gb
    self._ended = False
    with contextlib.suppress(ConnectionError):  # `wait` says why
      self._connection.send_bytes(pickle.dumps((name, dict(options))))

  @property
  def pid(self) -> int:
    return self._process.pid

  def wait(self) -> None:
    """See `Transport.wait`."""
    error = decode(Reply, self._receive(0)).error
    if error is not None:
      self.end()
      raise WorkerLost(f'it cannot make its world: {error}')

  def ask(self, request: bytes, limit: float) -> bytes:
    """See `Transport.ask`."""
    try:
      _limit_sending(self._connection, limit)
      self._connection.send_bytes(request)
    except BlockingIOError as error:  # it is stopped, or reads nothing any more
      self.end()
      raise StepTimeout(f'no answer within {limit:g} s') from error
    except OSError as error:
      raise WorkerLost(self._epitaph()) from error
    return self._receive(limit)

  def _receive(self, limit: float) -> bytes:
    deadline = time.monotonic() + limit if limit else float('inf')
    try:
      while not self._connection.poll(
          max(0, min(_GLANCE, deadline - time.monotonic()))
      ):
        if time.monotonic() >= deadline:
          self.end()
          raise StepTimeout(f'no answer within {limit:g} s')
        if self.overgrown():
          self.end()
          raise WorkerLost(f'it grew over {self._memory_gb:g} GB')
        # A program that it forked may hold the socket open when it is gone.
        if self._process.poll() is not None and not self._connection.poll(0):
          raise WorkerLost(self._epitaph())
      return self._connection.recv_bytes()
    except (EOFError, OSError) as error:
      raise WorkerLost(self._epitaph()) from error

  def overgrown(self) -> bool:
    """Whether it holds more memory than it may."""
    if not self._memory_gb:
      return False
    try:
      pages = pathlib.Path(f'/proc/{self.pid}/statm').read_text('ascii').split()
    except OSError:  # it is gone, which its socket will say
      return False
    return bool(pages) and int(pages[1]) * _PAGE > self._memory_gb * 1e9

  def _epitaph(self) -> str:
    """How it came to its end, which it has reached or is about to."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._process.wait(timeout=5)
    code = self._process.poll()
    self.end()
    if code is None:
      return 'it closed its connection'
    if code >= 0:
      return f'it ended with exit code {code}'
    name = _SIGNALS.get(-code, f'signal {-code}')
    hint = ', perhaps for lack of memory' if name == 'SIGKILL' else ''
    return f'it was killed by {name}{hint}'

  def end(self) -> None:
    """Kills it and what it has started; may be called twice."""
    if self._ended:
      return
    self._ended = True
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.pid, signal.SIGKILL)
    self._process.wait()
    self._connection.close()
    os.close(self._life)


def _limit_sending(connection: Connection, seconds: float) -> None:
  """Lets a message that the other side does not take fail; 0: never."""
  whole, part = divmod(seconds, 1)
  with socket.socket(fileno=os.dup(connection.fileno())) as ours:
    limit = struct.pack('ll', int(whole), int(part * 1e6))
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
