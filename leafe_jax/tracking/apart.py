"""A tracker on a thread of its own: the run neither waits for it nor ends with it."""

from __future__ import annotations

import importlib
import pathlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from absl import logging

from leafe_jax.tracking.api import Cell, Tracker

# Files, sockets, servers' answers, values that a release does not take: whatever of
# these a tracker raises, it is left alone from then on.
FAILURES = (
    OSError, RuntimeError, ValueError, TypeError, LookupError, ImportError,
    AttributeError, AssertionError, EOFError, SystemError, sqlite3.Error,
)  # fmt: skip
# The base of what a package raises besides, by the tracker that needs it.
OWN_FAILURES: Mapping[str, Sequence[str]] = {
    'wandb': (
        'wandb.Error', 'wandb.sdk.mailbox.MailboxClosedError',
        'wandb.sdk.mailbox.HandleAbandonedError',
        'wandb.sdk.mailbox.mailbox_handle.ServerResponseError',
    ),
    'trackio': (
        'trackio.exceptions.TrackioAPIError', 'httpx.HTTPError', 'httpx.InvalidURL',
        'huggingface_hub.errors.HfHubHTTPError',
    ),
}
_PATIENCE_S = 30.0
_STOPPED_PATIENCE_S = 5.0  # of the grace period, which saving needs too

Task = Callable[[Tracker], None]


class Apart:
  """Does what a tracker is told on another thread, in order.

  Its first failure is one warning; nothing is told to it afterwards. It hears what it
  was told once it was let begin: Python 3.11 cannot parse sources on two threads at a
  time, so all packages are imported before one of them works.

  Args:
    name: of the tracker, a key of `OWN_FAILURES` or another.
    load: imports the package, on this thread; returns what makes the tracker, on the
      other one.
    patience_s: seconds that `close` waits for what is under way.
  """

  def __init__(
      self,
      name: str,
      load: Callable[[], Callable[[], Tracker]],
      patience_s: float = _PATIENCE_S,
  ):
    self._name, self._patience_s = name, patience_s
    self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    self._failed = threading.Event()
    # A daemon: a server that does not answer keeps no process alive.
    self._thread = threading.Thread(
        target=self._work, name=f'tracker {name}', daemon=True
    )
    try:
      self._connect = load()
    except FAILURES as error:
      self._give_up(error)
      return
    self._failures = (*FAILURES, *own_failures(name))

  def begin(self) -> None:
    """Connects and hears what is told; called once."""
    if not self._failed.is_set():
      self._thread.start()

  def scalars(self, part: str, step: int, values: Mapping[str, float]) -> None:
    kept = dict(values)
    self._tell(lambda tracker: tracker.scalars(part, step, kept))

  def flush(self, part: str) -> None:
    self._tell(lambda tracker: tracker.flush(part))

  def table(
      self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]
  ) -> None:
    self._tell(lambda tracker: tracker.table(name, columns, rows))

  def files(self, name: str, paths: Sequence[pathlib.Path]) -> None:
    self._tell(lambda tracker: tracker.files(name, paths))

  def close(self, exit_code: int) -> None:
    patience = _STOPPED_PATIENCE_S if exit_code > 128 else self._patience_s
    if not self._thread.ident:  # never started
      return
    self._tell(lambda tracker: tracker.close(exit_code))
    self._tasks.put(None)
    self._thread.join(min(patience, self._patience_s))
    if self._thread.is_alive():
      self._failed.set()  # what is still waiting is not begun any more
      logging.warning(
          '--tracker=%s did not finish within %g s and is left behind; the run does '
          'not need it', self._name, patience,
      )

  def _tell(self, task: Task) -> None:
    if not self._failed.is_set():
      self._tasks.put(task)

  def _work(self) -> None:
    try:
      tracker = self._connect()
      for task in self._waiting():
        task(tracker)
    except self._failures as error:
      self._give_up(error)
    finally:
      self._failed.set()

  def _give_up(self, error: BaseException) -> None:
    self._failed.set()
    text = ' '.join(str(error).split())
    logging.warning(
        '--tracker=%s failed and is told nothing more until the next start (%s: %s); '
        'the run goes on', self._name, type(error).__name__, text,
    )

  def _waiting(self) -> Iterator[Task]:
    while (task := self._tasks.get()) is not None and not self._failed.is_set():
      yield task


def own_failures(name: str) -> tuple[type[BaseException], ...]:
  """What the package of a tracker raises, where the installed release has it."""
  found = (_lookup(path) for path in OWN_FAILURES.get(name, ()))
  return tuple(error for error in found if error is not None)


def _lookup(path: str) -> type[BaseException] | None:
  place, _, name = path.rpartition('.')
  try:
    found = getattr(importlib.import_module(place), name, None)
  except ImportError:
    return None
  return found if isinstance(found, type) else None
