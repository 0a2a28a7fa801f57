"""Writes what starts a run on a cluster, from one description of the job.

    python -m tools.launch --target=gcloud --accelerator=v5litepod-16 --spot \\
        --project=P --zone=us-west4-a --repository=https://example.org/leafe_jax.git \\
        --storage=gs://my-bucket --config=configs/webshop.py:qwen2_5_7b \\
        --workdir=webshop_7b -- --config.policy.checkpoint=DIR

prints it: the gcloud commands of a TPU slice (`gcloud`), a JobSet for GKE (`jobset`),
the line for XPK (`xpk`), a task of SkyPilot (`sky`), a script for sbatch (`slurm`), or
the Dockerfile of an image (`docker`). What follows `--` goes to the run. Several
slices of TPUs, or machines with GPUs: --slices=N.

Variables that the run needs (WANDB_API_KEY, HF_TOKEN) are named by --env; their values
are never read here. With gcloud `--run=create,install,start` executes those steps,
in order, and stops at the first that fails.
"""

from __future__ import annotations

import pathlib
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence

from absl import flags

from leafe_jax import command_line
from tools.launching import docker, gcloud, gke, sky, slurm
from tools.launching.job import BadJob, Job

WRITERS: Mapping[str, Callable[[Job], str]] = {
    'gcloud': lambda job: gcloud.show(gcloud.commands(job)),
    'jobset': gke.manifest,
    'xpk': gke.xpk,
    'sky': sky.task,
    'slurm': slurm.script,
}
TARGETS = (*WRITERS, 'docker')


def define_flags() -> None:
  """Defines the flags; by the program alone, as tools share their names."""
  flags.DEFINE_enum('target', None, TARGETS, 'What to write for.', required=True)
  _define_job_flags()
  flags.DEFINE_string('project', '', 'Google Cloud project.')
  flags.DEFINE_string('zone', '', 'Its zone.')
  flags.DEFINE_string('cluster', '', 'Cluster of XPK.')
  flags.DEFINE_string('partition', '', 'Partition of SLURM.')
  flags.DEFINE_integer('cpus', 8, 'SLURM: CPUs for each GPU.', lower_bound=1)
  flags.DEFINE_string('version', '', "gcloud: TPU runtime; by default the type's.")
  flags.DEFINE_bool('queued', True, 'gcloud: queue the request, or create at once.')
  flags.DEFINE_list(
      'run', [], f'gcloud: steps to execute, of {", ".join(gcloud.STEPS)}.'
  )


def _define_job_flags() -> None:
  flags.DEFINE_string('name', 'leafe', 'Name of the job.')
  flags.DEFINE_string(
      'accelerator', 'v5litepod-16',
      'A slice of TPUs (v5litepod-16), the GPUs of a machine (h100:8), or cpu.',
  )
  flags.DEFINE_integer(
      'slices', 1, 'Slices of TPUs, or machines.', lower_bound=1
  )
  flags.DEFINE_string('config', '', 'FILE[:VARIANT] of the run.')
  flags.DEFINE_string('workdir', '', 'Its directory, in the storage.')
  flags.DEFINE_string(
      'storage', '', 'A bucket (gs://NAME), a claim of GKE, or a shared directory.'
  )
  flags.DEFINE_string('image', '', 'Container image, for jobset and xpk.')
  flags.DEFINE_string('repository', '', 'Git URL of the code, for gcloud and sky.')
  flags.DEFINE_string('branch', 'main', 'Its branch.')
  flags.DEFINE_bool('spot', False, 'Cheaper; may be pre-empted at any time.')
  flags.DEFINE_integer(
      'grace_s', 25, 'Seconds from SIGTERM to the end of the run.', lower_bound=1
  )
  flags.DEFINE_integer('restarts', 20, 'Starts after the first.', lower_bound=0)
  flags.DEFINE_integer('hours', 24, 'Longest time of a start.', lower_bound=1)
  flags.DEFINE_list('env', [], 'Names of variables that the run gets.')


def describe(values: flags.FlagValues, further: Sequence[str]) -> Job:
  """The job of the flags. BadJob for what cannot be."""
  for name in ('config', 'workdir'):
    if not getattr(values, name):
      raise BadJob(f'--{name} is missing')
  return Job(
      name=values.name, accelerator=values.accelerator, slices=values.slices,
      config=values.config,
      workdir=pathlib.PurePosixPath(values.workdir).as_posix(),
      flags=tuple(further), storage=values.storage, image=values.image,
      repository=values.repository, branch=values.branch, spot=values.spot,
      grace_s=values.grace_s, restarts=values.restarts, hours=values.hours,
      variables=tuple(values.env), project=values.project, zone=values.zone,
      cluster=values.cluster, partition=values.partition, version=values.version,
      queued=values.queued, cpus=values.cpus,
  )


def execute(job: Job, names: Sequence[str]) -> int:
  """Runs steps of gcloud; returns the exit code. UsageError for an unknown one."""
  unknown = sorted(set(names) - set(gcloud.STEPS))
  if unknown:
    raise command_line.UsageError(
        f'--run={",".join(unknown)}: no such step; choose from '
        f'{", ".join(gcloud.STEPS)}'
    )
  steps = gcloud.commands(job)
  for name in names:
    print(f'# {name}\n{shlex.join(steps[name])}', flush=True)
    code = subprocess.run(steps[name], check=False).returncode
    if code:
      return command_line.refuse(f'step {name} failed', code)
  return 0


def main(argv: Sequence[str]) -> int:
  values = flags.FLAGS
  if values.target == 'docker':
    print(docker.dockerfile(), end='')
    return 0
  if values.run and values.target != 'gcloud':
    raise command_line.UsageError('--run goes with --target=gcloud')
  try:
    job = describe(values, argv[1:])
    if values.run:
      return execute(job, values.run)
    print(WRITERS[values.target](job).rstrip('\n'))
  except BadJob as error:
    raise command_line.UsageError(str(error)) from error
  return 0


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
