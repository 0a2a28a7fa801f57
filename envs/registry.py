"""Environments by name.

A new environment of this package is one line in `_MAKERS`; one of your own needs
none: its name is `package.module:function`, and the function makes the world.
A module is imported when it is first asked for, so that no environment costs the
others its dependencies.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from envs.api import World

_MAKERS = {
    'alfworld': 'envs.alfworld.env:make',
    'codecontests': 'envs.codecontests.env:make',
    'gymnasium': 'envs.adapters.gymnasium_env:make',
    'memsearch': 'envs.memsearch.env:make',
    'openenv': 'envs.adapters.openenv.env:make',
    'scienceworld': 'envs.scienceworld.env:make',
    'sokoban': 'envs.sokoban.env:make',
    'textarena': 'envs.adapters.textarena_env:make',
    'verifiers': 'envs.adapters.verifiers.env:make',
    'webshop': 'envs.webshop.env:make',
}
# What Python raises while it runs a module that is not as it should be.
_BROKEN = (
    ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError,
    LookupError, AssertionError, ArithmeticError, RuntimeError, OSError,
)
_PATH = re.compile(r'[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*')


def names() -> tuple[str, ...]:
  """The environments of this package, sorted."""
  return tuple(sorted(_MAKERS))


def location(name: str) -> str:
  """Where the function of an environment of this package is, as module:function."""
  return _MAKERS[name]


def check(name: str) -> None:
  """ValueError, naming the choices, for a name that `make` cannot know."""
  if name in _MAKERS:
    return
  if not _PATH.fullmatch(name):
    raise ValueError(
        f'unknown environment {name!r}; choose from {", ".join(names())}, or name '
        'your own as package.module:function'
    )
  find_function(name)


def make(name: str, **options: Any) -> World:
  """The world `name`, built with its own options.

  Args:
    name: one of `names()`, or 'package.module:function' of your own.
    **options: of the function that makes the world.

  Raises:
    ValueError: the name is unknown (the choices are listed), or the world
      refuses an option.
    TypeError: your function returns no World, or one without a name.
    ImportError: it needs a package that is not installed; says how to.
  """
  check(name)
  try:
    function = find_function(_MAKERS.get(name, name))
    _check_options(name, function, options)
    world = function(**options)
  except ImportError as error:
    if advice := _advice(name, error):
      raise ModuleNotFoundError(advice) from error
    raise
  if not isinstance(world, World):
    raise TypeError(f'{name} returned {type(world).__name__}, not an envs.api.World')
  if not isinstance(getattr(world, 'name', None), str):
    raise TypeError(f'{name}: its world has no name; set name = ... to a str')
  return world


def _advice(name: str, error: ImportError) -> str:
  """What to install for an environment of this package; '' where that is no help."""
  missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
  if not isinstance(missing, ModuleNotFoundError) or 'install' in str(error):
    return ''
  if name not in _MAKERS or str(missing.name).startswith('envs.'):
    return ''
  return f"{name} needs more packages ({missing}): pip install -e '.[{name}]'"


def _check_options(
    name: str, function: Callable[..., Any], options: Mapping[str, Any]
) -> None:
  """ValueError for an option that the function does not take, or that it lacks."""
  try:
    parameters = inspect.signature(function).parameters.values()
  except (ValueError, TypeError):  # not written in Python
    return
  kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
  named = [parameter for parameter in parameters if parameter.kind in kinds]
  known = [parameter.name for parameter in named]
  choices = f'(its options: {", ".join(known) or "none"})'
  takes_any = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
  for option in options:
    if option not in known and not takes_any:  # else it must refuse it itself
      close = difflib.get_close_matches(option, known, n=1)
      hint = f'; did you mean {close[0]}?' if close else ''
      raise ValueError(f'{name} has no option {option!r}{hint} {choices}')
  for parameter in named:
    if parameter.default is parameter.empty and parameter.name not in options:
      raise ValueError(f'{name} needs the option {parameter.name!r} {choices}')


def find_function(path: str) -> Callable[..., Any]:
  """The function that 'package.module:function' names.

  Raises:
    ValueError: there is no such module or function; says which.
    ImportError: the module cannot be imported; says why, and at which line.
  """
  if not _PATH.fullmatch(path):
    raise ValueError(f'{path!r} is not of the form package.module:function')
  module_name, function_name = path.split(':')
  try:
    module = importlib.import_module(module_name)
  except _BROKEN as error:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is None or not f'{module_name}.'.startswith(f'{missing}.'):
      raise ImportError(
          f'{path}: {module_name} cannot be imported: {_say_where(error)}'
      ) from error
    taken = '; envs is the package of leafe_jax: give yours another name'
    raise ValueError(
        f'{path}: there is no module {missing!r} in the working directory or '
        f'among the installed packages{taken if missing.startswith("envs.") else ""}'
    ) from error
  function = getattr(module, function_name, None)
  if not callable(function):
    public = [name for name, value in vars(module).items()
              if callable(value) and getattr(value, '__module__', '') == module_name]
    raise ValueError(
        f'{path}: {module_name} has no function {function_name!r}; '
        f'it has {", ".join(public) or "none"}'
    )
  return function


def _say_where(error: BaseException) -> str:
  """What was raised, and at which line, in one line."""
  said = f'{type(error).__name__}: {" ".join(str(error).split())}'
  if isinstance(error, SyntaxError):  # says it itself
    return said
  *_, last = (
      frame for frame in traceback.extract_tb(error.__traceback__)
      if 'importlib' not in frame.filename
  )
  return f'{said} ({last.filename}, line {last.lineno})'
