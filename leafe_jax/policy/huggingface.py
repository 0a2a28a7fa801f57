"""Reading Hugging Face checkpoints: config.json and safetensors.

Supported are the decoder-only shapes that `model` can express: Qwen2 and 2.5,
Qwen3, Llama 3, 3.1 and 3.2. Anything else is refused by name, never loaded
wrongly. `hf_export` writes what this module reads.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import safetensors
from jax.sharding import Mesh, NamedSharding

from leafe_jax import config as config_lib
from leafe_jax.policy import hf_names
from leafe_jax.policy.model import Params, param_shardings, weight_table

_INDEX = 'model.safetensors.index.json'
_STORED_TYPES = ('BF16', 'F16', 'F32', 'F64')
_LLAMA3_ROPE = ('factor', 'low_freq_factor', 'high_freq_factor')


class UnsupportedCheckpoint(ValueError):
  """A checkpoint that this policy cannot represent; says which part."""


@dataclasses.dataclass(frozen=True)
class Shape:
  """What config.json says: the policy's sizes and its vocabulary."""

  policy: config_lib.Policy
  vocab_size: int


def read_fields(directory: str | pathlib.Path) -> dict[str, Any]:
  """config.json as it stands. FileNotFoundError where there is none."""
  path = pathlib.Path(directory) / 'config.json'
  if not path.exists():
    raise FileNotFoundError(f'no config.json in {directory}')
  return json.loads(path.read_text(encoding='utf-8'))


def read_shape(directory: str | pathlib.Path, options: config_lib.Policy) -> Shape:
  """Sizes from config.json; types, lengths and memory options from `options`.

  Raises:
    FileNotFoundError: no config.json.
    UnsupportedCheckpoint: names what is not supported.
  """
  fields = read_fields(directory)
  architecture = (fields.get('architectures') or ['?'])[0]
  if architecture not in hf_names.ARCHITECTURES:
    raise UnsupportedCheckpoint(
        f'architecture {architecture!r}; supported: '
        + ', '.join(hf_names.ARCHITECTURES)
    )
  _refuse_unsupported(fields)
  qkv_bias, qk_norm = hf_names.ARCHITECTURES[architecture]
  heads = fields['num_attention_heads']
  policy = dataclasses.replace(
      options,
      num_layers=fields['num_hidden_layers'],
      embed_dim=fields['hidden_size'],
      num_heads=heads,
      num_kv_heads=fields.get('num_key_value_heads', heads),
      head_dim=fields.get('head_dim') or _default_head_dim(fields),
      mlp_dim=fields['intermediate_size'],
      norm_eps=fields['rms_norm_eps'],
      tie_embeddings=fields.get('tie_word_embeddings', False),
      qkv_bias=qkv_bias,
      qk_norm=qk_norm,
      **_rope_options(fields),
  )
  return Shape(policy, fields['vocab_size'])


def _default_head_dim(fields: Mapping[str, Any]) -> int:
  if fields['architectures'][0] == 'Qwen3ForCausalLM':
    return 128  # whatever the width
  return fields['hidden_size'] // fields['num_attention_heads']


def _rope(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Rope options under the names of transformers 5, from either generation."""
  old = {k: fields[k] for k in ('rope_theta',) if k in fields}
  sections = (fields.get(key) or {} for key in ('rope_scaling', 'rope_parameters'))
  return old | {k: v for section in sections for k, v in section.items()}


def _rope_type(rope: Mapping[str, Any]) -> str:
  return rope.get('rope_type', rope.get('type', 'default'))


def _rope_options(fields: Mapping[str, Any]) -> dict[str, Any]:
  """The policy's rope options; without scaling, the defaults of its fields."""
  rope = _rope(fields)
  found: dict[str, Any] = {'rope_theta': float(rope.get('rope_theta', 10_000.0))}
  if _rope_type(rope) == 'default':
    neutral = config_lib.Policy()
    names = ('type', *_LLAMA3_ROPE, 'original_length')
    return found | {f'rope_{name}': getattr(neutral, f'rope_{name}') for name in names}
  missing = [name for name in _LLAMA3_ROPE if name not in rope]
  if missing:
    raise UnsupportedCheckpoint(f'rope type llama3 without {", ".join(missing)}')
  length = rope.get('original_max_position_embeddings')
  return found | {
      'rope_type': 'llama3',
      **{f'rope_{name}': float(rope[name]) for name in _LLAMA3_ROPE},
      'rope_original_length': length or fields['max_position_embeddings'],
  }


def _refuse_unsupported(fields: Mapping[str, Any]) -> None:
  rope = _rope(fields)
  rope_type = _rope_type(rope)
  partial = rope.get('partial_rotary_factor', fields.get('partial_rotary_factor', 1))
  layer_types = fields.get('layer_types') or []
  refused = {
      f'rope type {rope_type!r}': rope_type not in ('default', 'llama3'),
      f'rope on a part of each head ({partial})': partial != 1,
      'sliding window attention': bool(fields.get('use_sliding_window'))
      or any(kind != 'full_attention' for kind in layer_types),
      'quantised weights': 'quantization_config' in fields,
      f'activation {fields.get("hidden_act")!r}': fields.get('hidden_act') != 'silu',
      'biases on attention': fields.get('attention_bias', False)
      and fields['architectures'][0] != 'Qwen2ForCausalLM',
      'biases on the MLP': bool(fields.get('mlp_bias')),
  }
  found = [what for what, present in refused.items() if present]
  if found:
    raise UnsupportedCheckpoint(f'not supported: {", ".join(found)}')


def load_params(directory: str | pathlib.Path, shape: Shape, mesh: Mesh) -> Params:
  """The checkpoint's weights on the mesh.

  The host holds the part of one weight that goes to one device, and of one of
  their tensors what is in it: files are read in slices, one device after the
  other.

  Raises:
    UnsupportedCheckpoint: lists missing and surplus tensors, or names one of a
      wrong shape or type.
  """
  tensors = _index(pathlib.Path(directory))
  table = weight_table(shape.policy, shape.vocab_size)
  num_layers = shape.policy.num_layers
  wanted = {name: hf_names.their_names(name, num_layers) for name in table}
  _compare_names(sum(wanted.values(), []), tensors, shape.policy.tie_embeddings)
  placement = param_shardings(shape.policy, shape.vocab_size, mesh)
  dtype = jax.numpy.dtype(shape.policy.param_dtype)
  params = {}
  for name, weight in table.items():
    read = functools.partial(
        _read_part, tensors, name, wanted[name], weight.shape, dtype
    )
    params[name] = _place(weight.shape, placement[name], read)
  return params


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


def _index(directory: pathlib.Path) -> dict[str, pathlib.Path]:
  """Tensor name -> the safetensors file that holds it."""
  if (directory / _INDEX).exists():  # there may be copies in other layouts
    weight_map = json.loads((directory / _INDEX).read_text())['weight_map']
    files = [directory / name for name in sorted(set(weight_map.values()))]
  else:
    files = sorted(directory.glob('*.safetensors'))
  if not files:
    raise FileNotFoundError(f'no *.safetensors in {directory}')
  index = {}
  for path in files:
    if not path.exists():
      raise FileNotFoundError(f'no {path.name} in {directory}, but {_INDEX} names it')
    with safetensors.safe_open(path, 'np') as file:
      index.update(dict.fromkeys(file.keys(), path))
  return index


def _compare_names(
    wanted: list[str], found: Mapping[str, pathlib.Path], tied: bool
) -> None:
  allowed = {'lm_head.weight'} if tied else set()  # a copy of the embedding
  # Early Llama files keep the rotary frequencies, which follow from the config.
  allowed |= {name for name in found if name.endswith('.rotary_emb.inv_freq')}
  missing = sorted(set(wanted) - set(found))
  surplus = sorted(set(found) - set(wanted) - allowed)
  if missing or surplus:
    raise UnsupportedCheckpoint(
        f'missing tensors: {missing[:8]} ({len(missing)}); '
        f'surplus tensors: {surplus[:8]} ({len(surplus)})'
    )


def _read_part(
    tensors: Mapping[str, pathlib.Path],
    ours: str,
    theirs: list[str],
    shape: tuple[int, ...],
    dtype: np.dtype,
    part: tuple[slice, ...],
) -> np.ndarray:
  """`part` of one of our weights, in the type that it is kept in.

  Args:
    tensors: from `_index`.
    ours: name of the weight.
    theirs: its tensors in the order of layers.
    shape: of the whole weight.
    dtype: type wanted.
    part: what to read, a slice per axis.
  """
  sizes = [len(range(*cut.indices(n))) for cut, n in zip(part, shape)]
  if not hf_names.is_stacked(ours):
    tensor = _read(tensors, ours, theirs[0], shape, part)
    return np.array(hf_names.to_ours(ours, tensor, sizes), dtype, order='C')
  result = np.empty(sizes, dtype)
  for i, name in enumerate(theirs[part[0]]):
    tensor = _read(tensors, ours, name, shape[1:], part[1:])
    result[i] = hf_names.to_ours(ours, tensor, sizes[1:])
  return result


def _read(
    tensors: Mapping[str, pathlib.Path],
    ours: str,
    name: str,
    shape: tuple[int, ...],
    part: tuple[slice, ...],
) -> np.ndarray:
  """What one tensor has of a part of our weight without layers.

  The tensor is checked to be what that weight is made of.
  """
  expected = hf_names.their_shape(ours, shape)
  with safetensors.safe_open(tensors[name], 'np') as file:
    header = file.get_slice(name)
    if header.get_dtype() not in _STORED_TYPES:
      raise UnsupportedCheckpoint(
          f'tensor {name} is stored as {header.get_dtype()}; supported: '
          + ', '.join(_STORED_TYPES)
      )
    if tuple(header.get_shape()) != expected:
      raise UnsupportedCheckpoint(
          f'tensor {name} has shape {tuple(header.get_shape())}, not {expected}'
      )
    return header[hf_names.their_part(ours, part, shape)]
