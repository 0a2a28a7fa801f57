"""What environment work comes to, which may be anything: a failure is data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from absl import logging

from envs import api, boundary

T = TypeVar('T')


@dataclasses.dataclass
class Outcome:
  """What environment work came to; filled in as far as it got.

  Attributes:
    step: the environment's answer.
    action: the action in the response, None when it held none.
    invalid: why it held none ('InvalidAction: ...', 'CutOff: ...').
    replayed_steps: steps replayed to restore a state.
    error: what the environment raised, None if nothing.
    closing: what its session raised when it was closed at the end.
  """

  step: api.Step | None = None
  action: str | None = None
  invalid: str | None = None
  replayed_steps: int = 0
  error: str | None = None
  closing: str | None = None


def attempt(work: Callable[[], T]) -> tuple[T | None, str | None]:
  """As `envs.boundary.attempt`, with a line in the log: a failure becomes data."""
  result, error = boundary.attempt(work)
  if error is not None:
    logging.warning('an episode broke: %s', error)
  return result, error
