"""A run whose directory is in a bucket: killed, gone on with elsewhere, same bits."""

import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from leafe_jax import buckets
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.rundir import RunDirectory

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPTIONS = [
    '--config=configs/webshop.py:debug', '--until=warm_start', '--tracker=',
    '--config.policy.num_layers=1', '--config.policy.max_length=256',
    '--config.sampler.prefill_buckets=(128,)',
    '--config.sampler.length_buckets=(256,)', '--config.warm_start.steps=16',
    '--config.warm_start.checkpoint_every=2',
    '--config.warm_start.num_demonstrations=20',
]  # fmt: skip


def _start(workdir, cache):
  return subprocess.Popen(
      [sys.executable, '-m', 'leafe_jax.main', *OPTIONS, f'--workdir={workdir}'],
      cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
      env={**os.environ, 'XDG_CACHE_HOME': str(cache)},
  )  # fmt: skip


def _finish(process):
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output[-4000:]
  return output


def _kill_when_committed(process, store):
  """SIGKILL when the bucket names a checkpoint: its seal is there a moment before."""
  from leafe_jax.buckets import manifest

  deadline = time.monotonic() + 300
  while process.poll() is None and time.monotonic() < deadline:
    if any('checkpoints/seals' in name for name in manifest.read(store).files):
      process.kill()
      process.communicate()
      assert 'warm_start/DONE.json' not in manifest.read(store).files
      return
    time.sleep(0.02)
  pytest.fail(f'not killed in time: {process.communicate()[0][-3000:]}')


@pytest.mark.slow('two runs in a bucket')
def test_a_killed_run_goes_on_elsewhere_with_the_same_bits(
    url, address, tmp_path, monkeypatch
):
  from leafe_jax.buckets.store import Store

  monkeypatch.setenv('STORAGE_EMULATOR_HOST', address)
  store = Store(url)
  _kill_when_committed(_start(url, tmp_path / 'one'), store)
  output = _finish(_start(url, tmp_path / 'two'))  # another disk: another host
  assert f'{url}: restored from commit' in output
  assert 'resuming after update' in output
  local = tmp_path / 'local'
  _finish(_start(local, tmp_path / 'two'))

  here = buckets.open_run(url)
  ours, theirs = (load_params(p / 'warm_start' / 'params') for p in (here, local))
  for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_array_equal(one, other)
  shard = 'warm_start/data/experience-train.array_record-00000'
  assert (here / shard).read_bytes() == (local / shard).read_bytes()
  assert not RunDirectory(here, make=False).phase('warm_start').faults(weights=True)
  assert not list(here.rglob('params/params'))  # no weights on this disk

  damaged = next(n for n in store.list('warm_start/params/params') if '/d/' in n)
  found = store.find(damaged)
  assert found is not None
  store.write(damaged, b'x', found.generation)
  [fault] = RunDirectory(here, make=False).phase('warm_start').faults(weights=True)
  assert 'differs from what was sealed' in fault
