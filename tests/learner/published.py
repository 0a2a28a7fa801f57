"""Functions of other projects, called apart from the trainers they live in.

Importing TRL's or verl's trainers asks for ray, accelerate, datasets and more.
Their formulas need torch alone: `load` compiles the named functions out of the
installed package's own file. Packages: torch, and without their dependencies
(pip install --no-deps) trl==0.28.0 and verl==0.9.1; for self-distillation trl==1.16.0.
"""

from __future__ import annotations

import ast
import importlib.util
import pathlib
from typing import Any

import pytest


def torch() -> Any:
  return pytest.importorskip('torch', reason='torch is not in the lock file')


def load(package: str, path: str, *names: str, **known: Any) -> dict[str, Any]:
  """The named functions or methods of a file of an installed package.

  Args:
    package: not imported; the test is skipped where it is not installed.
    path: of the file in the package; the test is skipped where it lacks it.
    names: of the functions, which see each other.
    known: what else they name.
  """
  found = importlib.util.find_spec(package)
  if found is None or not found.submodule_search_locations:
    pytest.skip(f'{package} is not in the lock file')
  file = pathlib.Path(next(iter(found.submodule_search_locations))) / path
  if not file.exists():
    pytest.skip(f'the {package} that is installed has no {path}')
  tree = ast.parse(file.read_text(encoding='utf-8'), str(file))
  functions = [
      node for node in ast.walk(tree)
      if isinstance(node, ast.FunctionDef) and node.name in names
  ]
  assert {node.name for node in functions} == set(names), file
  for node in functions:
    node.decorator_list = []  # registers of the package
  future = ast.parse('from __future__ import annotations').body  # names of types
  module = ast.Module([*future, *functions], [])
  exec(compile(module, str(file), 'exec'), known)  # noqa: S102
  return known
