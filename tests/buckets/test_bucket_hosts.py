"""Two processes of a run in a bucket: stopped in every phase, resumed elsewhere."""

import json
import signal
import time

import jax
import numpy as np
import pytest

from leafe_jax import buckets
from leafe_jax.learner.checkpoints import load_params
from tests import test_hosts
from tests.test_hosts import finish, results, start, start_two

pytestmark = pytest.mark.slow('many runs of two processes in a bucket')
# What is in the bucket when processes get a signal: in the warm start, in a wave of
# exploring, in reinforcement learning.
STOPS = [
    ('warm_start/checkpoints/seals', {1: signal.SIGKILL}),
    ('explore/journal_0000', {0: signal.SIGKILL}),
    ('explore/wave_0000', {0: signal.SIGKILL, 1: signal.SIGKILL}),
    ('grpo/checkpoints/seals', {1: signal.SIGTERM}),
]


def files_of(url):
  from leafe_jax.buckets import manifest
  from leafe_jax.buckets.store import Store

  return manifest.read(Store(url)).files


def signal_when_committed(processes, url, part, signals):
  """Sends signals to processes once the bucket names a file; returns exit codes."""
  deadline = time.monotonic() + test_hosts.PATIENCE_S
  while not any(part in name for name in files_of(url)):
    if any(process.poll() is not None for process in processes):
      time.sleep(5)  # for the others to say why
      for process in processes:
        process.kill()
      said = [process.communicate()[0][-3000:] for process in processes]
      pytest.fail('\n\n'.join(said))
    assert time.monotonic() < deadline
    time.sleep(0.05)
  for number, sent in signals.items():
    processes[number].send_signal(sent)
  outputs = [each.communicate(timeout=test_hosts.NOTICE_S)[0] for each in processes]
  assert not any('Traceback' in output for output in outputs), outputs
  return [process.returncode for process in processes]


def assert_same_weights(*phases):
  ours, theirs = (jax.tree.leaves(load_params(phase / 'params')) for phase in phases)
  for found, wanted in zip(ours, theirs, strict=True):
    np.testing.assert_array_equal(found, wanted)


def test_a_run_of_two_that_is_stopped_in_every_phase_has_the_same_bits(
    url, address, tmp_path, monkeypatch
):
  monkeypatch.setenv('STORAGE_EMULATOR_HOST', address)
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'compiled'))
  one = tmp_path / 'one'
  finish(start(one, devices=2))
  for number, (part, signals) in enumerate(STOPS):
    # Another disk: other machines.
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / f'disk{number}'))
    codes = signal_when_committed(start_two(url), url, part, signals)
    assert 0 not in codes, (part, codes)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'last'))
  finish(*start_two(url))

  here = buckets.open_run(url)
  assert results(here) == results(one)
  for phase in ('warm_start', 'distill/leafe', 'grpo'):
    assert_same_weights(here / phase, one / phase)
  for arm in ('base', 'leafe', 'grpo'):
    kept = f'evaluate/{arm}/episodes_0000.jsonl'
    assert (here / kept).read_bytes() == (one / kept).read_bytes()
  attempts = (here / 'attempts.jsonl').read_text().splitlines()
  assert len(list(map(json.loads, attempts))) == len(STOPS) + 1


def test_a_run_on_a_disk_is_forked_and_swept_in_a_bucket(
    url, address, tmp_path, monkeypatch
):
  monkeypatch.setenv('STORAGE_EMULATOR_HOST', address)
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'compiled'))
  one, swept = tmp_path / 'one', tmp_path / 'swept'
  finish(start(one, '--config.grpo.steps=1', devices=2))
  change = (
      f'--fork_from={one}', '--config.grpo.steps=1', '--config.tune.factors=0.3,1',
      '--config.tune.num_tasks=2', '--config.tune.num_samples=2',
  )  # fmt: skip
  finish(start(swept, *change, devices=2))
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'disk'))
  finish(start(url, *change, devices=2))
  here = buckets.open_run(url)
  assert results(here) == results(swept)
  assert_same_weights(here / 'distill/leafe', swept / 'distill/leafe')
