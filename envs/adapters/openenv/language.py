"""How texts become actions of an OpenEnv server, and its observations texts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from envs import plain, registry

# What JSON schema calls a value that a text can say, and how to read it.
_READERS: Mapping[str, Callable[[str], Any]] = {
    'string': str, 'integer': int, 'number': float, 'boolean': json.loads,
}


@dataclasses.dataclass(frozen=True)
class Language:
  """How texts become actions of the server, and observations texts.

  Attributes:
    act: ValueError for a text that is no action.
    see: an observation by field to what the agent reads.
  """

  act: Callable[[str], Mapping[str, Any]]
  see: Callable[[Mapping[str, Any]], Any]


def choose_act(act: str, schema: Mapping[str, Any]) -> Callable[[str], Any]:
  """See the option of `make`. ValueError for actions that no text can say."""
  if act:
    return registry.find_function(act)
  fields = schema.get('properties', {})
  needed = [name for name in schema.get('required', ()) if name in fields]
  names = needed or [name for name in fields if name != 'metadata']
  if len(names) == 1:
    kind = fields[names[0]].get('type', '')
    if reader := _READERS.get(kind):
      return lambda text: {names[0]: _read(reader, kind, text)}
  return _read_object


def _read(reader: Callable[[str], Any], kind: str, text: str) -> Any:
  try:
    found = reader(text)
  except ValueError as error:
    raise ValueError(f'it must be of type {kind}') from error
  if kind == 'boolean' and not isinstance(found, bool):
    raise ValueError('it must be true or false')
  return plain.number('it', found) if kind == 'number' else found


def _read_object(text: str) -> Mapping[str, Any]:
  try:
    found = json.loads(text)
  except ValueError as error:
    raise ValueError(f'it must be a JSON object: {error}') from error
  if not isinstance(found, dict):
    raise ValueError('it must be a JSON object')
  return found


def choose_see(observe: str) -> Callable[[Mapping[str, Any]], Any]:
  """See the option of `make`."""
  if ':' in observe:
    return registry.find_function(observe)
  if observe:
    return lambda fields: fields[observe]
  return _see


def _see(fields: Mapping[str, Any]) -> str:
  """The one text that there is, else all fields as JSON."""
  shown = {name: value for name, value in fields.items() if name != 'metadata'}
  texts = [value for value in shown.values() if isinstance(value, str)]
  if len(texts) == 1 and len(shown) == 1:
    return texts[0]
  return json.dumps(shown, ensure_ascii=False, sort_keys=True)
