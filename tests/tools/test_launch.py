"""The commands for a TPU slice hold what was asked, and shells can read them."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys

import pytest

from tools import launch_tpu_pod

SLICE = launch_tpu_pod.Slice(
    project='p', zone='z', name='leafe', type='v5litepod-16', version='', spot=True,
    queued=True, repository='https://e.org/code.git', branch="it's mine", bucket='b',
    config='configs/webshop.py:qwen2_5_7b', workdir='w/7b',
    flags=('--config.policy.checkpoint=/data/my model',),
)


def commands(**changes):
  return launch_tpu_pod.commands(dataclasses.replace(SLICE, **changes))


def script(command: list[str]) -> str:
  [found] = [part for part in command if part.startswith('--command=')]
  return found.removeprefix('--command=')


def test_every_step_names_the_slice():
  for command in commands().values():
    assert command[:3] == ['gcloud', 'compute', 'tpus']
    assert {'leafe', '--project=p', '--zone=z'} <= set(command)


def test_a_queued_spot_slice():
  create = commands()['create']
  assert create[3:5] == ['queued-resources', 'create']
  assert {'--spot', '--node-id=leafe', '--accelerator-type=v5litepod-16'} <= set(create)
  assert '--runtime-version=v2-alpha-tpuv5-lite' in create
  assert '--force' in commands()['delete']


def test_a_slice_at_once():
  steps = commands(queued=False, spot=False, type='v6e-8')
  assert steps['create'][3:5] == ['tpu-vm', 'create']
  assert '--version=v2-alpha-tpuv6e' in steps['create']
  assert '--spot' not in steps['create'] and '--force' not in steps['delete']


def test_all_workers_run_the_same_command_with_the_flags_of_the_run():
  start = commands()['start']
  assert '--worker=all' in start
  words = shlex.split(script(start))
  assert '--config=configs/webshop.py:qwen2_5_7b' in words
  assert '--distributed=on' in words
  assert '--config.policy.checkpoint=/data/my model' in words
  assert '--workdir=$HOME/runs/w/7b' in words
  assert commands()['resume'] == start


@pytest.mark.parametrize('step', ['install', 'start', 'watch'])
def test_what_workers_run_is_correct_shell(step):
  text = script(commands()[step])
  subprocess.run(['bash', '-n', '-c', text], check=True)
  assert "it's mine" in shlex.split(script(commands()['install']))


def test_what_is_printed_parses_to_the_commands():
  steps = commands()
  lines = launch_tpu_pod.show(steps).splitlines()
  printed = [shlex.split(line) for line in lines if line and not line.startswith('#')]
  assert printed == list(steps.values())


def test_an_unknown_type_needs_a_version():
  with pytest.raises(ValueError, match='type=v9-8.*--version'):
    commands(type='v9-8')
  assert '--runtime-version=x' in commands(type='v9-8', version='x')['create']


def test_the_program_prints_and_runs_nothing():
  run = subprocess.run(
      [sys.executable, '-m', 'tools.launch_tpu_pod', '--project=p', '--zone=z',
       '--repository=r', '--bucket=b', '--config=c.py', '--workdir=w', '--',
       '--config.seed=1'],
      capture_output=True, text=True, check=True,
  )
  assert '# create' in run.stdout and '--config.seed=1' in run.stdout
