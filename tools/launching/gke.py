"""GKE: a JobSet manifest for kubectl, and the line for XPK, which writes its own.

A pod that gets SIGTERM saves and ends with 143; the job set is then made anew and
goes on. What the command line asks for wrongly (exit code 2) is not tried again.
"""

from __future__ import annotations

import shlex
from typing import Any

from leafe_jax.command_line import EXIT_STOPPED, EXIT_USAGE
from tools.launching import documents
from tools.launching.job import GPUS, PORT, Gpu, Job, Tpu

_CONTAINER = 'leafe'
_WORKERS = 'workers'
_MOUNT = '/runs'
_SHARED = 'runs'


def manifest(job: Job) -> str:
  """YAML of the JobSet. BadJob for what is missing."""
  job.check_accelerator()
  job.needs(
      image='a container image that the cluster can pull',
      storage='a bucket (gs://NAME) or a claim of shared storage (its name)',
  )
  note = (
      '# kubectl apply -f FILE; needs JobSet in the cluster'
      ' (jobset.sigs.k8s.io).\n'
  )
  if job.variables:
    note += (
        f'# Variables come from the secret {_secret(job)}:\n'
        f'#   kubectl create secret generic {_secret(job)}'
        f'{"".join(f" --from-literal={v}=..." for v in job.variables)}\n'
    )
  return note + _grant(job) + documents.dump(_jobset(job))


def _grant(job: Job) -> str:
  """What a bucket asks of those who mount it; pods fail to start without."""
  if not _bucket(job):
    return ''
  member = (
      'principal://iam.googleapis.com/projects/NUMBER/locations/global/'
      'workloadIdentityPools/PROJECT.svc.id.goog/subject/ns/NAMESPACE/sa/default'
  )
  return (
      '# Pods mount the bucket as the service account "default", which needs a role:\n'
      f'#   gcloud storage buckets add-iam-policy-binding gs://{_bucket(job)} '
      f'--role=roles/storage.objectUser --member={member}\n'
  )


def xpk(job: Job) -> str:
  """The line that hands the job to XPK. BadJob for what is missing."""
  job.check_accelerator()
  job.needs(
      image='a container image that the cluster can pull', cluster='of XPK',
      project='of Google Cloud', zone='of the cluster',
      storage='a directory that every pod has, as xpk storage attaches it',
  )
  tpu, gpu = job.tpu, job.gpu
  if tpu:
    device = [f'--tpu-type={tpu.type}', f'--num-slices={job.slices}']
  elif gpu:
    device = [f'--device-type={gpu.kind}-{gpu.count}', f'--num-nodes={job.slices}']
  else:
    device = ['--device-type=n2-standard-32-256', f'--num-nodes={job.slices}']
  directory = shlex.quote(f'{job.storage.rstrip("/")}/{job.workdir}')
  line = shlex.join([
      'xpk', 'workload', 'create', f'--workload={job.name}',
      f'--cluster={job.cluster}', f'--project={job.project}', f'--zone={job.zone}',
      *device, f'--docker-image={job.image}', f'--command={job.command(directory)}',
      f'--max-restarts={job.restarts}',
      # Besides those of signals: of a process that lost another one.
      f'--restart-on-exit-codes={EXIT_STOPPED}',
      f'--termination-grace-period-seconds={job.kill_s}',
  ])  # fmt: skip
  if not job.variables:
    return line
  # Of a name without a value in such a file xpk takes what the environment has.
  return f"{line} --env-file=<(printf '%s\\n' {' '.join(job.variables)})"


def _jobset(job: Job) -> dict[str, Any]:
  return {
      'apiVersion': 'jobset.x-k8s.io/v1alpha2',
      'kind': 'JobSet',
      'metadata': {'name': job.name, **_exclusive(job)},
      'spec': {
          'network': {'enableDNSHostnames': True},
          'failurePolicy': {
              'maxRestarts': job.restarts,
              'rules': [{
                  'name': 'wrongCommandLine', 'action': 'FailJobSet',
                  'onJobFailureReasons': ['PodFailurePolicy'],
              }],
          },
          'replicatedJobs': [_replicated(job)],
      },
  }  # fmt: skip


def _exclusive(job: Job) -> dict[str, Any]:
  """A slice of TPUs is a node pool, which one of the jobs has for itself."""
  topology = 'alpha.jobset.sigs.k8s.io/exclusive-topology'
  place = {topology: 'cloud.google.com/gke-nodepool'}
  return {'annotations': place} if job.tpu else {}


def _replicated(job: Job) -> dict[str, Any]:
  jobs = job.slices if job.tpu else 1
  pods = job.hosts // jobs
  return {
      'name': _WORKERS,
      'replicas': jobs,
      'template': {'spec': {
          'parallelism': pods, 'completions': pods, 'completionMode': 'Indexed',
          'backoffLimit': 0,  # one pod that is lost ends all: they compute together
          'podFailurePolicy': {'rules': [{
              'action': 'FailJob',
              'onExitCodes': {
                  'containerName': _CONTAINER, 'operator': 'In',
                  'values': [EXIT_USAGE],
              },
          }]},
          'template': {
              'metadata': _pod_metadata(job),
              'spec': _pod(job),
          },
      }},
  }  # fmt: skip


def _pod_metadata(job: Job) -> dict[str, Any]:
  return {'annotations': {'gke-gcsfuse/volumes': 'true'}} if _bucket(job) else {}


def _pod(job: Job) -> dict[str, Any]:
  return {
      'restartPolicy': 'Never',
      'terminationGracePeriodSeconds': job.kill_s,
      **_selector(job),
      'containers': [_container(job)],
      'volumes': [
          {'name': _SHARED, **_source(job)},
          {'name': 'shm', 'emptyDir': {'medium': 'Memory'}},
      ],
  }


def _container(job: Job) -> dict[str, Any]:
  tpu, gpu = job.tpu, job.gpu
  found: dict[str, Any] = {
      'name': _CONTAINER,
      'image': job.image,
      'command': ['bash', '-c', job.command(f'{_MOUNT}/{job.workdir}', *_meeting(job))],
      'volumeMounts': [
          {'name': _SHARED, 'mountPath': _MOUNT},
          {'name': 'shm', 'mountPath': '/dev/shm'},
      ],
  }
  if job.variables:
    found['env'] = [
        {'name': v, 'valueFrom': {'secretKeyRef': {'name': _secret(job), 'key': v}}}
        for v in job.variables
    ]
  if tpu:
    found['resources'] = {'limits': {'google.com/tpu': tpu.chips_per_host}}
    found['ports'] = [{'containerPort': 8471}, {'containerPort': PORT}]
  elif gpu:
    found['resources'] = {'limits': {'nvidia.com/gpu': gpu.count}}
  return found


def _meeting(job: Job) -> list[str]:
  """How pods without TPUs find each other; with them jax finds all."""
  if job.tpu or job.hosts == 1:
    return []
  first = f'{job.name}-{_WORKERS}-0-0.{job.name}'
  return [
      f'--coordinator={first}:{PORT}', f'--num_processes={job.hosts}',
      '--process_id="$JOB_COMPLETION_INDEX"',
  ]


def _selector(job: Job) -> dict[str, Any]:
  labels = {**_device_labels(job.tpu, job.gpu)}
  if job.spot:
    labels['cloud.google.com/gke-spot'] = 'true'
  return {'nodeSelector': labels} if labels else {}


def _device_labels(tpu: Tpu | None, gpu: Gpu | None) -> dict[str, str]:
  if tpu:
    return {
        'cloud.google.com/gke-tpu-accelerator': tpu.gke,
        'cloud.google.com/gke-tpu-topology': tpu.topology,
    }
  return {'cloud.google.com/gke-accelerator': GPUS[gpu.kind][0]} if gpu else {}


def _bucket(job: Job) -> str:
  """The bucket that is mounted; '' if a claim is."""
  return job.storage.removeprefix('gs://') if '://' in job.storage else ''


def _source(job: Job) -> dict[str, Any]:
  bucket = _bucket(job)
  if not bucket:
    return {'persistentVolumeClaim': {'claimName': job.storage}}
  options = 'implicit-dirs,file-system:rename-dir-limit:100000'
  return {'csi': {
      'driver': 'gcsfuse.csi.storage.gke.io',
      'volumeAttributes': {'bucketName': bucket, 'mountOptions': options},
  }}  # fmt: skip


def _secret(job: Job) -> str:
  return f'{job.name}-env'
