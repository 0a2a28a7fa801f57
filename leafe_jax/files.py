"""Files that are there whole or not at all, whenever the machine stops.

What is being written has a name that ends in `PARTIAL`; it is synced and then
renamed. Leftovers of that name are removed when a run starts. Files that others
wrote are read as what they should be, or refused in one line.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from absl import logging

T = TypeVar('T')

PARTIAL = '.partial'
DONE = 'DONE.json'  # there if and only if a phase is complete, with its result
_LFS = b'version https://git-lfs.github.com/spec/'
_URL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')
NO_URL = (
    'a URL; give a path on this machine (a bucket can be mounted, with gcsfuse for '
    'instance)'
)
ONLY_BUCKETS = (
    'a URL that is not read; give a path, or gs://BUCKET/DIRECTORY (other stores can '
    'be mounted)'
)


def is_url(place: str | os.PathLike[str]) -> bool:
  """Whether a path is in truth a URL, such as that of a bucket."""
  return _URL.match(os.fspath(place)) is not None


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
  """Writes a file so that a reader, or a restart, sees all of it or none."""
  write_pieces(path, [content.encode() if isinstance(content, str) else content])


def write_pieces(path: str | os.PathLike[str], pieces: Iterable[bytes]) -> None:
  """As `write_atomic`, of a file that need not be in memory as a whole."""
  path = pathlib.Path(path)
  partial = path.with_name(f'{path.name}.{os.getpid()}{PARTIAL}')
  with open(partial, 'wb') as file:
    for piece in pieces:
      file.write(piece)
    file.flush()
    os.fsync(file.fileno())
  replace(partial, path)


def read_lines(path: str | os.PathLike[str]) -> Iterator[str]:
  """The lines of a JSON-lines file, one by one, without those that are empty.

  They end at a line feed alone: JSON may hold other characters that Python's
  splitlines takes for ends, and web pages do.
  """
  with open(path, 'rb') as file:
    for line in file:  # of bytes: cut at line feeds
      text = line.decode('utf-8').removesuffix('\n')
      if text.strip():
        yield text


class DamagedFile(ValueError):
  """A file that does not hold what was written; one line that names it."""


def read_records(
    path: str | os.PathLike[str], make: Callable[[Any], T]
) -> list[T]:
  """The lines of a JSON-lines file, each as `make` makes it of its value.

  Raises:
    OSError: it cannot be opened.
    DamagedFile: names the first line that is not what was written.
  """
  return list(stream_records(path, make))


def stream_records(
    path: str | os.PathLike[str], make: Callable[[Any], T]
) -> Iterator[T]:
  """As `read_records`, one by one."""
  number = 1
  try:
    for line in read_lines(path):
      yield make(json.loads(line))
      number += 1
  except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    raise DamagedFile(
        f'{path}, line {number}: not what was written, or cut short '
        f'({reason}); remove it, and the run of that directory makes it again'
    ) from error


def replace(partial: pathlib.Path, path: pathlib.Path) -> None:
  """Renames a file or directory and makes the renaming last."""
  os.replace(partial, path)
  sync(path.parent)


def sync(path: pathlib.Path) -> None:
  """fsync of a file or a directory."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def leaves(directory: str | os.PathLike[str], path: str | os.PathLike[str]) -> bool:
  """Whether a path in a directory leads, by links, to what lies elsewhere.

  The caches of the Hugging Face hub keep files under `blobs` beside the snapshots
  that are made of links to them; these belong to the directory.
  """
  root, target = pathlib.Path(directory).resolve(), pathlib.Path(path).resolve()
  if target.is_relative_to(root):
    return False
  blobs = target.parent
  cached = blobs.parent in root.parents[:2] or blobs.parent.name.startswith('models--')
  return blobs.name != 'blobs' or not cached


def check_links(directory: str | os.PathLike[str]) -> None:
  """Refuses a directory of others' files with a link to what lies elsewhere.

  Raises:
    ValueError: one line that names the link.
  """
  places = pathlib.Path(directory)
  for path in sorted((*places.glob('*'), *places.glob('*/*'))):
    if leaves(places, path):
      raise ValueError(
          f'{path.relative_to(places)} is a link to {path.resolve()}, outside of the '
          'directory; put the file itself there, if you trust it'
      )


def is_lfs_pointer(path: str | os.PathLike[str]) -> bool:
  """Whether a file stands for one that Git LFS was not asked to fetch."""
  with open(path, 'rb') as file:
    return file.read(len(_LFS)) == _LFS


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
  """The object of a JSON file that others wrote.

  Raises:
    OSError: it cannot be opened.
    ValueError: it holds something else; one line that names it.
  """
  path = pathlib.Path(path)
  if is_lfs_pointer(path):
    raise ValueError(
        f'{path.name} is a Git LFS pointer, not the file; fetch it: git lfs pull'
    )
  data = path.read_bytes()
  try:
    value = json.loads(data)
  except (ValueError, RecursionError) as error:
    raise ValueError(
        f'{path.name} is not JSON ({len(data):,} bytes, cut short?): {error}'
    ) from error
  if not isinstance(value, dict):
    raise ValueError(f'{path.name} holds a {type(value).__name__}, not an object')
  return value


def remove_partial(root: pathlib.Path) -> list[pathlib.Path]:
  """Removes what was half-written when a run was killed; says what."""
  leftovers = [
      path for path in sorted(root.rglob(f'*{PARTIAL}')) if path.exists()
  ]
  for path in leftovers:
    logging.info('removed %s, half-written by an earlier start', path)
    remove(path)
  return leftovers


def remove(path: pathlib.Path) -> None:
  """Removes a file, or a directory with all that is in it."""
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
