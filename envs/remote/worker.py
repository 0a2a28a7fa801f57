"""The other side: makes the world and serves its sessions, one request at a time.

Every answer is checked and in plain types before it leaves (`api.checked`), and
what an environment raises is told as text. What ends the process (`os._exit`, a
fault in an extension, the kernel short of memory) ends it alone.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import pickle
import signal
import zlib
from multiprocessing.connection import Connection

from envs import api, boundary, registry
from envs.remote.protocol import Reply, Request, decode, encode

# A snapshot of more bytes is dearer to carry than to play again.
MAX_SNAPSHOT = 1 << 20


class Sessions:
  """Sessions by number; their methods are what requests name."""

  def __init__(self, world: api.World):
    self._world = world
    self._sessions: dict[int, tuple[api.TextEnv, api.Task]] = {}

  def serve(self, request: Request) -> Reply:
    """Does what is asked for; what it raises is told."""
    for number in request.dropped:
      self._sessions.pop(number, None)
    method = getattr(self, request.method)
    return Reply(
        *boundary.attempt(lambda: method(request.session, *request.arguments))
    )

  def reset(self, number: int, task: api.Task, seed: int) -> api.Step:
    """Begins an episode, in a new session where there is none yet."""
    env = self._open(number, task)
    return api.checked(env.reset(task, seed), self._world, task)

  def _open(self, number: int, task: api.Task) -> api.TextEnv:
    known = self._sessions.get(number)
    env = self._world.session() if known is None else known[0]
    self._sessions[number] = (env, task)
    return env

  def step(self, number: int, action: str) -> api.Step:
    """Takes an action."""
    env, task = self._sessions[number]
    return api.checked(env.step(action), self._world, task)

  def snapshot(self, number: int) -> tuple[bytes | None, int]:
    """(the state as bytes, its size); None where it does not travel."""
    snapshot = self._sessions[number][0].snapshot()
    state, _ = boundary.attempt(lambda: pickle.dumps(snapshot, pickle.HIGHEST_PROTOCOL))
    if state is None or len(state) > MAX_SNAPSHOT:
      return None, int(snapshot.num_bytes)
    return zlib.compress(state, 1), int(snapshot.num_bytes)

  def restore(self, number: int, task: api.Task, kept: bytes) -> int:
    """Goes to a state; how many steps were replayed for it."""
    env = self._open(number, task)
    before = getattr(env, 'replayed_steps', 0)
    env.restore(pickle.loads(zlib.decompress(kept)))
    return int(getattr(env, 'replayed_steps', 0) - before)

  def admissible(self, number: int) -> list[str]:
    """As `TextEnv.admissible`."""
    return [str(action) for action in self._sessions[number][0].admissible()]

  def close(self, number: int) -> None:
    """Closes a session and forgets it."""
    env, _ = self._sessions.pop(number)
    env.close()


def main(requests: int, life: int) -> None:
  """Serves what comes over a socket until its other end is closed.

  Args:
    requests: descriptor of the socket; the first message makes the world.
    life: descriptor of a pipe that is closed when the run ends, however it does.
  """
  _end_with(life)
  _offer_to_the_kernel()
  for number in (signal.SIGINT, signal.SIGTERM):  # the run says when it is over
    signal.signal(number, lambda *_: None)
  connection = Connection(requests)
  try:
    name, options = pickle.loads(connection.recv_bytes())
    sessions, error = boundary.attempt(
        lambda: Sessions(registry.make(name, **options))
    )
    connection.send_bytes(encode(Reply(error=error)))
    while sessions is not None:
      request = decode(Request, connection.recv_bytes())
      connection.send_bytes(encode(sessions.serve(request)))
  except (EOFError, ConnectionError):  # the run has closed its end
    return


def _end_with(life: int) -> None:
  """Lets the kernel end this process with the run, in the middle of a step too.

  So it does with the programs that the world has started: they are of the same
  process group, which this process leads.
  """
  fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
  flags = fcntl.fcntl(life, fcntl.F_GETFL)
  fcntl.fcntl(life, fcntl.F_SETFL, flags | os.O_ASYNC)


def _offer_to_the_kernel() -> None:
  """Where memory runs out, a worker goes before the run does."""
  score = pathlib.Path('/proc/self/oom_score_adj')
  if score.exists():
    score.write_text('1000', 'ascii')
