"""The commands that run a config on a Cloud TPU slice, from creation to deletion.

    python -m tools.launch_tpu_pod --project=P --zone=us-west4-a \\
        --type=v5litepod-16 --spot --repository=https://example.org/leafe_jax.git \\
        --bucket=my-bucket --config=configs/webshop.py:qwen2_5_7b \\
        --workdir=webshop_7b -- --config.policy.checkpoint=DIR

prints them step by step. `--run=create,install,start` executes those steps with
gcloud, in order, and stops at the first that fails. What follows `--` goes to
the run.

Every worker runs the same command; `--distributed=on` makes them find each
other. The run directory lies in the bucket, which all workers mount. After a
pre-emption the same steps again (delete, create, install, start) go on from
what was saved there.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
import subprocess
from collections.abc import Sequence

from absl import flags

from leafe_jax import command_line

STEPS = ('create', 'wait', 'install', 'start', 'watch', 'resume', 'delete')
MOUNT = 'runs'  # in the home directory of every worker
CODE = 'leafe_jax'
# Software of the virtual machines, by the start of the accelerator's type.
RUNTIMES = {
    'v4-': 'tpu-ubuntu2204-base',
    'v5litepod-': 'v2-alpha-tpuv5-lite',
    'v5p-': 'v2-alpha-tpuv5',
    'v6e-': 'v2-alpha-tpuv6e',
}

_PROJECT = flags.DEFINE_string('project', None, 'Google Cloud project.', required=True)
_ZONE = flags.DEFINE_string('zone', None, 'Zone of the slice.', required=True)
_TYPE = flags.DEFINE_string('type', 'v5litepod-16', 'Accelerator type and size.')
_VERSION = flags.DEFINE_string('version', '', "Runtime; by default the type's.")
_NAME = flags.DEFINE_string('name', 'leafe', 'Name of the slice and of its request.')
_SPOT = flags.DEFINE_bool('spot', False, 'Cheaper; may be pre-empted at any time.')
_QUEUED = flags.DEFINE_bool('queued', True, 'Queue the request, or create at once.')
_REPOSITORY = flags.DEFINE_string('repository', None, 'Git URL.', required=True)
_BRANCH = flags.DEFINE_string('branch', 'main', 'Branch of the repository.')
_BUCKET = flags.DEFINE_string('bucket', None, 'Bucket of the runs.', required=True)
_CONFIG = flags.DEFINE_string('config', None, 'FILE[:VARIANT].', required=True)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Path in the bucket.', required=True)
_RUN = flags.DEFINE_list('run', [], f'Steps to execute, of {", ".join(STEPS)}.')


@dataclasses.dataclass(frozen=True)
class Slice:
  """A Cloud TPU slice and what runs on it.

  Attributes:
    project, zone, name: where and what it is.
    type: accelerator, such as v5litepod-16.
    version: of the runtime; '' takes the type's.
    spot: whether it may be pre-empted.
    queued: whether the request waits in a queue.
    repository, branch: the code.
    bucket: keeps the runs.
    config, workdir: of the run; the directory is relative to the bucket.
    flags: further flags of the run.
  """

  project: str
  zone: str
  name: str
  type: str
  version: str
  spot: bool
  queued: bool
  repository: str
  branch: str
  bucket: str
  config: str
  workdir: str
  flags: tuple[str, ...] = ()

  @property
  def runtime(self) -> str:
    """ValueError, naming the known types, when it cannot be told."""
    if self.version:
      return self.version
    for start, runtime in RUNTIMES.items():
      if self.type.startswith(start):
        return runtime
    raise ValueError(
        f'--type={self.type}: no default runtime; give --version, or a type that '
        f'starts with {", ".join(RUNTIMES)}'
    )


def commands(target: Slice) -> dict[str, list[str]]:
  """Step -> its command, as arguments. ValueError for an unknown type."""
  start = _on_workers(target, _start(target))
  return {
      'create': _create(target),
      'wait': _gcloud(target, 'describe', '--format=value(state)'),
      'install': _on_workers(target, _install(target)),
      'start': start,
      'watch': _on_workers(target, f'tail -n 30 -F {_directory(target)}/log.txt', '0'),
      'resume': start,
      'delete': _gcloud(
          target, 'delete', '--quiet', *(['--force'] if target.queued else [])
      ),
  }


def _gcloud(target: Slice, verb: str, *options: str) -> list[str]:
  """A verb of the slice itself."""
  group = 'queued-resources' if target.queued else 'tpu-vm'
  return [
      'gcloud', 'compute', 'tpus', group, verb, target.name,
      f'--project={target.project}', f'--zone={target.zone}', *options,
  ]


def _create(target: Slice) -> list[str]:
  options = [f'--accelerator-type={target.type}']
  if target.queued:
    options += [f'--node-id={target.name}', f'--runtime-version={target.runtime}']
  else:
    options += [f'--version={target.runtime}']
  # The bucket is read and written by the workers themselves.
  options += ['--scopes=https://www.googleapis.com/auth/cloud-platform']
  return _gcloud(target, 'create', *options, *(['--spot'] if target.spot else []))


def _on_workers(target: Slice, script: str, worker: str = 'all') -> list[str]:
  return [
      'gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', target.name,
      f'--project={target.project}', f'--zone={target.zone}', f'--worker={worker}',
      f'--command={script}',
  ]


def _directory(target: Slice) -> str:
  return shlex.quote(f'{MOUNT}/{target.workdir}')


def _mount(target: Slice) -> str:
  """Mounts the bucket unless it is mounted already."""
  bucket = shlex.quote(target.bucket)
  return (
      f'mkdir -p {MOUNT} && (mountpoint -q {MOUNT} || '
      f'gcsfuse --implicit-dirs --rename-dir-limit=100000 {bucket} {MOUNT})'
  )


def _install(target: Slice) -> str:
  """Code, environment and gcsfuse; may be run again."""
  branch, repository = shlex.quote(target.branch), shlex.quote(target.repository)
  source = 'https://packages.cloud.google.com/apt'
  key = '/usr/share/keyrings/cloud.google.asc'
  return ' && '.join([
      f'curl -fsS {source}/doc/apt-key.gpg | sudo tee {key} > /dev/null',
      f'echo "deb [signed-by={key}] {source} gcsfuse-$(lsb_release -cs) main"'
      ' | sudo tee /etc/apt/sources.list.d/gcsfuse.list > /dev/null',
      'sudo apt-get -qq update',
      'sudo apt-get -qq install -y gcsfuse python3.11 python3.11-venv',
      f'(test -d {CODE} || git clone -q {repository} {CODE})',
      f'git -C {CODE} fetch -q origin {branch}',
      f'git -C {CODE} checkout -q FETCH_HEAD',
      f'make -C {CODE} install PYTHON=python3.11',
      # The lock file is for CPUs; libtpu comes with the same version of jax.
      f'{CODE}/.venv/bin/pip install -q "jax[tpu]==$({CODE}/.venv/bin/python -c '
      '"import jax; print(jax.__version__)")"',
      _mount(target),
  ])


def _start(target: Slice) -> str:
  """The run, left behind so that the connection may close."""
  command = shlex.join([
      '.venv/bin/python', '-m', 'leafe_jax.main', f'--config={target.config}',
      '--distributed=on', *target.flags,
  ])
  # The first worker's log is in the run directory, the others' say what failed.
  return (
      f'{_mount(target)} && cd {CODE} && '
      f'(nohup {command} --workdir="$HOME"/{_directory(target)} '
      '> "$HOME"/out.txt 2>&1 < /dev/null &)'
  )


def show(steps: dict[str, list[str]]) -> str:
  """The commands as a commented shell script."""
  notes = {
      'create': 'ask for the slice',
      'wait': 'says ACTIVE or READY when it is there',
      'install': 'code and environment on all workers; may be run again',
      'start': 'the same command on all workers',
      'watch': 'the log of the run',
      'resume': 'after a crash; after a pre-emption delete, create and install first',
      'delete': 'ends the costs; the runs stay in the bucket',
  }
  return '\n\n'.join(
      f'# {name}: {notes[name]}\n{shlex.join(steps[name])}' for name in STEPS
  )


def main(argv: Sequence[str]) -> int:
  target = Slice(
      _PROJECT.value, _ZONE.value, _NAME.value, _TYPE.value, _VERSION.value,
      _SPOT.value, _QUEUED.value, _REPOSITORY.value, _BRANCH.value, _BUCKET.value,
      _CONFIG.value, pathlib.PurePosixPath(_WORKDIR.value).as_posix(),
      tuple(argv[1:]),
  )
  unknown = sorted(set(_RUN.value) - set(STEPS))
  if unknown:
    raise command_line.UsageError(
        f'--run={",".join(unknown)}: no such step; choose from {", ".join(STEPS)}'
    )
  try:
    steps = commands(target)
  except ValueError as error:
    raise command_line.UsageError(str(error)) from error
  if not _RUN.value:
    print(show(steps))
  for name in _RUN.value:
    print(f'# {name}\n{shlex.join(steps[name])}', flush=True)
    code = subprocess.run(steps[name], check=False).returncode
    if code:
      return command_line.refuse(f'step {name} failed', code)
  return 0


if __name__ == '__main__':
  command_line.run(main)
