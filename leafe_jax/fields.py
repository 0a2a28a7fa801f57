"""How an option is written: a dataclass field with its meaning and its range."""

from __future__ import annotations

import dataclasses
from typing import Any

from leafe_jax.ranges import Range


def option(
    default: Any,
    doc: str,
    choices: tuple[Any, ...] = (),
    *,
    verbatim: bool = False,
    **bounds: Any,
) -> Any:
  """A dataclass field with its documentation and allowed values.

  Args:
    default: of the option.
    doc: its meaning.
    choices: its values; empty for all of the type.
    verbatim: whether commas are part of a tuple's texts, not between them.
    **bounds: of a number, or of each item of a tuple, as fields of `Range`.
  """
  allowed = Range(**bounds) if bounds else None
  metadata = {
      'doc': doc, 'choices': choices, 'verbatim': verbatim, 'range': allowed,
  }
  if isinstance(default, dict):
    return dataclasses.field(  # jit hashes a policy; equality still compares it
        default_factory=lambda: dict(default), metadata=metadata, hash=False
    )
  return dataclasses.field(default=default, metadata=metadata)


def section(cls: type, doc: str) -> Any:
  return dataclasses.field(default_factory=cls, metadata={'doc': doc})
