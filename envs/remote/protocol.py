"""What is said between a run and the side where sessions live.

A request is bytes of `Request`, a reply bytes of `Reply`; both hold plain types
and those of `envs.api`, so what an environment made up never leaves its side.
"""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any, Protocol, TypeVar

from envs import api

T = TypeVar('T')


class WorkerLost(api.EnvError):
  """The other side is gone, and with it what it was asked for; says how."""


class StepTimeout(WorkerLost):
  """The other side took longer than it may, and was ended."""


@dataclasses.dataclass(frozen=True)
class Request:
  """One thing to do.

  Attributes:
    session: number of the session.
    method: of `worker.Sessions`.
    arguments: of the method.
    dropped: sessions that nobody will ask for again.
  """

  session: int
  method: str
  arguments: tuple[Any, ...] = ()
  dropped: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Reply:
  """What came of it.

  Attributes:
    result: what the method returned.
    error: what it raised, 'Type: message'; None if nothing.
  """

  result: Any = None
  error: str | None = None


class Transport(Protocol):
  """A way to one other side. Used by one thread at a time."""

  def wait(self) -> None:
    """Until the other side has made its world. Raises WorkerLost if it cannot."""
    ...

  def ask(self, request: bytes, limit: float) -> bytes:
    """Sends a request and waits for its reply.

    Args:
      request: to send.
      limit: seconds to wait; 0: for ever.

    Raises:
      WorkerLost: there is no other side any more; StepTimeout: it was ended here.
    """
    ...

  def overgrown(self) -> bool:
    """Whether the other side should be replaced before it is asked again."""
    ...

  def end(self) -> None:
    """Ends the other side, whatever it is doing; may be called twice."""
    ...


def encode(message: Request | Reply) -> bytes:
  """A message as bytes."""
  return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def decode(kind: type[T], message: bytes) -> T:
  """A message from bytes."""
  found = pickle.loads(message)
  assert isinstance(found, kind)
  return found


def raised(error: str) -> api.EnvError:
  """The error of a reply, under the name that it had on the other side."""
  kind, _, message = error.partition(': ')
  known = getattr(api, kind, None)
  if not (isinstance(known, type) and issubclass(known, api.EnvError)):
    known = type(kind, (api.EnvError,), {})
  found = known.__new__(known)
  found.args = (message,)
  return found
