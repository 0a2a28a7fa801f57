"""Where scalars go."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

import tensorboardX

from leafe_jax import hosts


class Writer(Protocol):
  """Takes scalars of a step."""

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Records `scalars` at `step`."""
    ...

  def close(self) -> None:
    """Flushes; may be called twice."""
    ...


class TensorBoard:
  """Event files for TensorBoard."""

  def __init__(self, directory: str | os.PathLike[str], prefix: str = ''):
    self._prefix = prefix
    self._writer = tensorboardX.SummaryWriter(str(directory), flush_secs=20)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    for name, value in scalars.items():
      self._writer.add_scalar(self._prefix + name, value, step)

  def close(self) -> None:
    self._writer.close()


class Nowhere:
  """Drops everything: for processes other than the first, and for tests."""

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    del step, scalars

  def close(self) -> None:
    pass


def make_writer(directory: str | os.PathLike[str], prefix: str = '') -> Writer:
  """TensorBoard on process 0, nowhere on the others."""
  return TensorBoard(directory, prefix) if hosts.is_first() else Nowhere()
