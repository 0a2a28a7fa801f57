"""trackio: a local database and dashboard, or a Space of the Hugging Face Hub.

Its variables (TRACKIO_DIR, TRACKIO_SPACE_ID, TRACKIO_SERVER_URL, ...) count as always;
without them everything stays on this machine.
"""

from __future__ import annotations

import contextlib
import io
import pathlib
from collections.abc import Mapping, Sequence

import trackio
from absl import logging

from leafe_jax.tracking.api import Cell, Subject

PROJECT = 'leafe_jax'
_PICTURES = ('.png',)


class Trackio:
  """A run of trackio's; parts are prefixes of the figures' names."""

  def __init__(self, subject: Subject):
    project = subject.project or PROJECT
    # Runs are told apart by name, which ends in the id.
    with contextlib.redirect_stdout(io.StringIO()):  # it says there what we log
      self._run = trackio.init(
          project=project, name=subject.name, group=subject.group or None,
          config=dict(subject.config), resume='allow', embed=False,
      )
    self._last = 0
    logging.info(
        '--tracker=trackio: run %s; "trackio show --project %s" shows it',
        subject.name, project,
    )

  def scalars(self, part: str, step: int, values: Mapping[str, float]) -> None:
    self._last = max(self._last, step)
    figures = {f'{part}/{name}': value for name, value in values.items()}
    self._run.log(figures, step=step)

  def flush(self, part: str) -> None:
    """The package writes by itself."""

  def table(
      self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]
  ) -> None:
    data = [list(row) for row in rows]
    table = trackio.Table(columns=list(columns), data=data)
    self._run.log({name: table}, step=self._last)

  def files(self, name: str, paths: Sequence[pathlib.Path]) -> None:
    artifact = trackio.Artifact(name=f'{name}-{self._run.name}', type=name)
    for path in paths:
      artifact.add_file(str(path), name=path.name)
    self._run.log_artifact(artifact)
    for path in paths:
      if path.suffix in _PICTURES:
        self._run.log({path.stem: trackio.Image(str(path))}, step=self._last)

  def close(self, exit_code: int) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
      self._run.finish()
