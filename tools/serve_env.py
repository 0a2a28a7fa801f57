"""Serves an environment to others, as an OpenEnv server.

  python -m tools.serve_env --env=webshop [--options='{"view": "text"}'] [--port=8000]

Any OpenEnv client plays it; a step's field `call` makes the extra calls (snapshot,
restore, choices, answer), see docs/guides/other_worlds.md. With --workers=N sessions
live in processes of their own, where one that hangs or dies is ended alone. Only this
machine reaches it unless --host says otherwise, which needs a token: whoever reaches
a server may play on it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from envs import api, registry
from envs.remote.process import Process
from envs.remote.world import RemoteWorld
from envs.serving import access
from leafe_jax import command_line

_ENV = flags.DEFINE_string(
    'env', 'webshop',
    f'One of {", ".join(registry.names())}, or your own as package.module:function.',
)  # fmt: skip
_OPTIONS = flags.DEFINE_string('options', '{}', 'Options of the world, as JSON.')
_HOST = flags.DEFINE_string('host', '127.0.0.1', 'Address to listen at.')
_PORT = flags.DEFINE_integer('port', 8000, 'Port; 0 for a free one.', 0, 65535)
_TOKEN = flags.DEFINE_string(
    'token_var', '', 'Environment variable that holds the token clients must bring.'
)
_SESSIONS = flags.DEFINE_integer('sessions', 256, 'Sessions at a time.', 1)
_IDLE = flags.DEFINE_float(
    'idle_s', 3600, 'Seconds after which an unused session is closed; 0: never.', 0
)
_SNAPSHOTS = flags.DEFINE_float(
    'snapshots_gb', 1.0, 'Size of kept snapshots, in 1e9 bytes; the oldest go.', 0
)
_MESSAGE = flags.DEFINE_float(
    'message_mb', 16, 'Size of a message, in 1e6 bytes.', 0.01
)
_WORKERS = flags.DEFINE_integer('workers', 0, 'Processes for sessions; 0: none.', 0)
_LIMIT = flags.DEFINE_float(
    'step_timeout', 0, 'Seconds that a step may take, with --workers; 0: any.', 0
)
_MEMORY = flags.DEFINE_float(
    'worker_gb', 0, 'Memory at which a worker is replaced, in 1e9 bytes; 0: any.', 0
)


def read_options(text: str) -> dict[str, Any]:
  """--options. UsageError unless it is a JSON object."""
  try:
    options = json.loads(text)
  except json.JSONDecodeError as error:
    raise command_line.UsageError(f'--options={text}: no JSON: {error}') from error
  if not isinstance(options, dict):
    raise command_line.UsageError(f'--options={text}: must be an object {{...}}')
  return options


def read_token() -> str:
  """The token, '' where none is asked for. UsageError where one must be."""
  name = _TOKEN.value
  token = os.environ.get(name, '') if name else ''
  if name and not token:
    raise command_line.UsageError(f'--token_var={name}: this variable is empty')
  if not token and not access.is_loopback(_HOST.value):
    raise command_line.UsageError(
        f'--host={_HOST.value}: other machines reach it there, so clients must bring '
        'a token: set a variable to it and name the variable with --token_var'
    )
  return token


def make_world() -> api.World:
  """The world of the flags, in workers where there are any. UsageError."""
  options = read_options(_OPTIONS.value)
  if _WORKERS.value == 0 and (_LIMIT.value or _MEMORY.value):
    raise command_line.UsageError(
        '--step_timeout and --worker_gb need --workers of at least 1: a session in '
        "the server's own process cannot be ended alone"
    )
  try:
    world = registry.make(_ENV.value, **options)
    if _WORKERS.value:
      connect = functools.partial(Process, _ENV.value, options, _MEMORY.value)
      world = RemoteWorld(world, connect, _WORKERS.value, _LIMIT.value)
    world.prepare()
  except (ValueError, TypeError, ImportError, OSError, api.EnvError) as error:
    raise command_line.UsageError(f'--env={_ENV.value}: {error}') from error
  return world


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
  """A socket that listens. UsageError where it cannot."""
  try:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    listener = socket.create_server((host, port), family=family)
  except OSError as error:
    raise command_line.UsageError(f'--host={host} --port={port}: {error}') from error
  with listener:
    yield listener


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments: {argv[1:]}')
  token = read_token()
  try:
    uvicorn: Any = importlib.import_module('uvicorn')
    openenv_app = importlib.import_module('envs.serving.openenv_app')
  except ModuleNotFoundError as error:
    raise command_line.UsageError(
        f"this needs the package openenv ({error}): pip install -e '.[openenv]'"
    ) from error
  with contextlib.closing(make_world()) as world, listening(
      _HOST.value, _PORT.value
  ) as listener:
    served = openenv_app.Served(world, _SNAPSHOTS.value * 1e9)
    app = openenv_app.make_app(served, _SESSIONS.value, _IDLE.value)
    settings = uvicorn.Config(
        access.guarded(app, token), log_level='warning',
        ws_max_size=int(_MESSAGE.value * 1e6),
    )
    host, port = listener.getsockname()[:2]
    place = f'[{host}]' if ':' in host else host
    print(f'{world.name} at http://{place}:{port} (Ctrl-C ends it)', flush=True)
    uvicorn.Server(settings).run(sockets=[listener])


if __name__ == '__main__':
  command_line.run(main)
