"""Event files for TensorBoard, one directory a part of the run."""

from __future__ import annotations

import contextlib
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence

from leafe_jax.tracking.api import Cell, Subject

_RUN = 'run'  # the part of what belongs to no other
_PICTURES = ('.png',)


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
  import tensorboardX


class TensorBoard:
  """Event files below a directory.

  Args:
    subject: the run.
    directory: gets a directory of each part.
  """

  def __init__(self, subject: Subject, directory: pathlib.Path):
    self._subject, self._directory = subject, directory
    self._open: dict[str, tensorboardX.SummaryWriter] = {}

  def scalars(self, part: str, step: int, values: Mapping[str, float]) -> None:
    writer = self._writer(part)
    for name, value in values.items():
      writer.add_scalar(name, value, step)

  def flush(self, part: str) -> None:
    writer = self._open.pop(part, None)
    if writer:
      writer.close()

  def table(
      self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]
  ) -> None:
    lines = [columns, ['---'] * len(columns), *rows]
    text = '\n'.join(f'| {" | ".join(map(_cell, line))} |' for line in lines)
    self._writer(_RUN).add_text(name, text)
    config = json.dumps(self._subject.config, indent=2)
    self._writer(_RUN).add_text('config', f'```\n{config}\n```')

  def files(self, name: str, paths: Sequence[pathlib.Path]) -> None:
    """Shows pictures; TensorBoard keeps no other files."""
    from matplotlib import image

    for path in paths:
      if path.suffix in _PICTURES:
        picture = image.imread(path)
        self._writer(_RUN).add_image(path.stem, picture, dataformats='HWC')

  def close(self, exit_code: int) -> None:
    for part in list(self._open):
      self.flush(part)

  def _writer(self, part: str) -> tensorboardX.SummaryWriter:
    if part not in self._open:
      place = str(self._directory / part)
      self._open[part] = tensorboardX.SummaryWriter(place, flush_secs=20)
    return self._open[part]


def _cell(cell: Cell) -> str:
  return f'{cell:g}' if isinstance(cell, float) else str(cell)
