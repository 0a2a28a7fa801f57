"""gcloud: the commands for a Cloud TPU slice, from creation to deletion.

Every worker runs the same command; `--distributed=on` makes them find each
other. The run directory lies in the bucket, which all workers mount. After a
pre-emption the same steps again (delete, create, install, start) go on from
what was saved there.
"""

from __future__ import annotations

import shlex

from tools.launching.job import BadJob, Job

STEPS = ('create', 'wait', 'install', 'start', 'watch', 'resume', 'delete')
MOUNT = 'runs'  # in the home directory of every worker
CODE = 'leafe_jax'


def commands(job: Job) -> dict[str, list[str]]:
  """Step -> its command, as arguments. BadJob for what is missing."""
  job.needs(
      project='of Google Cloud', zone='of the slice',
      repository='URL of the code for git',
      storage='the bucket that keeps the runs: gs://NAME',
  )
  if job.slices > 1:
    raise BadJob(
        f'--slices={job.slices}: gcloud starts one slice; take --target=jobset or xpk'
    )
  start = _on_workers(job, _start(job))
  return {
      'create': _create(job),
      'wait': _gcloud(job, 'describe', '--format=value(state)'),
      'install': _on_workers(job, _install(job)),
      'start': start,
      'watch': _on_workers(job, f'tail -n 30 -F {_directory(job)}/log.txt', '0'),
      'resume': start,
      'delete': _gcloud(
          job, 'delete', '--quiet', *(['--force'] if job.queued else [])
      ),
  }


def _bucket(job: Job) -> str:
  return job.storage.removeprefix('gs://')


def _gcloud(job: Job, verb: str, *options: str) -> list[str]:
  """A verb of the slice itself."""
  group = 'queued-resources' if job.queued else 'tpu-vm'
  return [
      'gcloud', 'compute', 'tpus', group, verb, job.name,
      f'--project={job.project}', f'--zone={job.zone}', *options,
  ]


def _create(job: Job) -> list[str]:
  options = [f'--accelerator-type={job.accelerator}']
  if job.queued:
    options += [f'--node-id={job.name}', f'--runtime-version={job.runtime}']
  else:
    options += [f'--version={job.runtime}']
  # The bucket is read and written by the workers themselves.
  options += ['--scopes=https://www.googleapis.com/auth/cloud-platform']
  return _gcloud(job, 'create', *options, *(['--spot'] if job.spot else []))


def _on_workers(job: Job, script: str, worker: str = 'all') -> list[str]:
  return [
      'gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', job.name,
      f'--project={job.project}', f'--zone={job.zone}', f'--worker={worker}',
      f'--command={script}',
  ]


def _directory(job: Job) -> str:
  return shlex.quote(f'{MOUNT}/{job.workdir}')


def _mount(job: Job) -> str:
  """Mounts the bucket unless it is mounted already."""
  bucket = shlex.quote(_bucket(job))
  return (
      f'mkdir -p {MOUNT} && (mountpoint -q {MOUNT} || '
      f'gcsfuse --implicit-dirs --rename-dir-limit=100000 {bucket} {MOUNT})'
  )


def _install(job: Job) -> str:
  """Code, environment and gcsfuse; may be run again."""
  branch, repository = shlex.quote(job.branch), shlex.quote(job.repository)
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
      _mount(job),
  ])


def _start(job: Job) -> str:
  """The run, left behind so that the connection may close."""
  command = shlex.join([
      '.venv/bin/python', '-m', 'leafe_jax.main', *job.arguments(distributed=False),
      '--distributed=on',
  ])
  # The first worker's log is in the run directory, the others' say what failed.
  return (
      f'{_mount(job)} && cd {CODE} && '
      f'(nohup {command} --workdir="$HOME"/{_directory(job)} '
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
