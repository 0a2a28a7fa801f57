"""The state of a phase that goes on from its last step."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from leafe_jax import buckets, hosts
from leafe_jax.endings import RunStopped
from leafe_jax.files import read_object, write_atomic
from leafe_jax.methods.collect import discard_before

STATE = 'state.json'


def write(directory: pathlib.Path, name: str, text: str) -> None:
  """Writes a file of the phase whole or not at all."""
  hosts.first(lambda: write_atomic(directory / name, text))
  buckets.commit(directory, f'a batch of {directory.name}')


def save(directory: pathlib.Path, state: Mapping[str, Any], step: int) -> None:
  """Writes the state after a step, to be read by people too; ends its journal."""
  write(directory, STATE, json.dumps(state, indent=1, ensure_ascii=False) + '\n')
  hosts.first(functools.partial(discard_before, directory, step + 1))


def load(directory: pathlib.Path) -> dict[str, Any] | None:
  """The state of the last step; None before the first. RunStopped if it is damaged."""
  path = directory / STATE
  if not path.exists():
    return None
  try:
    return read_object(path)
  except ValueError as error:
    raise RunStopped(
        f'{path}: {error}; remove {directory}, and the phase is done again'
    ) from error
