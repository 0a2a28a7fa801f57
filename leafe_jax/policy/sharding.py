"""The device mesh, and how logical axes of arrays map onto it.

Training and sampling use the same mesh and the same rules, so that weights
never move between the two. Code names the axes of an array ('embed',
'heads', 'batch'); only this file knows what they mean for devices. One device
is a mesh of one: there is no second path.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from leafe_jax import config as config_lib

MESH_AXES = ('data', 'fsdp', 'expert', 'tensor')
ROW_AXES = ('data', 'fsdp', 'expert')  # over which the rows of a batch are cut

# Logical axis -> mesh axes. 'embed' is the width of a weight (FSDP shards it, over
# 'expert' too where no experts are); activations are split along 'batch' and keep
# their width whole.
LOGICAL_RULES: Mapping[str, tuple[str, ...]] = {
    'batch': ROW_AXES,
    'length': (),
    'layers': (),
    'embed': ('fsdp', 'expert'),
    'experts': ('expert',),
    'vocab': ('tensor',),
    'heads': ('tensor',),
    'kv_heads': ('tensor',),
    'head_dim': (),
    'mlp': ('tensor',),
    'rank': (),
    'channels': (),
    'taps': (),
    'pages': (),
}

LogicalAxes = tuple[str | None, ...]


class MeshError(ValueError):
  """Sizes that do not make a mesh of the devices; the message names the remedy.

  Attributes:
    num_devices: there are.
  """

  def __init__(self, message: str, num_devices: int):
    super().__init__(message)
    self.num_devices = num_devices


def make_mesh(
    config: config_lib.Mesh, devices: Sequence[Any] | None = None
) -> Mesh:
  """A mesh with the axes ('data', 'fsdp', 'expert', 'tensor').

  Args:
    config: sizes; one of them may be -1, which takes the remaining devices.
    devices: devices to use, by default all.

  Raises:
    MeshError: the sizes do not multiply to the number of devices.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes = _fill_in(_sizes(config), len(devices))
  # A torus axis may be split: 8 tensor shards on a 4x4x4 slice are 4 by 2.
  grid = mesh_utils.create_device_mesh(
      sizes, devices, allow_split_physical_axes=True
  )
  # Auto: the compiler propagates shardings (GSPMD) from inputs and constraints.
  return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def make_abstract_mesh(config: config_lib.Mesh, num_devices: int) -> AbstractMesh:
  """The same mesh over devices that need not exist. MeshError as above."""
  sizes = _fill_in(_sizes(config), num_devices)
  return AbstractMesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _sizes(config: config_lib.Mesh) -> list[int]:
  return [getattr(config, name) for name in MESH_AXES]


def _fill_in(sizes: Sequence[int], num_devices: int) -> tuple[int, ...]:
  named: dict[str, int] = dict(zip(MESH_AXES, sizes, strict=True))
  if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
    raise MeshError(
        f'{_show(named)}: sizes are positive, and at most one is -1 (the rest)',
        num_devices,
    )
  known = math.prod(size for size in sizes if size != -1)
  rest, remainder = divmod(num_devices, known)
  if remainder or (-1 not in sizes and rest != 1):
    plural = 's' if num_devices > 1 else ''
    raise MeshError(
        f'{_show(named)} does not fit {num_devices} device{plural}; set '
        f'{_remedy(named, num_devices)}', num_devices,
    )
  return tuple(rest if size == -1 else size for size in sizes)


def _show(sizes: Mapping[str, int]) -> str:
  return ', '.join(f'mesh.{name}={size}' for name, size in sizes.items())


def _remedy(sizes: Mapping[str, int], num_devices: int) -> str:
  """Flags of the nearest sizes that fit; fsdp takes what the others leave."""
  rest, found = num_devices, {}
  for name in ('tensor', 'expert', 'data'):
    found[name] = math.gcd(max(sizes[name], 1), rest)
    rest //= found[name]
  found['fsdp'] = -1
  changed = {name: size for name, size in found.items() if size != sizes[name]}
  return ' '.join(f'--config.mesh.{name}={size}' for name, size in changed.items())


def partition_spec(
    axes: LogicalAxes, shape: Sequence[int], mesh: Mesh | AbstractMesh
) -> PartitionSpec:
  """Mesh axes for an array with these logical axes and this shape.

  A dimension that its mesh axes do not divide (two KV heads on four tensor
  shards, an odd vocabulary) is replicated instead. A mesh axis that an earlier
  dimension has is not taken again.

  Raises:
    ValueError: an unknown logical axis, or not as many axes as dimensions.
  """
  if len(axes) != len(shape):
    raise ValueError(f'{len(axes)} logical axes {axes} for the shape {tuple(shape)}')
  entries: list[tuple[str, ...] | None] = []
  taken: set[str] = set()
  for axis, size in zip(axes, shape, strict=True):
    names = tuple(name for name in _rule(axis) if name not in taken)
    fits = size % math.prod(mesh.shape[name] for name in names) == 0
    entries.append(names if names and fits else None)
    taken.update(entries[-1] or ())
  return PartitionSpec(*entries)


def _rule(axis: str | None) -> tuple[str, ...]:
  if axis is None:
    return ()
  if axis not in LOGICAL_RULES:
    raise ValueError(f'logical axis {axis!r}; known: {sorted(LOGICAL_RULES)}')
  return LOGICAL_RULES[axis]


def shardings(
    mesh: Mesh,
    logical_axes: Mapping[str, LogicalAxes],
    shapes: Mapping[str, Sequence[int]],
) -> dict[str, NamedSharding]:
  """Shardings of a flat dict of arrays by name."""
  return {
      name: NamedSharding(mesh, partition_spec(axes, shapes[name], mesh))
      for name, axes in logical_axes.items()
  }


def platform_of(mesh: Mesh | AbstractMesh) -> str:
  """'cpu', 'gpu' or 'tpu'; that of this process if the mesh names no devices."""
  if isinstance(mesh, Mesh):
    return str(mesh.devices.flat[0].platform)
  return jax.default_backend()


def target_platform() -> str:
  """'cpu', 'gpu' or 'tpu': of the mesh in context, else of this process.

  A program may be compiled for devices that this process does not have.
  """
  mesh = jax.sharding.get_abstract_mesh()
  device = None if mesh.empty else mesh.abstract_device
  return jax.default_backend() if device is None else str(device.platform)


def is_alone() -> bool:
  """Whether the program in the making is for one device."""
  mesh = jax.sharding.get_abstract_mesh()
  return mesh.empty or mesh.size == 1


def num_row_shards(mesh: Mesh | AbstractMesh) -> int:
  """Into how many parts the rows of a batch are cut."""
  return math.prod(mesh.shape[name] for name in ROW_AXES)


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


@functools.lru_cache(maxsize=1024)
def batch_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
  """Rows over data and fsdp, everything else whole."""
  axes = ('batch',) + (None,) * (len(shape) - 1)
  return NamedSharding(mesh, partition_spec(axes, shape, mesh))


def place(value: Any, target: Any) -> Any:
  """Host values on their devices, without communication.

  Args:
    value: array, scalar or a tree of them, the same on every process of the
      run; each puts its own part on its own devices.
    target: where it goes, a tree of shardings like the value's.
  """
  if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(target)):
    return jax.device_put(value, target)
  return jax.tree.map(_place_own_parts, value, target)


def _place_own_parts(value: Any, target: NamedSharding) -> jax.Array:
  value = np.asarray(value)
  parts = target.addressable_devices_indices_map(value.shape)
  return jax.make_array_from_single_device_arrays(
      value.shape, target,
      [jax.device_put(value[part], device) for device, part in parts.items()],
  )


def constrain(x: jax.Array, axes: LogicalAxes) -> jax.Array:
  """Pins the layout of an intermediate value under the mesh in context.

  Without one (`jax.set_mesh`) nothing is pinned and shardings propagate from
  the inputs.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return x
  return jax.lax.with_sharding_constraint(x, partition_spec(axes, x.shape, mesh))
