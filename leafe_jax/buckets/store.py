"""Objects below a URL of a bucket, through Google's client library.

Every call is repeated while the service is busy or the network is gone, for a
bounded time and with one line in the log. What cannot be had ends in one line that
names the URL and the remedy. A change of an object names the generation that it
replaces, so two writers never overwrite each other unseen.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, TypeVar

from absl import logging

from leafe_jax.buckets import SCHEME, troubles
from leafe_jax.endings import RunStopped
from leafe_jax.files import PARTIAL, replace

T = TypeVar('T')

PATIENCE_S = 600.0
_CONNECT_S, _ANSWER_S = 10.0, 120.0  # that a single request may take
_BLOCK = 1 << 20
_BUCKET = re.compile(r'[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]')
# Wildcards and fragments to one of the programs that read buckets.
_ODD = re.compile(r'[#?*\[\]\x00-\x1f\x7f]')


class BucketError(RunStopped):
  """Something of a bucket cannot be read or written; one line."""


class Conflict(RuntimeError):
  """An object is not the one that was to be replaced."""


class Entry(NamedTuple):
  """What an object or a file holds.

  Attributes:
    size: bytes.
    md5: hexadecimal.
  """

  size: int
  md5: str


class Object(NamedTuple):
  """One object of a bucket.

  Attributes:
    entry: what it holds.
    generation: its number, which changes with every writing.
    zipped: whether it is kept in gzip's form and meant to be read without.
  """

  entry: Entry
  generation: int
  zipped: bool = False


def split(url: str) -> tuple[str, str]:
  """(bucket, directory) of gs://BUCKET/DIRECTORY. BucketError names what is odd."""
  bucket, _, path = url.removeprefix(SCHEME).rstrip('/').partition('/')
  if not _BUCKET.fullmatch(bucket):
    raise BucketError(f'{url}: {bucket!r} is no name of a bucket; give gs://BUCKET/DIR')
  if odd := _ODD.search(path):
    raise BucketError(
        f'{url}: {odd[0]!r} in a name is read as something else by programs for '
        'buckets; give another name'
    )
  if any(part in ('', '.', '..') for part in path.split('/')):
    raise BucketError(f'{url}: name a directory below the bucket, gs://BUCKET/DIR')
  return bucket, path


def measure(path: pathlib.Path, size: int | None = None) -> Entry:
  """Size and digest of a file, or of its first `size` bytes."""
  size = path.stat().st_size if size is None else size
  digest = hashlib.md5(usedforsecurity=False)
  with path.open('rb') as file:
    for block in _blocks(file, size):
      digest.update(block)
  return Entry(size, digest.hexdigest())


def entry_of(content: bytes) -> Entry:
  """As `measure`, of bytes."""
  return Entry(len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
  while size > 0:
    block = file.read(min(_BLOCK, size))
    if not block:
      raise OSError(f'{file.name} became shorter while it was read')
    size -= len(block)
    yield block


class Store:
  """The objects below a URL, by their names relative to it.

  Attributes:
    url: without a slash at its end.

  Args:
    url: gs://BUCKET/DIRECTORY.
    patience_s: how long a call is repeated.

  Raises:
    BucketError: the URL is none, or there are no credentials.
  """

  def __init__(self, url: str, patience_s: float = PATIENCE_S):
    self.url = url.rstrip('/')
    name, self._prefix = split(url)
    self._patience = patience_s
    self._timeout = min(_CONNECT_S, patience_s), min(_ANSWER_S, patience_s)
    self._bucket = _client(self.url).bucket(name)

  def list(self, below: str = '') -> dict[str, Object]:
    """All objects, or those below a directory, by name."""
    prefix = f'{self._prefix}/{below}/' if below else f'{self._prefix}/'

    def work() -> dict[str, Object]:
      found = self._bucket.client.list_blobs(
          self._bucket, prefix=prefix, retry=None, timeout=self._timeout
      )
      start = len(self._prefix) + 1
      return {b.name[start:]: _object(b) for b in found if not b.name.endswith('/')}

    return self._attempt('list', '', work)

  def read(self, name: str) -> tuple[bytes, int] | None:
    """(content, generation) of a small object; None where there is none."""

    def work() -> tuple[bytes, int] | None:
      blob = self._bucket.get_blob(self._key(name), retry=None, timeout=self._timeout)
      if blob is None or blob.generation is None:
        return None
      try:
        content = blob.download_as_bytes(
            if_generation_match=blob.generation, retry=None, timeout=self._timeout
        )
      except (troubles.errors().NotFound, troubles.errors().PreconditionFailed):
        replaced = troubles.errors().ServiceUnavailable('replaced while it was read')
        raise replaced from None
      return content, int(blob.generation)

    return self._attempt('read', name, work)

  def write(self, name: str, content: bytes, generation: int) -> int:
    """Replaces a small object; returns its new generation.

    Args:
      name: of it.
      content: of it.
      generation: that it has now; 0: there is none.

    Raises:
      Conflict: it has another one.
    """

    def work() -> int:
      blob = self._blob(name)
      blob.upload_from_string(
          content, if_generation_match=generation, retry=None, timeout=self._timeout
      )
      return int(blob.generation)

    return self._replace(name, entry_of(content), work)

  def upload(
      self, name: str, path: pathlib.Path, entry: Entry, generation: int
  ) -> int:
    """As `write`, of the first `entry.size` bytes of a file, as a stream."""

    def work() -> int:
      blob = self._blob(name)
      with path.open('rb') as file:
        blob.upload_from_file(
            file, size=entry.size, if_generation_match=generation, retry=None,
            timeout=self._timeout,
        )
      return int(blob.generation)

    return self._replace(name, entry, work)

  def copy(
      self, name: str, source: Store, source_name: str, entry: Entry, generation: int
  ) -> int:
    """As `write`, of another object, which holds `entry`, within the service."""
    origin = source._blob(source_name)

    def work() -> int:
      blob, token = self._blob(name), None
      while True:
        token, _, _ = blob.rewrite(
            origin, token, if_generation_match=generation, retry=None,
            timeout=self._timeout,
        )
        if token is None:
          return int(blob.generation)

    return self._replace(name, entry, work)

  def download(self, name: str, path: pathlib.Path, entry: Entry) -> None:
    """Makes a file of an object, whole or not at all.

    Raises:
      Conflict: it is not there, or holds something else than `entry`.
    """
    partial = path.with_name(f'{path.name}.{os.getpid()}{PARTIAL}')
    path.parent.mkdir(parents=True, exist_ok=True)

    def work() -> None:
      with partial.open('wb') as file:
        self._blob(name).download_to_file(
            file, checksum=None, raw_download=True, retry=None, timeout=self._timeout
        )
        file.flush()
        os.fsync(file.fileno())

    try:
      self._attempt('read', name, work)
      if measure(partial) != entry:
        raise Conflict(f'{self.url}/{name} is not as it was written')
      replace(partial, path)
    except BucketError as error:
      if isinstance(error.__cause__, troubles.errors().NotFound):
        raise Conflict(f'{self.url}/{name} is not there any more') from error
      raise
    finally:
      partial.unlink(missing_ok=True)

  def stream(self, name: str) -> Iterator[bytes]:
    """The content of an object, in pieces."""
    with self._blob(name).open('rb', timeout=self._timeout) as file:
      while block := file.read(_BLOCK):
        yield block

  def delete(self, name: str, generation: int | None = None) -> None:
    """Removes an object, if it has this generation and is there at all."""

    def work() -> None:
      try:
        self._blob(name).delete(
            if_generation_match=generation, retry=None, timeout=self._timeout
        )
      except (troubles.errors().NotFound, troubles.errors().PreconditionFailed):
        pass

    self._attempt('delete', name, work)

  def find(self, name: str) -> Object | None:
    """What an object is now ('': of the URL itself); None where there is none."""

    def work() -> Object | None:
      blob = self._bucket.get_blob(self._key(name), retry=None, timeout=self._timeout)
      return None if blob is None else _object(blob)

    return self._attempt('read', name, work)

  def _replace(self, name: str, entry: Entry, work: Callable[[], int]) -> int:
    """Does it, or finds that an earlier attempt did whose answer was lost."""
    try:
      return self._attempt('write', name, work)
    except Conflict:
      found = self.find(name)
      if found is None or found.entry != entry:
        raise
      return found.generation

  def _key(self, name: str) -> str:
    return f'{self._prefix}/{name}' if name else self._prefix

  def _blob(self, name: str) -> Any:
    return self._bucket.blob(self._key(name))

  def _attempt(self, verb: str, name: str, work: Callable[[], T]) -> T:
    """Repeats `work` while it may succeed. Raises BucketError and Conflict."""
    from google.api_core import exceptions, retry

    place = f'{self.url}/{name}' if name else self.url
    said = []

    def note(error: BaseException) -> None:
      if not said:
        logging.warning(
            '%s: cannot %s it now (%s); tried again for up to %g s', place, verb,
            troubles.reason(error), self._patience,
        )
      said.append(error)

    again = retry.Retry(
        troubles.may_pass, initial=0.3, maximum=20.0, timeout=self._patience,
        on_error=note,
    )
    try:
      return again(work)()
    except exceptions.PreconditionFailed as error:
      raise Conflict(f'{place} was replaced by another process') from error
    except exceptions.RetryError as error:
      cause = troubles.reason(error.cause or error)
      raise BucketError(
          f'{place}: could not {verb} it for {self._patience:g} s ({cause}); look at '
          'the network and the service, then start the same command again'
      ) from error
    except troubles.refusals() as error:
      raise BucketError(troubles.explain(place, verb, error)) from error


def _object(blob: Any) -> Object:
  digest = base64.b64decode(blob.md5_hash or '').hex()
  entry = Entry(int(blob.size or 0), digest)
  return Object(entry, int(blob.generation or 0), blob.content_encoding == 'gzip')


@functools.cache
def _client(url: str) -> Any:
  """Of the process. BucketError: the library or credentials are missing."""
  try:
    import google.auth.exceptions
    import google.cloud.storage as storage
  except ImportError as error:
    raise BucketError(
        f"{url}: buckets need more packages: pip install 'leafe_jax[gcs]' ({error})"
    ) from error
  try:
    project = os.environ.get('GOOGLE_CLOUD_PROJECT') or 'any'
    return storage.Client(project=project)  # only new buckets have need of one
  except google.auth.exceptions.GoogleAuthError as error:
    raise BucketError(troubles.explain(url, 'read', error)) from error
