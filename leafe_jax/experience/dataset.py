"""Examples on disk: append-only ArrayRecord shards.

A directory holds

    experience-train.array_record-00000 ...   the shards
    dataset_info.json, features.json          what tensorflow-datasets reads
    shards.json                               schema, and size and hash of each shard

`shards.json` is replaced last and atomically: a shard that it does not name
was being written when the machine stopped, and is ignored. Any version of
tensorflow-datasets reads the whole directory
(`tfds.builder_from_directory(directory).as_data_source('train')`); `read`
checks every shard first and leaves out what is damaged.

The same examples give the same bytes. TensorFlow is never imported.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from array_record.python import array_record_module  # pyright: ignore
from etils import epath
from jaxtyping import Int
from tensorflow_datasets.proto import tf_example_pb2

from leafe_jax import files
from leafe_jax.experience.examples import Example

SCHEMA_VERSION = 1
_NAME, _SPLIT, _SUFFIX = 'experience', 'train', 'array_record'
_TEMPLATE = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}'
_MANIFEST = 'shards.json'
_READ = 1024  # records at a time
_FEATURES = tfds.features.FeaturesDict({
    'ids': tfds.features.Tensor(shape=(None,), dtype=np.int32),
    'weights': tfds.features.Tensor(shape=(None,), dtype=np.float32),
    'kind': tfds.features.Text(),
    'task_id': tfds.features.Text(),
    'node': tfds.features.Scalar(np.int64),
    'turn': tfds.features.Scalar(np.int64),
})


class DatasetError(ValueError):
  """A directory that holds no dataset this code can read."""


@dataclasses.dataclass(frozen=True)
class _Shard:
  name: str
  records: int
  sha256: str


def write(
    directory: str | os.PathLike[str],
    examples: Iterable[Example],
    shard_size: int = 4096,
) -> None:
  """Writes a dataset, replacing what was in `directory` in one step.

  Args:
    directory: is created, with its parents.
    examples: at least one (tensorflow-datasets has no empty splits); a shard of
      them is in memory at a time.
    shard_size: examples per shard.

  Raises:
    ValueError: no examples, or a shard size below 1.
  """
  directory = pathlib.Path(directory)
  fresh = directory.with_name(directory.name + files.PARTIAL)
  shutil.rmtree(fresh, ignore_errors=True)
  append(fresh, examples, shard_size)
  if directory.exists():
    shutil.rmtree(directory)
  files.replace(fresh, directory)


def append(
    directory: str | os.PathLike[str],
    examples: Iterable[Example],
    shard_size: int = 4096,
) -> None:
  """As `write`, after the shards that `directory` already has."""
  rest = iter(examples)
  chunk = list(itertools.islice(rest, max(shard_size, 0)))
  if not chunk:
    raise ValueError(
        f'cannot write 0 examples, or in shards of {shard_size}; there must be at '
        'least 1 of both'
    )
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  shards = _manifest(directory) if (directory / _MANIFEST).exists() else []
  while chunk:
    shards.append(_write_shard(_path(directory, len(shards)), chunk))
    chunk = list(itertools.islice(rest, shard_size))
  _write_metadata(directory, shards)


def is_intact(directory: str | os.PathLike[str]) -> bool:
  """Whether a dataset is there as it was written, byte by byte; says what is not."""
  directory = pathlib.Path(directory)
  try:
    shards = _manifest(directory)
  except DatasetError as error:
    logging.info('%s', error)
    return False
  _report_strays(directory, shards)
  for shard in shards:
    path = directory / shard.name
    if not path.exists() or _hash(path) != shard.sha256:
      logging.warning('%s is missing or not as it was written', path)
      return False
  return True


def describe(directory: str | os.PathLike[str]) -> None:
  """Writes anew what tensorflow-datasets reads of an intact dataset: the same bytes."""
  directory = pathlib.Path(directory)
  _write_metadata(directory, _manifest(directory))


def read(directory: str | os.PathLike[str]) -> ExampleSource:
  """Opens a dataset; damaged shards are reported and left out.

  Of a damaged shard the records before the damage are kept where the file's
  index survived. Raises DatasetError if `directory` holds no dataset, one of
  another schema, or not a single readable example.
  """
  directory = pathlib.Path(directory)
  shards = _manifest(directory)
  _report_strays(directory, shards)
  files = [(directory / s.name, _readable(directory / s.name, s)) for s in shards]
  files = [(path, count) for path, count in files if count]
  if not files:
    raise DatasetError(f'no readable example in {directory}')
  return ExampleSource(files)


class ExampleSource:
  """Random access to the examples of a dataset; safe to pickle."""

  def __init__(self, files: Sequence[tuple[pathlib.Path, int]]):
    self._files = list(files)
    self._ends = np.cumsum([count for _, count in self._files])
    self._readers: dict[int, Any] = {}

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __getitem__(self, index: int) -> Example:
    if not 0 <= index < len(self):
      raise IndexError(f'example {index} of {len(self)}')
    shard = int(np.searchsorted(self._ends, index, side='right'))
    first = int(self._ends[shard]) - self._files[shard][1]
    return _decode(self._reader(shard).read([index - first])[0])

  def __iter__(self) -> Iterator[Example]:
    return (self[index] for index in range(len(self)))

  def lengths(self) -> Int[np.ndarray, ' examples']:
    """Tokens of every example, without decoding them: a tenth of the time."""
    return np.fromiter(
        (
            len(_parse(record).features.feature['ids'].int64_list.value)
            for shard, (_, count) in enumerate(self._files)
            for start in range(0, count, _READ)
            for record in self._reader(shard).read(
                list(range(start, min(start + _READ, count)))
            )
        ),
        np.int64,
    )

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, '_readers': {}}  # readers hold open files

  def __repr__(self) -> str:
    return f'ExampleSource({len(self)} examples, {len(self._files)} shards)'

  def _reader(self, shard: int) -> Any:
    if shard not in self._readers:
      self._readers[shard] = _open_shard(self._files[shard][0])
    return self._readers[shard]


def _encode(example: Example) -> bytes:
  record = _FEATURES.serialize_example(
      _FEATURES.encode_example(dataclasses.asdict(example))
  )
  # A protobuf map has no order of its own: fix it, for equal bytes.
  return _parse(record).SerializeToString(deterministic=True)


def _parse(record: bytes) -> Any:
  return tf_example_pb2.Example.FromString(record)  # pyright: ignore


def _decode(record: bytes) -> Example:
  fields: Any = _FEATURES.deserialize_example_np(record)
  return Example(
      ids=np.asarray(fields['ids'], np.int32),
      weights=np.asarray(fields['weights'], np.float32),
      kind=fields['kind'].decode(),
      task_id=fields['task_id'].decode(),
      node=int(fields['node']),
      turn=int(fields['turn']),
  )


def _write_shard(path: pathlib.Path, examples: Sequence[Example]) -> _Shard:
  partial = path.with_name(path.name + files.PARTIAL)
  writer = array_record_module.ArrayRecordWriter(str(partial), 'group_size:1')
  for example in examples:
    writer.write(_encode(example))
  writer.close()
  files.sync(partial)
  files.replace(partial, path)
  return _Shard(path.name, len(examples), _hash(path))


def _write_metadata(directory: pathlib.Path, shards: Sequence[_Shard]) -> None:
  template = _template(directory)
  split = tfds.core.SplitInfo(
      name=_SPLIT,
      shard_lengths=[shard.records for shard in shards],
      num_bytes=sum((directory / shard.name).stat().st_size for shard in shards),
      filename_template=template,
  )
  tfds.folder_dataset.write_metadata(
      data_dir=str(directory), features=_FEATURES, split_infos=[split],
      filename_template=template, check_data=False,
  )
  content = {
      'schema': SCHEMA_VERSION,
      'shards': [dataclasses.asdict(shard) for shard in shards],
  }
  files.write_atomic(directory / _MANIFEST, json.dumps(content, indent=1))


def _manifest(directory: pathlib.Path) -> list[_Shard]:
  path = directory / _MANIFEST
  if not path.exists():
    raise DatasetError(f'{directory} holds no finished dataset')
  try:
    content = files.read_object(path)
  except ValueError as error:
    raise DatasetError(f'{path} is damaged: {error}') from error
  if content.get('schema') != SCHEMA_VERSION:
    raise DatasetError(
        f'{directory} has schema {content.get("schema")!r}; this code reads '
        f'{SCHEMA_VERSION}'
    )
  try:
    return [_Shard(**shard) for shard in content['shards']]
  except (LookupError, TypeError) as error:
    raise DatasetError(f'{path} is damaged: {error!r}') from error


def _readable(path: pathlib.Path, shard: _Shard) -> int:
  """Number of leading records that can be read; warns unless all can."""
  if not path.exists():
    logging.warning('%s is missing: 0 of %d records kept', path, shard.records)
    return 0
  if _hash(path) == shard.sha256:
    return shard.records
  count = _count_readable(path, shard.records)
  logging.warning('%s is damaged: %d of %d records kept', path, count, shard.records)
  return count


def _count_readable(path: pathlib.Path, expected: int) -> int:
  try:
    reader = _open_shard(path)
    total = min(reader.num_records(), expected)  # 0 when the index is gone
  except RuntimeError:
    return 0
  for index in range(total):
    try:
      reader.read([index])  # every chunk carries a hash of its own
    except RuntimeError:
      return index
  return total


def _report_strays(directory: pathlib.Path, shards: Sequence[_Shard]) -> None:
  known = {shard.name for shard in shards}
  for path in sorted(directory.glob(f'{_NAME}-{_SPLIT}.{_SUFFIX}-*')):
    if path.name not in known:
      logging.warning('%s was never finished: 0 records kept', path)


def _open_shard(path: pathlib.Path) -> Any:
  return array_record_module.ArrayRecordReader(
      str(path), 'readahead_buffer_size:0'
  )


def _template(directory: pathlib.Path) -> Any:
  return tfds.core.ShardedFileTemplate(
      data_dir=epath.Path(directory), dataset_name=_NAME, split=_SPLIT,
      filetype_suffix=_SUFFIX, template=_TEMPLATE,
  )


def _path(directory: pathlib.Path, index: int) -> pathlib.Path:
  return pathlib.Path(
      _template(directory).sharded_filepath(shard_index=index, num_shards=1)
  )


def _hash(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
