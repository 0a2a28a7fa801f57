"""The installed commands: `leafe-jax` is `python -m leafe_jax.main`, `leafe-jax-NAME`
is `python -m tools.NAME`.

Modules are run as Python's -m runs them: absl shows the flags of the program that
was started, and knows it by its file. The working directory comes last on the path,
so that worlds of one's own are found there, but hide nothing.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import runpy
import sys

from leafe_jax import neighbours

_PREFIX = 'leafe-jax'


def module_of(program: str) -> str:
  """The module that a command runs, by the name of its file."""
  name = pathlib.Path(program).name.removesuffix('.exe').removeprefix(_PREFIX)
  return f'tools.{name[1:].replace("-", "_")}' if name else 'leafe_jax.main'


def run() -> None:
  """Runs the module of the command that was typed."""
  # Before the working directory: an editable install finds its packages after it.
  for name in neighbours.NAMES:
    importlib.import_module(name)
  sys.path.append(os.getcwd())
  runpy.run_module(module_of(sys.argv[0]), run_name='__main__', alter_sys=True)
