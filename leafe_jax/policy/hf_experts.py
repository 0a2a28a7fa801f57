"""The experts of a checkpoint, one tensor each or all of a layer in one.

Files of Qwen3-MoE hold three matrices an expert, and so do those that transformers
5 writes. In memory it keeps all experts of a layer in two arrays, gate and up in one
of them, and `save_pretrained(save_original_format=False)` writes these. Here both
look like the former: a matrix of an expert is a part of what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator

from leafe_jax.policy.hf_files import Tensor, Tensors, UnsupportedCheckpoint, shape_of

_BOTH, _DOWN = '.mlp.experts.gate_up_proj', '.mlp.experts.down_proj'


def apart(tensors: Tensors, num_experts: int, width: int) -> dict[str, Tensor]:
  """The tensors by name, with a name for each matrix of each expert.

  Args:
    tensors: from `hf_files.find`.
    num_experts: of config.json.
    width: of one of them.

  Raises:
    UnsupportedCheckpoint: a tensor of all experts has another shape.
  """
  found = {}
  for name, tensor in tensors.items():
    if name.endswith((_BOTH, _DOWN)):
      found |= dict(_matrices(name, tensor, num_experts, width))
    else:
      found[name] = tensor
  return found


def _matrices(
    name: str, tensor: Tensor, num_experts: int, width: int
) -> Iterator[tuple[str, Tensor]]:
  shape, layer = shape_of(tensor), name.rpartition('.')[0]
  both = name.endswith(_BOTH)
  rows = {'gate_proj': (0, width), 'up_proj': (width, 2 * width)}
  if not both:
    rows = {'down_proj': (0, shape[1] if len(shape) == 3 else 0)}
  axis = 1 if both else 2
  wanted = 2 * width if both else width
  if len(shape) != 3 or shape[0] != num_experts or shape[axis] != wanted:
    raise UnsupportedCheckpoint(
        f'tensor {name} in {tensor.file.name} has shape {shape}; config.json says '
        f'{num_experts} experts of width {width}'
    )
  for expert in range(num_experts):
    for matrix, (start, stop) in rows.items():
      part = slice(expert, expert + 1), slice(start, stop), slice(0, shape[2])
      yield f'{layer}.{expert}.{matrix}.weight', tensor._replace(part=part)
