"""Environments behind an OpenEnv server (BSD-3, openenv 0.10).

  registry.make('openenv', url='http://127.0.0.1:8000')
  registry.make('openenv', app='echo_env.server.app:app')

A server's tasks are its own where it has OpenEnv's Task API, else seeds of its reset.
A session goes back by the server's own snapshots where it has them (`tools.serve_env`
does), else by playing again what was played, compared with the first time; so it
also comes back after its server or its connection was lost between two requests. What
is lost with a request is the error of that episode.
"""

from __future__ import annotations

import os
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from envs import api, options, plain
from envs.adapters.adapted import FIRST_SEED
from envs.adapters.openenv import client
from envs.adapters.openenv.language import Language, choose_act, choose_see
from envs.adapters.openenv.local import LocalServer
from envs.adapters.openenv.session import ServedSession
from envs.serving import wire

SNAPSHOTS = ('auto', 'server', 'replay')
TASKS = ('auto', 'server', 'seeds')


class ServedWorld(api.World):
  """The world behind a server; see `make` for what it is made of."""

  def __init__(
      self, url: str, app: str, limit: float, token: str, success_return: float,
      parallel: int, reset: Mapping[str, Any],
  ):
    if bool(url) == bool(app):
      raise ValueError("give one of url='http://HOST:PORT', app='package.module:app'")
    self._url, self.local = url, LocalServer(app) if app else None
    self._limit, self._token = limit, token
    self._success_return = success_return
    self._reset = dict(reset)
    self._lock = threading.Lock()
    self._server: client.Server | None = None
    self.language = Language(lambda text: {'text': text}, lambda fields: fields['text'])
    self.keeps = self.ours = False
    self.places = parallel
    self.name, self._rules = '', ''
    self._tasks: dict[str, Sequence[api.Task]] = {}
    self._types: dict[str, str] = {}

  def server(self) -> client.Server:
    """The server as it is now. Raises NoServer."""
    url = self.local.url() if self.local is not None else self._url
    with self._lock:
      if self._server is None or self._server.url != url:
        self._server = client.Server(url, self._limit, self._token)
      return self._server

  def name_it(self, title: str, rules: str, settings: Sequence[Any]) -> None:
    """The name is that of the server's environment and of all settings."""
    fingerprint = api.observation_hash(repr(settings))[:8]
    self.name, self._rules = f'openenv-{title}-{fingerprint}', rules

  def take_tasks(self, tasks: Mapping[str, Sequence[api.Task]]) -> None:
    """The tasks by split; `payload` holds their types."""
    self._tasks = dict(tasks)
    for task in (task for split in tasks.values() for task in split):
      self._types[task.id] = task.payload.get('type') or self.name

  def wanted(self, task: api.Task, seed: int) -> dict[str, Any]:
    """What a reset asks for."""
    if 'seed' in task.payload:
      return {'seed': task.payload['seed'], **self._reset}
    chosen = {'split': task.split, 'index': task.payload['index']}
    named = {'task': task.id} if self.ours else {}
    return {'seed': seed, **chosen, **named, **self._reset}

  def read(self, task: api.Task, reply: client.Reply, total: float) -> api.Step:
    """A reply as a step. BadReply, NoText.

    Args:
      task: that is played.
      reply: of the server.
      total: of the rewards before.
    """
    try:
      shown = self.language.see(reply.observation)
      text = plain.text('observation', shown)
      if self.ours:
        info = plain.mapping('info', reply.observation.get('info'))
        ended = plain.boolean('terminated', reply.observation.get('terminated'))
        return api.Step(text, reply.reward, ended, reply.done and not ended, info)
    except (ValueError, KeyError) as error:
      raise client.BadReply(f'task {task.id!r}: {error}') from error
    info: dict[str, Any] = {'valid': True}
    if reply.done:
      share = (total + reply.reward) / self._success_return
      info |= {'success': share >= 1.0, 'score': min(max(share, 0.0), 1.0)}
    return api.Step(text, reply.reward, reply.done, info=info)

  def tasks(self, split: str) -> Sequence[api.Task]:
    api.check_split(split)
    return self._tasks[split]

  def session(self) -> api.TextEnv:
    return ServedSession(self)

  def instructions(self) -> str:
    return self._rules

  def task_type(self, task: api.Task) -> str:
    return self._types.get(task.id, self.name)

  def parse_response(self, response: str) -> str:
    """What the last <action>...</action> holds, else the whole response."""
    tagged = api.find_tagged(response)
    return super().parse_response(response if tagged is None else tagged)

  def close(self) -> None:
    if self.local is not None:
      self.local.close()


def read_tasks(server: client.Server, title: str) -> dict[str, list[api.Task]] | None:
  """The server's own tasks by split; None where it has no Task API."""
  place = f'/{urllib.parse.quote(title, safe="")}'
  splits = server.fetch(f'{place}/splits')
  if splits is None:
    return None
  tasks: dict[str, list[api.Task]] = {split: [] for split in api.SPLITS}
  for split in (found['name'] for found in splits if found['name'] in tasks):
    listed = server.fetch(f'{place}/tasks', {'split': split}) or {'tasks': ()}
    tasks[split] = [
        _read_task(title, split, index, spec)
        for index, spec in enumerate(listed['tasks'])
    ]
  return tasks if any(tasks.values()) else None


def _read_task(title: str, split: str, index: int, spec: Any) -> api.Task:
  spec = spec if isinstance(spec, dict) else {'id': f'{spec}'}
  id = f'{spec.get("id") or f"{title}-{split}-{index}"}'
  words = spec.get('instruction') or spec.get('prompt') or f'{title}, task {id}'
  payload = {'index': index, 'type': f'{spec.get("type", "")}'}
  return api.Task(id, split, f'{words}', payload)


def seeds(title: str, counts: Mapping[str, int]) -> dict[str, list[api.Task]]:
  """A task a seed, as the other adapters have them."""
  return {
      split: [
          api.Task(f'{title}-{seed}', split, f'{title}, game {seed}', {'seed': seed})
          for seed in range(FIRST_SEED[split], FIRST_SEED[split] + count)
      ]
      for split, count in counts.items()
  }


def make(
    url: str = '',
    app: str = '',
    act: str = '',
    observe: str = '',
    rules: str = '',
    tasks: str = 'auto',
    snapshots: str = 'auto',
    reset: Mapping[str, Any] | None = None,
    success_return: float = 1.0,
    timeout: float = 60.0,
    token_var: str = '',
    parallel: int = 8,
    train_tasks: int = 1000,
    validation_tasks: int = 100,
    test_tasks: int = 100,
) -> ServedWorld:
  """The world behind a server.

  Args:
    url: of a server that runs, http://HOST:PORT.
    app: instead, 'package.module:app' of an OpenEnv app, which is then served by a
      process of this machine.
    act: '' for actions of one field, which a text fills, or else JSON objects; or
      'package.module:function' of yours, from a text to the fields of an action.
    observe: '' for the one text of an observation, or else all of it as JSON; the
      name of a field; or 'package.module:function' from the fields to a text.
    rules: how to play, for language models; '': what the server says of itself.
    tasks: 'server' (its Task API), 'seeds', or 'auto': its own if it has any.
    snapshots: 'server', 'replay', or 'auto': its own if it has any.
    reset: further arguments of the server's reset, of JSON types.
    success_return: sum of rewards that is a success and a score of 1.
    timeout: seconds that a request may take; 0: any.
    token_var: name of the environment variable that holds the server's token.
    parallel: sessions that may move at a time.
    train_tasks, validation_tasks, test_tasks: seeds per split.

  Raises:
    ValueError: names the bad option and the choices.
    NoServer: nothing answers, or no OpenEnv server.
  """
  options.check_choice('tasks', tasks, TASKS)
  options.check_choice('snapshots', snapshots, SNAPSHOTS)
  for name, value in (('success_return', success_return), ('parallel', parallel)):
    if value <= 0:
      raise ValueError(f'{name} is {value}; it must be positive')
  token = _read_token(token_var)
  world = ServedWorld(url, app, timeout, token, success_return, parallel, reset or {})
  counts = {'train': train_tasks, 'validation': validation_tasks, 'test': test_tasks}
  try:
    _learn(world, act, observe, rules, tasks, snapshots, counts)
  except (ValueError, api.EnvError):
    world.close()
    raise
  return world


def _read_token(variable: str) -> str:
  token = os.environ.get(variable, '') if variable else ''
  if variable and not token:
    raise ValueError(f'token_var={variable!r}: this environment variable is empty')
  return token


def _learn(
    world: ServedWorld, act: str, observe: str, rules: str, tasks: str,
    snapshots: str, counts: Mapping[str, int],
) -> None:
  """Asks the server what it is. NoServer, ValueError."""
  server = world.server()
  schema, said = server.fetch('/schema'), server.fetch('/metadata')
  if not (isinstance(schema, dict) and isinstance(said, dict) and 'action' in schema):
    raise client.NoServer(
        f'{server.url} has no /schema and /metadata of OpenEnv: it is another server, '
        'or one of a version before 0.2'
    )
  title, version = f'{said.get("name", "")}', f'{said.get("version", "")}'
  if version.startswith('leafe-') and version != wire.VERSION:
    raise client.NoServer(
        f'{server.url} speaks {version} and this program {wire.VERSION}: install the '
        'same version of leafe_jax on both sides'
    )
  world.ours = version == wire.VERSION
  if snapshots == 'server' and not world.ours:
    raise ValueError("snapshots='server': this server has none; use 'replay'")
  world.keeps = world.ours and snapshots != 'replay'
  if not world.ours:
    world.language = Language(choose_act(act, schema['action']), choose_see(observe))
  settings = (title, schema['action'], act, observe, sorted(world._reset.items()))
  told = f'{said["description"]}' if world.ours else ''
  world.name_it(title, rules or told, settings)
  own = None if tasks == 'seeds' else read_tasks(server, _task_name(server, title))
  if tasks == 'server' and own is None:
    raise ValueError("tasks='server': this server has no tasks; use 'seeds'")
  world.take_tasks(own or seeds(title, counts))


def _task_name(server: client.Server, title: str) -> str:
  names = server.fetch('/list_environments')
  return f'{names[0]}' if isinstance(names, list) and names else title
