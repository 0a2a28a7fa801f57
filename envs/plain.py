"""Plain Python out of what environments answer with.

numpy's scalars, and tensors without a shape, become Python's numbers; anything
that neither JSON nor UTF-8 can hold is refused by its place and value.
"""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

# What rounding may add to a number at its bound.
_ROUNDING = 1e-9


def show(value: Any) -> str:
  """A value in a few characters of one line, whatever its own repr does."""
  return f'{" ".join(reprlib.repr(value).split())} ({type(value).__name__})'


def text(place: str, value: Any) -> str:
  """A string that can be written. ValueError names the place."""
  value = _scalar(value)
  if not isinstance(value, str):
    raise ValueError(f'{place} is {show(value)}; it must be a str')
  value = str.__str__(value)  # of a subclass the characters alone
  try:
    value.encode()
  except UnicodeEncodeError as error:
    character = hex(ord(value[error.start]))
    raise ValueError(
        f'{place} holds {character} at {error.start}, half of a surrogate pair, '
        'which is no text: replace it'
    ) from None
  return value


def number(
    place: str, value: Any, low: float = -math.inf, high: float = math.inf
) -> float:
  """A finite number between bounds. ValueError names the place."""
  value = _scalar(value)
  try:
    found = float(value) if isinstance(value, numbers.Real) else math.nan
  except OverflowError:
    found = math.inf
  if not math.isfinite(found):
    raise ValueError(f'{place} is {show(value)}; it must be a finite number')
  if not low - _ROUNDING <= found <= high + _ROUNDING:
    raise ValueError(f'{place} is {found}; it must be between {low:g} and {high:g}')
  return min(max(found, low), high)


def boolean(place: str, value: Any) -> bool:
  """A truth value. ValueError names the place."""
  value = _scalar(value)
  if not isinstance(value, bool):
    raise ValueError(f'{place} is {show(value)}; it must be a bool')
  return value


def flag(place: str, value: Any) -> bool:
  """A truth value, or 0 or 1 for one. ValueError names the place."""
  found = number(place, value)
  if found not in (0.0, 1.0):
    raise ValueError(f'{place} is {show(value)}; it must be true or false, 0 or 1')
  return bool(found)


def mapping(place: str, value: Any) -> dict[str, Any]:
  """A mapping of JSON types. ValueError names the place inside of it."""
  if not isinstance(value, Mapping):
    raise ValueError(f'{place} is {show(value)}; it must be a mapping')
  return {
      text(f'a key of {place}', key): _json(f'{place}[{key!r}]', inner)
      for key, inner in value.items()
  }


def some(place: str, value: Any, keys: Sequence[str]) -> dict[str, Any]:
  """The entries of a mapping that matter, as they are. ValueError if it is none."""
  if not isinstance(value, Mapping):
    raise ValueError(f'{place} is {show(value)}; it must be a mapping')
  return {key: value[key] for key in keys if key in value}


def _json(place: str, value: Any) -> Any:
  value = _scalar(value)
  if value is None or isinstance(value, bool):
    return value
  if isinstance(value, int):
    return int.__int__(value)  # of a subclass the number alone
  if isinstance(value, str):
    return text(place, value)
  if isinstance(value, float):
    return number(place, value)
  if isinstance(value, Mapping):
    return mapping(place, value)
  if isinstance(value, (list, tuple)):
    return [_json(f'{place}[{i}]', inner) for i, inner in enumerate(value)]
  raise ValueError(f'{place} is {show(value)}; it must be of a JSON type')


def _scalar(value: Any) -> Any:
  if hasattr(value, 'item') and getattr(value, 'shape', None) == ():
    return value.item()
  return value
