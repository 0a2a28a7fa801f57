"""A run's directory, written step by step as a run writes it, and its reader."""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

from leafe_jax import heartbeat, settings
from leafe_jax.config import Experiment
from leafe_jax.methods.collect import save_trees
from leafe_jax.rundir import RunDirectory
from leafe_jax.tree import Tree
from leafe_jax.watch.server import Server
from leafe_jax.watch.several import Runs

PHASES = ['warm_start', 'explore', 'distill/leafe', 'evaluate/leafe', 'report']
CONFIG = settings.to_dict(Experiment())


class LiveRun:
  """Writes what phases write."""

  def __init__(self, path: pathlib.Path, **changes: Any):
    self.path = path
    self.directory = RunDirectory(path)
    self.directory.save_config({**CONFIG, **changes})

  def beat(self, **facts: Any) -> None:
    known = {'host': 'elsewhere', 'pid': 1, 'time': time.time(), 'phases': PHASES}
    (self.path / heartbeat.FILE).write_text(json.dumps({**known, **facts}))

  def finish(self, phase: str, wall_s: float = 10.0) -> None:
    self.directory.phase(phase).complete({'wall_s': wall_s, 'resumed': False})

  def grow(self, trees: Sequence[Tree], name: str = 'growing_0000.jsonl') -> None:
    place = self.path / 'explore'
    place.mkdir(exist_ok=True)
    save_trees(place / name, trees)


class Reader:
  """Asks a server."""

  def __init__(self, server: Server):
    self.server = server

  def ask(self, path: str, host: str = 'localhost', **query: Any) -> tuple[int, Any]:
    """(status, JSON or text)."""
    status, _, content = self.get(path, host, **query)
    try:
      return status, json.loads(content)
    except ValueError:
      return status, content.decode()

  def get(
      self, path: str, host: str = 'localhost', **query: Any
  ) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection('127.0.0.1', self.server.server_port)
    target = f'{path}?{urllib.parse.urlencode(query)}' if query else path
    connection.request('GET', target, headers={'Host': host})
    answer = connection.getresponse()
    found = answer.status, answer.msg, answer.read()
    connection.close()
    return found

  def state(self) -> dict[str, Any]:
    status, found = self.ask('/api/state')
    assert status == 200, found
    return found

  def run(self, number: int = 0) -> dict[str, Any]:
    return self.state()['runs'][number]


@contextlib.contextmanager
def serving(*places: pathlib.Path) -> Iterator[Reader]:
  """A reader of a server of these runs, on any free port."""
  with Server(Runs(places), '127.0.0.1', 0) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield Reader(server)
    server.shutdown()
    thread.join()
