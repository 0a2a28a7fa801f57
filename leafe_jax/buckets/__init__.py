"""Runs and data in buckets: gs://BUCKET/DIRECTORY wherever a path can stand.

A run works in a copy on this machine's disk, which is committed to the bucket
where a run on a disk makes its files last (`mirror`); weights and checkpoints go to
the bucket directly, shard by shard from every host, by orbax's own driver
(`arrays`). One process at a time holds the run (`lease`). Data and checkpoints of
others are read through a cache (`leafe_jax.inputs`).

This module knows which directories of this machine stand for a bucket's. The
client library is imported where a URL is given, and nowhere else.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
  from leafe_jax.buckets.mirror import Mirror

SCHEME = 'gs://'
_mirrors: dict[pathlib.Path, Mirror] = {}
# Of the run of this process; what several processes wrote meets there (`hosts.first`).
shared: Mirror | None = None

P = TypeVar('P')


def is_bucket(place: str | os.PathLike[str]) -> bool:
  """Whether a place is a bucket's, by its URL."""
  return os.fspath(place).startswith(SCHEME)


def cache(kind: str, url: str) -> pathlib.Path:
  """Where this machine keeps what it has of a URL: $XDG_CACHE_HOME/leafe_jax/KIND."""
  home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  digest = hashlib.sha256(url.encode()).hexdigest()[:12]
  name = ''.join(c if c.isalnum() or c in '._-' else '_' for c in url.split('/')[-1])
  return pathlib.Path(home).absolute() / 'leafe_jax' / kind / f'{name}-{digest}'


def register(mirror: Mirror) -> None:
  """Makes a directory of this machine stand for the bucket's from now on."""
  _mirrors[mirror.root] = mirror


def share(mirror: Mirror) -> None:
  """As `register`, for the run that this process is a part of."""
  global shared
  register(mirror)
  shared = mirror


def mirror_of(path: pathlib.Path) -> Mirror | None:
  """The mirror that a path of this machine belongs to, if any."""
  for root, mirror in _mirrors.items():
    if path.is_relative_to(root):
      return mirror
  return None


def mirrors() -> list[Mirror]:
  """All that are open."""
  return list(_mirrors.values())


def commit(path: pathlib.Path, note: str) -> None:
  """Makes what a run has written so far last; nothing to do for one on a disk.

  Args:
    path: any of the run.
    note: what is done, for whoever has to go on from there.

  Raises:
    BucketError: the bucket cannot be reached, or was taken over.
  """
  mirror = mirror_of(path) if _mirrors else None
  if mirror is not None:
    mirror.commit(note)


def place(path: pathlib.Path) -> Any:
  """Where the arrays of a path of a run lie: the path, or an epath in the bucket."""
  mirror = mirror_of(path) if _mirrors else None
  if mirror is None:
    return path
  from leafe_jax.buckets import arrays

  return arrays.place(mirror, path)


def digests(place: Any) -> dict[str, list]:
  """Name -> [bytes, digest] of what lies below a `place` in a bucket."""
  from leafe_jax.buckets import arrays

  return arrays.digests(place)


def sha256(place: Any, name: str) -> list:
  """[bytes, sha256] of an object below a `place` in a bucket, which is read for it."""
  from leafe_jax.buckets import arrays

  return arrays.sha256(place, name)


def clear(path: pathlib.Path) -> None:
  """Removes the arrays of a path of a run that lie in a bucket."""
  found = place(path)
  if not isinstance(found, pathlib.Path):
    from leafe_jax.buckets import arrays

    arrays.clear(found)


def copy_arrays(
    source: pathlib.Path, target: pathlib.Path, partial: pathlib.Path
) -> None:
  """Copies the arrays below a directory, where they lie, or are to lie, in a bucket.

  Args:
    source: directory of a run.
    target: what it is to become in another run, or in the same.
    partial: the copy of its other files, which is to be renamed to `target`.
  """
  places = place(source), place(target)
  if not all(isinstance(found, pathlib.Path) for found in places):
    from leafe_jax.buckets import arrays

    arrays.copy(*places, partial)


def spoken(text: str) -> str:
  """A message with URLs in place of the directories that stand for them."""
  for root, mirror in _mirrors.items():
    text = text.replace(str(root), mirror.url)
  return text


def open_run(place: str | os.PathLike[str]) -> pathlib.Path:
  """A run's directory to be read: the path, or a copy of what the bucket has now.

  Raises:
    BucketError: no run is there, or it cannot be read.
  """
  if not is_bucket(place):
    return pathlib.Path(place)
  from leafe_jax.buckets import mirror

  return mirror.look(os.fspath(place))
