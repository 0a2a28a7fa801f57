"""The experts of a checkpoint: config.json, and one tensor each or all in one.

Files of Qwen3-MoE hold three matrices an expert, and so do those that transformers
5 writes. In memory it keeps all experts of a layer in two arrays, gate and up in one
of them, and `save_pretrained(save_original_format=False)` writes these. Here both
look like the former: a matrix of an expert is a part of what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from leafe_jax import config as config_lib
from leafe_jax.policy.families import Family
from leafe_jax.policy.hf_fields import Fields, value
from leafe_jax.policy.hf_files import CONFIG, Tensor, UnsupportedCheckpoint, shape_of

_USUAL = {'routed': 128, 'shared': 256}  # experts where config.json does not say


class _Fused(NamedTuple):
  """An array of the matrices of all experts of a layer, [E, rows, columns].

  Attributes:
    matrices: whose rows follow each other.
    axis: the one that is as wide as all of them together.
  """

  matrices: tuple[str, ...]
  axis: int


_FUSED: Mapping[str, _Fused] = {
    '.mlp.experts.gate_up_proj': _Fused(('gate_proj', 'up_proj'), 1),
    '.mlp.experts.down_proj': _Fused(('down_proj',), 2),
}


def options(fields: Fields, family: Family) -> dict[str, Any]:
  """The options of the policy that config.json says.

  Raises:
    UnsupportedCheckpoint: names the field.
  """
  if not family.experts:
    return {'num_experts': 0, 'shared_expert_dim': 0}
  count, chosen = _num_experts(fields, family), value(fields, 'num_experts_per_tok')
  if chosen > count:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: num_experts_per_tok is {chosen}; there are {count} experts'
    )
  shared = family.experts == 'shared'
  return {
      'num_experts': count,
      'experts_per_token': chosen,
      'expert_dim': value(fields, 'moe_intermediate_size'),
      'shared_expert_dim': (
          value(fields, 'shared_expert_intermediate_size') if shared else 0
      ),
      # Whatever the field says: Qwen3.5's class does not read it.
      'renormalise_experts': shared or value(fields, 'norm_topk_prob'),
  }


def _num_experts(fields: Fields, family: Family) -> int:
  """Published files say `num_experts`, those of transformers 5 `num_local_experts`."""
  names = ('num_experts', 'num_local_experts')
  one, other = (value(fields, name) for name in names)
  if one and other and one != other:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: num_experts is {one} and num_local_experts {other}; they are one'
    )
  return one or other or _USUAL[family.experts]


def written(policy: config_lib.Policy, family: Family) -> dict[str, Any]:
  """The fields of config.json that say so."""
  if not policy.num_experts:
    return {}
  if family.experts == 'shared':
    return {
        'num_experts': policy.num_experts,
        'num_experts_per_tok': policy.experts_per_token,
        'moe_intermediate_size': policy.expert_dim,
        'shared_expert_intermediate_size': policy.shared_expert_dim,
    }
  return {
      'num_experts': policy.num_experts,
      'num_local_experts': policy.num_experts,
      'num_experts_per_tok': policy.experts_per_token,
      'moe_intermediate_size': policy.expert_dim,
      'norm_topk_prob': policy.renormalise_experts,
  }


def refusal(policy: config_lib.Policy, family: Family) -> str:
  """The experts that a family cannot have; '' where it can have them."""
  if bool(policy.shared_expert_dim) != (family.experts == 'shared'):
    return f'shared_expert_dim={policy.shared_expert_dim}'
  if family.experts == 'shared' and not policy.renormalise_experts:
    return 'renormalise_experts=False'
  return ''


def apart(
    tensors: Mapping[str, Tensor], policy: config_lib.Policy
) -> dict[str, Tensor]:
  """The tensors by name, with a name for each matrix of each expert.

  Args:
    tensors: from `hf_files.find`.
    policy: of config.json.

  Raises:
    UnsupportedCheckpoint: a tensor of all experts has another shape.
  """
  found = {}
  for name, tensor in tensors.items():
    kind = _kind(name)
    if kind and policy.num_experts:
      shape = shape_of(tensor)
      _check(name, tensor, shape, _FUSED[kind], policy)
      parts = _parts(name, shape)
      found |= {part: tensor._replace(part=cut) for part, cut in parts}
    else:
      found[name] = tensor
  return found


def matrices(name: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
  """The matrices of a tensor of all experts by name; any other tensor as it is."""
  if not _kind(name):
    yield name, array
    return
  for part, cut in _parts(name, array.shape):
    yield part, array[cut][0]


def _kind(name: str) -> str:
  return next((end for end in _FUSED if name.endswith(end)), '')


def _parts(
    name: str, shape: tuple[int, ...]
) -> Iterator[tuple[str, tuple[slice, ...]]]:
  layer, own = name.rpartition('.')[0], _FUSED[_kind(name)].matrices
  rows = shape[1] // len(own)
  for expert in range(shape[0]):
    for i, matrix in enumerate(own):
      cut = slice(i * rows, (i + 1) * rows)
      part = slice(expert, expert + 1), cut, slice(0, shape[2])
      yield f'{layer}.{expert}.{matrix}.weight', part


def _check(
    name: str,
    tensor: Tensor,
    shape: tuple[int, ...],
    fused: _Fused,
    policy: config_lib.Policy,
) -> None:
  wide = policy.expert_dim * len(fused.matrices)
  if len(shape) == 3 and (shape[0], shape[fused.axis]) == (policy.num_experts, wide):
    return
  raise UnsupportedCheckpoint(
      f'tensor {name} in {tensor.file.name} has shape {shape}; {CONFIG} says '
      f'{policy.num_experts} experts of width {policy.expert_dim}'
  )
