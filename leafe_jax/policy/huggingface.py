"""Reading Hugging Face checkpoints: config.json and safetensors.

Supported are the families of `families.FAMILIES`. Anything else is refused by name,
never loaded wrongly. `hf_config` reads config.json, `hf_files` the tensors;
`hf_export` writes what this module reads.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from leafe_jax import config as config_lib
from leafe_jax.policy import hf_config, hf_experts, hf_files, hf_names
from leafe_jax.policy.families import FAMILIES
from leafe_jax.policy.hf_files import UnsupportedCheckpoint, read_fields
from leafe_jax.policy.model import Params, param_shardings
from leafe_jax.policy.weights import weight_table

# Beginnings of the names of tensors: of a text part, as transformers 5 and as older
# versions have it, and of the same model without the rest.
_WITHIN = ('model.language_model.', 'language_model.')
_TEXT_PART: Mapping[str, str] = {
    'model.language_model.': 'model.',
    'language_model.model.': 'model.',
    'language_model.lm_head.': 'lm_head.',
    'lm_head.': 'lm_head.',
}


@dataclasses.dataclass(frozen=True)
class Shape:
  """What config.json says: the policy's sizes and its vocabulary."""

  policy: config_lib.Policy
  vocab_size: int


def read_shape(directory: str | pathlib.Path, options: config_lib.Policy) -> Shape:
  """Sizes from config.json; types, lengths and memory options from `options`.

  Where the weights are there, they say whether head and embedding are one.

  Raises:
    FileNotFoundError: no config.json.
    UnsupportedCheckpoint: names what is damaged or not supported.
  """
  said = read_fields(directory)
  fields = hf_config.completed(said)
  tensors = _tensors_if_any(directory, said)
  layers = hf_config.value(fields, 'num_hidden_layers')
  unbiased = hf_files.all_zero(tensors, hf_names.output_biases(layers))
  policy = hf_config.policy_options(fields, options, unbiased)
  dtype = jax.numpy.dtype(policy.param_dtype)
  tied = hf_files.is_tied(tensors, policy.tie_embeddings, dtype)
  policy = dataclasses.replace(policy, tie_embeddings=tied)
  return Shape(policy, hf_config.value(fields, 'vocab_size'))


def check_length(directory: str | pathlib.Path, max_length: int) -> None:
  """Refuses transcripts that are longer than the checkpoint's positions.

  Args:
    directory: of the checkpoint.
    max_length: of the policy, in tokens.

  Raises:
    UnsupportedCheckpoint: says what is the longest.
  """
  longest = hf_config.longest(hf_config.completed(read_fields(directory)))
  if max_length > longest:
    raise UnsupportedCheckpoint(
        f'policy.max_length={max_length} is above max_position_embeddings={longest} '
        f'of config.json; give --config.policy.max_length={longest} or less'
    )


def load_params(directory: str | pathlib.Path, shape: Shape, mesh: Mesh) -> Params:
  """The checkpoint's weights on the mesh.

  The host holds the part of one weight that goes to one device, and of one of
  their tensors what is in it: files are read in slices, one device after the
  other.

  Raises:
    FileNotFoundError: there are no weights, or not all of their files.
    UnsupportedCheckpoint: lists missing and surplus tensors, or names one of a
      wrong shape or type, or one that holds NaN or infinity.
  """
  tensors = _find(directory, read_fields(directory))
  tensors = hf_experts.apart(tensors, shape.policy)
  if shape.policy.tie_embeddings and hf_files.HEAD in tensors:
    tensors.setdefault(hf_files.EMBEDDING, tensors[hf_files.HEAD])
  dtype = jax.numpy.dtype(shape.policy.param_dtype)
  table = weight_table(shape.policy, shape.vocab_size)
  wanted = {name: hf_names.their_names(name, shape.policy) for name in table}
  _compare_names(sum(wanted.values(), []), tensors, shape.policy)
  placement = param_shardings(shape.policy, shape.vocab_size, mesh)
  params = {}
  for name, weight in table.items():
    read = functools.partial(
        _read_part, tensors, name, wanted[name], weight.shape, dtype
    )
    params[name] = _place(weight.shape, placement[name], read)
  return params


def _find(
    directory: str | pathlib.Path, fields: Mapping[str, Any]
) -> dict[str, hf_files.Tensor]:
  named = hf_config.value(fields, 'transformers_weights')
  found = hf_files.find(directory, named)
  family = FAMILIES[hf_config.architecture(hf_config.completed(fields))]
  # Names and config.json need not agree: a text part that was cut out may have kept
  # its names, and one that was saved alone the config of the whole.
  whole = family.holders or hf_config.is_part(fields)
  if whole and any(name.startswith(_WITHIN) for name in found):
    return text_tensors(found)
  left_out = family.left_out
  return {name: x for name, x in found.items() if not name.startswith(left_out)}


def text_tensors(tensors: Mapping[str, Any]) -> dict[str, Any]:
  """Those of the text part of a model of text and images, as if it stood alone."""
  found = {}
  for name, tensor in tensors.items():
    for theirs, alone in _TEXT_PART.items():
      if name.startswith(theirs):
        found[name.replace(theirs, alone, 1)] = tensor
        break
  return found


def _tensors_if_any(
    directory: str | pathlib.Path, fields: Mapping[str, Any]
) -> dict[str, hf_files.Tensor]:
  """Nothing where there are no weights: sizes can be planned without."""
  try:
    return _find(directory, fields)
  except FileNotFoundError:
    return {}


def _place(
    shape: tuple[int, ...],
    target: NamedSharding,
    read: Callable[[tuple[slice, ...]], np.ndarray],
) -> jax.Array:
  """An array made of its parts; one of them on the host at a time.

  `jax.make_array_from_callback` would hold those of all devices at once.
  """
  devices: dict[tuple[Any, ...], list[Any]] = {}
  parts = target.addressable_devices_indices_map(shape)
  for device, part in parts.items():
    assert part is not None  # jax's type allows it, for arrays without a value
    devices.setdefault(tuple((cut.start, cut.stop) for cut in part), []).append(device)
  arrays = []
  for cuts, group in devices.items():  # replicas share what was read
    value = read(tuple(slice(*cut) for cut in cuts))
    arrays += [jax.device_put(value, device) for device in group]
    jax.block_until_ready(arrays)  # or the host would hold what is under way
  return jax.make_array_from_single_device_arrays(shape, target, arrays)


def _compare_names(
    wanted: list[str],
    found: Mapping[str, hf_files.Tensor],
    policy: config_lib.Policy,
) -> None:
  allowed = {hf_files.HEAD} if policy.tie_embeddings else set()
  # Early Llama files keep the rotary frequencies, which follow from the config.
  allowed |= {name for name in found if name.endswith('.rotary_emb.inv_freq')}
  biases = hf_names.output_biases(policy.num_layers)
  if policy.qkv_bias and hf_files.all_zero(found, biases):
    allowed |= set(biases)
  missing = sorted(set(wanted) - set(found))
  surplus = sorted(set(found) - set(wanted) - allowed)
  if missing or surplus:
    raise UnsupportedCheckpoint(
        f'missing tensors: {missing[:8]} ({len(missing)}); '
        f'surplus tensors: {surplus[:8]} ({len(surplus)})'
    )


def _read_part(
    tensors: hf_files.Tensors,
    ours: str,
    theirs: list[str],
    shape: tuple[int, ...],
    dtype: np.dtype,
    part: tuple[slice, ...],
) -> np.ndarray:
  """`part` of one of our weights, in the type that it is kept in.

  Args:
    tensors: from `hf_files.find`.
    ours: name of the weight.
    theirs: its tensors in the order of layers, and of experts.
    shape: of the whole weight.
    dtype: type wanted.
    part: what to read, a slice per axis.
  """
  sizes = [len(range(*cut.indices(n))) for cut, n in zip(part, shape)]

  def read(
      name: str, shape: tuple[int, ...], part: tuple[slice, ...]
  ) -> np.ndarray:
    return hf_files.read(
        tensors, name, hf_names.their_shape(ours, shape),
        hf_names.their_part(ours, part, shape), dtype,
    )

  depth = hf_names.num_stacked(ours)
  names: Any = np.array(theirs, object).reshape(shape[:depth])[(*part[:depth], ...)]
  result = np.empty(sizes, dtype)
  for index in np.ndindex(names.shape):
    tensor = read(names[index], shape[depth:], part[depth:])
    result[index] = hf_names.to_ours(ours, tensor, sizes[depth:])
  return result
