"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import builtins
import dis
import functools
import os
import pathlib
import re
import types
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ('leafe_jax', 'envs', 'configs', 'tools', 'tests')
LIBRARIES = ('leafe_jax/', 'envs/', 'configs/')
MAX_FILE, MAX_FUNCTION = 400, 60
TEXT = ('.py', '.md', '.toml', '.lock', '.html', '.css', '.js', '')
IGNORED = ('.git', '.venv', 'runs', 'build', 'dist', '__pycache__')
# Spelt in parts, so that this file passes its own test.
FORBIDDEN = re.compile(
    '|'.join([
        r'(?<![\w.~-])/' + r'(?:home|root|Users)/\w',
        r'(?<![\w.~-])/' + 'work/',
        r'\bissue' + r' #?\d',
        'pypi' + r'\.org|files\.' + 'pythonhosted',
        r'(?i:clau' + r'de|anthr' + r'opic|chat' + r'gpt)',
    ])
)
# The parts of leafe_jax that a part may import, besides itself and the plain
# modules; see the map in BUILD_NOTES.md.
ARROWS = {
    'text': (),
    'memory': (),
    'policy': (),
    'sampler': ('policy', 'text'),
    'rollout': ('sampler', 'text'),
    'experience': ('text',),
    'learner': ('policy', 'experience'),
    'planning': ('policy', 'sampler', 'learner'),
    'evaluation': ('rollout',),
    'tracking': (),
}
PLAIN = (
    'buckets', 'config', 'endings', 'files', 'hosts', 'inputs', 'progress', 'redaction',
    'rundir', 'seals', 'settings', 'stops', 'token_ids', 'tree',
)  # fmt: skip

SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in PACKAGES
    for path in (ROOT / package).rglob('*.py')
)


@functools.cache
def module(source: str) -> ast.Module:
  return ast.parse((ROOT / source).read_text(encoding='utf-8'), source)


def imports(source: str) -> Iterator[str]:
  """Dotted names that a file imports, 'from a import b' as 'a.b'."""
  for node in ast.walk(module(source)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{source}: relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def inside(name: str, package: str) -> bool:
  return f'{name}.'.startswith(f'{package}.')


def tracked_texts() -> Iterator[pathlib.Path]:
  for path in ROOT.rglob('*'):
    parts = path.relative_to(ROOT).parts
    hidden = any(part.startswith('.') and part != '.ci' for part in parts[:-1])
    if hidden or any(part in IGNORED or part.endswith('.egg-info') for part in parts):
      continue
    if path.is_file() and path.suffix in TEXT:
      yield path


def test_there_is_something_to_check():
  assert any(source.startswith('leafe_jax/') for source in SOURCES)
  assert any(source.startswith('envs/') for source in SOURCES)


@pytest.mark.parametrize('source', SOURCES)
def test_files_and_functions_are_short(source):
  lines = len((ROOT / source).read_text(encoding='utf-8').splitlines())
  assert lines < MAX_FILE, f'{source} has {lines} lines'
  long = [
      f'{node.name}: {length}'
      for node in ast.walk(module(source))
      if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
      and (length := (node.end_lineno or 0) - node.lineno + 1) >= MAX_FUNCTION
  ]
  assert not long, f'{source}: functions that are too long: {long}'


@pytest.mark.parametrize('source', [s for s in SOURCES if not s.startswith('tests/')])
def test_files_say_what_they_are_for(source):
  assert ast.get_docstring(module(source)), f'{source} has no docstring'


def test_libraries_do_not_print():
  found = [
      f'{source}:{node.lineno}'
      for source in SOURCES
      if source.startswith(LIBRARIES)
      for node in ast.walk(module(source))
      if isinstance(node, ast.Call)
      and isinstance(node.func, ast.Name)
      and node.func.id in ('print', 'breakpoint')
  ]
  assert not found, found


def test_only_the_boundary_to_environments_catches_everything():
  """A crashing environment is data; anywhere else it would hide a bug."""
  broad = [
      source
      for source in SOURCES
      if not source.startswith('tests/')
      for node in ast.walk(module(source))
      if isinstance(node, ast.ExceptHandler) and _is_broad(node.type)
  ]
  assert broad == ['envs/boundary.py']


def _is_broad(caught: ast.expr | None) -> bool:
  if isinstance(caught, ast.Tuple):
    return any(map(_is_broad, caught.elts))
  return caught is None or (
      isinstance(caught, ast.Name) and caught.id in ('Exception', 'BaseException')
  )


def test_the_repository_speaks_of_itself_alone():
  found = [
      f'{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}'
      for path in tracked_texts()
      for number, line in enumerate(
          path.read_text(encoding='utf-8', errors='replace').splitlines(), start=1
      )
      if FORBIDDEN.search(line)
  ]
  assert not found, '\n'.join(found)


@pytest.mark.parametrize(
    'text',
    ['/' + 'root/x', 'see /' + 'work/y', 'issue' + ' 12', 'https://pypi' + '.org'],
)
def test_forbidden_words_are_recognised(text):
  assert FORBIDDEN.search(text)


def test_environments_need_neither_jax_nor_the_agent():
  wrong = [
      f'{source}: {name}'
      for source in SOURCES
      if source.startswith('envs/')
      for name in imports(source)
      if any(inside(name, other) for other in ('jax', 'flax', 'leafe_jax', 'configs'))
  ]
  assert not wrong, wrong


def test_only_the_experiment_knows_the_methods():
  wrong = [
      f'{source}: {name}'
      for source in SOURCES
      if source.startswith('leafe_jax/')
      and not source.startswith('leafe_jax/methods/')
      and source != 'leafe_jax/experiment.py'
      for name in imports(source)
      if inside(name, 'leafe_jax.methods')
  ]
  assert not wrong, wrong


@pytest.mark.parametrize('room', ARROWS)
def test_arrows_between_rooms_point_one_way(room):
  allowed = (room, *ARROWS[room], *PLAIN)
  wrong = [
      f'{source}: {name}'
      for source in SOURCES
      if source.startswith(f'leafe_jax/{room}/')
      for name in imports(source)
      if inside(name, 'leafe_jax')
      and not any(
          name == 'leafe_jax' or inside(name, f'leafe_jax.{other}')
          for other in allowed
      )
  ]
  assert not wrong, wrong


@pytest.mark.parametrize(
    'room',
    ['text', 'memory', 'policy', 'sampler', 'learner', 'experience', 'planning'],
)
def test_environments_are_reached_from_the_host_loop_alone(room):
  wrong = [
      f'{source}: {name}'
      for source in SOURCES
      if source.startswith(f'leafe_jax/{room}/')
      for name in imports(source)
      if inside(name, 'envs')
  ]
  assert not wrong, wrong


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
  yield code
  for constant in code.co_consts:
    if isinstance(constant, types.CodeType):
      yield from _codes(constant)


@pytest.mark.parametrize('source', SOURCES)
def test_every_global_name_is_defined(source):
  """The linters do not look: names of shapes in annotations seem undefined to them."""
  whole = compile((ROOT / source).read_text(encoding='utf-8'), source, 'exec')
  steps = [step for code in _codes(whole) for step in dis.get_instructions(code)]
  defined = {step.argval for step in steps if step.opname.startswith('STORE_')}
  used = {step.argval for step in steps if step.opname == 'LOAD_GLOBAL'}
  assert used <= defined | {*dir(builtins), '__file__', '__name__'}


def test_every_flag_of_the_compiler_is_read():
  """XLA stops at a word without dashes, and is silent about the flags behind it."""
  assert all(word.startswith('--') for word in os.environ['XLA_FLAGS'].split())
