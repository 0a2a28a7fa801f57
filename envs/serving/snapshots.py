"""States that clients may come back to, by name."""

from __future__ import annotations

import collections
import threading
import uuid

from envs import api
from envs.serving.wire import UnknownSnapshot


class Shelf:
  """Snapshots by name, of all sessions; the longest unused go first.

  Args:
    max_bytes: of all of them, by what they say of themselves.
  """

  def __init__(self, max_bytes: float):
    self._max_bytes = max_bytes
    self._bytes = 0
    self._kept: collections.OrderedDict[str, api.Snapshot] = collections.OrderedDict()
    self._lock = threading.Lock()

  def put(self, snapshot: api.Snapshot) -> str:
    """Keeps one; its name."""
    name = uuid.uuid4().hex
    with self._lock:
      self._kept[name] = snapshot
      self._bytes += snapshot.num_bytes
      while self._bytes > self._max_bytes and len(self._kept) > 1:
        _, oldest = self._kept.popitem(last=False)
        self._bytes -= oldest.num_bytes
    return name

  def get(self, name: str) -> api.Snapshot:
    """One of them. Raises UnknownSnapshot."""
    with self._lock:
      if name not in self._kept:
        raise UnknownSnapshot(f'{name!r}; the server keeps the last {len(self._kept)}')
      self._kept.move_to_end(name)
      return self._kept[name]
