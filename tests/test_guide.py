"""The guide's example: as printed, by the contract, and through a whole run."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from absl import flags

from docs.examples import number_guess
from envs import api, registry
from envs.contract import EnvironmentContract
from leafe_jax import claims, experiment, launch, settings
from leafe_jax.rundir import RunDirectory
from tests import chat_checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[1]
GUIDE = (ROOT / 'docs' / 'bring_your_own_environment.md').read_text('utf-8')
EXAMPLES = ROOT / 'docs' / 'examples'
CONFIG = '--config=docs/examples/number_guess_config.py:debug'



def commands() -> list[list[str]]:
  """What the guide tells its reader to type, as a shell reads it."""
  prose = re.sub(r'```.*?```', '', GUIDE, flags=re.DOTALL)
  blocks = re.findall(r'(?:^    .*\n)+', prose, flags=re.MULTILINE)
  lines = '\n'.join(re.sub('^    ', '', block, flags=re.MULTILINE) for block in blocks)
  words = shlex.split(lines.replace('\\\n', ''))
  starts = [i for i, word in enumerate(words) if word == 'python']
  return [words[i:j] for i, j in zip(starts, [*starts[1:], None])]


COMMANDS = commands()
NEEDED = {'gymnasium', 'textarena'}


def parse(monkeypatch, arguments: list[str]):
  """The config of a command, as a run would check it."""
  monkeypatch.chdir(ROOT)
  argv = ['main', *(x for x in arguments if x.startswith('--config')), '--workdir=w']
  monkeypatch.setattr(sys, 'argv', argv)
  values = flags.FlagValues()
  launch.define_flags(values)
  assert launch.parse_flags(values, argv) == ['main']
  return values.config


def need(name: str) -> None:
  if name in NEEDED and importlib.util.find_spec(name) is None:
    pytest.skip(f'{name} is not installed')


def test_the_guide_has_commands_for_all_three_ways():
  text = [' '.join(command) for command in COMMANDS]
  assert len(text) > 12
  for way in ('number_guess:World', 'custom.py:gymnasium', 'custom.py:textarena'):
    for program in ('leafe_jax.main', 'tools.play'):
      name = way.removeprefix('custom.py:')
      assert any(program in line and name in line for line in text), (way, program)


@pytest.mark.parametrize('command', COMMANDS, ids=lambda words: words[2])
def test_every_command_of_the_guide_names_an_environment_that_is(monkeypatch, command):
  python, dash, module, *arguments = command
  assert (python, dash) == ('python', '-m')
  assert importlib.util.find_spec(module)
  if module == 'tools.play':
    given = dict(argument.removeprefix('--').split('=', 1) for argument in arguments)
    name, options = given['env'], json.loads(given.get('options', '{}'))
  else:
    config = parse(monkeypatch, arguments)
    if config.policy.checkpoint == settings.REQUIRED:  # to list the tasks
      assert module == 'tools.tasks'
      config.policy.checkpoint = 'DIR'
    checked = launch.check(config)
    experiment.phase_inputs(checked)
    name, options = checked.env.name, checked.env.options
  need(name)
  world = registry.make(name, **options)
  assert world.tasks('train')
  world.close()


def test_the_options_of_the_guide_exist():
  known = {option.path for option in settings.options()}
  named = re.findall(r'`--config\.((?:explore|policy|evaluate)\.[a-z_]+)=', GUIDE)
  assert len(named) > 4
  assert set(named) <= known


def test_a_checkpoint_plays_an_episode_by_the_command_of_the_guide(
    monkeypatch, tmp_path
):
  [command] = [
      command for command in COMMANDS
      if {'--until=explore', '--workdir=runs/look'} <= set(command)
  ]
  checkpoint = chat_checkpoint.write(tmp_path / 'weights')
  config = launch.check(parse(monkeypatch, [
      *command, f'--config.policy.checkpoint={checkpoint}', '--config.arms=base',
      '--config.env.horizon=1', '--config.evaluate.num_tasks=1',
      '--config.evaluate.num_samples=1', '--config.explore.max_response_tokens=4',
      '--config.sampler.dispatch_rows=1', '--config.sampler.decode_chunk=4',
  ]))  # fmt: skip
  directory = RunDirectory(tmp_path / 'run')
  claims.claim(directory, config, '', {})
  phase = 'evaluate/base'
  experiment.run(config, directory.path, settings.sha256(config), until=phase)
  played = json.loads((directory.phase(phase).dir / 'DONE.json').read_text())
  assert played['budget']['episodes'] == 1


class TestNumberGuess(EnvironmentContract):

  def world(self):
    return number_guess.World()

  def actions(self, task):
    return ('7', 'seven', '7', '20', str(task.payload['secret']))


@pytest.mark.parametrize('name', ['number_guess.py', 'number_guess_config.py'])
def test_the_guide_shows_the_example_as_it_is(name):
  assert f'```python\n{(EXAMPLES / name).read_text("utf-8")}```' in GUIDE


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
