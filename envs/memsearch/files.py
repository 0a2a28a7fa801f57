"""Reading JSON that others wrote: a refusal names the file, the place, the remedy."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from envs.memsearch.library import BadFile

_POINTER = 'version https://git-lfs'


def read_list(path: str, key: str) -> list[Any]:
  """The records of a JSON file: a list of objects, or one object a line.

  Args:
    path: of the file.
    key: that a record has, by which one record alone is told from an object that
      holds the list.

  Raises:
    FileNotFoundError: there is no such file.
    BadFile: it is no JSON, no list, or has no record.
  """
  place = pathlib.Path(path)
  if not place.is_file():
    raise FileNotFoundError(f'{path} is no file; set data_path to the JSON file itself')
  try:
    text = place.read_text(encoding='utf-8-sig')
  except UnicodeDecodeError as error:
    raise BadFile(f'{path} is no text in UTF-8 ({error}); unpack it first') from error
  if text.startswith(_POINTER):
    raise BadFile(f'{path} is a Git LFS pointer, not the data: run git lfs pull')
  found = _parse(path, text)
  if isinstance(found, Mapping):
    found = [found] if key in found else _inside(path, found)
  if not isinstance(found, list) or not found:
    raise BadFile(f'{path} holds no list of records')
  return found


def _inside(path: str, found: Mapping[str, Any]) -> Any:
  if 'data' in found:
    return found['data']
  raise BadFile(f'{path} is an object with {sorted(found)[:5]}, not a list of records')


def _parse(path: str, text: str) -> Any:
  try:
    return json.loads(text)
  except json.JSONDecodeError as error:
    whole = error
  lines = [line for line in text.splitlines() if line.strip()]
  try:
    return [json.loads(line) for line in lines]
  except json.JSONDecodeError:
    raise BadFile(
        f'{path} is no JSON (line {whole.lineno}, column {whole.colno}: {whole.msg}); '
        'is the download complete?'
    ) from whole


def field(record: Any, name: str, kind: type | tuple[type, ...], place: str) -> Any:
  """A field of a record. BadFile where it is missing or of another type."""
  if not isinstance(record, Mapping):
    raise BadFile(f'{place} is {type(record).__name__}, not an object')
  if name not in record:
    raise BadFile(f'{place} has no {name!r}; it has {sorted(map(str, record))[:8]}')
  value = record[name]
  if not isinstance(value, kind) or isinstance(value, bool):
    raise BadFile(f'{place}: {name!r} is {str(value)[:60]!r}, of the wrong type')
  return value
