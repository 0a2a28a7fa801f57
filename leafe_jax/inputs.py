"""Data and checkpoints of others in a bucket, read through a copy on this disk.

The copy's name is a digest of what the bucket holds, so it is never stale: another
content is another copy, and what a run noted of its files still tells the two apart.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from absl import logging

from leafe_jax import buckets
from leafe_jax.buckets.store import BucketError, Conflict, Object, Store
from leafe_jax.files import PARTIAL, replace


def local(place: str) -> str:
  """A file or directory of others on this machine: the path, or a copy of the URL's.

  Raises:
    BucketError: nothing is there, or it cannot be read.
  """
  if not buckets.is_bucket(place):
    return place
  return fetch(place)


def local_options(options: Mapping[str, Any]) -> dict[str, Any]:
  """Options of an environment, those that are URLs as `local` has them."""
  return {
      name: local(value) if isinstance(value, str) else value
      for name, value in options.items()
  }


@functools.cache
def fetch(url: str) -> str:
  """A file, or a directory with all below it, on this machine.

  Raises:
    BucketError: nothing is there, or it cannot be read.
  """
  store = Store(url)
  alone = store.find('')
  found = {'': alone} if alone else store.list()
  if not found:
    raise BucketError(f'{url}: nothing is there; correct the name, or upload it first')
  target = _cached(store.url, found) / store.url.rpartition('/')[2]
  if not target.exists():
    _download(store, found, target)
  return str(target)


def _cached(url: str, found: dict[str, Object]) -> pathlib.Path:
  held = sorted((name, *each.entry) for name, each in found.items())
  digest = hashlib.sha256(json.dumps(held).encode()).hexdigest()[:16]
  return buckets.cache('inputs', url) / digest


def _download(store: Store, found: dict[str, Object], target: pathlib.Path) -> None:
  """Everything or nothing; what an earlier attempt got is not fetched again."""
  from leafe_jax.progress import Progress  # needs jax, which --help does not

  partial = target.with_name(f'{target.name}{PARTIAL}')
  logging.info('%s: copied to %s', store.url, target)
  total = sum(each.entry.size for each in found.values())
  with Progress('fetch', total, 'B') as progress:
    for name, each in found.items():
      path = partial / name if name else partial
      if not path.exists() or path.stat().st_size != each.entry.size:
        try:
          store.download(name, path, each.entry)
          if each.zipped:
            _unzip(path)
        except Conflict as error:
          raise BucketError(f'{error}; it was changed just now, try again') from error
      progress.advance(each.entry.size)
  replace(partial, target)


def _unzip(path: pathlib.Path) -> None:
  """Writes a file anew without gzip's form, in which programs may upload it."""
  whole = path.with_name(f'{path.name}{PARTIAL}')
  with gzip.open(path) as source, whole.open('wb') as target:
    shutil.copyfileobj(source, target)
  replace(whole, path)
