"""The guide's example: as printed, by the contract, and through a whole run."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from docs.examples import number_guess
from envs import api, registry
from envs.contract import EnvironmentContract

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / 'docs' / 'examples'
CONFIG = '--config=docs/examples/number_guess_config.py:debug'


class TestNumberGuess(EnvironmentContract):

  def world(self):
    return number_guess.World()

  def actions(self, task):
    return ('7', 'seven', '7', '20', str(task.payload['secret']))


@pytest.mark.parametrize('name', ['number_guess.py', 'number_guess_config.py'])
def test_the_guide_shows_the_example_as_it_is(name):
  guide = (ROOT / 'docs' / 'bring_your_own_environment.md').read_text('utf-8')
  assert f'```python\n{(EXAMPLES / name).read_text("utf-8")}```' in guide


def test_the_example_is_short():
  assert len((EXAMPLES / 'number_guess.py').read_text('utf-8').splitlines()) < 60


def test_the_script_finds_every_number_in_five_guesses_and_faults_nothing():
  world = registry.make('docs.examples.number_guess:World')
  session, teacher = world.session(), world.teacher()
  for split in api.SPLITS:
    for task in world.tasks(split):
      step = session.reset(task)
      history = api.History(task.instruction, (step.observation,), ())
      while not step.terminated:
        action = teacher.correct(history)
        step = session.step(action)
        history = api.History(
            task.instruction, (*history.observations, step.observation),
            (*history.actions, action),
        )  # fmt: skip
      assert len(history.actions) <= 5
      assert teacher.diagnose(history, True, None) is None


def test_the_example_trains_through_every_phase(tmp_path):
  run = subprocess.run(
      [sys.executable, '-m', 'leafe_jax.main', CONFIG, f'--workdir={tmp_path}/run'],
      cwd=ROOT, capture_output=True, text=True, env=os.environ.copy(), check=False,
  )
  assert run.returncode == 0, run.stderr[-3000:]
  results = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert list(results['arms']) == ['base', 'leafe']
  assert (tmp_path / 'run' / 'report' / 'index.html').is_file()


def test_an_unknown_function_stops_the_run_in_one_line(tmp_path):
  run = subprocess.run(
      [sys.executable, '-m', 'leafe_jax.main', CONFIG, f'--workdir={tmp_path}/run',
       '--config.env.name=docs.examples.number_guess:Worl'],
      cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert run.returncode == 2
  assert "has no function 'Worl'; it has " in run.stderr.splitlines()[-1]
  assert 'Traceback' not in run.stderr
