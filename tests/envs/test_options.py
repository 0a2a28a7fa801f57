"""An option that would do nothing where it is given is refused by its name."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from envs import options, registry

FEW = {
    'sokoban': {'train_levels': 3, 'validation_levels': 1, 'test_levels': 1},
    'codecontests': {'train_tasks': 3, 'validation_tasks': 1, 'test_tasks': 1},
    'alfworld': {'train_games': 1, 'validation_games': 0, 'test_games': 0},
}


def skip_without(*packages):
  for package in packages:
    if importlib.util.find_spec(package) is None:
      pytest.skip(f'needs {package}')


@pytest.mark.parametrize(
    'env, given, message',
    [
        ('sokoban', {'data_dir': 'D'}, "='D' needs levels='boxoban'.*'generated"),
        ('sokoban', {'difficulty': 'hard'}, "difficulty='hard' needs levels='boxoban'"),
        ('sokoban', {'levels': 'boxoban', 'boxes': 2}, "unknown option 'boxes'"),
        ('codecontests', {'data_path': 'F'}, "data_path='F' needs source=codecontests"),
        ('codecontests', {'max_tests': 3}, 'max_tests=3 needs source'),
        ('codecontests', {'workers': 1}, 'workers=1 needs source'),
        ('codecontests', {'allow_unsafe_execution': True}, '_unsafe_execution=True n'),
        ('codecontests', {'source': 'mbpp', 'clauses': 2}, "unknown option 'clauses'"),
        ('alfworld', {'data_dir': 'D'}, "data_dir='D' needs games='files'"),
        ('alfworld', {'games': 'files', 'num_things': 3}, "option 'num_things'"),
        ('alfworld', {'view': 'compact', 'show_commands': True},
         "show_commands=True needs view='text' and does nothing with view='compact'"),
        ('scienceworld', {'data_dir': 'D'}, 'data_dir'),
    ],
)  # fmt: skip
def test_an_option_of_another_source_is_refused_by_name(env, given, message):
  if env == 'alfworld':
    skip_without('alfworld', 'textworld', 'fast_downward')
  with pytest.raises((ValueError, TypeError), match=message) as raised:
    registry.make(env, **{**given, **FEW.get(env, {})})
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize('env', FEW)
def test_options_at_their_defaults_are_never_refused(env):
  """A config lists all of them."""
  if env == 'alfworld':
    skip_without('alfworld', 'textworld', 'fast_downward')
  make = registry.find_function(f'envs.{env}.env:make')
  registry.make(env, **{**options.defaults(make), **FEW[env]}).close()


@pytest.mark.parametrize(
    ('env', 'package', 'given'),
    [
        ('gymnasium', 'gymnasium', {'env_id': 'FrozenLake-v1'}),
        ('textarena', 'textarena', {'env_id': 'Mastermind-v0'}),
        ('openenv', 'websockets', {'url': 'http://127.0.0.1:8000'}),
        ('verifiers', 'verifiers', {'taskset': 'mine'}),
    ],
)
def test_a_missing_package_comes_with_the_command_that_installs_it(
    env, package, given, monkeypatch
):
  known = (f'envs.adapters.{env}', f'{package}.')
  for name in [name for name in sys.modules if name.startswith(known)]:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(ModuleNotFoundError) as raised:
    registry.make(env, **given)
  assert str(raised.value).startswith(f'{env} needs more packages (')
  assert package in str(raised.value)
  assert str(raised.value).endswith(f"pip install -e '.[{env}]'")
