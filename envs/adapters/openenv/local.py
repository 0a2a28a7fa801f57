"""A local process that serves an OpenEnv app, for one run, on a port of its own."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

from envs import registry
from envs.adapters.openenv.client import NoServer
from envs.remote import worker

_START = (
    'import json, sys; sys.path[:] = json.loads(sys.argv[1]); '
    'from envs.adapters.openenv import local; '
    'local.main(sys.argv[2], *map(int, sys.argv[3:]))'
)
_STARTED_WITHIN, _REACHED_WITHIN = 120.0, 1.0  # seconds


class LocalServer:
  """Serves an ASGI app in a process that ends with this one; started when asked for.

  Args:
    path: of the app or of a function that makes it, 'package.module:app'.
  """

  def __init__(self, path: str):
    self._path = path
    self._process: subprocess.Popen[bytes] | None = None
    self._url = ''
    self._lock = threading.Lock()
    self._end = weakref.finalize(self, lambda: None)

  def url(self) -> str:
    """Where it serves; it is started anew where it has died. Raises NoServer."""
    with self._lock:
      if not self._listens():
        self._start()
      return self._url

  def _listens(self) -> bool:
    """Whether it is there; one about to die no longer listens."""
    if self._process is None or self._process.poll() is not None:
      return False
    try:
      self._reach(_REACHED_WITHIN).close()
    except ConnectionRefusedError:
      return False
    except OSError:  # it is there, and busy
      pass
    return True

  def _reach(self, limit: float) -> socket.socket:
    host, port = self._url.rpartition('/')[2].split(':')
    return socket.create_connection((host, int(port)), limit)

  def _start(self) -> None:
    self.close()
    life, held = os.pipe()
    with socket.create_server(('127.0.0.1', 0)) as listener:
      self._url = f'http://127.0.0.1:{listener.getsockname()[1]}'
      command = [sys.executable, '-c', _START, json.dumps(sys.path), self._path]
      command += [str(listener.fileno()), str(life)]
      self._process = process = subprocess.Popen(
          command, stdin=subprocess.DEVNULL, pass_fds=(listener.fileno(), life),
          start_new_session=True,
      )
    os.close(life)
    self._end = weakref.finalize(self, _end, process, held)
    self._wait(process)

  def _wait(self, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _STARTED_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
      try:
        with self._reach(_REACHED_WITHIN) as probe:
          probe.sendall(b'GET /health HTTP/1.0\r\n\r\n')
          if probe.recv(12).startswith(b'HTTP/'):
            return
      except OSError:
        time.sleep(0.05)
    code = process.poll()
    self.close()
    how = f'it ended with exit code {code}' if code is not None else 'it did not answer'
    raise NoServer(f'{self._path} cannot be served: {how}; see what it wrote above')

  def close(self) -> None:
    """Ends the process and what it has started; may be called twice."""
    self._end()


def _end(process: subprocess.Popen[bytes], life: int) -> None:
  try:
    os.killpg(process.pid, signal.SIGKILL)
  except ProcessLookupError:
    pass
  process.wait()
  os.close(life)


def main(path: str, listener: int, life: int) -> None:
  """What the process does: serves the app at a socket, for as long as the run lives."""
  worker.end_with(life)
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  app: Any = registry.find_function(path)
  if inspect.isfunction(app) and not inspect.iscoroutinefunction(app):
    app = app()
  uvicorn: Any = importlib.import_module('uvicorn')
  server = uvicorn.Server(uvicorn.Config(app, log_level='warning'))
  server.run(sockets=[socket.socket(fileno=listener)])
