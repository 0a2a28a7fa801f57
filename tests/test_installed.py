"""The package away from its checkout: what is in it, what is said, what hides it."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import pathlib
import runpy
import subprocess
import sys
import types

import pytest

from envs import registry
from leafe_jax import command_line, console, neighbours

ROOT = pathlib.Path(__file__).resolve().parents[1]
WORLD = '''
from docs.examples import number_guess


def make():
  return number_guess.World()
'''


@pytest.fixture(name='packaging')
def _packaging(monkeypatch):
  """What setup.py says."""
  setuptools = pytest.importorskip('setuptools')
  said = {}
  monkeypatch.setattr(setuptools, 'setup', lambda **given: said.update(given))
  runpy.run_path(str(ROOT / 'setup.py'))
  return said


def test_every_file_of_the_packages_is_installed(packaging):
  packed = {
      path
      for package, patterns in packaging['package_data'].items()
      for pattern in patterns
      for path in (ROOT / package.replace('.', '/')).glob(pattern)
  }
  there = {
      path
      for package in neighbours.NAMES
      for path in (ROOT / package).rglob('*')
      if path.is_file() and path.suffix not in ('.py', '.pyc')
  }
  assert there
  assert there == packed
  folders = {
      path.parent.relative_to(ROOT).as_posix().replace('/', '.')
      for package in neighbours.NAMES
      for path in (ROOT / package).rglob('*.py')
  }
  assert folders == set(packaging['packages'])


def test_the_licence_is_an_expression_and_a_file(packaging):
  assert packaging['license_expression'] == 'Apache-2.0'
  assert 'Apache License' in (ROOT / packaging['license_files'][0]).read_text()


def test_every_command_runs_a_program(packaging):
  commands = packaging['entry_points']['console_scripts']
  assert len(commands) > 10
  assert not any('bench' in command for command in commands)
  for command in commands:
    name, target = command.split(' = ')
    assert target == 'leafe_jax.console:run'
    module = importlib.util.find_spec(console.module_of(f'/venv/bin/{name}'))
    assert module is not None
    assert '__main__' in pathlib.Path(str(module.origin)).read_text(encoding='utf-8')


def test_commands_are_named_as_modules_are():
  assert console.module_of('/bin/leafe-jax') == 'leafe_jax.main'
  assert console.module_of('leafe-jax-try-checkpoint') == 'tools.try_checkpoint'
  assert console.module_of('leafe-jax-plan.exe') == 'tools.plan'


def record(path: object, level: int = logging.INFO) -> logging.LogRecord:
  return logging.LogRecord('any', level, str(path), 1, 'text', (), None)


@pytest.mark.parametrize('folder', ['site-packages', 'dist-packages'])
def test_an_installed_package_is_heard_and_its_neighbours_when_they_warn(
    monkeypatch, tmp_path, folder
):
  place = tmp_path / folder
  monkeypatch.setattr(neighbours, 'PLACE', place)
  for ours in ('leafe_jax/experiment.py', 'envs/api.py', 'tools/plan.py'):
    assert command_line.is_ours_or_serious(record(place / ours))
  theirs = place / 'orbax' / 'checkpoint.py'
  assert not command_line.is_ours_or_serious(record(theirs))
  assert not command_line.is_ours_or_serious(record(place / 'envs_of_others/x.py'))
  assert command_line.is_ours_or_serious(record(theirs, logging.WARNING))
  assert command_line.is_ours_or_serious(record(tmp_path / 'my_world.py'))


@pytest.mark.parametrize('path', ['configs/webshop.py', 'configs.webshop'])
def test_configs_are_found_away_from_the_checkout(monkeypatch, tmp_path, path):
  monkeypatch.chdir(tmp_path)
  assert neighbours.find_file(path) == str(ROOT / 'configs' / 'webshop.py')
  (tmp_path / 'configs').mkdir()
  assert neighbours.find_file(path) == str(ROOT / 'configs' / 'webshop.py')
  (tmp_path / 'configs' / 'webshop.py').touch()
  assert neighbours.find_file(path) == 'configs/webshop.py'


@pytest.mark.parametrize(
    'path', ['configs/none.py', 'configs.none', 'mine.py', '/x/configs/webshop.py']
)
def test_what_is_nowhere_stays_as_it_was_named(monkeypatch, tmp_path, path):
  monkeypatch.chdir(tmp_path)
  assert neighbours.find_file(path) == path


def test_a_config_that_is_nowhere_is_refused_with_those_there_are(
    monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(command_line.UsageError, match='configs/sokoban.py') as error:
    command_line._load('configs/sokobn.py:debug')
  assert 'base.py' not in str(error.value)  # shared by configs, and none itself


def test_a_package_that_hides_ours_is_named(monkeypatch, tmp_path):
  other = types.ModuleType('configs')
  other.__spec__ = importlib.util.spec_from_file_location(
      'configs', tmp_path / 'configs' / '__init__.py',
      submodule_search_locations=[str(tmp_path / 'configs')],
  )
  other.__path__ = [str(tmp_path / 'configs')]
  assert neighbours.hidden_by('configs') == ''
  for name in [name for name in sys.modules if name.startswith('configs.')]:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, 'configs', other)
  config = tmp_path / 'mine.py'
  config.write_text('from configs import nothing_of_theirs\n')
  with pytest.raises(command_line.UsageError) as error:
    command_line._load(str(config))
  assert f'{tmp_path}/configs hides the package' in str(error.value)
  assert '\n' not in str(error.value)


def test_an_environment_inside_of_ours_is_told_why_it_is_not_found():
  with pytest.raises(ValueError, match='give yours another name'):
    registry.check('envs.mine:make')


@pytest.fixture(name='folder')
def _folder(tmp_path):
  """A user's directory with a package that is called as one of ours."""
  (tmp_path / 'envs').mkdir()
  (tmp_path / 'envs' / '__init__.py').touch()
  (tmp_path / 'my_world.py').write_text(WORLD)
  script = tmp_path / 'bin' / 'leafe-jax-play'
  script.parent.mkdir()
  script.write_text('from leafe_jax import console\nconsole.run()\n')
  return tmp_path


def run(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
      [sys.executable, *arguments], cwd=folder, capture_output=True, text=True,
      check=False, input='', env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )


def test_the_run_says_what_hides_its_environments(folder):
  done = run(folder, '-m', 'leafe_jax.main', '--help')
  assert done.returncode != 0
  [line] = done.stderr.splitlines()
  assert f"{folder}/envs hides the package 'envs'" in line


def test_the_command_finds_its_own_packages_first_and_worlds_of_the_folder(folder):
  script = str(folder / 'bin' / 'leafe-jax-play')
  done = run(folder, script, '--env=my_world:make')
  assert done.returncode == 0, done.stderr
  assert 'number' in done.stdout
  shown = run(folder, script, '--help')
  assert '--index' in shown.stdout


# Extras and backends, which cost nothing where nobody asks for them.
UNASKED = (
    'wandb', 'trackio', 'tensorboard', 'ray', 'gcsfs', 'google.cloud.storage',
    'openenv', 'verifiers', 'starlette', 'uvicorn', 'torch', 'gymnasium', 'textarena',
    'sky', 'gradio', 'scienceworld', 'alfworld', 'textworld', 'gguf', 'qwix', 'mkdocs',
)  # fmt: skip
LOOK = '''
import json, sys
from leafe_jax import main
sys.argv = ['main', '--config=configs/webshop.py:debug', '--dry_run', '--workdir=none']
try:
  main.program()
except SystemExit as end:
  assert not end.code, end.code
from leafe_jax.tracking import tensorboard
print(json.dumps([name for name in UNASKED if name in sys.modules]))
'''


def test_no_optional_package_is_imported_unless_it_is_asked_for(tmp_path):
  done = run(tmp_path, '-c', f'UNASKED = {UNASKED!r}\n{LOOK}')
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout.splitlines()[-1]) == []


HELP = """
import sys
from leafe_jax import main
sys.argv = ['main', '--help']
try:
  main.program()
except SystemExit as end:
  assert not end.code, end.code
print(sorted({'jax', 'numpy', 'transformers', 'orbax', *UNASKED} & set(sys.modules)))
"""


def test_help_imports_nothing_that_computes(tmp_path):
  done = run(tmp_path, '-c', f'UNASKED = {UNASKED!r}\n{HELP}')
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == '[]'
