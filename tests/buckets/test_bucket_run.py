"""A run whose directory is in a bucket: killed, gone on with elsewhere, same bits."""

import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
from absl import flags, logging

from leafe_jax import buckets, claims, experiment, launch, settings
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.rundir import RunDirectory
from leafe_jax.tracking.choice import Choice

ROOT = pathlib.Path(__file__).resolve().parents[2]
PHASE = 'warm_start'
OPTIONS = [
    '--config=configs/webshop.py:debug', f'--until={PHASE}',
    '--config.policy.num_layers=1', '--config.policy.max_length=256',
    '--config.sampler.prefill_buckets=(128,)',
    '--config.sampler.length_buckets=(256,)', '--config.warm_start.steps=16',
    '--config.warm_start.checkpoint_every=2',
    '--config.warm_start.num_demonstrations=20', '--tracker=',
]  # fmt: skip
PATIENCE_S = 300  # on a busy machine


def _kill_after_a_commit(url, cache):
  """A run is killed (SIGKILL) when the bucket names a checkpoint, before its end."""
  from leafe_jax.buckets import manifest
  from leafe_jax.buckets.store import Store

  store, deadline = Store(url), time.monotonic() + PATIENCE_S
  process = subprocess.Popen(
      [sys.executable, '-m', 'leafe_jax.main', *OPTIONS, f'--workdir={url}'],
      cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
      env={**os.environ, 'XDG_CACHE_HOME': str(cache)},
  )  # fmt: skip
  # The seal's own object is there a moment before the commit that names it.
  while not any('checkpoints/seals' in name for name in manifest.read(store).files):
    assert process.poll() is None and time.monotonic() < deadline, (
        process.communicate()[0][-3000:]
    )
    time.sleep(0.02)
  process.kill()
  process.communicate()
  assert f'{PHASE}/DONE.json' not in manifest.read(store).files
  return store


def _run(monkeypatch, workdir):
  """The same run in this process, to the end of the phase; returns its directory."""
  from leafe_jax.buckets.directory import BucketDirectory

  monkeypatch.chdir(ROOT)
  argv = ['main', *OPTIONS, f'--workdir={workdir}']
  monkeypatch.setattr(sys, 'argv', argv)
  values = flags.FlagValues()
  launch.define_flags(values)
  launch.parse_flags(values, argv)
  config = launch.check(values.config)
  kind = BucketDirectory if buckets.is_bucket(workdir) else RunDirectory
  directory = kind(workdir)
  with directory.locked():
    claims.claim(directory, config, '', experiment.phase_inputs(config))
    digest = settings.sha256(config)
    experiment.run(config, directory.path, digest, PHASE, Choice(()))
  return directory.path


def test_a_killed_run_goes_on_elsewhere_with_the_same_bits(
    url, address, tmp_path, monkeypatch
):
  monkeypatch.setenv('STORAGE_EMULATOR_HOST', address)
  store = _kill_after_a_commit(url, tmp_path / 'one')
  said = []
  for level in ('info', 'warning'):
    monkeypatch.setattr(logging, level, lambda text, *of: said.append(text % of))
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'two'))  # another host's disk
  here = _run(monkeypatch, url)
  assert any(f'{url}: restored from commit' in line for line in said), said
  assert any('resuming after update' in line for line in said), said
  there = _run(monkeypatch, str(tmp_path / 'local'))

  ours, theirs = (load_params(path / PHASE / 'params') for path in (here, there))
  for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_array_equal(one, other)
  shard = f'{PHASE}/data/experience-train.array_record-00000'
  assert (here / shard).read_bytes() == (there / shard).read_bytes()
  assert not RunDirectory(here, make=False).phase(PHASE).faults(weights=True)
  assert not list(here.rglob('params/params'))  # no weights on this disk

  damaged = next(n for n in store.list(f'{PHASE}/params/params') if '/d/' in n)
  found = store.find(damaged)
  assert found is not None
  store.write(damaged, b'x', found.generation)
  [fault] = RunDirectory(here, make=False).phase(PHASE).faults(weights=True)
  assert 'differs from what was sealed' in fault
