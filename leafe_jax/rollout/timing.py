"""Where the time of rollouts goes, and what the cached prefixes saved."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TypeVar

from leafe_jax.sampler import Stats

T = TypeVar('T')


class Clock:
  """Adds up the time spent in environments.

  Attributes:
    environment: seconds.
  """

  def __init__(self):
    self.environment = 0.0

  def time(self, work: Callable[[], T]) -> T:
    """The result of work in an environment, however it ends."""
    start = time.perf_counter()
    try:
      return work()
    finally:
      self.environment += time.perf_counter() - start


class Meter:
  """The host's time from its making on, by what it was spent on."""

  def __init__(self, clock: Clock, stats: Stats):
    self._clock = clock
    self._stats = stats
    self._before = dataclasses.replace(stats)
    self._environment = clock.environment
    self._start = time.perf_counter()

  def seconds(self) -> dict[str, float]:
    """Shares of the wall time.

    prefill and decode wait for programs that only read, and that read and
    decode; environment steps worlds; sampler makes batches and states; other
    is the rest. idle is no further share: no program was under way then.
    """
    wall = time.perf_counter() - self._start
    parts = {
        'prefill': self._since('prefill_seconds'),
        'decode': self._since('decode_seconds'),
        'environment': self._clock.environment - self._environment,
        'sampler': self._since('host_seconds'),
    }
    parts['other'] = max(0.0, wall - sum(parts.values()))
    parts['idle'] = self._since('idle_seconds')
    return {name: round(value, 2) for name, value in parts.items()}

  def tokens(self) -> dict[str, int]:
    """Prompt tokens computed and reused, tokens sampled, states put back."""
    return {
        'computed': int(self._since('prompt_tokens')),
        'reused': int(self._since('cached_tokens')),
        'matched': int(self._since('matched_tokens')),
        'sampled': int(self._since('sampled_tokens')),
        'put_back': int(self._since('put_back')),
    }

  def figures(self) -> dict[str, dict]:
    return {'seconds': self.seconds(), 'tokens': self.tokens()}

  def _since(self, name: str) -> float:
    return getattr(self._stats, name) - getattr(self._before, name)
