"""The page and its data over HTTP, for readers on this machine.

Only GET, only what is listed here: no path of a request is ever a path of a file.
Texts of models and worlds travel as JSON and become text nodes of the page, whose
content security policy runs its own script alone. A request that names another host
than this one is refused, or a page elsewhere could read everything here once its
name is pointed at this address (DNS rebinding).
"""

from __future__ import annotations

import gzip
import http
import http.server
import ipaddress
import json
import socket
import sys
import urllib.parse
from collections.abc import Callable, Collection, Mapping
from typing import Any

from leafe_jax.evaluation.pages import templates
from leafe_jax.watch.several import Runs

_OWN = "'self'"
_POLICY = (
    f"default-src 'none'; script-src {_OWN}; style-src {_OWN}; connect-src {_OWN}; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A run's report brings its script along, and another machine may have written it.
_SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src data:"
)
_HEADERS = {
    'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Resource-Policy': 'same-origin', 'Cache-Control': 'no-store',
    'X-Frame-Options': 'DENY', 'Cross-Origin-Opener-Policy': 'same-origin',
}
_SCRIPTS = (
    'page.js', 'passk.js', 'diagram.js', 'tokens.js', 'beside.js', 'browser.js',
    'lines.js', 'watch.js',
)
_STYLES = ('report.css', 'browser.css', 'watch.css')
_SMALL = 2000  # bytes that are not worth compressing
# What files that nobody foresaw may still raise on the way.
_STRANGE = (TypeError, ValueError, AttributeError, OSError, RecursionError)


class Server(http.server.ThreadingHTTPServer):
  """Serves some runs.

  Args:
    runs: to show.
    host: address or name to listen at.
    port: to listen at; 0: any that is free.
    names: by which readers may call this machine, besides addresses and localhost.

  Raises:
    OSError: it cannot listen there.
  """

  daemon_threads = True
  allow_reuse_address = True

  def __init__(self, runs: Runs, host: str, port: int, names: Collection[str] = ()):
    self.runs = runs
    self.names = {'localhost', host.lower(), *(name.lower() for name in names)}
    self.pages = _pages(runs.name)
    self.address_family = socket.AF_INET6 if ':' in host else socket.AF_INET
    super().__init__((host, port), _Requests)

  def server_bind(self) -> None:
    # The base class asks the network for this machine's name.
    self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    self.socket.bind(self.server_address)
    self.server_address = self.socket.getsockname()
    self.server_name = str(self.server_address[0])
    self.server_port = int(self.server_address[1])

  @property
  def url(self) -> str:
    host, port = str(self.server_address[0]), self.server_address[1]
    return f'http://{f"[{host}]" if ":" in host else host}:{port}/'

  def handle_error(self, request: Any, client_address: Any) -> None:
    """Readers may go at any time; anything else is worth a traceback."""
    if not isinstance(sys.exc_info()[1], ConnectionError):
      super().handle_error(request, client_address)

  def knows(self, host: str) -> bool:
    """Whether a Host header names this machine."""
    try:
      name = urllib.parse.urlsplit(f'//{host}').hostname or ''
    except ValueError:
      return False
    if name in self.names:
      return True
    try:
      ipaddress.ip_address(name)  # an address cannot be pointed elsewhere
    except ValueError:
      return False
    return True


def _pages(name: str) -> dict[str, tuple[str, str]]:
  """Path -> (type, text) of what does not change."""
  files = templates()
  render = lambda names: '\n'.join(  # noqa: E731
      files.get_template(name).render() for name in names
  )
  return {
      '/': ('text/html', files.get_template('watch.html').render(name=name)),
      '/watch.js': ('text/javascript', f"'use strict';\n{render(_SCRIPTS)}"),
      '/watch.css': ('text/css', render(_STYLES)),
  }


class _Requests(http.server.BaseHTTPRequestHandler):
  """Answers one connection."""

  server: Server
  protocol_version = 'HTTP/1.1'
  timeout = 60
  server_version, sys_version = 'watch', ''

  def do_GET(self) -> None:  # noqa: N802
    if not self.server.knows(self.headers.get('Host', '')):
      self._refuse(http.HTTPStatus.FORBIDDEN, 'this name is not known here')
      return
    place = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(place.query))
    if place.path in self.server.pages:
      kind, text = self.server.pages[place.path]
      self._send(text.encode(), kind, _POLICY)
    elif place.path in _ANSWERS or place.path == '/report':
      self._answer(place.path, query)
    else:
      self._refuse(http.HTTPStatus.NOT_FOUND, 'there is nothing of that name')

  def _answer(self, path: str, query: Mapping[str, str]) -> None:
    runs = self.server.runs
    try:
      if path == '/report':
        page = runs.at(query) / 'report' / 'index.html'
        self._send(page.read_bytes(), 'text/html', _SANDBOX)
        return
      content = encode(_ANSWERS[path](runs, query))
    except (LookupError, FileNotFoundError) as error:
      self._refuse(http.HTTPStatus.NOT_FOUND, f'{error}')
    except _STRANGE as error:
      self._refuse(
          http.HTTPStatus.INTERNAL_SERVER_ERROR, f'{type(error).__name__}: {error}'
      )
    else:
      self._send(content, 'application/json', _POLICY)

  def _refuse(self, status: http.HTTPStatus, why: str) -> None:
    self._send(encode({'error': why}), 'application/json', _POLICY, status)

  def _send(
      self, content: bytes, kind: str, policy: str,
      status: http.HTTPStatus = http.HTTPStatus.OK,
  ) -> None:
    packed = len(content) > _SMALL and 'gzip' in self.headers.get('Accept-Encoding', '')
    if packed:
      content = gzip.compress(content, 1)
    self.send_response(status)
    self.send_header('Content-Type', f'{kind}; charset=utf-8')
    self.send_header('Content-Length', str(len(content)))
    self.send_header('Content-Security-Policy', policy)
    if packed:
      self.send_header('Content-Encoding', 'gzip')
    for name, value in _HEADERS.items():
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(content)

  def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
    """Says nothing: a page asks every two seconds."""
    del format, args


def _tree_place(query: Mapping[str, str]) -> tuple[str, str, int]:
  line = query.get('line', '')
  if not line.isascii() or not line.isdigit() or len(line) > 9:
    raise LookupError('line= is no number')
  return query.get('source', ''), query.get('file', ''), int(line)


def _trees(runs: Runs, query: Mapping[str, str]) -> Any:
  found = runs.find(query).trees(query.get('source', ''), query.get('file', ''))
  return {'trees': found}


# Path -> what it answers.
_ANSWERS: dict[str, Callable[[Runs, Mapping[str, str]], Any]] = {
    '/api/state': lambda runs, query: runs.state(),
    '/api/trees': _trees,
    '/api/tree': lambda runs, query: runs.find(query).tree(*_tree_place(query)),
    '/api/tokens': lambda runs, query: runs.find(query).tokens(*_tree_place(query)),
}


def encode(content: Any) -> bytes:
  """JSON that browsers read: without NaN, and in ASCII whatever the texts hold."""
  try:
    return json.dumps(content, allow_nan=False, separators=(',', ':')).encode()
  except ValueError:
    return json.dumps(_finite(content), allow_nan=False).encode()


def _finite(value: Any) -> Any:
  if isinstance(value, dict):
    return {str(key): _finite(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(item) for item in value]
  if isinstance(value, float) and not abs(value) < float('inf'):
    return None
  return value
