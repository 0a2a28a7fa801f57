"""Environments by name.

A new environment is one line in `_MAKERS`; its module is imported when it is
first asked for, so that no environment costs the others its dependencies.
"""

from __future__ import annotations

import importlib
from typing import Any

from envs.api import World

_MAKERS = {
    'alfworld': 'envs.alfworld.env:make',
    'codecontests': 'envs.codecontests.env:make',
    'scienceworld': 'envs.scienceworld.env:make',
    'sokoban': 'envs.sokoban.env:make',
    'webshop': 'envs.webshop.env:make',
}


def names() -> tuple[str, ...]:
  """Every name that `make` knows, sorted."""
  return tuple(sorted(_MAKERS))


def make(name: str, **options: Any) -> World:
  """The world `name`, built with its own options.

  Raises:
    ValueError: the name is unknown (the choices are listed), or the world
      refuses an option.
  """
  if name not in _MAKERS:
    raise ValueError(
        f'unknown environment {name!r}; choose from {", ".join(names())}'
    )
  module, function = _MAKERS[name].split(':')
  return getattr(importlib.import_module(module), function)(**options)
