"""Who may talk to a server: whoever brings its token, or everyone on this machine."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


def is_loopback(host: str) -> bool:
  """Whether only programs of this machine reach that host."""
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return host == 'localhost'


def bearer(token: str) -> dict[str, str]:
  """The header that carries a token; none without."""
  return {'Authorization': f'Bearer {token}'} if token else {}


def guarded(app: App, token: str) -> App:
  """An app that answers those alone who bring the token; '': everyone."""
  if not token:
    return app
  expected = bearer(token)['Authorization'].encode()

  async def guard(scope: Scope, receive: Any, send: Any) -> None:
    given = dict(scope.get('headers', ())).get(b'authorization', b'')
    if scope['type'] == 'lifespan' or hmac.compare_digest(given, expected):
      await app(scope, receive, send)
    elif scope['type'] == 'websocket':
      await send({'type': 'websocket.close', 'code': 1008})
    else:
      headers = [(b'content-type', b'text/plain')]
      await send({'type': 'http.response.start', 'status': 401, 'headers': headers})
      await send({'type': 'http.response.body', 'body': b'this server wants a token\n'})

  return guard
