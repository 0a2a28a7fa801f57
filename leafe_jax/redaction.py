"""What of a config leaves the machine: everything but secrets.

A value is secret whose option is called so ('api_key', 'token', ...), that holds the
value of an environment variable which is called so, or the password of a URL.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from leafe_jax import settings
from leafe_jax.config import Experiment

HIDDEN = '(hidden)'
_SECRET = re.compile(
    r'(?:^|[_.-])(?:(?:api|access|secret|private|auth)_?key|token|secret|password|'
    r'passwd|credentials?|auth|authorization|bearer)$',
    re.IGNORECASE,
)
_PASSWORD = re.compile(r'(?<=://)[^/\s@:]*:[^/\s@]+(?=@)')
_SHORTEST = 8  # of a variable's value that is no word by chance


def is_secret_name(name: str) -> bool:
  """Whether an option or a variable of this name holds a secret."""
  return bool(_SECRET.search(name))


def hide(values: Any, environ: Mapping[str, str] = os.environ) -> Any:
  """JSON types without secrets; `HIDDEN` in their places.

  Args:
    values: a config, or a part of one.
    environ: variables whose secrets are looked for.
  """
  known = tuple(
      value for name, value in environ.items()
      if is_secret_name(name) and len(value) >= _SHORTEST
  )  # fmt: skip
  return _hide(values, known)


def config_text(config: Experiment) -> str:
  """A config as people may see it, indented JSON."""
  return json.dumps(hide(settings.to_dict(config)), indent=2)


def _hide(values: Any, known: tuple[str, ...]) -> Any:
  if isinstance(values, Mapping):
    return {
        key: HIDDEN if _names_text(key, value) else _hide(value, known)
        for key, value in values.items()
    }
  if isinstance(values, (list, tuple)):
    return [_hide(value, known) for value in values]
  if isinstance(values, str):
    return _hide_within(values, known)
  return values


def _names_text(key: str, value: Any) -> bool:
  return is_secret_name(key) and isinstance(value, str) and bool(value)


def _hide_within(text: str, known: tuple[str, ...]) -> str:
  for secret in known:
    text = text.replace(secret, HIDDEN)
  return _PASSWORD.sub(HIDDEN, text)
