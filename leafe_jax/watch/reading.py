"""Files that another process is writing, perhaps on another machine.

They may be cut in the middle of a line, change between two looks, or vanish. What
cannot be read now is told as a trouble and tried again at the next look.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from leafe_jax.files import PARTIAL

T = TypeVar('T')
# A file that takes long to read is not read all the time: of its reader's time
# a tenth goes into it.
_LONG_S = 0.5
_REST = 10.0
_BAD = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


def read_object(path: pathlib.Path) -> tuple[dict[str, Any], str]:
  """(the object of a JSON file, empty if there is none; the trouble with it)."""
  try:
    found = json.loads(path.read_bytes())
  except (FileNotFoundError, NotADirectoryError):
    return {}, ''
  except OSError as error:
    return {}, f'{path.name}: {error.strerror or error}'
  except (ValueError, RecursionError):
    return {}, f'{path.name} is not whole JSON'
  if not isinstance(found, dict):
    return {}, f'{path.name} holds no object'
  return found, ''


def entries(directory: pathlib.Path) -> list[os.DirEntry[str]]:
  """What is in a directory, by name; nothing if it is gone. No leftovers."""
  try:
    with os.scandir(directory) as found:
      every = [entry for entry in found if not entry.name.endswith(PARTIAL)]
  except OSError:
    return []
  return sorted(every, key=lambda entry: entry.name)


def subdirectories(directory: pathlib.Path) -> list[pathlib.Path]:
  """Real directories of one, not links to others, by name."""
  return [
      pathlib.Path(entry.path) for entry in entries(directory)
      if _is_directory(entry)
  ]  # fmt: skip


def _is_directory(entry: os.DirEntry[str]) -> bool:
  try:
    return entry.is_dir(follow_symlinks=False)
  except OSError:
    return False


@dataclasses.dataclass
class Line(Generic[T]):
  """A line of a file that could be read.

  Attributes:
    start, size: where it is, in bytes.
    value: what was made of it.
  """

  start: int
  size: int
  value: T


class LinesFile(Generic[T]):
  """The lines of a JSON-lines file, read again when it has changed.

  Attributes:
    lines: of the last reading.
    trouble: what of it could not be read, empty if nothing.
    version: changes when the file does.
    written: when it was last written, by the clock of its file system.

  Args:
    path: of the file.
    make: of the value of a line; what it raises makes the line a trouble.
    clock: seconds, monotonic.
  """

  def __init__(
      self, path: pathlib.Path, make: Callable[[Any], T],
      clock: Callable[[], float] = time.monotonic,
  ):
    self.path = path
    self.lines: list[Line[T]] = []
    self.trouble = ''
    self.version = ''
    self.written = 0.0
    self._make = make
    self._clock = clock
    self._not_before = float('-inf')

  def refresh(self) -> bool:
    """Reads the file if it has changed; whether it did."""
    now = self._clock()
    if now < self._not_before:
      return False
    try:
      status = self.path.stat()
      version = f'{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}'
      if version == self.version:
        return False
      lines, trouble = self._read()
    except FileNotFoundError:
      return False  # it has just been renamed; the next look finds its successor
    except OSError as error:
      self.trouble = f'{self.path.name}: {error.strerror or error}'
      return False
    self.lines, self.trouble, self.version = lines, trouble, version
    self.written = status.st_mtime
    after = self._clock()
    if after - now > _LONG_S:
      self._not_before = after + _REST * (after - now)
    return True

  def _read(self) -> tuple[list[Line[T]], str]:
    found, bad = [], []
    for number, (start, line) in enumerate(self._raw(), start=1):
      try:
        found.append(Line(start, len(line), self._make(json.loads(line))))
      except _BAD:
        bad.append('its end' if not line.endswith(b'\n') else f'line {number}')
    if not bad:
      return found, ''
    more = f' and {len(bad) - 3} more' if len(bad) > 3 else ''
    return found, f'{self.path.name}: {", ".join(bad[:3])}{more} cannot be read'

  def _raw(self) -> Iterator[tuple[int, bytes]]:
    start = 0
    with self.path.open('rb') as file:
      for line in file:
        if line.strip():
          yield start, line
        start += len(line)

  def value_at(self, place: int) -> Any:
    """The JSON value of a line, by its number in `lines`, read anew.

    Raises:
      LookupError: it is not there any more, or has changed.
    """
    if not 0 <= place < len(self.lines):
      raise LookupError(f'{self.path.name} has no line {place}')
    line = self.lines[place]
    try:
      with self.path.open('rb') as file:
        file.seek(line.start)
        return json.loads(file.read(line.size))
    except (OSError, ValueError, RecursionError) as error:
      raise LookupError(f'{self.path.name} has changed; look again') from error
