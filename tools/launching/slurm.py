"""SLURM: a script for sbatch.

SLURM sends SIGTERM before the time is up and at a pre-emption; the run saves, ends
with 143, and the job goes back into the queue, where it goes on by itself.
"""

from __future__ import annotations

import shlex

from tools.launching.job import BadJob, Job

_STOPPED = 143  # 128 + SIGTERM


def script(job: Job) -> str:
  """The script. BadJob for what is missing, and for TPUs."""
  job.check_accelerator()
  if job.tpu:
    raise BadJob(
        f'--accelerator={job.accelerator}: SLURM has no TPUs; give h100:8 or cpu'
    )
  job.needs(storage='a directory that all hosts share')
  return '\n'.join([*_header(job), *_body(job), ''])


def _header(job: Job) -> list[str]:
  # jax gives each process of SLURM one GPU.
  gpus = job.gpu.count if job.gpu else 0
  options = [
      f'--job-name={job.name}', f'--nodes={job.slices}',
      f'--ntasks-per-node={gpus or 1}', f'--time={job.hours}:00:00',
      f'--signal=TERM@{job.kill_s}', '--requeue', '--open-mode=append',
      f'--output={job.name}-%j.log',
  ]  # fmt: skip
  if gpus:
    options[3:3] = [f'--gpus-per-node={gpus}', f'--cpus-per-task={job.cpus}']
  else:
    options.append('--exclusive')
  if job.partition:
    options.insert(1, f'--partition={job.partition}')
  return ['#!/bin/bash', *(f'#SBATCH {option}' for option in options)]


def _cpus(job: Job) -> str:
  """What srun has to be told again: by itself it may bind each process to one."""
  count = job.cpus if job.gpu else '"$SLURM_CPUS_ON_NODE"'
  return f'--cpus-per-task={count}'


def _body(job: Job) -> list[str]:
  directory = shlex.quote(f'{job.storage.rstrip("/")}/{job.workdir}')
  program = ('.venv/bin/python', '-m', 'leafe_jax.main')
  several = job.slices * (job.gpu.count if job.gpu else 1) > 1
  mode = ['--distributed=on'] if several else []
  given = shlex.join([*program, *job.arguments(distributed=False), *mode])
  return [
      '# Submit it from the directory with .venv; the environment travels along.',
      'set -u',
      *(f': "${{{name}:?set it before sbatch}}"' for name in job.variables),
      'cd "$SLURM_SUBMIT_DIR" || exit 1',
      "trap ':' TERM  # this shell outlives the run, to queue it again",
      f'srun --kill-on-bad-exit=1 {_cpus(job)} {given} --workdir={directory} &',
      'step=$!',
      'wait "$step"',
      'status=$?',
      '# A signal ends the waiting, not the run.',
      'while kill -0 "$step" 2> /dev/null; do wait "$step"; status=$?; done',
      'restarts=${SLURM_RESTART_COUNT:-0}',
      f'if [ "$status" -eq {_STOPPED} ] && [ "$restarts" -lt {job.restarts} ]; then',
      '  scontrol requeue "$SLURM_JOB_ID"',
      'fi',
      'exit "$status"',
  ]  # fmt: skip
