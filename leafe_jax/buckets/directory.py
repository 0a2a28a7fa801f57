"""A run's directory whose place is a bucket."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from absl import logging

from leafe_jax import buckets
from leafe_jax.buckets.lease import Lease, patience
from leafe_jax.buckets.mirror import Mirror
from leafe_jax.buckets.store import BucketError, Store
from leafe_jax.rundir import RunDirectory


class BucketDirectory(RunDirectory):
  """As `RunDirectory`; `path` is the copy on this machine.

  Attributes:
    mirror: keeps the copy and the bucket together.

  Args:
    url: gs://BUCKET/DIRECTORY.
    process: number of this one in its run; each has a copy.

  Raises:
    BucketError: the bucket cannot be reached.
  """

  def __init__(self, url: str, process: int = 0):
    store = Store(url)
    place = buckets.cache('runs', store.url)
    if process:
      place = place.with_name(f'{place.name}.host{process}')
    super().__init__(place)
    self.mirror = Mirror(store, self.path, writes=not process)
    buckets.share(self.mirror)

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Holds the run in the bucket, and the copy of this machine.

    Raises:
      WorkdirBusy: another process holds one of them.
      BucketError: the bucket cannot be read or written.
    """
    lease = Lease(Store(self.mirror.url, patience()))
    with super().locked(), lease.held():
      self.mirror.restore()
      done = False
      try:
        yield
        done = True
      finally:
        if not done and not isinstance(sys.exc_info()[1], BucketError):
          self._commit_what_there_is()
      self.mirror.commit('the end of a start')

  def _commit_what_there_is(self) -> None:
    """Where the run stops for another reason, which is the one to be told."""
    try:
      self.mirror.commit('a stop')
    except BucketError as error:
      logging.warning('what was done after the last commit is lost: %s', error)
