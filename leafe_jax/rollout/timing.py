"""Where the time of rollouts goes, and what the cached prefixes saved."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

from leafe_jax.sampler import Stats

_TOKENS = {
    'computed': 'prompt_tokens',
    'reused': 'cached_tokens',
    'matched': 'matched_tokens',
    'sampled': 'sampled_tokens',
    'put_back': 'put_back',
}


class Clock:
  """Adds up the time spent in environments.

  Attributes:
    environment: seconds.
  """

  def __init__(self):
    self.environment = 0.0

  @contextlib.contextmanager
  def running(self) -> Iterator[None]:
    """Times work in environments, however it ends."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self.environment += time.perf_counter() - start


class Meter:
  """The host's time from its making on, by what it was spent on.

  Args:
    clock: times the world.
    stats: returns the sampler's counters, which may be made only later.
  """

  def __init__(self, clock: Clock, stats: Callable[[], Stats]):
    self._clock = clock
    self._stats = stats
    self._before = dataclasses.replace(stats())
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
    """Prompt tokens computed, reused and of these found by their text (matched),
    tokens sampled, states put back."""
    return {name: int(self._since(field)) for name, field in _TOKENS.items()}

  def figures(self) -> dict[str, dict[str, Any]]:
    """`seconds` and `tokens`; nothing where nothing was sampled."""
    if not self._since('dispatches'):
      return {}
    return {'seconds': self.seconds(), 'tokens': self.tokens()}

  def __str__(self) -> str:
    """One line for a log."""
    wall = time.perf_counter() - self._start
    seconds = ', '.join(f'{name} {value:.2f}' for name, value in self.seconds().items())
    tokens = ', '.join(f'{name} {value}' for name, value in self.tokens().items())
    return f'{wall:.2f} s ({seconds}); tokens: {tokens}'

  def _since(self, name: str) -> float:
    return getattr(self._stats(), name) - getattr(self._before, name)
