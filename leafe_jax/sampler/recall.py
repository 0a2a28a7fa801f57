"""Memories of recurrent layers on the device: a pool of them, and those of rows.

The pool is a `delta.Memory` whose arrays lead with [memories, layers]: a memory is
that of all recurrent layers after some beginning of a transcript, and `memories`
says on the host which. A dispatch reads one for each row, or none for a row that
begins, and writes one. The pool is cut over data and fsdp like the rows, so that
neither moves anything between devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import delta, kinds, sharding

# Of the pool's two arrays, state and tail.
_AXES: tuple[tuple[str | None, ...], ...] = (
    ('batch', 'layers', 'heads', None, None), ('batch', 'layers', None, None),
)  # fmt: skip
# A list of layers, or one memory whose arrays have a leading layer axis.
Layers = list[delta.Memory] | delta.Memory


def num_memories(
    policy: config_lib.Policy, sampler: config_lib.Sampler, mesh: Mesh | AbstractMesh
) -> int:
  """Memories of the pool; 0 for a policy without recurrent layers.

  Raises:
    ValueError: too few, or recurrent layers alone.
  """
  if not kinds.count('delta', policy):
    return 0
  if not kinds.count('attention', policy):
    raise ValueError(
        f'policy.layer_kinds is {",".join(policy.layer_kinds)}: to be sampled from, '
        'a policy needs a layer with attention'
    )
  shards = sharding.num_row_shards(mesh)
  if sampler.num_memories < 2 * shards:
    raise ValueError(
        f'sampler.num_memories is {sampler.num_memories}: a row reads one and writes '
        f'one, on each of {shards} shards of data and fsdp; give {2 * shards} or more'
    )
  return sampler.num_memories // shards * shards


def abstract_pool(
    policy: config_lib.Policy, sampler: config_lib.Sampler, mesh: Mesh | AbstractMesh
) -> delta.Memory | None:
  """Shapes, types and shardings, nothing allocated; None without such layers."""
  count = num_memories(policy, sampler, mesh)
  if not count:
    return None
  depth = kinds.count('delta', policy)
  one = jax.eval_shape(lambda: delta.nothing_read(policy, 1))

  def describe(x: Any, axes: tuple[str | None, ...]) -> Any:
    shape = (count, depth, *x.shape[1:])
    place: Any = NamedSharding(mesh, sharding.partition_spec(axes, shape, mesh))
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=place)

  return delta.Memory(*map(describe, one, _AXES))


def gather(pool: delta.Memory, ids: Int[Array, ' B'], stacked: bool) -> Layers:
  """The memories of rows; an id out of range: nothing was read yet."""

  def take(pool: Array, ids: Array) -> Array:
    found = pool[jnp.clip(ids, 0, pool.shape[0] - 1)]
    fits = (ids >= 0) & (ids < pool.shape[0])
    return jnp.where(fits.reshape(-1, *[1] * (found.ndim - 1)), found, 0)

  rows = delta.Memory(*(
      _by_device(take, part, axes, ids) for part, axes in zip(pool, _AXES)
  ))
  if stacked:
    return jax.tree.map(lambda x: x.swapaxes(0, 1), rows)
  depth = rows.state.shape[1]
  return [delta.Memory(*(part[:, i] for part in rows)) for i in range(depth)]


def of_rows(layers: Layers) -> delta.Memory:
  """The memories of rows as `write` takes them, [B, layers, ...]."""
  if isinstance(layers, delta.Memory):
    return jax.tree.map(lambda x: x.swapaxes(0, 1), layers)
  return jax.tree.map(lambda *x: jnp.stack(x, axis=1), *layers)


def write(
    pool: delta.Memory, ids: Int[Array, ' B'], rows: delta.Memory
) -> delta.Memory:
  """Puts the memories of rows to their ids; those out of range are dropped."""

  def put(pool: Array, ids: Array, rows: Array) -> Array:
    ids = jnp.where(ids < 0, pool.shape[0], ids)
    return pool.at[ids].set(rows.astype(pool.dtype), mode='drop')

  return delta.Memory(*(
      _by_device(put, part, axes, ids, new)
      for part, axes, new in zip(pool, _AXES, rows)
  ))


def _by_device(
    run: Callable[..., Array], pool: Array, axes: tuple[str | None, ...], *args: Array
) -> Array:
  """On each device what is its own, with ids counted from its first memory."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return run(pool, *args)
  cut = sharding.partition_spec(axes, pool.shape, mesh)

  def run_own(pool: Array, ids: Array, *rest: Array) -> Array:
    first = jax.lax.axis_index(sharding.ROW_AXES) * pool.shape[0]
    return run(pool, ids - first, *rest)

  specs = (cut, PartitionSpec(cut[0]), *[cut for _ in args[1:]])
  return jax.shard_map(run_own, in_specs=specs, out_specs=cut)(pool, *args)
