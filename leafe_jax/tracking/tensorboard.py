"""Event files for TensorBoard, one directory a part of the run."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging as python_logging
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from leafe_jax.tracking.api import Cell, Subject

_RUN = 'run'  # the part of what belongs to no other
_PICTURES = ('.png',)
_FLUSH_S = 20.0


@contextlib.contextmanager
def _without(*names: str) -> Iterator[None]:
  """Hides packages that are not imported yet from those who only look for them."""
  hidden = [name for name in names if name not in sys.modules]
  sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
  try:
    yield
  finally:
    for name in hidden:
      del sys.modules[name]


# It would import them where they are installed: seconds and 200 MB for nothing.
with _without('torch', 'google.cloud.storage'):
  from tensorboardX import event_file_writer, summary
  from tensorboardX.proto import event_pb2

# Says of every figure that is no number that "input" holds one, and not which. Those
# are meant: a mean of nothing.
python_logging.getLogger('tensorboardX.x2num').setLevel(python_logging.ERROR)


class TensorBoard:
  """Event files below a directory.

  The package's own SummaryWriter is not used: a thread of its own writes there, and
  once more as the process ends, each with a traceback where the disk is full.

  Args:
    subject: the run.
    directory: gets a directory of each part.
  """

  def __init__(self, subject: Subject, directory: pathlib.Path):
    self._subject, self._directory = subject, directory
    self._open: dict[str, _Events] = {}

  def scalars(self, part: str, step: int, values: Mapping[str, float]) -> None:
    events = self._events(part)
    for name, value in values.items():
      events.add(summary.scalar(name, value), step)

  def flush(self, part: str) -> None:
    events = self._open.pop(part, None)
    if events:
      events.close()

  def table(
      self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]
  ) -> None:
    lines = [columns, ['---'] * len(columns), *rows]
    text = '\n'.join(f'| {" | ".join(map(_cell, line))} |' for line in lines)
    config = json.dumps(self._subject.config, indent=2)
    with contextlib.closing(_Events(self._directory / _RUN)) as events:
      events.add(summary.text(name, text))
      events.add(summary.text('config', f'```\n{config}\n```'))

  def files(self, name: str, paths: Sequence[pathlib.Path]) -> None:
    """Shows pictures; TensorBoard keeps no other files."""
    from matplotlib import image

    with contextlib.closing(_Events(self._directory / _RUN)) as events:
      for path in paths:
        if path.suffix in _PICTURES:
          picture = image.imread(path)
          events.add(summary.image(path.stem, picture, dataformats='HWC'))

  def close(self, exit_code: int) -> None:
    for part in list(self._open):
      self.flush(part)

  def _events(self, part: str) -> _Events:
    if part not in self._open:
      self._open[part] = _Events(self._directory / part)
    return self._open[part]


class _Events:
  """A new event file in a directory."""

  _files = itertools.count()  # names have seconds; a part may be opened twice in one

  def __init__(self, directory: pathlib.Path):
    directory.mkdir(parents=True, exist_ok=True)
    self._writer = event_file_writer.EventsWriter(
        str(directory / 'events'), f'.{os.getpid()}.{next(self._files)}'
    )
    self._flushed = time.monotonic()

  def add(self, found: summary.Summary, step: int = 0) -> None:
    """Writes a summary; a watcher sees it `_FLUSH_S` later at most, if more comes."""
    event = event_pb2.Event(  # pyright: ignore[reportAttributeAccessIssue]
        summary=found, step=step, wall_time=time.time()
    )
    self._writer.write_event(event)
    if time.monotonic() - self._flushed > _FLUSH_S:
      self._writer.flush()
      self._flushed = time.monotonic()

  def close(self) -> None:
    self._writer.close()


def _cell(cell: Cell) -> str:
  return f'{cell:g}' if isinstance(cell, float) else str(cell)
