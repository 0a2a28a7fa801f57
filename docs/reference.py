"""Reference pages from the code, and the repository's own papers; a hook of mkdocs.

`pages` is what the site has beside the files in docs/: every option, arm and
environment, the records of trees, what the tools say of themselves, and the
decisions and known gaps of BUILD_NOTES.md.
"""

from __future__ import annotations

import inspect
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from envs import registry
from leafe_jax import settings, tree, usage
from leafe_jax.methods import catalogue

ROOT = pathlib.Path(__file__).resolve().parents[1]


def cell(words: object) -> str:
  """A text that stays in its cell of a table, with nothing taken for HTML."""
  flat = ' '.join(str(words).split())
  return flat.replace('&', '&amp;').replace('<', '&lt;').replace('|', '&#124;')


def table(head: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> str:
  """A table in Markdown."""
  lines = [head, ('---',) * len(head), *(tuple(map(cell, row)) for row in rows)]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def options() -> str:
  """Every option by what it is for, with its type, default, range and meaning."""
  parts = [
      '# Options\n\nEach is `--config.NAME=VALUE` on the command line. Defaults are '
      'those of `leafe_jax/config.py`; a config file may change them.\n'
  ]
  for group, found in usage.grouped().items():
    rows = ((f'`{option.path}`', settings.type_name(option.type), _default(option),
             _allowed(option), option.doc) for option in found)  # fmt: skip
    head = ('option', 'type', 'default', 'allowed', 'meaning')
    parts.append(f'## {group.capitalize()}\n\n{table(head, rows)}')
  return '\n'.join(parts)


def _default(option: settings.Option) -> str:
  value = option.default
  return f'`{value!r}`' if not isinstance(value, tuple) else f'`{list(value)}`'


def _allowed(option: settings.Option) -> str:
  if option.choices:
    return ', '.join(map(str, option.choices))
  return str(option.range) if option.range else ''


def arms() -> str:
  """Every arm and every method, a line each."""
  rows = ((f'`{arm.name}`', arm.doc) for arm in catalogue.ARMS.values())
  methods = (
      (f'`{name}`', ', '.join(f'`{arm}`' for arm in names))
      for name, names in catalogue.METHODS.items()
  )
  return (
      '# Methods and arms\n\nAn arm is one policy of a comparison. '
      '`--config.method=NAME` takes the arms of a method, `--config.arms=A,B` any.\n\n'
      'Here tau is the turn to which the agent goes back, e its advice, h_tau the '
      'history before that turn, D_cf the corrected actions with the loss L_cf, and '
      'D_reh the successful episodes with the loss L_reh.\n\n'
      f'## Methods\n\n{table(("method", "arms"), methods)}\n'
      f'## Arms\n\n{table(("arm", "what it is"), rows)}'
  )


def environments() -> str:
  """The options of every environment, as the functions that make them take them."""
  parts = ['# Environments\n\nOptions are `--config.env.options.NAME=VALUE`.\n']
  for name in registry.names():
    function = registry.find_function(registry.location(name))
    taken = _taken(function)
    rows = ((f'`{option}`', f'`{kind}`', value) for option, kind, value in taken)
    parts.append(
        f'## {name}\n\n{table(("option", "type", "default"), rows)}\n'
        f'```text\n{inspect.getdoc(function) or ""}\n```\n'
    )
  return '\n'.join(parts)


def _taken(function: Callable[..., Any]) -> Iterator[tuple[str, str, str]]:
  for parameter in inspect.signature(function).parameters.values():
    if parameter.kind == parameter.VAR_KEYWORD:
      yield f'**{parameter.name}', 'any', 'see below'
    else:
      needed = parameter.default is parameter.empty
      value = 'needed' if needed else f'`{parameter.default!r}`'
      yield parameter.name, str(parameter.annotation), value


def records() -> str:
  """The records of an experience tree."""
  parts = ['# Records of trees\n\nA line of `wave_NNNN.jsonl` is one Tree.\n']
  for record in (tree.Tree, tree.Node, tree.Turn, tree.Reflection):
    parts.append(f'## {record.__name__}\n\n```text\n{inspect.getdoc(record)}\n```\n')
  return '\n'.join(parts)


def programs() -> list[str]:
  """The tools, in order."""
  return sorted(
      path.stem
      for path in (ROOT / 'tools').glob('*.py')
      if 'command_line.run(main' in path.read_text(encoding='utf-8')
  )


def say(module: str) -> str:
  """What a program says to --help."""
  done = subprocess.run(
      [sys.executable, '-m', module, '--help'], cwd=ROOT, capture_output=True,
      text=True, check=True,
  )  # fmt: skip
  return done.stdout.replace(f'{ROOT}/', '').strip()


def tools() -> str:
  """What every program says of itself."""
  modules = ['leafe_jax.main', *(f'tools.{name}' for name in programs())]
  texts = [f'## {name}\n\n```text\n{say(name)}\n```\n' for name in modules]
  head = '# Programs\n\n`python -m NAME`; installed, `leafe-jax-...`.\n\n'
  return head + '\n'.join(texts)


def sections(*names: str) -> str:
  """Sections of BUILD_NOTES.md, their links as seen from the site."""
  notes = (ROOT / 'BUILD_NOTES.md').read_text(encoding='utf-8')
  found = {
      part.partition('\n')[0]: part
      for part in re.split(r'^## ', notes, flags=re.MULTILINE)
  }
  return '\n'.join(f'## {found[name]}' for name in names).replace('](docs/', '](')


PAGES: Mapping[str, Callable[[], str]] = {
    'reference/options.md': options,
    'reference/arms.md': arms,
    'reference/environments.md': environments,
    'reference/records.md': records,
    'reference/tools.md': tools,
    'decisions.md': lambda: '# Design decisions\n\n' + sections(
        'Decisions', 'Boundaries: how things are read, what is refused and why',
        'What is compared with which original', 'Known gaps',
    ),
    'changes.md': lambda: (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8'),
}  # fmt: skip


def on_files(files: Any, config: Any) -> Any:
  """mkdocs: adds the pages."""
  from mkdocs.structure.files import File  # an extra, `docs`

  for path, write in PAGES.items():
    files.append(File.generated(config, path, content=write()))
  return files
