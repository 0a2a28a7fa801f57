"""Weights that are copied between a disk and buckets are read where they come to."""

import jax
import numpy as np
import pytest

from leafe_jax import buckets
from leafe_jax.learner import checkpoints
from leafe_jax.rundir import RunDirectory

WEIGHTS = {
    'a/b': np.arange(6, dtype=np.float32).reshape(2, 3), 'c': np.ones(3, np.int8),
}  # fmt: skip


@pytest.fixture(name='place')
def _place(url, address, tmp_path, monkeypatch):
  """Opens a run by a name: on disk, or here and there in a bucket."""
  from leafe_jax.buckets.directory import BucketDirectory

  monkeypatch.setenv('STORAGE_EMULATOR_HOST', address)
  monkeypatch.setenv('TENSORSTORE_GCS_HTTP_URL', address)

  def opened(name: str):
    if name == 'disk':
      return RunDirectory(tmp_path / 'disk').path
    return BucketDirectory(f'{url}-{name}').path

  return opened


@pytest.mark.parametrize(
    ('source', 'target'),
    [('disk', 'here'), ('here', 'there'), ('here', 'disk'), ('here', 'here')],
)
def test_copied_weights_are_read_where_they_come_to(place, source, target):
  """As a fork and a sweep's best try are copied (`standing`, `tuning`)."""
  origin = place(source) / 'warm_start'
  end = (place(target) if target != source else place(source)) / 'distill' / 'leafe'
  checkpoints.save_params(origin / 'params', jax.tree.map(jax.numpy.asarray, WEIGHTS))
  partial = end.with_name('leafe.partial')
  files = [p for p in origin.rglob('*') if p.is_file()]
  for path in files:
    copied = partial / path.relative_to(origin)
    copied.parent.mkdir(parents=True, exist_ok=True)
    copied.write_bytes(path.read_bytes())
  buckets.copy_arrays(origin, end, partial)
  partial.rename(end)
  found = checkpoints.load_params(end / 'params')
  assert found.keys() == WEIGHTS.keys()
  for name, weight in WEIGHTS.items():
    np.testing.assert_array_equal(found[name], weight)


@pytest.mark.parametrize('fault', [500, 503, 429, 'cut'])
def test_weights_are_written_and_read_though_the_service_is_busy(
    place, line, fault, monkeypatch
):
  monkeypatch.setenv('TENSORSTORE_GCS_HTTP_URL', line.address)
  params = place('here') / 'warm_start' / 'params'
  line.faults = [None, fault, fault]
  checkpoints.save_params(params, jax.tree.map(jax.numpy.asarray, WEIGHTS))
  assert not line.faults
  assert any('manifest.ocdbt' in path for _, path in line.seen)  # also by tensorstore
  line.faults = [fault, None, fault]
  found = checkpoints.load_params(params)
  assert not line.faults
  np.testing.assert_array_equal(found['c'], WEIGHTS['c'])
