"""Which files of a Hugging Face directory hold which tensors, and their damage.

The order is that of transformers: the file that config.json names under
`transformers_weights`, model.safetensors, model.safetensors.index.json. What
else lies there (older shards, adapters, consolidated.safetensors, variants) is
not read. Nothing outside the directory is.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from absl import logging

from leafe_jax.files import check_links, is_lfs_pointer, leaves, read_object

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
ADAPTER = 'adapter_config.json'
EMBEDDING, HEAD = 'model.embed_tokens.weight', 'lm_head.weight'
_STORED_TYPES = ('BF16', 'F16', 'F32', 'F64')


class UnsupportedCheckpoint(ValueError):
  """A checkpoint that is damaged or that this policy cannot represent.

  The message is one line and says which part.
  """


class Tensor(NamedTuple):
  """Where a tensor is stored.

  Attributes:
    file: a safetensors file.
    name: in that file.
  """

  file: pathlib.Path
  name: str


Tensors = Mapping[str, Tensor]


def read_fields(directory: str | pathlib.Path) -> dict[str, Any]:
  """config.json as it stands.

  Raises:
    FileNotFoundError: there is none.
    UnsupportedCheckpoint: it is damaged, or leads out of the directory.
  """
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    raise FileNotFoundError(f'there is no directory {directory}; nothing is downloaded')
  try:
    check_links(directory)
  except ValueError as error:
    raise UnsupportedCheckpoint(str(error)) from error
  if not (directory / CONFIG).is_file():
    alone = (directory / ADAPTER).is_file()
    remedy = f', but {ADAPTER}: merge the adapter into its base' if alone else ''
    raise FileNotFoundError(f'no {CONFIG} in {directory}{remedy}')
  return _read_object(directory / CONFIG)


def find(directory: str | pathlib.Path, named: str = '') -> dict[str, Tensor]:
  """Name -> place of every tensor.

  Args:
    directory: of the checkpoint.
    named: `transformers_weights` of config.json, which comes first; or ''.

  Raises:
    FileNotFoundError: no weights, or a file that the index names is missing.
    UnsupportedCheckpoint: a damaged file, or one outside the directory.
  """
  directory = pathlib.Path(directory)
  found = {}
  for file in _weight_files(directory, named):
    with _opened(file) as content:
      names = content.keys()
    found |= {name: Tensor(file, name) for name in names}
  if (directory / ADAPTER).is_file():
    logging.warning('%s: the adapter beside the weights is not read', directory)
  return found


def _weight_files(directory: pathlib.Path, named: str) -> list[pathlib.Path]:
  if named:
    chosen = _inside(directory, named, f'{CONFIG}: transformers_weights')
  elif (directory / WEIGHTS).is_file():
    chosen = directory / WEIGHTS
  elif (directory / INDEX).is_file():
    chosen = directory / INDEX
  else:
    raise FileNotFoundError(_what_is_there(directory))
  if not chosen.is_file():
    raise FileNotFoundError(f'no {named} in {directory}, but {CONFIG} names it')
  return _shards(directory, chosen) if chosen.suffix == '.json' else [chosen]


def _what_is_there(directory: pathlib.Path) -> str:
  """Why there are no weights, by what is there instead."""
  missing = f'neither {WEIGHTS} nor {INDEX} in {directory}'
  beside = sorted(
      path.name
      for pattern in ('*.safetensors', '*.bin', '*.bin.index.json', '*.pt*', '*.gguf')
      for path in directory.glob(pattern)
  )
  if not beside:
    return missing
  return (
      f'{missing}, but {", ".join(beside[:4])}: let transformers write it as '
      'safetensors, with from_pretrained and save_pretrained'
  )


def _shards(directory: pathlib.Path, index: pathlib.Path) -> list[pathlib.Path]:
  weight_map = _read_object(index).get('weight_map')
  if not isinstance(weight_map, dict) or not weight_map:
    raise UnsupportedCheckpoint(
        f'{index.name}: weight_map is {short(weight_map)}; it must name a file '
        'for each tensor'
    )
  wrong = [name for name in weight_map.values() if not isinstance(name, str)]
  if wrong:
    raise UnsupportedCheckpoint(
        f'{index.name}: weight_map names {short(wrong[0])}, which is no file'
    )
  files = [
      _inside(directory, name, index.name) for name in sorted(set(weight_map.values()))
  ]
  for file in files:
    if not file.is_file():
      raise FileNotFoundError(
          f'no {file.name} in {directory}, but {index.name} names it'
      )
  return files


def _inside(directory: pathlib.Path, name: str, where: str) -> pathlib.Path:
  """A file by the name that another one gives it.

  Links are followed where they lead to the same place, or to a cache's blobs.
  """
  path = pathlib.PurePosixPath(name)
  odd = path.is_absolute() or '..' in path.parts or '\0' in name or not path.parts
  if odd or leaves(directory, directory / path):
    raise UnsupportedCheckpoint(
        f'{where} names {short(name)}, which is not in the directory'
    )
  return directory / path


def _read_object(path: pathlib.Path) -> dict[str, Any]:
  try:
    return read_object(path)
  except ValueError as error:
    raise UnsupportedCheckpoint(str(error)) from error


@contextlib.contextmanager
def _opened(file: pathlib.Path) -> Iterator[Any]:
  """A safetensors file. UnsupportedCheckpoint: it is damaged."""
  if is_lfs_pointer(file):
    raise UnsupportedCheckpoint(
        f'{file.name} is a Git LFS pointer, not the weights; fetch them: git lfs pull'
    )
  try:
    with safetensors.safe_open(file, 'np') as content:
      yield content
  except safetensors.SafetensorError as error:
    raise UnsupportedCheckpoint(
        f'{file.name} is damaged or cut short ({file.stat().st_size:,} bytes): {error}'
    ) from error


def is_tied(tensors: Tensors, said: bool, dtype: np.dtype) -> bool:
  """Whether head and embedding are one, by what is stored rather than said.

  A head that differs from the embedding is kept, whatever config.json says; of
  a tied pair either may be left out.

  Args:
    tensors: from `find`.
    said: `tie_word_embeddings` of config.json.
    dtype: type of the weights, in which they are compared.
  """
  if not said or HEAD not in tensors or EMBEDDING not in tensors:
    return said
  return _same(tensors[EMBEDDING], tensors[HEAD], dtype)


def _same(one: Tensor, other: Tensor, dtype: np.dtype, rows: int = 4096) -> bool:
  """Whether two tensors are equal in a type; a few rows in memory at a time."""
  with _opened(one.file) as first, _opened(other.file) as second:
    a, b = first.get_slice(one.name), second.get_slice(other.name)
    alike = tuple(a.get_shape()) == tuple(b.get_shape())
    if not alike or not {a.get_dtype(), b.get_dtype()} <= set(_STORED_TYPES):
      return False
    count = (a.get_shape() or [0])[0]
    cuts = [slice(i, min(i + rows, count)) for i in range(0, count, rows)]
    return all(
        np.array_equal(a[cut].astype(dtype), b[cut].astype(dtype)) for cut in cuts
    )


def all_zero(tensors: Tensors, names: Sequence[str]) -> bool:
  """Whether all of these tensors are there and hold nothing but zeros."""
  for name in names:
    if name not in tensors:
      return False
    with _opened(tensors[name].file) as content:
      if np.any(content.get_tensor(tensors[name].name)):
        return False
  return True


def read(
    tensors: Tensors,
    name: str,
    shape: tuple[int, ...],
    part: tuple[slice, ...],
    dtype: np.dtype,
) -> np.ndarray:
  """A part of a tensor in a type; the tensor is checked to be what is expected.

  Args:
    tensors: from `find`.
    name: of the tensor.
    shape: that it must have.
    part: a slice per dimension.
    dtype: type wanted.

  Raises:
    UnsupportedCheckpoint: a wrong shape or type, a NaN or an infinity.
  """
  file, stored = tensors[name]
  with _opened(file) as content:
    header = content.get_slice(stored)
    if header.get_dtype() not in _STORED_TYPES:
      raise UnsupportedCheckpoint(
          f'tensor {name} in {file.name} is stored as {header.get_dtype()}; '
          f'supported: {", ".join(_STORED_TYPES)}'
      )
    if tuple(header.get_shape()) != shape:
      raise UnsupportedCheckpoint(
          f'tensor {name} in {file.name} has shape {tuple(header.get_shape())}, '
          f'not {shape} as {CONFIG} says'
      )
    with np.errstate(over='ignore'):  # it is infinite then, and refused
      value = np.asarray(header[part]).astype(dtype)
  if not np.isfinite(value).all():
    raise UnsupportedCheckpoint(
        f'tensor {name} in {file.name} holds NaN or infinity in {dtype}; no '
        'policy can start from it'
    )
  return value


def write(tensors: Mapping[str, np.ndarray], file: pathlib.Path) -> None:
  """Tensors as transformers and peft read them, for whom the umask lets read."""
  file.touch()
  mode = file.stat().st_mode
  # Both refuse files that do not say 'pt'.
  safetensors.numpy.save_file(dict(tensors), file, metadata={'format': 'pt'})
  file.chmod(mode)  # safetensors lets the owner alone read what it writes


def short(value: Any) -> str:
  """A value as a message shows it."""
  text = repr(value)
  return text if len(text) <= 80 else f'{text[:77]}...'
