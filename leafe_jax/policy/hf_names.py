"""How our weights and the tensors of Hugging Face checkpoints correspond.

Both directions read one table. Ours are stacked over layers and keep heads
apart; theirs are one tensor per layer, matrices as [out, in], heads flattened.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from leafe_jax import config as config_lib
from leafe_jax.policy import experts, families, kinds, layers


class Place(NamedTuple):
  """Where a weight is in a checkpoint.

  Attributes:
    theirs: name of the tensor, within its layer for weights that have layers.
    axes: its dimensions in the letters of our names; 'nh d' is a matrix whose
      first dimension is heads times head_dim, 1 one of a single place.
  """

  theirs: str
  axes: str


_GLOBAL: Mapping[str, Place] = {
    'embed_vd': Place('model.embed_tokens.weight', 'v d'),
    'final_norm_d': Place('model.norm.weight', 'd'),
    'head_weight_dv': Place('lm_head.weight', 'v d'),
}
_LAYER: Mapping[str, Place] = {
    'attn_norm_ld': Place('input_layernorm.weight', 'd'),
    'q_weight_ldnh': Place('self_attn.q_proj.weight', 'nh d'),
    'q_weight_ldnx': Place('self_attn.q_proj.weight', 'nx d'),
    'k_weight_ldkh': Place('self_attn.k_proj.weight', 'kh d'),
    'v_weight_ldkh': Place('self_attn.v_proj.weight', 'kh d'),
    'o_weight_lnhd': Place('self_attn.o_proj.weight', 'd nh'),
    'q_bias_lnh': Place('self_attn.q_proj.bias', 'nh'),
    'k_bias_lkh': Place('self_attn.k_proj.bias', 'kh'),
    'v_bias_lkh': Place('self_attn.v_proj.bias', 'kh'),
    'q_norm_lh': Place('self_attn.q_norm.weight', 'h'),
    'k_norm_lh': Place('self_attn.k_norm.weight', 'h'),
    'q_norm_lnh': Place('self_attn.q_norm.weight', 'nh'),
    'k_norm_lkh': Place('self_attn.k_norm.weight', 'kh'),
    'attn_post_norm_ld': Place('post_attention_layernorm.weight', 'd'),
    'mlp_norm_ld': Place('post_attention_layernorm.weight', 'd'),
    'mlp_post_norm_ld': Place('post_feedforward_layernorm.weight', 'd'),
    'mix_weight_ldp': Place('linear_attn.in_proj_qkv.weight', 'p d'),
    'taps_lpc': Place('linear_attn.conv1d.weight', 'p 1 c'),
    'z_weight_ldwj': Place('linear_attn.in_proj_z.weight', 'wj d'),
    'fade_weight_ldw': Place('linear_attn.in_proj_a.weight', 'w d'),
    'beta_weight_ldw': Place('linear_attn.in_proj_b.weight', 'w d'),
    'fade_log_lw': Place('linear_attn.A_log', 'w'),
    'fade_bias_lw': Place('linear_attn.dt_bias', 'w'),
    'out_norm_lj': Place('linear_attn.norm.weight', 'j'),
    'out_weight_lwjd': Place('linear_attn.out_proj.weight', 'd wj'),
    'gate_weight_ldf': Place('mlp.gate_proj.weight', 'f d'),
    'up_weight_ldf': Place('mlp.up_proj.weight', 'f d'),
    'down_weight_lfd': Place('mlp.down_proj.weight', 'd f'),
    'router_weight_lde': Place('mlp.gate.weight', 'e d'),
    'share_weight_ld': Place('mlp.shared_expert_gate.weight', '1 d'),
    'sgate_weight_lds': Place('mlp.shared_expert.gate_proj.weight', 's d'),
    'sup_weight_lds': Place('mlp.shared_expert.up_proj.weight', 's d'),
    'sdown_weight_lsd': Place('mlp.shared_expert.down_proj.weight', 'd s'),
    # Of each expert.
    'egate_weight_ledm': Place('mlp.experts.{}.gate_proj.weight', 'm d'),
    'eup_weight_ledm': Place('mlp.experts.{}.up_proj.weight', 'm d'),
    'edown_weight_lemd': Place('mlp.experts.{}.down_proj.weight', 'd m'),
}


def _adapters() -> Iterator[tuple[str, Place]]:
  """Of every matrix, as peft names them: A is [rank, in], B is [out, rank]."""
  for weight in layers.INPUTS:
    if weight in experts.INPUTS:
      continue
    place = _LAYER[weight]
    module = place.theirs.removesuffix('.weight')
    outputs, inputs = place.axes.split()
    into, out_of = layers.adapter_names(weight)
    yield into, Place(f'{module}.lora_A.weight', f'r {inputs}')
    yield out_of, Place(f'{module}.lora_B.weight', f'{outputs} r')


_ADAPTER: Mapping[str, Place] = dict(_adapters())
_STACKED: Mapping[str, Place] = {**_LAYER, **_ADAPTER}


def num_stacked(ours: str) -> int:
  """How many axes of a weight their tensors lack: of layers, and of experts."""
  return (ours in _STACKED) + (ours in experts.INPUTS)


def their_names(ours: str, policy: config_lib.Policy) -> list[str]:
  """The tensors that make up one of our weights, in the order of layers and experts."""
  if not num_stacked(ours):
    return [_GLOBAL[ours].theirs]
  theirs = families.tensor_names(policy).get(ours, _STACKED[ours].theirs)
  before = 'base_model.model.' if ours in _ADAPTER else ''  # peft's wrappers
  places = kinds.layers_with(ours, policy)
  each = [f'{before}model.layers.{i}.{theirs}' for i in places]
  if ours not in experts.INPUTS:
    return each
  return [name.format(expert) for name in each for expert in range(policy.num_experts)]


def output_biases(num_layers: int) -> list[str]:
  """Tensors that our policies lack: biases on the output of attention.

  A Llama that has biases on q, k and v has these too, zero or not.
  """
  return [f'model.layers.{i}.self_attn.o_proj.bias' for i in range(num_layers)]


def their_module(ours: str) -> str:
  """The last name of the module that a matrix belongs to: 'q_proj'."""
  return _STACKED[ours].theirs.split('.')[-2]


def their_shape(ours: str, shape: Sequence[int]) -> tuple[int, ...]:
  """Shape of a tensor, from that of our weight without its stacked axes."""
  sizes = dict(zip(_letters(ours), shape, strict=True))
  return tuple(
      math.prod(sizes[letter] for letter in group.strip('1'))
      for group in _place(ours).axes.split()
  )


def their_part(
    ours: str, part: Sequence[slice], shape: Sequence[int]
) -> tuple[slice, ...]:
  """Where in their tensor a part of our weight is, as slices of its dimensions.

  Args:
    ours: name of the weight.
    part: a slice per axis, without the stacked axes.
    shape: of the whole weight, without the stacked axes.

  Raises:
    ValueError: the part is not one block there (heads cut inside).
  """
  sizes = dict(zip(_letters(ours), shape, strict=True))
  cuts = dict(zip(_letters(ours), part, strict=True))
  found = []
  for first, *rest in _place(ours).axes.split():
    if first == '1':
      found.append(slice(None))
      continue
    whole = {letter: (0, sizes[letter], 1) for letter in rest}
    if any(cuts[letter].indices(sizes[letter]) != whole[letter] for letter in rest):
      raise ValueError(f'{ours} is cut within its axes {"".join(rest)}')
    inner = math.prod(sizes[letter] for letter in rest)
    start, stop, _ = cuts[first].indices(sizes[first])
    found.append(slice(start * inner, stop * inner))
  return tuple(found)


def to_ours(ours: str, tensor: np.ndarray, shape: Sequence[int]) -> np.ndarray:
  """A view of their tensor with our axes, without the stacked ones.

  Of a part of their tensor, when `shape` is that of the part.
  """
  letters = _letters(ours)
  sizes = dict(zip(letters, shape, strict=True))
  order = _place(ours).axes.replace(' ', '').replace('1', '')
  apart = tensor.reshape([sizes[letter] for letter in order])
  return apart.transpose([order.index(letter) for letter in letters])


def to_theirs(ours: str, array: np.ndarray) -> np.ndarray:
  """Inverse of `to_ours`; contiguous, since safetensors writes raw memory."""
  letters = _letters(ours)
  order = _place(ours).axes.replace(' ', '').replace('1', '')
  turned = array.transpose([letters.index(letter) for letter in order])
  return np.ascontiguousarray(turned.reshape(their_shape(ours, array.shape)))


def split(
    ours: str, weight: Any, policy: config_lib.Policy
) -> Iterator[tuple[str, np.ndarray]]:
  """Their tensors of one weight by name, one at a time on the host."""
  names, depth = iter(their_names(ours, policy)), num_stacked(ours)
  for layer in weight if depth else (weight,):
    array = np.asarray(layer)
    for index in np.ndindex(array.shape[: max(0, depth - 1)]):
      yield next(names), to_theirs(ours, array[index])


def _place(ours: str) -> Place:
  return _STACKED[ours] if ours in _STACKED else _GLOBAL[ours]


def _letters(ours: str) -> str:
  return ours.rsplit('_', 1)[1][num_stacked(ours) :]
