"""SkyPilot: the YAML of a task, for `sky jobs launch FILE`.

Managed jobs are started anew after a pre-emption; the bucket keeps the run.
"""

from __future__ import annotations

from typing import Any

from tools.launching import documents
from tools.launching.job import GPUS, PORT, Job

_MOUNT = '~/runs'
_CODE = '~/leafe_jax'


def task(job: Job) -> str:
  """YAML of the task. BadJob for what is missing."""
  job.check_accelerator()
  job.needs(
      repository='URL of the code for git', storage='a bucket: gs://NAME or s3://NAME'
  )
  variables = ''.join(f' --secret {variable}' for variable in job.variables)
  note = f'# sky jobs launch{variables} FILE\n'
  return note + documents.dump(_task(job))


def _task(job: Job) -> dict[str, Any]:
  bucket = job.storage if '://' in job.storage else f'gs://{job.storage}'
  found: dict[str, Any] = {
      'name': job.name,
      'resources': _resources(job),
      'num_nodes': 1 if job.tpu else job.slices,
      'workdir': {'url': job.repository, 'ref': job.branch},
      # It is there already: SkyPilot makes those that are only named.
      'file_mounts': {_MOUNT: {'source': bucket, 'mode': 'MOUNT'}},
      'setup': _setup(job),
      'run': _run(job),
  }  # fmt: skip
  if job.variables:
    found['secrets'] = dict.fromkeys(job.variables)  # the caller's have the values
  return found


def _resources(job: Job) -> dict[str, Any]:
  tpu, gpu = job.tpu, job.gpu
  found: dict[str, Any] = {'use_spot': job.spot}
  if tpu:
    found['accelerators'] = f'tpu-{tpu.type}:1'
    found['accelerator_args'] = {'runtime_version': job.runtime}
  elif gpu:
    found['accelerators'] = f'{GPUS[gpu.kind][1]}:{gpu.count}'
  else:
    found['cpus'] = '8+'
  found['job_recovery'] = {'max_restarts_on_errors': job.restarts}
  return found


def _setup(job: Job) -> str:
  extra = 'tpu' if job.tpu else 'cuda12' if job.gpu else ''
  lines = ['set -e', 'make install PYTHON=python3.11']
  if extra:
    version = "$(.venv/bin/python -c 'import jax; print(jax.__version__)')"
    lines.append(f'.venv/bin/pip install --quiet "jax[{extra}]=={version}"')
  return '\n'.join(lines) + '\n'


def _run(job: Job) -> str:
  program = ('.venv/bin/python', '-m', 'leafe_jax.main')
  further = []
  if not job.tpu and job.slices > 1:
    further = [
        f'--coordinator="$(echo "$SKYPILOT_NODE_IPS" | head -n 1):{PORT}"',
        '--num_processes="$SKYPILOT_NUM_NODES"', '--process_id="$SKYPILOT_NODE_RANK"',
    ]
  directory = f'"$HOME"/runs/{job.workdir}'
  return job.command(directory, *further, program=program) + '\n'
