"""Seals: the sizes and digests of files, so that no later change goes unseen.

    {"files": {"wave_0000.jsonl": [1234, "<sha256>"], ...}, "sha256": "<of files>"}

A finished phase, its weights, each of its checkpoints and the tokenizer of a run
are sealed alike. A directory that has a seal of its own counts as that seal alone
in the seal above it, and checkpoints, which nobody reads once their phase is
finished, only in theirs. What lies in a bucket is sealed with the digests that the
bucket keeps, so nothing is read for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leafe_jax import buckets
from leafe_jax.files import PARTIAL, DamagedFile, read_object, write_atomic

SEAL = 'seal.json'
CHECKPOINTS = 'checkpoints'
_MD5 = 'md5:'  # digests that a bucket keeps; all others are SHA-256
MISSING, DIFFERS = 'is missing', 'differs from what was sealed'

Files = dict[str, list]  # name, from the sealed directory -> [bytes, sha256]


class BrokenSeal(ValueError):
  """A seal that is missing or says nothing reliable; one line."""


def write(
    directory: pathlib.Path,
    seal: pathlib.Path,
    beside: Sequence[pathlib.Path] = (),
    coming: Mapping[str, bytes] | None = None,
) -> None:
  """Seals what lies below a directory.

  Args:
    directory: whose files are sealed; perhaps in a bucket (`buckets.place`).
    seal: the file to write.
    beside: files and directories elsewhere that belong to it.
    coming: name -> content of files that are about to be written there.
  """
  if isinstance(directory, pathlib.Path):
    found = {name: digest(directory / name) for name in _names(directory, beside)}
  else:
    found = buckets.digests(directory)
  for name, content in (coming or {}).items():
    found[name] = [len(content), hashlib.sha256(content).hexdigest()]
  found.pop(os.path.relpath(seal, directory), None)
  found.pop(seal.name, None)
  content = {'files': found, 'sha256': _identity(found)}
  write_atomic(seal, json.dumps(content, indent=1) + '\n')


def read(seal: pathlib.Path) -> Files:
  """What was sealed. Raises BrokenSeal, also for a seal that was changed."""
  try:
    content = read_object(seal)
  except (OSError, ValueError) as error:
    reason = 'is missing' if isinstance(error, FileNotFoundError) else f'({error})'
    raise BrokenSeal(f'{seal} {reason}') from error
  found = content.get('files')
  if not isinstance(found, dict) or content.get('sha256') != _identity(found):
    raise BrokenSeal(f'{seal} is not a seal as it was written')
  return found


def differences(
    directory: pathlib.Path, seal: pathlib.Path, sizes_alone: bool = False
) -> dict[str, str]:
  """Sealed file -> what is wrong with it; empty where all is as it was.

  Args:
    directory: whose files were sealed.
    seal: what `write` wrote.
    sizes_alone: no file is read, so that bits which changed go unseen.

  Raises:
    BrokenSeal: the seal itself says nothing.
  """
  return compare(directory, read(seal), sizes_alone)


def compare(
    directory: pathlib.Path, sealed: Files, sizes_alone: bool = False
) -> dict[str, str]:
  """As `differences`, with the content of a seal."""
  if not isinstance(directory, pathlib.Path):
    return _compare_objects(directory, sealed, sizes_alone)
  wrong = {}
  for name, expected in sealed.items():
    path = directory / name
    if not path.is_file():
      wrong[name] = MISSING
    elif path.stat().st_size != expected[0] or not (
        sizes_alone or _again(path, expected) == expected
    ):
      wrong[name] = DIFFERS
  return wrong


def _again(path: pathlib.Path, expected: Sequence) -> list:
  """The digest of a file, of the kind that was sealed."""
  if not str(expected[1]).startswith(_MD5):
    return digest(path)
  with path.open('rb') as file:
    value = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
  return [path.stat().st_size, f'{_MD5}{value.hexdigest()}']


def _compare_objects(place: Any, sealed: Files, sizes_alone: bool) -> dict[str, str]:
  """As `compare`; only what was sealed on a disk is read for it."""
  there, wrong = buckets.digests(place), {}
  for name, expected in sealed.items():
    found = there.get(name)
    of_disk = not str(expected[1]).startswith(_MD5)
    if found and of_disk and sizes_alone:
      found = [found[0], expected[1]]
    elif found and of_disk:
      found = buckets.sha256(place, name)
    if found != expected:
      wrong[name] = DIFFERS if found else MISSING
  return wrong


def strangers(directory: pathlib.Path, sealed: Files) -> list[str]:
  """Files below a directory that are not in its seal."""
  return [name for name in _names(directory) if name not in sealed and name != SEAL]


def write_record(path: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Writes a JSON object that bears its own seal."""
  content = {**record, 'seal': _identity(record)}
  write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + '\n')


def read_record(path: pathlib.Path) -> dict[str, Any]:
  """Inverse of `write_record`. DamagedFile for what is not as it was written."""
  try:
    record = read_object(path)
  except ValueError as error:
    raise DamagedFile(f'{path}: {error}') from error
  if record.pop('seal', None) != _identity(record):
    raise DamagedFile(f'{path} is not as it was written')
  return record


def digest(path: pathlib.Path) -> list:
  """[bytes, sha256] of a file."""
  with path.open('rb') as file:
    value = hashlib.file_digest(file, 'sha256').hexdigest()
  return [path.stat().st_size, value]


def _identity(found: Mapping[str, Any]) -> str:
  text = json.dumps(found, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()


def _names(
    directory: pathlib.Path, beside: Sequence[pathlib.Path] = ()
) -> Iterator[str]:
  for place in (directory, *beside):
    for path in _files(place, place):
      yield os.path.relpath(path, directory)


def _files(place: pathlib.Path, top: pathlib.Path) -> Iterator[pathlib.Path]:
  if place.is_file():
    yield place
  elif place != top and (place / SEAL).is_file():
    yield place / SEAL
  elif place.is_dir() and (place == top or place.name != CHECKPOINTS):
    for path in sorted(place.iterdir()):
      if not path.name.endswith(PARTIAL):
        yield from _files(path, top)
