"""How a run may end before its end; each is told in one line, without a traceback."""

from __future__ import annotations


class WorkdirBusy(RuntimeError):
  """Another process works in the directory."""


class RunStopped(RuntimeError):
  """The run cannot go on; the message says why and what can be done.

  Attributes:
    exit_code: of the process.
  """

  exit_code = 1


class EarlyEnd(RunStopped):
  """A run found out that its later phases have nothing to work on.

  That is a result, which its report tells; the run can go on after a change.
  """
