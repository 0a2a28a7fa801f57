"""What only a world knows of its options is found out before a run begins."""

from __future__ import annotations

import pytest

from leafe_jax import claims, launch
from leafe_jax.config import Env, Experiment
from leafe_jax.rundir import RunDirectory


def claim(tmp_path, name, **teacher):
  env = Env(name=f'tests.own_worlds:{name}', teacher=teacher)
  config = Experiment(env=env)
  directory = RunDirectory(tmp_path)
  claims.claim(directory, config, '', {})
  return directory.config()


@pytest.mark.parametrize(
    'name, teacher, message',
    [
        ('Forgetful', {}, "env.teacher: with the options .'reflection_quality': 1.0.: "
         ".*unexpected keyword argument 'reflection_quality'"),
        ('Strict', {'patience': 1}, "env.teacher: .*'patience'"),
        ('Strict', {'quality': 2.0}, 'env.teacher: .*quality is 2.0; at most 1'),
        ('Nameless', {}, 'env.options: .*:Nameless: its world has no name'),
        ('no_sandbox', {}, 'env.options: no sandbox on this machine'),
    ],
)  # fmt: skip
def test_a_teacher_that_does_not_fit_is_refused_before_the_run(
    tmp_path, name, teacher, message
):
  with pytest.raises(launch.UsageError, match=message):
    claim(tmp_path, name, **teacher)
  assert RunDirectory(tmp_path).config() is None


@pytest.mark.parametrize('name', ['Strict', 'Untaught'])
def test_a_world_whose_teacher_fits_or_that_has_none_is_taken(tmp_path, name):
  assert claim(tmp_path, name, **({'quality': 0.5} if name == 'Strict' else {}))


def test_a_fleet_whose_package_is_missing_is_refused_at_once(tmp_path, monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda _: None)
  config = Experiment(env=Env(name='webshop', workers=1, fleet='ray'))
  with pytest.raises(launch.UsageError, match=r"pip install -e '.\[ray\]'"):
    claims.claim(RunDirectory(tmp_path), config, '', {})
