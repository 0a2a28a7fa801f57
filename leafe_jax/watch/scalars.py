"""Scalars out of event files that are still being written.

TensorBoard's files are records of one protocol buffer each; tensorboardX, which
writes them, brings torch along where that is installed, so that the four fields that
are wanted are read here.
"""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator
from typing import Any

from leafe_jax.watch import reading

_HEAD = struct.Struct('<QI')  # length of a record, and its checksum
_TAIL = 4  # the checksum of the record
_LONGEST = 1 << 22
# Fields of tensorflow.Event, Summary and Summary.Value.
_STEP, _SUMMARY = 2, 5
_VALUE = 1
_TAG, _SIMPLE_VALUE = 1, 2
# Wire types of protocol buffers.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
MOST_POINTS = 240


class EventFile:
  """The records of one file, as far as they are whole; read on from there."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._end = 0

  def fresh(self) -> list[tuple[str, int, float]]:
    """(name, step, value) of what was added since the last look."""
    try:
      if self._path.stat().st_size < self._end:  # another file of that name
        self._end = 0
      with self._path.open('rb') as file:
        file.seek(self._end)
        data = file.read()
    except OSError:
      return []
    found: list[tuple[str, int, float]] = []
    place = 0
    while place + _HEAD.size <= len(data):
      length, _ = _HEAD.unpack_from(data, place)
      after = place + _HEAD.size + length + _TAIL
      if length > _LONGEST or after > len(data):
        break
      found += _scalars(data[place + _HEAD.size : after - _TAIL])
      place = after
    self._end += place
    return found


def _scalars(record: bytes) -> list[tuple[str, int, float]]:
  """Of an event; none of one that cannot be read."""
  try:
    event = list(_fields(record))
    step = next((value for field, value in event if field == _STEP), 0)
    summaries = [value for field, value in event if field == _SUMMARY]
    values = [
        dict(_fields(value))
        for summary in summaries for field, value in _fields(summary)
        if field == _VALUE
    ]  # fmt: skip
    return [
        (value[_TAG].decode(), int(step), struct.unpack('<f', value[_SIMPLE_VALUE])[0])
        for value in values
        if isinstance(value.get(_SIMPLE_VALUE), bytes) and _TAG in value
    ]
  except (LookupError, ValueError, TypeError, AttributeError, struct.error):
    return []


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
  """(number, value) of each field: an int, or the bytes of anything else."""
  place = 0
  while place < len(message):
    key, place = _varint(message, place)
    field, wire = key >> 3, key & 7
    if wire == _VARINT:
      value, place = _varint(message, place)
      yield field, value
      continue
    if wire == _BYTES:
      size, place = _varint(message, place)
    else:
      size = {_FIXED64: 8, _FIXED32: 4}[wire]
    yield field, message[place : place + size]
    place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
  """(value, place after it)."""
  value = shift = 0
  while True:
    byte = message[place]
    value |= (byte & 0x7F) << shift
    place, shift = place + 1, shift + 7
    if not byte & 0x80:
      return value, place


class Scalars:
  """All series of a run's tensorboard/ directory, by part and name."""

  def __init__(self, directory: pathlib.Path):
    self._directory = directory
    self._files: dict[pathlib.Path, EventFile] = {}
    self._series: dict[tuple[str, str], dict[int, float]] = {}

  def refresh(self) -> None:
    """Reads what was added. Of a step that was done twice the later value counts."""
    for part in self._parts():
      for entry in reading.entries(part):
        path = pathlib.Path(entry.path)
        if entry.name.startswith('events.') and path not in self._files:
          self._files[path] = EventFile(path)
    for path, file in self._files.items():
      part = path.parent.relative_to(self._directory).as_posix()
      for name, step, value in file.fresh():
        self._series.setdefault((part, name), {})[step] = value

  def _parts(self) -> list[pathlib.Path]:
    first = reading.subdirectories(self._directory)
    return first + [below for part in first for below in reading.subdirectories(part)]

  def series(self) -> list[dict[str, Any]]:
    """Those with two points or more; long ones thinned, the last point kept."""
    return [
        {'part': part, 'name': name, 'points': _thin(sorted(points.items()))}
        for (part, name), points in self._series.items()
        if len(points) > 1 and part != 'evaluate'
    ]


def _thin(points: list[tuple[int, float]]) -> list[list[float | None]]:
  every = -(-len(points) // MOST_POINTS)
  kept = points[::every]
  if kept[-1] != points[-1]:
    kept.append(points[-1])
  # NaN and infinity have no JSON.
  return [
      [step, float(f'{value:.5g}') if abs(value) < float('inf') else None]
      for step, value in kept
  ]
