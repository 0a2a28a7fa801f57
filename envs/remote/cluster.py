"""A transport to a process of any machine of a Ray cluster.

Ray chooses the machine and says when one is lost. The process there is a
`process.Process` like those of this machine: what hangs, grows or dies in it is
ended and told the same way, and takes nothing else along. So there are two
processes a worker: Ray's own, which only hands bytes on, and the one with the world.

Ray is imported when the first worker is started. What it would change in a run is
put back: it replaces the run's answer to SIGTERM.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import logging
import os
import pathlib
import pickle
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from envs import boundary
from envs.remote.process import Process
from envs.remote.protocol import StepTimeout, WorkerLost

_GLANCE = 1.0  # seconds between two looks at a worker that is waited for
_GRACE = 15.0  # seconds that the way there and back may add to a limit
_REACHED_WITHIN = 10.0  # seconds in which a cluster at an address answers
# Seconds to wait before another machine is asked for: a cluster notices only after a
# while that it has lost one, and still sends workers there.
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
_connecting = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Where workers live, and what each takes of it.

  Attributes:
    address: of a cluster, HOST:PORT or 'auto'; empty: one of this machine alone,
      which ends with the run.
    cpus: that a worker reserves.
    resource: of the cluster's own kinds, of which a worker reserves one; '': none.
    placed_within: seconds to wait for a machine that has these.
  """

  address: str = ''
  cpus: float = 1.0
  resource: str = ''
  placed_within: float = 300.0

  def asks(self) -> dict[str, float]:
    """What a worker reserves, by Ray's names."""
    return {'CPU': self.cpus} | ({self.resource: 1.0} if self.resource else {})


class _Gone(WorkerLost):
  """Ray says that the actor is no more."""


class Place:
  """Ray's side of a worker: one process, and the bytes to and from it."""

  def __init__(self, paths: Sequence[str]):
    sys.path[:] = dict.fromkeys([*sys.path, *paths])
    self._process: Process | None = None

  def code(self) -> str:
    """See `fingerprint`, of what is installed there."""
    return fingerprint()

  def home(self) -> str:
    """Ray's id of the machine."""
    ray = importlib.import_module('ray')
    return ray.get_runtime_context().get_node_id()

  def start(self, made_of: bytes) -> str | None:
    """Makes the world; what was wrong, or None."""
    self._process = Process(*pickle.loads(made_of))
    try:
      self._process.wait()
    except WorkerLost as error:
      return str(error)
    return None

  def ask(self, request: bytes, limit: float) -> tuple[str, Any, bool]:
    """(kind, bytes of the reply or text of the loss, whether it is overgrown)."""
    assert self._process is not None
    try:
      reply = self._process.ask(request, limit)
    except WorkerLost as error:
      return type(error).__name__, str(error), False
    return 'reply', reply, self._process.overgrown()


class Actor:
  """A worker on a cluster. Starts at once; `wait` before the first `ask`.

  Args:
    name, options, memory_gb: as of `process.Process`.
    cluster: where.

  Raises:
    WorkerLost: the cluster cannot be reached.
  """

  def __init__(
      self, name: str, options: Mapping[str, Any], memory_gb: float = 0,
      cluster: Cluster = Cluster(),
  ):
    self._ray = connect(cluster.address)
    fingerprint()  # of what this run began with
    self._cluster = cluster
    self._overgrown = self._ended = False
    self._made_of = pickle.dumps((name, dict(options), memory_gb))
    self._place()

  def _place(self) -> None:
    """Asks for a machine, and for the world on it; waits for neither."""
    cluster, paths = self._cluster, [path for path in sys.path if path]
    own = {cluster.resource: 1.0} if cluster.resource else None
    kind = self._ray.remote(
        num_cpus=cluster.cpus, resources=own, max_restarts=0,
        scheduling_strategy='SPREAD',
        runtime_env={'env_vars': {'PYTHONPATH': os.pathsep.join(paths)}},
    )(Place)
    self._actor = kind.remote(paths)
    self._code = self._actor.code.remote()
    self._started = self._actor.start.remote(self._made_of)

  def wait(self) -> None:
    """See `Transport.wait`."""
    with self._ending():
      if self._placed() != fingerprint():
        raise WorkerLost(
            'its machine has another version of the package envs than this run '
            'began with: install the same there, or start the run again'
        )
      error = self._get(self._started)
      if error is not None:
        raise WorkerLost(error)

  def _placed(self) -> str:
    """The code of the machine that is found; another one where that is just lost."""
    for pause in _PAUSES:
      try:
        return self._get(self._code, self._cluster.placed_within, self._unplaced)
      except _Gone as error:
        if 'its creation task' in str(error):  # it would fail anywhere
          raise
      time.sleep(pause)
      self._place()
    return self._get(self._code, self._cluster.placed_within, self._unplaced)

  def ask(self, request: bytes, limit: float) -> bytes:
    """See `Transport.ask`."""
    with self._ending():
      kind, said, self._overgrown = self._get(
          self._actor.ask.remote(request, limit),
          limit + _GRACE if limit else 0,
          lambda: StepTimeout(f'no answer within {limit:g} s'),
      )
      if kind != 'reply':
        raise (StepTimeout if kind == StepTimeout.__name__ else WorkerLost)(said)
    return said

  def _get(
      self, asked: Any, within: float = 0, late: Callable[[], WorkerLost] = WorkerLost
  ) -> Any:
    """What was asked for. _Gone; `late` after so many seconds, 0: never."""
    deadline = time.monotonic() + within if within else float('inf')
    try:
      while not self._ray.wait(
          [asked], timeout=max(0, min(_GLANCE, deadline - time.monotonic()))
      )[0]:
        if time.monotonic() >= deadline:
          raise late()
      return self._ray.get(asked)
    except (self._ray.exceptions.RayError, ConnectionError) as error:
      raise _Gone(_in_a_line(error)) from error

  @contextlib.contextmanager
  def _ending(self) -> Iterator[None]:
    """Ends the other side where it is lost; nobody need know how it was noticed."""
    try:
      yield
    except WorkerLost as error:
      self.end()
      if isinstance(error, _Gone):
        raise WorkerLost(*error.args) from error
      raise

  def _unplaced(self) -> WorkerLost:
    asks = _write(self._cluster.asks())
    return WorkerLost(
        f'no machine of the cluster had {asks} free for it within '
        f'{self._cluster.placed_within:g} s; the cluster has '
        f'{_write(self._ray.cluster_resources(), *self._cluster.asks())}, free are '
        f'{_write(self._ray.available_resources(), *self._cluster.asks())}'
    )

  def overgrown(self) -> bool:
    """See `Transport.overgrown`: as of the last answer."""
    return self._overgrown

  def end(self) -> None:
    """See `Transport.end`. Its process ends with it."""
    if self._ended:
      return
    self._ended = True
    gone = (self._ray.exceptions.RayError, ConnectionError, ValueError)
    with contextlib.suppress(*gone):
      self._ray.kill(self._actor)


def connect(address: str) -> Any:
  """Ray, connected to a cluster. WorkerLost if that cannot be."""
  with _connecting, _own_signals():
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    try:
      ray = importlib.import_module('ray')
    except ModuleNotFoundError as error:
      raise WorkerLost("env.fleet='ray' needs a package: pip install ray") from error
    if ray.is_initialized():
      return ray
    _check_reachable(address)
    error = _lasting(
        lambda: ray.init(
            address=address or 'local', log_to_driver=False, include_dashboard=None,
            logging_level=logging.WARNING,
        )
    )
    if error is not None:
      where = f'at {address!r}' if address else 'of this machine'
      raise WorkerLost(f'no Ray cluster {where}: {error.splitlines()[0]}')
    return ray


def _lasting(start: Callable[[], Any]) -> str | None:
  """What was wrong with a start, or None.

  What Ray starts ends with the thread that started it, which therefore stays.
  """
  if threading.current_thread() is threading.main_thread():
    return boundary.attempt(start)[1]
  said: queue.SimpleQueue[str | None] = queue.SimpleQueue()

  def stay() -> None:
    said.put(boundary.attempt(start)[1])
    threading.Event().wait()

  threading.Thread(target=stay, name='ray', daemon=True).start()
  return said.get()


def _check_reachable(address: str) -> None:
  """WorkerLost where nothing listens; Ray itself would end the program."""
  host, _, port = address.rpartition('://')[2].rpartition(':')
  if not port.isdecimal():
    return  # 'auto', which Ray finds or not
  try:
    socket.create_connection((host.strip('[]'), int(port)), _REACHED_WITHIN).close()
  except OSError as error:
    raise WorkerLost(f'no Ray cluster at {address!r}: {error}') from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
  """Keeps the run's answer to SIGTERM, which Ray replaces by an end at once."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  before = signal.getsignal(signal.SIGTERM)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


@functools.cache
def fingerprint() -> str:
  """16 hex digits of the code that both sides must have alike: the package envs."""
  folder = pathlib.Path(__file__).parent.parent
  digest = hashlib.blake2b(digest_size=8)
  for path in sorted(folder.rglob('*.py')):
    digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
  return digest.hexdigest()


def _in_a_line(error: BaseException) -> str:
  """The first line of what Ray says, which says a lot."""
  said = str(error).strip().splitlines() or ['']
  detail = [line.strip() for line in said[1:] if 'dead because' in line]
  return ' '.join([type(error).__name__ + ':', said[0], *detail])


def _write(resources: Mapping[str, float], *names: str) -> str:
  return ', '.join(
      f'{resources.get(name, 0.0):g} {name}' for name in names or resources
  )
