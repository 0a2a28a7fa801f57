"""Weights and checkpoints of a run in a bucket, which no host keeps on its disk.

Orbax writes them under their names, each host its own shards; what is complete is
sealed by a file of the run (`leafe_jax.seals`), with the digests that the service
keeps of its objects.
"""

from __future__ import annotations

import functools
import hashlib
import logging as python_logging
import os
import pathlib
from typing import Any

from etils import epath

from leafe_jax import buckets
from leafe_jax.buckets.mirror import Mirror
from leafe_jax.buckets.store import BucketError, Object, measure

MD5 = 'md5:'
_PLACES = ('params/params/', 'checkpoints/steps/')


def place(mirror: Mirror, path: pathlib.Path) -> epath.Path:
  """The path in the bucket that a path of the copy stands for."""
  _prepare(mirror.url)
  return epath.Path(f'{mirror.url}/{path.relative_to(mirror.root).as_posix()}')


@functools.cache
def _prepare(url: str) -> None:
  """Leads the libraries that orbax uses to a local server, if one is named."""
  server = os.environ.get('STORAGE_EMULATOR_HOST', '')
  if server:  # which knows one protocol alone
    os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')
  try:
    import gcsfs  # noqa: F401
  except ImportError as error:
    raise BucketError(
        f"{url}: buckets need more packages: pip install 'leafe_jax[gcs]' ({error})"
    ) from error
  if server:
    from fsspec.config import conf

    for name in ('gcs', 'gs'):
      conf.setdefault(name, {}).setdefault('token', 'anon')
    os.environ.setdefault('TENSORSTORE_GCS_HTTP_URL', server)
    os.environ.setdefault('GOOGLE_AUTH_TOKEN_FOR_TESTING', 'none')
  # Says at every call that it does not know of what kind a bucket is.
  python_logging.getLogger('gcsfs').setLevel(python_logging.ERROR)


def _find(place: epath.Path) -> tuple[Mirror, str]:
  """The run and the name of a place in its bucket."""
  text = os.fspath(place)
  for mirror in buckets.mirrors():
    if text.startswith(f'{mirror.url}/'):
      return mirror, text.removeprefix(f'{mirror.url}/')
  raise AssertionError(f'{text} is in no run that is open')


def objects(place: epath.Path) -> dict[str, Object]:
  """Name from there -> object, of all below a place."""
  mirror, name = _find(place)
  found = mirror.store.list(name)
  return {path.removeprefix(f'{name}/'): each for path, each in found.items()}


def digests(place: epath.Path) -> dict[str, list]:
  """As a seal has them, [bytes, digest], of all objects below a place."""
  return {
      name: [found.entry.size, f'{MD5}{found.entry.md5}']
      for name, found in objects(place).items()
  }


def sha256(place: epath.Path, name: str) -> list:
  """[bytes, sha256] of an object, which is read for it."""
  mirror, above = _find(place)
  size, digest = 0, hashlib.sha256()
  for block in mirror.store.stream(f'{above}/{name}'):
    size += len(block)
    digest.update(block)
  return [size, digest.hexdigest()]


def clear(place: epath.Path) -> None:
  """Removes all objects below a place."""
  mirror, above = _find(place)
  for name in objects(place):
    mirror.store.delete(f'{above}/{name}')


def copy(source: Any, target: Any, partial: pathlib.Path) -> None:
  """Copies the arrays below a directory, one of two places being in a bucket.

  Args:
    source: of `buckets.place`.
    target: the same.
    partial: the copy of the other files, which becomes `target` if that is a path.
  """
  if isinstance(source, pathlib.Path):
    _send(source, target, partial)
  elif isinstance(target, pathlib.Path):
    _receive(source, partial)
  else:
    _copy_within(source, target)


def _copy_within(source: epath.Path, target: epath.Path) -> None:
  (mirror, above), (other, below) = _find(source), _find(target)
  there = objects(target)
  for name, found in _arrays(source).items():
    old = there.get(name)
    if old is None or old.entry != found.entry:
      generation = old.generation if old else 0
      other.store.copy(
          f'{below}/{name}', mirror.store, f'{above}/{name}', found.entry, generation
      )


def _receive(source: epath.Path, partial: pathlib.Path) -> None:
  mirror, above = _find(source)
  for name, found in _arrays(source).items():
    mirror.store.download(f'{above}/{name}', partial / name, found.entry)


def _send(source: pathlib.Path, target: epath.Path, partial: pathlib.Path) -> None:
  mirror, below = _find(target)
  there = objects(target)
  for path in sorted(source.rglob('*')):
    name = path.relative_to(source).as_posix()
    if path.is_file() and _is_array(name, source):
      old, entry = there.get(name), measure(path)
      if old is None or old.entry != entry:
        generation = old.generation if old else 0
        mirror.store.upload(f'{below}/{name}', path, entry, generation)
      (partial / name).unlink(missing_ok=True)


def _arrays(source: epath.Path) -> dict[str, Object]:
  return {n: each for n, each in objects(source).items() if _is_array(n, source)}


def _is_array(name: str, root: Any) -> bool:
  """Whether a file below a directory is orbax's, and no file of the run."""
  whole = f'/{root.name}/{name}'
  return any(f'/{place}' in whole for place in _PLACES)
