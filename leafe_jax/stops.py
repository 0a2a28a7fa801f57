"""A run that is asked to stop: SIGTERM of a cloud or a scheduler, Ctrl-C of a person.

The first signal is only noted. Loops ask `asked` where they can be left with
nothing half done, which all processes answer alike, save what they have, and raise
`Stopped`. A second signal ends the process at once, and so does the end of the
grace period.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from leafe_jax import hosts
from leafe_jax.rundir import RunStopped

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(RunStopped):
  """The run was asked to stop, and did.

  Attributes:
    code: exit code, as a shell has it: 143 after SIGTERM, 130 after SIGINT.
  """

  def __init__(self, number: int, saved: str):
    super().__init__(
        f'stopped by {signal.Signals(number).name}: {saved}; the same command goes on'
    )
    self.code = 128 + number


class _Asked:
  """What this process remembers.

  Attributes:
    signal: number of the signal that came first; 0: none.
  """

  signal = 0


def listen(grace_s: float) -> None:
  """Notes signals from now on, instead of ending.

  Args:
    grace_s: seconds from a signal to the end of the process, whatever it does.
  """

  def note(number: int, frame: object) -> None:
    del frame
    for each in SIGNALS:  # the second one ends it at once
      signal.signal(each, signal.SIG_DFL)
    _Asked.signal = number
    timer = threading.Timer(grace_s, _end, (number, grace_s))
    timer.daemon = True
    timer.start()

  for number in SIGNALS:
    signal.signal(number, note)


def asked() -> int:
  """Number of the signal that some process of the run has got; 0: none.

  All processes ask at the same place of the run, and get the same answer.
  """
  if hosts.count() == 1:
    return _Asked.signal
  return max(map(int, hosts.exchange(str(_Asked.signal).encode())))


def check(saved: str) -> None:
  """Raises Stopped if the run was asked to stop; `saved` says what is not lost."""
  number = asked()
  if number:
    raise Stopped(number, saved)


def _end(number: int, grace_s: float) -> None:
  sys.stderr.write(
      f'{signal.Signals(number).name}: not at a point to stop within {grace_s:g} s '
      '(--grace_s); what was saved before stands, and the same command goes on\n'
  )
  sys.stderr.flush()
  os._exit(128 + number)
