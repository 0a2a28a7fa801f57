"""A run that is asked to stop: SIGTERM of a cloud or a scheduler, Ctrl-C of a person.

SIGHUP, of a terminal that is closed, counts as well. The first signal is only
noted. Loops ask `asked` where they can be left with nothing half done, which all
processes answer alike, save what they have, and raise `Stopped`. A second signal
ends the process at once, and so does the end of the grace period.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time

import jax

from leafe_jax import hosts
from leafe_jax.endings import RunStopped

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(RunStopped):
  """The run was asked to stop, and did.

  Attributes:
    number: of the signal.
    exit_code: as a shell has it: 143 after SIGTERM, 130 after SIGINT.
  """

  def __init__(self, number: int, saved: str):
    super().__init__(
        f'stopped by {signal.Signals(number).name}: {saved}; the same command goes on'
    )
    self.number = number
    self.exit_code = 128 + number


def listen(grace_s: float) -> None:
  """Notes signals from now on, instead of ending; but for ignored ones (nohup).

  Args:
    grace_s: seconds from a signal to the end of the process, whatever it does.
  """
  heard, told = os.pipe()
  os.set_blocking(told, False)
  for number in SIGNALS:
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, lambda *_: None)
  # Told at once, also while the main thread is busy in a compiler.
  signal.set_wakeup_fd(told, warn_on_full_buffer=False)
  threading.Thread(target=_hear, args=(heard, grace_s), daemon=True).start()


def _hear(heard: int, grace_s: float) -> None:
  """Notes the first signal; ends the process at the second, or after the grace."""
  first = _next(heard, None)
  hosts.wish(first)
  second = _next(heard, grace_s)
  if not second:
    sys.stderr.write(
        f'{signal.Signals(first).name}: not done within {grace_s:g} s (--grace_s); '
        'what was saved before stands, and the same command goes on\n'
    )
    sys.stderr.flush()
  os._exit(128 + (second or first))


def _next(heard: int, seconds: float | None) -> int:
  """The next of the `SIGNALS`; 0 if none comes in time."""
  end = None if seconds is None else time.monotonic() + seconds
  while True:
    left = None if end is None else max(0.0, end - time.monotonic())
    if not select.select([heard], [], [], left)[0]:
      return 0
    [number] = os.read(heard, 1)  # others, such as alarms, are told here too
    if number in SIGNALS:
      return number


def asked() -> int:
  """Number of the signal that some process of the run has got; 0: none.

  All processes ask at the same place of the run, and get the same answer: wishes
  travel with what they exchange anyway.
  """
  return hosts.wished()


def ask() -> int:
  """As `asked`, after an exchange for its sake, where there is no other for long."""
  with jax.transfer_guard('allow'):  # training forbids what it does not spell out
    hosts.meet()
  return asked()


def check(saved: str, number: int | None = None) -> None:
  """Raises Stopped if the run was asked to stop; `saved` says what is not lost.

  Args:
    saved: for the message.
    number: what `ask` said; None: ask nobody, see `asked`.
  """
  number = asked() if number is None else number
  if number:
    raise Stopped(number, saved)

