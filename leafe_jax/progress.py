"""Progress bars: one per phase, with rate and ETA, on stderr of process 0.

After a minute a bar's rate is known: what it has left goes to the log, once. What a
bar shows stands in the run's progress.json, too (`leafe_jax.heartbeat`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import tqdm
from absl import logging

from leafe_jax import heartbeat, hosts

_MINUTE = 60.0


class Progress:
  """A bar that works on terminals and, one line every 10 s, in logs.

  Args:
    name: of what is going on.
    total: units of it.
    unit: the noun.
    done: units that were done before.
    clock: seconds, monotonic.
  """

  def __init__(
      self, name: str, total: int, unit: str, done: int = 0,
      clock: Callable[[], float] = time.monotonic,
  ):
    self._name, self._unit = name, unit
    self._left = total - done
    self._shown: dict[str, Any] = {
        'name': name, 'unit': unit, 'total': total, 'done': done, 'fresh': 0,
        'figures': {}, 'start': time.time(), 'first': None, 'last': None,
    }
    self._pace = _Pace(clock)
    tty = sys.stderr.isatty()
    self._bar = tqdm.tqdm(
        total=total,
        initial=done,
        disable=not hosts.is_first(),
        desc=f'{name:<18}',
        unit=unit,
        mininterval=0.5 if tty else 10.0,
        dynamic_ncols=tty,
        ascii=not tty,
        smoothing=0.1,
    )

  def __enter__(self) -> Progress:
    heartbeat.tell(bar=self._shown)
    return self

  def __exit__(self, *exc_info: object) -> None:
    self._bar.close()
    heartbeat.tell(bar=None)

  def advance(self, count: int = 1) -> None:
    self._bar.update(count)
    self._left -= count
    self._note(count)
    rate = self._pace.after(count)
    if rate and self._left > 0:
      units = f'{self._unit}s' if self._left > 1 else self._unit
      time_left = duration(self._left / rate)
      logging.info(
          '%s: %d %s left, about %s at the rate so far',
          self._name, self._left, units, time_left,
      )

  def skip(self, count: int) -> None:
    """Units that were done before; they say nothing about the rate."""
    self._bar.update(count)
    self._left -= count
    self._shown['done'] += count

  def show(self, figures: Mapping[str, object]) -> None:
    self._bar.set_postfix(figures, refresh=False)
    self._shown['figures'] = {name: f'{value}' for name, value in figures.items()}
    heartbeat.tell(bar=self._shown)

  def _note(self, count: int) -> None:
    """Of the units of this start, those after the first: it holds the compiling."""
    now, shown = time.time(), self._shown
    shown['done'] += count
    if shown['first'] is None:
      shown['first'] = now
    else:
      shown['fresh'] += count
    shown['last'] = now
    heartbeat.tell(bar=shown)


class _Pace:
  """Finds a rate once, when a minute has gone by.

  What comes before the first unit is left out where that is less than a minute:
  most of it is compiling.
  """

  def __init__(self, clock: Callable[[], float]):
    self._clock = clock
    self._start = clock()
    self._count = 0
    self._begun = self._known = False

  def after(self, count: int) -> float:
    """Units a second, when it becomes known; 0 before and afterwards."""
    if self._known:
      return 0.0
    now = self._clock()
    self._count += count
    elapsed = now - self._start
    self._known = elapsed >= _MINUTE
    if self._known:
      return self._count / elapsed
    if not self._begun:
      self._begun, self._start, self._count = True, now, 0
    return 0.0


def duration(seconds: float) -> str:
  """For people: '40 s', '12 min', '3.5 h'."""
  if seconds < 100:
    return f'{seconds:.0f} s'
  return f'{seconds / 60:.0f} min' if seconds < 6000 else f'{seconds / 3600:.1f} h'
