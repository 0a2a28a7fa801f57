"""A world whose sessions live on other sides, each of which may be lost.

What is known of a session here is enough to bring it back: its last state that
could travel, or its beginning, and the actions since. When its worker is lost the
one that was being asked ends with an error; the others of that worker are brought
back on a new one when they are next asked, with the same bits (`Past`), and their
observations are compared with those of the first time.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from envs import api
from envs.remote.protocol import (
  Reply,
  Request,
  Transport,
  WorkerLost,
  decode,
  encode,
  raised,
)


@dataclasses.dataclass(frozen=True)
class Past:
  """How to come to a state on any side.

  Attributes:
    task, seed: of the episode.
    kept: a state that travels, to begin with; None: begin with a reset.
    actions: taken since.
    hashes: of the observations since, that of the reset among them.
    turns: actions since the reset, those before `kept` included.
  """

  task: api.Task
  seed: int
  kept: bytes | None = None
  actions: tuple[str, ...] = ()
  hashes: tuple[str, ...] = ()
  turns: int = 0

  def after(self, action: str, step: api.Step) -> Past:
    """One action later."""
    hashes = (*self.hashes, api.observation_hash(step.observation))
    return dataclasses.replace(
        self, actions=(*self.actions, action), hashes=hashes, turns=self.turns + 1
    )


class Worker:
  """A place for sessions: one other side after another.

  Attributes:
    lock: held while the side is asked.
    open: sessions that live here.
    dropped: numbers of those that were let go of unclosed.
  """

  def __init__(self, connect: Callable[[], Transport]):
    self.lock = threading.Lock()
    self.open: weakref.WeakSet[RemoteSession] = weakref.WeakSet()
    self.dropped: collections.deque[int] = collections.deque()
    self._connect = connect
    self._side: Transport | None = None
    self._waited = False

  def start(self) -> None:
    """Starts a side where there is none; does not wait for it."""
    if self._side is None:
      self._side, self._waited = self._connect(), False

  def side(self) -> Transport:
    """The side as it is now, its world made. Raises WorkerLost."""
    if self._waited and self._side is not None and self._side.overgrown():
      self.end()  # between two requests, so that nobody loses anything
    self.start()
    assert self._side is not None
    if not self._waited:
      try:
        self._side.wait()
      except WorkerLost:
        self.end()
        raise
      self._waited = True
    return self._side

  def has(self, side: Transport | None) -> bool:
    """Whether that is the side that is here now."""
    return side is not None and side is self._side

  def ask(self, number: int, method: str, arguments: tuple[Any, ...], limit: float):
    """What a session's method returns there, or raises."""
    dropped = tuple(self.dropped.popleft() for _ in range(len(self.dropped)))
    request = encode(Request(number, method, arguments, dropped))
    try:
      reply = decode(Reply, self.side().ask(request, limit))
    except WorkerLost:
      self.end()
      raise
    if reply.error is not None:
      raise raised(reply.error)
    return reply.result

  def end(self) -> None:
    """Ends the side; a new one is started when it is needed."""
    side, self._side = self._side, None
    if side is not None:
      side.end()


class RemoteSession(api.TextEnv):
  """A session on a worker.

  Attributes:
    replayed_steps: steps played again to restore snapshots; what bringing a
      session back from a lost worker takes is no part of it.
  """

  def __init__(self, world: str, worker: Worker, number: int, limit: float):
    self._world = world
    self._worker = worker
    self._number = number
    self._limit = limit
    self._task = api.Task('', '', '')
    self._past: Past | None = None
    self._held: Transport | None = None  # the side that holds it, in any state
    self._side: Transport | None = None  # the side where it stands at its past
    self.replayed_steps = 0

  def reset(self, task: api.Task, seed: int = 0) -> api.Step:
    with self._worker.lock:
      step = self._begin(task, seed)
    hashes = (api.observation_hash(step.observation),)
    self._past = Past(task, seed, hashes=hashes)
    return step

  def step(self, action: str) -> api.Step:
    with self._worker.lock:
      past = self._come_back()
      step = self._ask(past.task, 'step', action)
    self._past = past.after(action, step)
    return step

  def snapshot(self) -> api.Snapshot:
    with self._worker.lock:
      past = self._come_back()
      kept, num_bytes = self._ask(past.task, 'snapshot')
    if kept is not None:
      self._past = past = Past(past.task, past.seed, kept, turns=past.turns)
    return api.Snapshot(self._world, past, num_bytes)

  def restore(self, snapshot: api.Snapshot) -> None:
    snapshot.check(self._world, Past)
    with self._worker.lock:
      self.replayed_steps += self._bring(snapshot.state)
    self._past = snapshot.state

  def admissible(self) -> Sequence[str]:
    with self._worker.lock:
      return self._ask(self._come_back().task, 'admissible')

  def close(self) -> None:
    self._past = self._side = None
    with self._worker.lock:
      self._worker.open.discard(self)
      held, self._held = self._held, None
      if self._worker.has(held):
        self._ask(self._task, 'close')

  def __del__(self) -> None:
    if self._held is not None:
      self._worker.dropped.append(self._number)

  def _come_back(self) -> Past:
    """Its past, and the session where that has led. Raises EpisodeOver."""
    if self._past is None:
      raise api.EpisodeOver('no episode: reset or restore the session first')
    if self._side_now(self._past.task) is not self._side:
      self._bring(self._past)
    return self._past

  def _bring(self, past: Past) -> int:
    """Leads the session through a past; how many steps were played again."""
    hashes, replayed = iter(past.hashes), len(past.actions)
    first = past.turns - replayed + 1
    if past.kept is None:
      self._compare(first, next(hashes), self._begin(past.task, past.seed))
    else:
      # A state may be a list of actions: then each of them has its time.
      limit = self._limit * (1 + past.turns)
      replayed += self._open(past.task, 'restore', (past.task, past.kept), limit)
    self._side = None  # until it is there
    for turn, action in enumerate(past.actions, start=first + 1):
      self._compare(turn, next(hashes), self._ask(past.task, 'step', action))
    self._side = self._held
    return replayed

  def _compare(self, turn: int, expected: str, step: api.Step) -> None:
    actual = api.observation_hash(step.observation)
    if actual != expected:
      raise api.ReplayDiverged(turn, expected, actual)

  def _begin(self, task: api.Task, seed: int) -> api.Step:
    return self._open(task, 'reset', (task, seed), self._limit)

  def _open(self, task: api.Task, method: str, arguments: tuple, limit: float) -> Any:
    """A request that makes the session where it is not there yet."""
    self._task = task
    self._side, self._held = None, self._side_now(task)
    result = self._tell(task, method, arguments, limit)
    self._side = self._held
    return result

  def _ask(self, task: api.Task, method: str, *arguments: Any) -> Any:
    return self._tell(task, method, arguments, self._limit)

  def _tell(self, task: api.Task, method: str, arguments: tuple, limit: float) -> Any:
    """As `Worker.ask`; a loss names world, task and what was asked for."""
    with self._naming(task, method):
      return self._worker.ask(self._number, method, arguments, limit)

  def _side_now(self, task: api.Task) -> Transport:
    with self._naming(task, 'start of a worker'):
      return self._worker.side()

  @contextlib.contextmanager
  def _naming(self, task: api.Task, what: str) -> Iterator[None]:
    try:
      yield
    except WorkerLost as error:
      place = f'world {self._world!r}, task {task.id!r}, {what}'
      raise type(error)(f'{place}: {error}') from error


class RemoteWorld(api.World):
  """A world whose sessions live on workers; all else is asked of it here.

  Args:
    world: the same world on this side.
    connect: starts another side with it.
    workers: how many there are.
    limit: seconds that reset, step, snapshot, restore and close may take each; 0:
      any. `restore` has so many for each step that it may have to play again.
  """

  def __init__(
      self, world: api.World, connect: Callable[[], Transport], workers: int,
      limit: float = 0,
  ):
    self._here = world
    self._workers = [Worker(connect) for _ in range(workers)]
    self._limit = limit
    self._numbers = itertools.count()
    self._choosing = threading.Lock()
    self._end = weakref.finalize(self, _end_all, self._workers)
    self.name = world.name
    # While one thread waits for a worker another gets the next request ready.
    self.places = 2 * workers

  def prepare(self) -> None:
    """Starts all workers, side by side. WorkerLost if one cannot be."""
    for worker in self._workers:
      worker.start()
    for worker in self._workers:
      with worker.lock:
        worker.side()

  def session(self) -> api.TextEnv:
    with self._choosing:
      worker = min(self._workers, key=lambda worker: len(worker.open))
      session = RemoteSession(self.name, worker, next(self._numbers), self._limit)
      worker.open.add(session)
    return session

  def tasks(self, split: str) -> Sequence[api.Task]:
    return self._here.tasks(split)

  def instructions(self) -> str:
    return self._here.instructions()

  def parse_response(self, response: str) -> str:
    return self._here.parse_response(response)

  def task_type(self, task: api.Task) -> str:
    return self._here.task_type(task)

  def reference(self, task: api.Task) -> str:
    return self._here.reference(task)

  def plans(self, history: api.History) -> bool:
    return self._here.plans(history)

  def subtasks(self) -> Mapping[str, str]:
    return self._here.subtasks()

  def completed(self, task: api.Task, history: api.History) -> Sequence[str]:
    return self._here.completed(task, history)

  def vocabulary(self) -> Sequence[str]:
    return self._here.vocabulary()

  def teacher(self, **options: Any) -> api.Teacher:
    return self._here.teacher(**options)

  def close(self) -> None:
    self._end()
    self._here.close()


def _end_all(workers: Iterable[Worker]) -> None:
  for worker in workers:
    worker.end()
