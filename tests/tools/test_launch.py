"""What starts a run holds what was asked, and the programs that read it can."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shlex
import subprocess
import sys

import pytest
import yaml

from leafe_jax.command_line import UsageError
from tests.tools.shells import check_shell
from tools import launch
from tools.launching import gcloud, gke, sky
from tools.launching.job import BadJob, Job

JOB = Job(
    name='leafe', accelerator='v5litepod-16', slices=1,
    config='configs/webshop.py:qwen2_5_7b', workdir='w/7b',
    flags=('--config.policy.checkpoint=/data/my model',), storage='gs://b',
    image='registry/leafe:1', repository='https://e.org/code.git',
    branch="it's mine", spot=True, variables=('WANDB_API_KEY',), project='p', zone='z',
    cluster='c',
)
GPUS = dataclasses.replace(JOB, accelerator='h100:8', slices=2, storage='shared')


def changed(job: Job = JOB, **changes) -> Job:
  return dataclasses.replace(job, **changes)


def remote(command: list[str]) -> str:
  [found] = [part for part in command if part.startswith('--command=')]
  return found.removeprefix('--command=')


# The description.


@pytest.mark.parametrize(
    ('accelerator', 'topology', 'hosts', 'chips_per_host'),
    [('v5litepod-16', '4x4', 4, 4), ('v5litepod-8', '2x4', 1, 8),
     ('v6e-1', '1x1', 1, 1), ('v4-8', '2x2x1', 1, 4), ('v5p-128', '4x4x4', 16, 4),
     ('v6e-256', '16x16', 64, 4)],
)  # fmt: skip
def test_slices_of_tpus(accelerator, topology, hosts, chips_per_host):
  tpu = changed(accelerator=accelerator).tpu
  assert (tpu.topology, tpu.hosts, tpu.chips_per_host) == (
      topology, hosts, chips_per_host
  )


@pytest.mark.parametrize(
    ('accelerator', 'message'),
    [('v5litepod-17', 'has slices of 1, 4, 8, 16'), ('v9-8', 'choose the TPUs from v4'),
     ('h100', 'h100:8'), ('b300:8', 'choose KIND:NUMBER from l4'), ('h100:0', 'KIND')],
)  # fmt: skip
def test_an_accelerator_that_is_none_is_refused_by_name(accelerator, message):
  with pytest.raises(BadJob, match=f'--accelerator={accelerator}: .*{message}'):
    changed(accelerator=accelerator).check_accelerator()


@pytest.mark.parametrize(
    ('change', 'message'),
    [({'name': 'My_Job'}, "--name=My_Job: .*digits and '-'"),
     ({'workdir': '/abs'}, '--workdir=/abs: .*below --storage'),
     ({'workdir': 'a/../../b'}, 'below --storage')],
)  # fmt: skip
def test_what_no_cluster_takes_is_refused(change, message):
  with pytest.raises(BadJob, match=message):
    changed(**change)


def test_a_secret_on_the_command_line_is_refused_and_not_repeated():
  with pytest.raises(BadJob) as info:
    changed(variables=('HF_TOKEN=hf_abc',))
  assert 'hf_abc' not in str(info.value) and '--env=HF_TOKEN' in str(info.value)


@pytest.mark.parametrize('target', list(launch.WRITERS))
def test_values_of_variables_are_nowhere(target, monkeypatch):
  monkeypatch.setenv('WANDB_API_KEY', 'k3y-of-somebody')
  job = changed(GPUS, storage='/shared') if target == 'slurm' else JOB
  assert 'k3y-of-somebody' not in launch.WRITERS[target](job)


@pytest.mark.parametrize(
    ('target', 'flag'),
    [('gcloud', 'project'), ('gcloud', 'repository'), ('jobset', 'image'),
     ('jobset', 'storage'), ('xpk', 'cluster'), ('sky', 'repository')],
)  # fmt: skip
def test_what_is_missing_is_named(target, flag):
  with pytest.raises(BadJob, match=f'--{flag} is missing: '):
    launch.WRITERS[target](changed(**{flag: ''}))


# gcloud.


def test_every_step_names_the_slice():
  for command in gcloud.commands(JOB).values():
    assert command[:3] == ['gcloud', 'compute', 'tpus']
    assert {'leafe', '--project=p', '--zone=z'} <= set(command)


def test_a_queued_spot_slice():
  steps = gcloud.commands(JOB)
  create = steps['create']
  assert create[3:5] == ['queued-resources', 'create']
  assert {'--spot', '--node-id=leafe', '--accelerator-type=v5litepod-16'} <= set(create)
  assert '--runtime-version=v2-alpha-tpuv5-lite' in create
  assert '--force' in steps['delete']


def test_a_slice_at_once():
  steps = gcloud.commands(changed(queued=False, spot=False, accelerator='v6e-8'))
  assert steps['create'][3:5] == ['tpu-vm', 'create']
  assert '--version=v2-alpha-tpuv6e' in steps['create']
  assert '--spot' not in steps['create'] and '--force' not in steps['delete']


def test_all_workers_run_the_same_command_with_the_flags_of_the_run():
  steps = gcloud.commands(JOB)
  assert '--worker=all' in steps['start']
  words = shlex.split(remote(steps['start']))
  assert '--config=configs/webshop.py:qwen2_5_7b' in words
  assert '--distributed=on' in words
  assert '--config.policy.checkpoint=/data/my model' in words
  assert '--workdir=$HOME/runs/w/7b' in words
  assert steps['resume'] == steps['start']


@pytest.mark.parametrize('step', ['install', 'start', 'watch'])
def test_what_workers_run_is_correct_shell(step):
  steps = gcloud.commands(JOB)
  check_shell(remote(steps[step]))
  assert "it's mine" in shlex.split(remote(steps['install']))


def test_what_is_printed_parses_to_the_commands():
  steps = gcloud.commands(JOB)
  lines = gcloud.show(steps).splitlines()
  printed = [shlex.split(line) for line in lines if line and not line.startswith('#')]
  assert printed == list(steps.values())


def test_an_unknown_type_needs_a_version():
  with pytest.raises(BadJob, match='accelerator=v9-8.*--version'):
    gcloud.commands(changed(accelerator='v9-8'))
  create = gcloud.commands(changed(accelerator='v9-8', version='x'))['create']
  assert '--runtime-version=x' in create


def test_gcloud_starts_one_slice():
  with pytest.raises(BadJob, match='--slices=2: .*--target=jobset'):
    gcloud.commands(changed(slices=2))


# GKE.


def jobset(job: Job) -> tuple[dict, dict, dict]:
  """The set, its job's specification, and its pod's."""
  found = yaml.safe_load(gke.manifest(job))
  [replicated] = found['spec']['replicatedJobs']
  spec = replicated['template']['spec']
  return found, spec, spec['template']['spec']


def test_a_jobset_of_two_slices():
  found, job, pod = jobset(changed(slices=2))
  assert found['spec']['replicatedJobs'][0]['replicas'] == 2  # slices
  assert job['parallelism'] == job['completions'] == 4  # hosts of a slice
  labels = pod['nodeSelector']
  assert labels['cloud.google.com/gke-tpu-accelerator'] == 'tpu-v5-lite-podslice'
  assert labels['cloud.google.com/gke-tpu-topology'] == '4x4'
  assert labels['cloud.google.com/gke-spot'] == 'true'
  [container] = pod['containers']
  assert container['resources'] == {'limits': {'google.com/tpu': 4}}
  words = shlex.split(container['command'][2])
  assert words[:4] == ['exec', 'python', '-m', 'leafe_jax.main']
  assert '--config.policy.checkpoint=/data/my model' in words
  assert '--distributed=on' in words and '--workdir=/runs/w/7b' in words
  topology = 'alpha.jobset.sigs.k8s.io/exclusive-topology'
  assert found['metadata']['annotations'][topology] == 'cloud.google.com/gke-nodepool'


def test_pods_with_gpus_are_told_where_the_first_one_is():
  found, job, pod = jobset(GPUS)
  assert found['spec']['replicatedJobs'][0]['replicas'] == 1
  assert job['completions'] == 2 and job['completionMode'] == 'Indexed'
  [container] = pod['containers']
  assert container['resources'] == {'limits': {'nvidia.com/gpu': 8}}
  command = container['command'][2]
  assert '--coordinator=leafe-workers-0-0.leafe:8476 --num_processes=2' in command
  assert '--process_id="$JOB_COMPLETION_INDEX"' in command
  assert '--distributed' not in command
  assert pod['volumes'][0]['persistentVolumeClaim'] == {'claimName': 'shared'}


@pytest.mark.parametrize('job', [JOB, GPUS, changed(accelerator='cpu')])
def test_a_pod_has_time_to_save_and_a_wrong_command_line_is_not_tried_again(job):
  found, spec, pod = jobset(job)
  assert pod['terminationGracePeriodSeconds'] > job.grace_s
  assert f'--grace_s={job.grace_s}' in pod['containers'][0]['command'][2]
  assert pod['restartPolicy'] == 'Never' and spec['backoffLimit'] == 0
  [rule] = spec['podFailurePolicy']['rules']
  assert (rule['action'], rule['onExitCodes']['values']) == ('FailJob', [2])
  policy = found['spec']['failurePolicy']
  assert policy['maxRestarts'] == 20
  assert policy['rules'][0]['onJobFailureReasons'] == ['PodFailurePolicy']


def test_a_bucket_comes_with_the_role_that_pods_need_to_mount_it():
  assert 'add-iam-policy-binding gs://b ' in gke.manifest(JOB)
  assert 'add-iam-policy-binding' not in gke.manifest(changed(storage='claim'))


def test_variables_come_from_a_secret():
  _, _, pod = jobset(JOB)
  [variable] = pod['containers'][0]['env']
  assert variable == {
      'name': 'WANDB_API_KEY',
      'valueFrom': {'secretKeyRef': {'name': 'leafe-env', 'key': 'WANDB_API_KEY'}},
  }


@pytest.mark.parametrize('job', [JOB, GPUS, changed(accelerator='cpu')])
def test_the_jobs_of_a_set_are_those_of_kubernetes(job):
  kubernetes_validate = pytest.importorskip('kubernetes_validate')
  _, spec, _ = jobset(job)
  whole = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': 'x'}}
  kubernetes_validate.validate({**whole, 'spec': spec}, '1.33', strict=True)


def test_the_line_for_xpk():
  line = gke.xpk(changed(slices=2, storage='/data'))
  check_shell(line)
  words = shlex.split(line)
  assert {'--tpu-type=v5litepod-16', '--num-slices=2'} <= set(words)
  assert '--max-restarts=20' in words
  assert '--termination-grace-period-seconds=30' in words
  assert '--workdir=/data/w/7b' in shlex.split(remote(words))
  # Names alone: xpk reads their values from the environment, from files only.
  assert line.endswith("--env-file=<(printf '%s\\n' WANDB_API_KEY)")


# SkyPilot.


def test_a_task_of_skypilot():
  found = yaml.safe_load(sky.task(JOB))
  assert found['resources'] == {
      'use_spot': True, 'accelerators': 'tpu-v5litepod-16:1',
      'accelerator_args': {'runtime_version': 'v2-alpha-tpuv5-lite'},
      'job_recovery': {'max_restarts_on_errors': 20},
  }
  assert found['secrets'] == {'WANDB_API_KEY': None}
  assert found['file_mounts'] == {'~/runs': {'source': 'gs://b', 'mode': 'MOUNT'}}
  assert '--distributed=on' in found['run'] and 'jax[tpu]' in found['setup']
  check_shell(found['setup'])
  check_shell(found['run'])


def test_machines_of_skypilot_are_told_where_the_first_one_is():
  found = yaml.safe_load(sky.task(changed(GPUS, storage='s3://b')))
  assert found['num_nodes'] == 2 and found['resources']['accelerators'] == 'H100:8'
  assert found['file_mounts']['~/runs']['source'] == 's3://b'
  check_shell(found['run'])
  words = subprocess.run(
      ['bash', '-c', found['run'].replace('exec ', 'printf "%s\\n" ')], text=True,
      capture_output=True, check=True, env={
          'PATH': os.environ['PATH'], 'HOME': '/h', 'SKYPILOT_NODE_RANK': '1',
          'SKYPILOT_NODE_IPS': '10.0.0.1\n10.0.0.2', 'SKYPILOT_NUM_NODES': '2',
      },
  ).stdout.splitlines()  # fmt: skip
  assert {'--coordinator=10.0.0.1:8476', '--num_processes=2', '--process_id=1'} <= {
      *words
  }
  assert '--workdir=/h/runs/w/7b' in words


@pytest.mark.filterwarnings('ignore')  # of its packages
@pytest.mark.skipif(not importlib.util.find_spec('sky'), reason='skypilot is missing')
@pytest.mark.parametrize('job', [JOB, changed(GPUS, storage='s3://b')])
def test_skypilot_reads_the_task(job, tmp_path):
  from sky import Task

  place = tmp_path / 'task.yaml'
  place.write_text(sky.task(job))
  task = Task.from_yaml_config(
      yaml.safe_load(place.read_text()), secrets_overrides=[('WANDB_API_KEY', 'x')]
  )
  assert task.num_nodes == job.hosts // (job.tpu.hosts if job.tpu else 1)
  assert set(task.secrets) == {'WANDB_API_KEY'}


# The program.


def parsed(*arguments: str) -> subprocess.CompletedProcess[str]:
  """What the program said."""
  return subprocess.run(
      [sys.executable, '-m', 'tools.launch', *arguments], capture_output=True, text=True
  )


def test_the_program_prints_and_runs_nothing():
  run = parsed(
      '--target=gcloud', '--project=p', '--zone=z', '--repository=r',
      '--storage=gs://b', '--config=c.py', '--workdir=w', '--', '--config.seed=1',
  )
  assert run.returncode == 0, run.stderr
  assert '# create' in run.stdout and '--config.seed=1' in run.stdout


def test_a_mistake_is_one_line():
  run = parsed('--target=slurm', '--config=c.py', '--workdir=w', '--accelerator=v4-8')
  assert run.returncode == 2 and run.stderr.count('\n') == 1
  assert 'SLURM has no TPUs' in run.stderr


def test_an_unknown_step_is_refused():
  with pytest.raises(UsageError, match='--run=fly: no such step'):
    launch.execute(JOB, ['fly'])
