"""Runs of two processes: the same as one, and bounded when one is killed."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from leafe_jax import hosts
from leafe_jax.endings import RunStopped
from leafe_jax.learner import checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Every phase with few programs: compiling is most of the time, and each process
# compiles all of them.
TINY = (
    '--config=configs/webshop.py:debug',
    '--config.arms=base,leafe,grpo',
    '--config.grpo.steps=2',
    '--config.policy.num_layers=1',
    '--config.policy.max_length=256',
    '--config.sampler.prefill_buckets=(128,)',
    '--config.sampler.length_buckets=(256,)',
    '--config.sampler.dispatch_rows=16',
    '--config.sampler.num_pages=2048',
    '--config.warm_start.steps=100',
    '--config.warm_start.num_demonstrations=400',
    '--config.warm_start.checkpoint_every=50',
    '--config.gate.num_tasks=2',
    '--config.explore.num_tasks=8',
    '--config.explore.wave_tasks=4',
    '--config.explore.attempts=6',
    '--config.sampler.checkpoint_every=40',
    '--config.evaluate.num_tasks=3',
    '--config.evaluate.num_samples=4',
    '--config.evaluate.wave_tasks=3',
)
XLA_FLAGS = (
    '--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0 '
    '--xla_llvm_disable_expensive_passes=true '
    '--xla_force_host_platform_device_count='
)
PATIENCE_S = 900  # of the tests, on a busy machine
NOTICE_S = 90  # for the others to notice that a process is gone


def start(workdir, *flags, devices=1, **kwargs) -> subprocess.Popen[str]:
  """One process of a run, on as many CPU devices."""
  return subprocess.Popen(
      [sys.executable, '-m', 'leafe_jax.main', *TINY, f'--workdir={workdir}', *flags],
      cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': f'{XLA_FLAGS}{devices}'},
      **kwargs,
  )


def start_two(workdir) -> list[subprocess.Popen[str]]:
  """Two processes of one device each."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  flags = f'--coordinator=localhost:{port}', '--num_processes=2', '--join_timeout=120'
  return [start(workdir, *flags, f'--process_id={i}') for i in range(2)]


def finish(*processes) -> list[str]:
  outputs = [process.communicate(timeout=PATIENCE_S)[0] for process in processes]
  for process, output in zip(processes, outputs, strict=True):
    assert process.returncode == 0, output[-4000:]
  return outputs


def wait_for(pattern, workdir, process) -> None:
  deadline = time.monotonic() + PATIENCE_S
  while not any(workdir.glob(pattern)):
    assert process.poll() is None, process.communicate()[0][-4000:]
    assert time.monotonic() < deadline
    time.sleep(0.01)


def results(workdir) -> dict:
  found = json.loads((workdir / 'results.json').read_text())
  del found['wall_s'], found['speed']
  return found


@pytest.fixture(name='one', scope='module')
def _one(tmp_path_factory):
  """A run of one process on two devices."""
  workdir = tmp_path_factory.mktemp('hosts') / 'one'
  finish(start(workdir, devices=2))
  return workdir


@pytest.fixture(name='asked', scope='module')
def _asked(tmp_path_factory):
  """(directory, outputs, exit codes) after process 1 was asked to stop in a wave."""
  workdir = tmp_path_factory.mktemp('hosts') / 'two'
  processes = start_two(workdir)
  wait_for('explore/journal_0000.jsonl', workdir, processes[0])
  journal = workdir / 'explore' / 'journal_0000.jsonl'
  while not journal.read_bytes().endswith(b' "kept"\n'):
    assert processes[0].poll() is None
    time.sleep(0.002)
  processes[1].send_signal(signal.SIGTERM)
  outputs = [process.communicate(timeout=NOTICE_S)[0] for process in processes]
  return workdir, outputs, [process.returncode for process in processes]


def test_when_one_is_asked_to_stop_all_do_and_say_what_is_saved(asked):
  workdir, outputs, codes = asked
  assert codes == [143, 143], outputs
  for output in outputs:
    last = output.splitlines()[-1]
    assert 'stopped by SIGTERM: finished waves' in last and 'Traceback' not in output
    assert last.endswith('responses of the present one; the same command goes on')
    assert 'the first 0 responses' not in last
  assert (workdir / 'explore' / 'journal_0000.jsonl').exists()


@pytest.fixture(name='killed', scope='module')
def _killed(asked):
  """(directory, output and exit code of process 0) after process 1 was killed."""
  workdir, *_ = asked
  processes = start_two(workdir)
  wait_for('explore/wave_0000.host1.jsonl', workdir, processes[0])
  processes[1].send_signal(signal.SIGKILL)
  processes[1].communicate()
  output, _ = processes[0].communicate(timeout=NOTICE_S)
  return workdir, output, processes[0].returncode


def test_when_a_process_is_killed_the_others_end_with_a_clear_message(killed):
  workdir, output, code = killed
  assert code not in (0, None)
  last = output.splitlines()[-1]
  assert 'lost another process' in last and 'the run goes on' in last
  assert 'Traceback' not in output
  assert not (workdir / 'results.json').exists()


def test_two_processes_end_with_the_figures_and_weights_of_one(one, killed):
  workdir, *_ = killed
  _, output = finish(*start_two(workdir))  # resumed where it was killed
  assert 'Pass@k' not in output and 'it/s' not in output  # process 0's to say
  assert results(workdir) == results(one)
  for phase in ('warm_start', 'distill/leafe', 'grpo'):
    ours = checkpoints.load_params(workdir / phase / 'params')
    theirs = checkpoints.load_params(one / phase / 'params')
    assert ours.keys() == theirs.keys()
    for name in ours:
      np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
  for arm in ('base', 'leafe', 'grpo'):
    kept = f'evaluate/{arm}/episodes_0000.jsonl'  # one set, by the first process
    assert (workdir / kept).read_bytes() == (one / kept).read_bytes()
  files = sorted(path.name for path in (workdir / 'explore').glob('wave_*'))
  assert files == [f'wave_000{w}.host{h}.jsonl' for w in (0, 1) for h in (0, 1)]
  attempts = (workdir / 'attempts.jsonl').read_text().splitlines()
  assert len(attempts) == 3  # noted once a start, not once a process


JOINS = '''
import sys
from leafe_jax import hosts
count, place, number = sys.argv[1:]
found = hosts.arguments(f'localhost:{place}', int(count), int(number), 'auto')
with hosts.joined(found, 60):
  hosts.meet()
  print('ready', flush=True)
  sys.stdin.read()
  hosts.meet()
'''


def start_joining(*counts) -> list[subprocess.Popen[str]]:
  """Processes that meet, each told of a count, and wait for a word on stdin."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  return [
      subprocess.Popen(
          [sys.executable, '-c', JOINS, str(count), str(port), str(number)],
          cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
          stderr=subprocess.PIPE, text=True,
          env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
      )
      for number, count in enumerate(counts)
  ]


def test_the_loss_of_process_0_ends_the_others_though_they_wait_elsewhere():
  first, second = start_joining(2, 2)
  assert second.stdout is not None
  assert 'ready\n' in iter(second.stdout.readline, '')
  first.kill()
  assert second.wait(timeout=NOTICE_S) == 1
  assert second.stderr is not None
  last = second.stderr.read().splitlines()[-1]
  assert 'process 1: lost another process' in last and 'Start the same command' in last
  first.communicate()
  second.communicate()


@pytest.mark.parametrize(
    ('counts', 'codes', 'message'),
    [
        ((2, 3), [1, 1], 'process 1 was told of 3 processes'),
        ((1, 2), [0, 1], 'process 1: was not let in'),
    ],
)
def test_processes_that_were_told_other_counts_do_not_run(counts, codes, message):
  processes = start_joining(*counts)
  # The first last: its word is what it waits for, and the other has to meet it.
  _, output = processes[1].communicate('', timeout=PATIENCE_S)
  processes[0].communicate('', timeout=PATIENCE_S)
  assert [process.returncode for process in processes] == codes
  last = output.splitlines()[-1]
  assert message in last and '--num_processes' in last


def refusal(*flags) -> str:
  process = start('unused', *flags)
  output, _ = process.communicate(timeout=PATIENCE_S)
  assert process.returncode not in (0, None)
  assert 'Traceback' not in output
  return output.splitlines()[-1]


def test_a_coordinator_that_does_not_answer_is_named(tmp_path):
  with socket.socket() as silent:
    silent.bind(('localhost', 0))  # bound, never listening
    where = f'localhost:{silent.getsockname()[1]}'
    message = refusal(
        f'--coordinator={where}', '--num_processes=2', '--process_id=1',
        '--join_timeout=2',
    )
  assert f'not all processes met at {where} within 2 s' in message


@pytest.mark.parametrize(
    ('numbers', 'message'),
    [
        (('h:1', 2, 2), 'process_id=2 is out of range: choose from 0 to 1'),
        (('h:1', 2, -1), 'go together'),
        (('', 2, 0), 'go together'),
        (('host', 2, 0), 'coordinator=host is not HOST:PORT'),
    ],
)
def test_numbers_that_do_not_fit_are_refused(numbers, message):
  with pytest.raises(ValueError, match=message):
    hosts.arguments(*numbers, 'auto')


OF_FOUR = {'SLURM_NTASKS': '4', 'SLURM_STEP_NODELIST': 'n[1-4]'}


@pytest.mark.parametrize(
    ('environment', 'joins'),
    [
        ({}, False),
        (OF_FOUR, True),
        ({'SLURM_NTASKS': '1', 'SLURM_STEP_NODELIST': 'n1'}, False),
        ({'SLURM_NTASKS': '4'}, False),  # inside of an allocation, not of a step
        ({**OF_FOUR, 'SLURM_STEP_NUM_TASKS': '1'}, False),  # a shell in it
        ({**OF_FOUR, 'SLURM_STEP_NUM_TASKS': '4'}, True),
        ({'TPU_WORKER_HOSTNAMES': 'a,b'}, True),
        ({'TPU_WORKER_HOSTNAMES': 'a'}, False),
        ({'JAX_COORDINATOR_ADDRESS': 'a:1'}, True),
    ],
)
def test_several_processes_are_found_in_the_environment(
    monkeypatch, environment, joins
):
  for name in ('SLURM_NTASKS', 'SLURM_STEP_NODELIST', 'SLURM_STEP_NUM_TASKS',
               'TPU_WORKER_HOSTNAMES', 'JAX_COORDINATOR_ADDRESS'):
    monkeypatch.delenv(name, raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  assert (hosts.arguments('', 0, -1, 'auto') is not None) == joins
  assert hosts.arguments('', 0, -1, 'off') is None
  assert hosts.arguments('', 0, -1, 'on') == {}


@pytest.mark.parametrize(('total', 'places'), [(7, 3), (2, 5), (0, 2), (64, 16)])
def test_parts_cover_everything_in_order_and_differ_by_one(total, places):
  things = list(range(total))
  parts = [things[hosts.part(total, i, places)] for i in range(places)]
  assert sum(parts, []) == things
  assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.fixture(name='two')
def _two(monkeypatch):
  """Passes for process 0 of two; the other says the same, or what is given."""
  said = []
  monkeypatch.setattr(hosts, 'count', lambda: 2)
  monkeypatch.setattr(
      hosts.multihost_utils, 'process_allgather',
      lambda array: np.stack([array, said.pop() if said else array]),
  )
  return said


@pytest.mark.parametrize('size', [0, 1, 1024, 1025, 70_000])
def test_payloads_of_any_size_are_exchanged(two, size):
  payload = os.urandom(size)
  assert hosts.exchange(payload) == [payload, payload]


def test_processes_that_ran_different_programs_stop(two):
  hosts.witness(np.arange(3), np.ones(2, bool))
  hosts.meet()
  two.append(np.array([0, 12345, 0], np.uint32))
  with pytest.raises(hosts.OutOfStep, match='out of step.*12345'):
    hosts.meet()


def test_an_error_of_process_0_ends_the_others_with_its_text(monkeypatch, two):
  def refuse():
    raise ValueError('no such config')

  with pytest.raises(ValueError, match='no such config'):
    hosts.first(refuse)
  answer = json.dumps({'error': 'no such config', 'exit_code': 143}).encode()
  monkeypatch.setattr(hosts, 'index', lambda: 1)
  monkeypatch.setattr(hosts, 'exchange', lambda payload: [answer, payload])
  with pytest.raises(RunStopped, match='process 0: no such config') as stopped:
    hosts.first(refuse)
  assert stopped.value.exit_code == 143


def test_an_exchange_that_only_process_0_would_come_to_is_refused(two):
  with pytest.raises(AssertionError, match='the others wait'):
    hosts.first(hosts.meet)


def test_one_process_needs_nobody():
  assert (hosts.count(), hosts.index(), hosts.is_first()) == (1, 0, True)
  assert hosts.exchange(b'x') == [b'x']
  assert hosts.first(lambda: (1, 2)) == (1, 2)
  hosts.meet()
