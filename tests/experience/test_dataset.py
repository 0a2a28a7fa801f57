from __future__ import annotations

import hashlib
import json
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from leafe_jax.experience import dataset
from leafe_jax.experience.examples import Example


def make(index: int) -> Example:
  ids = np.arange(index, index + 3 + index % 5, dtype=np.int32)
  weights = np.zeros(ids.shape, np.float32)
  weights[-2:] = 0.5
  kind = 'cf' if index % 3 else 'reh'
  return Example(ids, weights, kind, f'täsk-{index}', node=index, turn=index % 7)


def same(a: Example, b: Example) -> bool:
  return (
      np.array_equal(a.ids, b.ids)
      and np.array_equal(a.weights, b.weights)
      and (a.ids.dtype, a.weights.dtype) == (b.ids.dtype, b.weights.dtype)
      and (a.kind, a.task_id, a.node, a.turn) == (b.kind, b.task_id, b.node, b.turn)
  )


EXAMPLES = [make(i) for i in range(25)]


@pytest.fixture
def written(tmp_path) -> pathlib.Path:
  dataset.write(tmp_path / 'd', EXAMPLES, shard_size=10)
  return tmp_path / 'd'


def shards(directory: pathlib.Path) -> list[pathlib.Path]:
  return sorted(directory.glob('*array_record*'))


def indices(directory: pathlib.Path) -> list[int]:
  return [example.node for example in dataset.read(directory)]


def test_what_was_written_is_read(written):
  source = dataset.read(written)
  assert len(source) == 25 and len(shards(written)) == 3
  assert all(map(same, source, EXAMPLES))
  with pytest.raises(IndexError, match='25 of 25'):
    source[25]


def test_tensorflow_datasets_reads_it_without_tensorflow(written):
  code = (
      'import sys, tensorflow_datasets as tfds\n'
      f'd = tfds.builder_from_directory({str(written)!r}).as_data_source("train")\n'
      'assert len(d) == 25 and "tensorflow" not in sys.modules\n'
      'print(d[23]["ids"].tolist(), d[23]["task_id"].decode())\n'
  )
  out = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True,
      env={'PYTHONIOENCODING': 'utf8'},
  )
  assert out.stdout.strip() == f'{EXAMPLES[23].ids.tolist()} täsk-23'


def test_appending_keeps_what_was_there(written):
  before = [path.read_bytes() for path in shards(written)]
  dataset.append(written, [make(i) for i in range(25, 30)], shard_size=10)
  assert indices(written) == list(range(30))
  assert [path.read_bytes() for path in shards(written)[:3]] == before
  source = tfds.builder_from_directory(str(written)).as_data_source('train')
  assert len(source) == 30 and source[29]['node'] == 29


def test_writing_again_replaces(written):
  dataset.write(written, EXAMPLES[:4])
  assert indices(written) == [0, 1, 2, 3] and len(shards(written)) == 1


def test_equal_examples_give_equal_bytes_in_another_process(written, tmp_path):
  code = (
      'import numpy as np\n'
      'from leafe_jax.experience import dataset\n'
      f'examples = list(dataset.read({str(written)!r}))\n'
      f'dataset.write({str(tmp_path / "e")!r}, examples, 10)\n'
  )
  root = pathlib.Path(__file__).parents[2]
  subprocess.run(
      [sys.executable, '-c', code], check=True, cwd=root,
      env={'PYTHONHASHSEED': '7', 'PYTHONPATH': str(root)},
  )
  digests = [
      {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in d.iterdir()}
      for d in (written, tmp_path / 'e')
  ]
  assert digests[0] == digests[1]


@pytest.mark.parametrize('damage', [
    lambda b: b[: len(b) // 2], lambda b: b[:-9], lambda b: b'',
    lambda b: b[: len(b) // 2] + bytes(len(b) - len(b) // 2),
])
def test_a_half_written_shard_is_reported_and_the_others_are_kept(
    written, damage, caplog
):
  victim = shards(written)[2]
  victim.write_bytes(damage(victim.read_bytes()))
  assert indices(written) == list(range(20))
  assert f'{victim.name} is damaged: 0 of 5 records kept' in caplog.text


def test_of_a_damaged_record_everything_before_is_kept(written, caplog):
  victim = shards(written)[0]
  content = bytearray(victim.read_bytes())
  records = len(content[: 1 << 16].rstrip(b'\0'))  # then padding, then the index
  content[records // 2] ^= 255
  victim.write_bytes(bytes(content))
  found = indices(written)
  kept = len(found) - 15
  assert 0 < kept < 10
  assert found == [*range(kept), *range(10, 25)]
  assert f'{victim.name} is damaged: {kept} of 10 records kept' in caplog.text


def test_a_missing_shard_is_reported(written, caplog):
  shards(written)[1].unlink()
  assert indices(written) == [*range(10), *range(20, 25)]
  assert 'is missing: 0 of 10 records kept' in caplog.text


def test_a_shard_that_was_never_finished_is_ignored(written, caplog):
  stray = written / 'experience-train.array_record-00003'
  stray.write_bytes(b'half')
  assert indices(written) == list(range(25))
  assert f'{stray.name} was never finished' in caplog.text
  dataset.append(written, [make(25)])
  assert indices(written) == list(range(26))


def test_what_is_no_dataset_is_refused(written, tmp_path):
  with pytest.raises(dataset.DatasetError, match='no finished dataset'):
    dataset.read(tmp_path)
  manifest = written / 'shards.json'
  content = json.loads(manifest.read_text())
  manifest.write_text(json.dumps({**content, 'schema': 99}))
  with pytest.raises(dataset.DatasetError, match='schema 99'):
    dataset.read(written)
  with pytest.raises(ValueError, match='0 examples'):
    dataset.write(tmp_path / 'x', [])


def test_a_source_survives_pickling(written):
  source = dataset.read(written)
  assert same(source[3], EXAMPLES[3])
  assert same(pickle.loads(pickle.dumps(source))[3], EXAMPLES[3])
