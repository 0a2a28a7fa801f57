"""What is said to an OpenEnv server, and what can come back.

OpenEnv's own client would connect again by itself where a connection was lost, to a
new session, and go on there as if nothing had been; and a reply that came too late
would be taken for that of the next request. Here a connection that is lost stays
lost, and one that was late is closed; who asks knows how to come back.
"""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from websockets.exceptions import InvalidHandshake, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_websocket

from envs import api, plain
from envs.serving import access

_OPENED_WITHIN, _CLOSED_WITHIN = 10.0, 1.0  # seconds
# Seconds in which a server may free the place of a session that was just closed.
_FREED_WITHIN = 5.0
_MAX_BYTES = 100_000_000  # of a reply


class NoServer(api.EnvError):
  """There is no OpenEnv server at that address."""


class ServerLost(api.EnvError):
  """The connection broke, or the server ended it."""


class ServerTimeout(ServerLost):
  """The server took longer than it may; the connection was closed."""


class ServerFull(api.EnvError):
  """The server has as many sessions as it takes."""


class BadReply(api.BadStep):
  """A reply that is not as OpenEnv has it."""


class ServerError(api.EnvError):
  """What the server says went wrong there."""


class Server:
  """An OpenEnv server.

  Args:
    url: http://HOST:PORT, perhaps with a path.
    limit: seconds that a request may take; 0: any.
    token: that it wants to see; '': none.

  Raises:
    ValueError: the url is none.
  """

  def __init__(self, url: str, limit: float = 0, token: str = ''):
    parts = urllib.parse.urlsplit(url)
    schemes = {'http': 'ws', 'https': 'wss', 'ws': 'ws', 'wss': 'wss'}
    if parts.scheme not in schemes or not parts.hostname:
      raise ValueError(f'url={url!r} is no address; write http://HOST:PORT')
    self.url = url.rstrip('/')
    self.limit = limit
    self._near = access.is_loopback(parts.hostname)
    self._headers = access.bearer(token)
    scheme = schemes[parts.scheme]
    tail = f'{parts.netloc}{parts.path.rstrip("/")}'
    self._http = f'{"https" if scheme == "wss" else "http"}://{tail}'
    self._socket = f'{scheme}://{tail}/ws'

  def fetch(self, path: str, data: Any = None) -> Any:
    """What it says at a path; None where it has no such thing. Raises NoServer."""
    body = None if data is None else json.dumps(data).encode()
    headers = self._headers | {'Content-Type': 'application/json'}
    request = urllib.request.Request(self._http + path, body, headers)
    proxies = urllib.request.ProxyHandler({}) if self._near else None
    opener = urllib.request.build_opener(*filter(None, [proxies]))
    try:
      with opener.open(request, timeout=self.limit or 60) as reply:
        return json.loads(reply.read(_MAX_BYTES))
    except urllib.error.HTTPError as error:
      if error.code in (404, 405, 501):
        return None
      raise NoServer(f'{self.url}{path} says {error.code} {error.reason}') from error
    except (OSError, ValueError) as error:
      raise NoServer(f'no OpenEnv server answers at {self.url}: {error}') from error

  def connect(self) -> Connection:
    """A new session. Raises NoServer."""
    proxy = {'proxy': None} if self._near else {}
    held = contextlib.ExitStack()
    try:
      socket = held.enter_context(
          open_websocket(
              self._socket, open_timeout=_OPENED_WITHIN, close_timeout=_CLOSED_WITHIN,
              max_size=_MAX_BYTES, additional_headers=self._headers, **proxy,
          )
      )
    except (OSError, InvalidHandshake, InvalidURI) as error:
      raise NoServer(f'no OpenEnv server answers at {self._socket}: {error}') from error
    return Connection(socket, held, self.limit)

  def begin(self, wanted: Mapping[str, Any]) -> tuple[Connection, Reply]:
    """A new session and the answer to its reset; waits a little for a free place."""
    deadline = time.monotonic() + _FREED_WITHIN
    while True:
      connection = self.connect()
      try:
        return connection, connection.ask('reset', wanted)
      except ServerFull:
        connection.close()
        if time.monotonic() > deadline:
          raise
        time.sleep(0.1)


class Reply:
  """An observation with what belongs to it. Raises BadReply.

  Attributes:
    observation: by field.
    reward: 0 where there is none.
    done: whether the episode is over.
  """

  def __init__(self, data: Any):
    try:
      found = plain.mapping('the reply', data)
      self.observation = plain.mapping('observation', found.get('observation'))
      reward = found.get('reward')
      self.reward = 0.0 if reward is None else plain.number('reward', float(reward))
      self.done = plain.boolean('done', found.get('done', False))
    except (ValueError, TypeError) as error:
      raise BadReply(f'the server answers what OpenEnv has not: {error}') from error


class Connection:
  """A session on a server."""

  def __init__(
      self, socket: ClientConnection, held: contextlib.ExitStack, limit: float
  ):
    self._socket, self._held = socket, held
    self._limit = limit or None

  def ask(self, kind: str, data: Mapping[str, Any]) -> Reply:
    """The reply to 'reset' or 'step'.

    Raises:
      ServerLost, ServerTimeout: the session is gone.
      ServerFull, ServerError: what the server says; BadReply: nothing sensible.
    """
    try:
      self._socket.send(json.dumps({'type': kind, 'data': data}))
    except (WebSocketException, OSError):
      pass  # it may have said why before it went
    try:
      said = self._socket.recv(self._limit)
    except TimeoutError as error:
      self.close()
      raise ServerTimeout(f'no answer to {kind} within {self._limit:g} s') from error
    except (WebSocketException, OSError) as error:
      raise ServerLost(f'the server is gone: {_in_a_line(error)}') from error
    return self._read(said)

  def _read(self, said: str | bytes) -> Reply:
    try:
      message = json.loads(said)
    except ValueError as error:
      raise BadReply(f'the server answers no JSON: {plain.show(said)}') from error
    kind = message.get('type') if isinstance(message, dict) else None
    data = message.get('data') if isinstance(message, dict) else None
    if kind == 'error' and isinstance(data, dict):
      raise _refusal(data)
    if kind != 'observation':
      raise BadReply(f'the server answers {plain.show(message)}, no observation')
    return Reply(data)

  def close(self) -> None:
    """Ends the session; may be called twice."""
    self._held.close()


def _refusal(data: Mapping[str, Any]) -> api.EnvError:
  said, code = f'{data.get("message", "")}', f'{data.get("code", "")}'
  if code == 'CAPACITY_REACHED':
    return ServerFull(
        f'{said}: raise its limit (max_concurrent_envs, --sessions) or play fewer '
        'sessions at a time'
    )
  if errors := data.get('errors'):
    said = f'{said}: {plain.show(errors)}'
  return ServerError(f'{" ".join(said.split())} ({code})' if code else said)


def _in_a_line(error: BaseException) -> str:
  return ' '.join(f'{type(error).__name__}: {error}'.split())
