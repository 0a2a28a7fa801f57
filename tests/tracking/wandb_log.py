"""Reads the log of an offline wandb run: LevelDB's format around protobuf records."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

_FILE_HEADER = 7  # ':W&B', a magic number and a version
_BLOCK = 1 << 15
_HEADER = 7  # checksum (4), length (2), type (1) of a piece of a record
_WHOLE, _LAST = 1, 4


def records(path: pathlib.Path) -> list[Any]:
  """All records of a .wandb file, as the package's own protobuf type."""
  from wandb.proto import wandb_internal_pb2

  return [wandb_internal_pb2.Record.FromString(data) for data in _texts(path)]


def _texts(path: pathlib.Path) -> Iterator[bytes]:
  data = path.read_bytes()
  assert data[:4] == b':W&B'
  place, text = _FILE_HEADER, b''
  while place + _HEADER <= len(data):
    left = _BLOCK - place % _BLOCK
    if left < _HEADER:  # filled with zeros
      place += left
      continue
    length = int.from_bytes(data[place + 4 : place + 6], 'little')
    kind = data[place + 6]
    text += data[place + _HEADER : place + _HEADER + length]
    place += _HEADER + length
    if kind in (_WHOLE, _LAST):
      yield text
      text = b''
