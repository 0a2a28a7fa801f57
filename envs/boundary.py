"""The one boundary between a run and whatever an environment may raise.

Environments are other people's code. What theirs raises is data of the episode
that it broke: `SystemExit` too, and the panics of extensions in other languages,
which are no `Exception`. Only the interrupt of whoever sits at the terminal goes
on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar('T')

MAX_CHARACTERS = 2000  # of what is kept of a message


def attempt(work: Callable[[], T]) -> tuple[T | None, str | None]:
  """(result, None), or (None, what went wrong): 'Type: message'."""
  result, error = _caught(work)
  return result, None if error is None else describe(error)


def describe(error: BaseException) -> str:
  """'Type: message' of an error, as text that can be written.

  The message is an environment's too: it may be of any length, hold halves of
  surrogate pairs, or raise when it is asked for.
  """
  message, unreadable = _caught(lambda: str(error))
  if unreadable is not None or message is None:
    message = f'its message raises {type(unreadable).__name__}'
  message = message.encode(errors='backslashreplace').decode()
  if len(message) > MAX_CHARACTERS:
    message = f'{message[:MAX_CHARACTERS]}... ({len(message)} characters)'
  return f'{type(error).__name__}: {message}'


def _caught(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
  try:
    return work(), None
  except KeyboardInterrupt:
    raise
  except BaseException as error:  # noqa: BLE001
    return None, error
