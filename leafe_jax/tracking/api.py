"""What a run tells, and the contract of whoever is told."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Cell = str | float


@dataclasses.dataclass(frozen=True)
class Subject:
  """The run that is told of.

  Attributes:
    id: of the run, the same at every start; no two runs have the same.
    name: for people; ends in the id, as some tell runs apart by their names alone.
    group: what the run is one of (a study), or ''.
    project: what runs are collected under; '' leaves it to the tracker.
    directory: for what the tracker keeps.
    config: JSON types, without secrets.
  """

  id: str
  name: str
  group: str
  project: str
  directory: pathlib.Path
  config: Mapping[str, Any]


class Tracker(Protocol):
  """Is told of one run. Every method may raise `apart.FAILURES`."""

  def scalars(self, part: str, step: int, values: Mapping[str, float]) -> None:
    """Figures of a part of the run, which counts its steps by itself.

    Args:
      part: such as 'distill_leafe' or 'explore'.
      step: of the part; told again after a resume, with the same figures.
      values: name -> figure.
    """
    ...

  def flush(self, part: str) -> None:
    """No more figures of a part come for now."""
    ...

  def table(
      self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]
  ) -> None:
    """A table of results."""
    ...

  def files(self, name: str, paths: Sequence[pathlib.Path]) -> None:
    """Files to keep with the run; pictures are shown, too."""
    ...

  def close(self, exit_code: int) -> None:
    """The run ends; above 128 by the signal `exit_code - 128`. Called once."""
    ...


class Nobody:
  """Is told nothing: on processes other than the first, and in tests."""

  def scalars(self, part: str, step: int, values: Mapping[str, float]) -> None:
    pass

  def flush(self, part: str) -> None:
    pass

  def table(
      self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]
  ) -> None:
    pass

  def files(self, name: str, paths: Sequence[pathlib.Path]) -> None:
    pass

  def close(self, exit_code: int) -> None:
    pass


class Everybody:
  """Tells several trackers the same."""

  def __init__(self, trackers: Sequence[Tracker]):
    self._trackers = tuple(trackers)

  def scalars(self, part: str, step: int, values: Mapping[str, float]) -> None:
    for tracker in self._trackers:
      tracker.scalars(part, step, values)

  def flush(self, part: str) -> None:
    for tracker in self._trackers:
      tracker.flush(part)

  def table(
      self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]
  ) -> None:
    for tracker in self._trackers:
      tracker.table(name, columns, rows)

  def files(self, name: str, paths: Sequence[pathlib.Path]) -> None:
    for tracker in self._trackers:
      tracker.files(name, paths)

  def close(self, exit_code: int) -> None:
    for tracker in self._trackers:
      tracker.close(exit_code)


class PartWriter:
  """A tracker as the `learner.metrics.Writer` of one part of a run."""

  def __init__(self, tracker: Tracker, part: str):
    self._tracker, self._part = tracker, part

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    self._tracker.scalars(self._part, step, scalars)

  def close(self) -> None:
    self._tracker.flush(self._part)
