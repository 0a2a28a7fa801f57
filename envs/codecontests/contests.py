"""Reads a row of CodeContests, in all forms in which the data set is published."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from envs import api
from envs.codecontests import difficulty, fields
from envs.codecontests.fields import BadRow, Row
from envs.codecontests.problems import Problem, Test

_SPLITS = {
    'train': 'train', 'training': 'train', 'valid': 'validation',
    'validation': 'validation', 'val': 'validation', 'dev': 'validation',
    'test': 'test', 'testing': 'test',
}  # fmt: skip
_SECONDS = re.compile(r'(\d+(?:\.\d+)?)\s*s?')
_DEFAULT_MEMORY = 256 << 20
# As the data set numbers Python 3, and as its schema names it.
_PYTHON = (3, 'PYTHON3')
_MIN_MEMORY_MB, _MAX_MEMORY_MB = 64, 1024
_DEFAULT_SECONDS, _MAX_SECONDS = 2, 20


def read(row: Row, stem: str, public_tests: int) -> Problem | None:
  """None where programs read a file, or there are no tests."""
  if row.get('input_file') or row.get('output_file'):
    return None
  if 'tests' in row:
    tests = _tests(row, 'tests')
    public, hidden = tests[:public_tests], tests[public_tests:]
  else:
    if 'public_tests' not in row:
      raise BadRow("no field 'public_tests' or 'tests'")
    public = _tests(row, 'public_tests')
    hidden = [*_tests(row, 'private_tests'), *_tests(row, 'generated_tests')]
  if not public and not hidden:
    return None
  statement = fields.text(row, 'description').strip()
  return Problem(
      id=str(row.get('id') or fields.text(row, 'name')),
      split=split_of(stem, statement),
      statement=statement,
      kind='stdio',
      public=tuple(public),
      hidden=tuple(hidden),
      time_limit=_seconds(row.get('time_limit')),
      memory_mb=_memory(row.get('memory_limit_bytes')),
      difficulty=_difficulty(row.get('difficulty')),
      reference=_solution(row.get('solutions')),
  )


def split_of(stem: str, statement: str) -> str:
  """The split that a file's name says, in a word of its own; else dealt by hash.

  BadRow if a name says two.
  """
  words = re.findall(r'[a-z]+', stem.lower())
  named = {_SPLITS[word] for word in words if word in _SPLITS}
  if len(named) > 1:
    raise BadRow(f'the name of the file says {" and ".join(sorted(named))}; rename it')
  if named:
    return named.pop()
  share = int(api.observation_hash(statement), 16) % 10
  return 'train' if share < 7 else 'validation' if share < 8 else 'test'


def _difficulty(value: Any) -> str:
  try:
    return difficulty.name(value)
  except ValueError as error:
    raise BadRow(str(error)) from error


def _tests(row: Row, name: str) -> list[Test]:
  """Both published forms: a dict of lists and a list of dicts; null is none."""
  value = row.get(name)
  if isinstance(value, Mapping):
    given, wanted = fields.texts(value, 'input'), fields.texts(value, 'output')
    if len(given) != len(wanted):
      raise BadRow(
          f'field {name!r} has {len(given)} inputs and {len(wanted)} outputs; '
          'there must be one output per input'
      )
    return [Test(*pair) for pair in zip(given, wanted, strict=True)]
  tests = []
  for item in fields.items(row, name):
    if not isinstance(item, Mapping):
      raise BadRow(f'field {name!r} holds {fields.shown(item)}, not input and output')
    tests.append(Test(fields.text(item, 'input'), fields.text(item, 'output')))
  return tests


def _solution(value: Any) -> str:
  """The shortest of the solutions in Python 3; empty where there is none.

  They are of use to a scripted teacher alone, so that other forms are no error.
  """
  if isinstance(value, Mapping):
    pairs = zip(_listed(value.get('language')), _listed(value.get('solution')))
  else:
    rows = [row for row in _listed(value) if isinstance(row, Mapping)]
    pairs = ((row.get('language'), row.get('solution')) for row in rows)
  found = [text for name, text in pairs if name in _PYTHON and isinstance(text, str)]
  return min(found, key=len, default='')


def _listed(value: Any) -> list[Any]:
  return list(value) if isinstance(value, (list, tuple)) else []


def _seconds(value: Any) -> int:
  """A time limit in whole seconds, rounded up; 2 where there is none."""
  seconds = value
  if isinstance(value, Mapping):
    parts = value.get('seconds') or 0, value.get('nanos') or 0
    whole, nanos = (_number(part, 'time_limit') for part in parts)
    seconds = whole + nanos / 1e9
  elif isinstance(value, str) and (match := _SECONDS.fullmatch(value.strip())):
    seconds = float(match[1])  # as JSON has a duration, '2s'
  seconds = _number(seconds or 0, 'time_limit')
  return min(math.ceil(seconds) or _DEFAULT_SECONDS, _MAX_SECONDS)


def _memory(value: Any) -> int:
  """A memory limit in MB; 256 where there is none."""
  if isinstance(value, str) and value.strip().isdecimal():
    value = int(value)  # as JSON has 64 bits
  size = int(_number(value or 0, 'memory_limit_bytes')) or _DEFAULT_MEMORY
  return min(max(size >> 20, _MIN_MEMORY_MB), _MAX_MEMORY_MB)


def _number(value: Any, name: str) -> float:
  good = isinstance(value, (int, float)) and not isinstance(value, bool)
  if not good or not 0 <= value < math.inf:
    raise BadRow(
        f'field {name!r} is {fields.shown(value)}; it must be a number that is not '
        'negative, or null for the default'
    )
  return value
