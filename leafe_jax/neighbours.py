"""The packages beside this one, and what else bears their names.

`envs`, `configs` and `tools` are plain names. A package of the user's that is called
so, first on Python's path, comes instead of ours; importing leafe_jax then says so
(`require`), where Python would speak of a name that cannot be imported.
"""

from __future__ import annotations

import importlib.util
import pathlib
import re
import sys

# Where leafe_jax was installed, or checked out.
PLACE = pathlib.Path(__file__).resolve().parents[1]
NAMES = ('leafe_jax', 'envs', 'configs', 'tools')
_DOTTED = re.compile(r'configs(\.\w+)+')


def is_ours(path: str) -> bool:
  """Whether a file of source belongs to one of our packages."""
  found = pathlib.Path(path).resolve()
  return any(found.is_relative_to(PLACE / name) for name in NAMES)


def find_file(path: str) -> str:
  """A file by the path that it has in a checkout.

  Args:
    path: as given, also `configs.NAME` for `configs/NAME.py`.

  Returns:
    `path` where there is such a file; else the one of the installed package, if any;
    else `path`.
  """
  if pathlib.Path(path).is_file():
    return path
  inside = path.replace('.', '/') + '.py' if _DOTTED.fullmatch(path) else path
  if pathlib.Path(inside).is_file():
    return inside
  if inside.startswith('configs/') and (PLACE / inside).is_file():
    return str(PLACE / inside)
  return path


def shipped_configs() -> list[str]:
  """The config files that come with the package, by their paths in a checkout."""
  texts = {
      path.name: path.read_text(encoding='utf-8')
      for path in sorted((PLACE / 'configs').glob('*.py'))
  }
  return [f'configs/{name}' for name, text in texts.items() if 'def get_config' in text]


def hidden_by(name: str) -> str:
  """Where the package is that comes instead of ours; empty: ours does."""
  loaded = sys.modules.get(name)
  spec = loaded.__spec__ if loaded else importlib.util.find_spec(name)
  if spec is None:
    return ''
  places = list(spec.submodule_search_locations or [spec.origin or name])
  ours = (PLACE / name).resolve()
  if any(pathlib.Path(place).resolve() == ours for place in places):
    return ''
  return places[0]


def explain(*names: str) -> str:
  """What is hidden and what to do, a line to end a message; empty: nothing is."""
  hidden = {name: place for name in names if (place := hidden_by(name))}
  return '; '.join(
      f'{place} hides the package {name!r} of leafe_jax: rename it, or start in '
      'another directory, or with `leafe-jax`, which looks there last'
      for name, place in hidden.items()
  )


def require(*names: str) -> None:
  """ImportError, saying what comes instead, where one of the packages is not ours."""
  if found := explain(*names):
    raise ImportError(found, name='leafe_jax')  # -m then shows no traceback
