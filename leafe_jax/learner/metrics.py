"""Where scalars go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Writer(Protocol):
  """Takes scalars of a step."""

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Records `scalars` at `step`."""
    ...

  def close(self) -> None:
    """Flushes; may be called twice."""
    ...


class Nowhere:
  """Drops everything."""

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    del step, scalars

  def close(self) -> None:
    pass
