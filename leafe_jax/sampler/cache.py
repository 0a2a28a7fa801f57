"""Keys and values on the device: pages of the pool, and dense rows.

Pages live in a pool [pages, L, 2, K, H * P]: a page is one contiguous block
that holds P tokens of all layers of a group, keys as [K, H, P] and values as
[K, P, H]. A group are the layers that look back equally far (`kinds.groups`): the
pages of those with a window are given back when no window reaches them, and all
that is held of groups is a dict by window. Programs work on dense rows gathered
from pages, keys [B, K, H, S] and values [B, K, S, H] per layer: with keys
transposed, both products of decoding run over contiguous memory.

Halves are stored as plain bits (`stored`): to write pages of halves, XLA on CPU
would widen the whole pool, and narrow it again.

Over several devices the pool is cut like the rows of a dispatch (`POOL_AXES`): a
device holds the pages of its own rows, whose ids the host hands out accordingly,
so that gathering and writing move nothing between devices.

The layers of dense rows stand one by one, or stacked where a program scans over
them (`Group`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from leafe_jax.policy import sharding

POOL_AXES = ('batch', 'layers', None, 'kv_heads', None)
_DENSE_AXES = ('batch', 'kv_heads', None, None)


class KV(NamedTuple):
  """Keys [B, K, H, S] and values [B, K, S, H] of one layer."""

  k: Array
  v: Array


_BITS = jnp.dtype('uint16')


def stored(dtype: Any) -> Any:
  """The type of the pool for keys and values of a type."""
  return _BITS if jnp.dtype(dtype) == jnp.bfloat16 else jnp.dtype(dtype)


# A list of layers, or one KV whose arrays have a leading layer axis.
Group = list[KV] | KV
# By window.
Layers = dict[int, Group]
Pools = dict[int, Array]  # [pages, L, 2, K, block], or as in `ragged`


def each_layer(change: Callable[..., KV], *parts: Layers) -> Layers:
  """Changes every layer of one or more parts.

  Args:
    change: of the window of a layer, and the layer in each of the parts.
    parts: of the same layers.
  """

  def of_group(window: int, *groups: Group) -> Group:
    here = functools.partial(change, window)
    if isinstance(groups[0], KV):
      return jax.vmap(here)(*groups)
    return [here(*layer) for layer in zip(*groups, strict=True)]

  return {
      window: of_group(window, *(part[window] for part in parts)) for window in parts[0]
  }


def length_of(group: Group) -> int:
  """Places of a row."""
  return (group if isinstance(group, KV) else group[0]).k.shape[-1]


def gather(
    pool: Float[Array, 'pages L 2 K block'],
    ids: Int[Array, 'B p'],
    head_dim: int,
    room: int = 0,
    stacked: bool = False,
) -> Group:
  """Dense keys and values of a group's layers, p * P places and `room` a row.

  The ids must be in range.
  """
  pages = _take(pool, ids)
  if pages.dtype == _BITS:
    pages = jax.lax.bitcast_convert_type(pages, jnp.bfloat16)
  dense = functools.partial(_dense, head_dim=head_dim, room=room)
  if stacked:
    return _pin(jax.vmap(dense, in_axes=2)(pages))
  return _pin([dense(pages[:, :, layer]) for layer in range(pages.shape[2])])


def _take(
    pool: Float[Array, 'pages L 2 K block'], ids: Int[Array, 'B p']
) -> Float[Array, 'B p L 2 K block']:
  """Pages by their ids, on each device its own."""

  def take(pool: Array, ids: Array) -> Array:
    # The host hands out the ids: without the promise XLA adds a masking pass.
    return pool.at[ids].get(mode='promise_in_bounds')

  def take_own(pool: Array, ids: Array) -> Array:
    # Padding may be the id of another device's page.
    return take(pool, jnp.clip(_own_ids(pool, ids), 0, pool.shape[0] - 1))

  cut = _cut(pool)
  if cut is None:
    return take(pool, ids)
  rows = PartitionSpec(cut[0], None)
  out = PartitionSpec(*rows, *cut[1:])
  return jax.shard_map(take_own, in_specs=(cut, rows), out_specs=out)(pool, ids)


def _cut(pool: Array) -> PartitionSpec | None:
  """How the pool is cut over the mesh in context; None on one device."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return None
  return sharding.partition_spec(POOL_AXES, pool.shape, mesh)


def _own_ids(pool: Array, ids: Array) -> Array:
  """Page ids, counted from the first page of this device's part of the pool."""
  return ids - jax.lax.axis_index(sharding.ROW_AXES) * pool.shape[0]


def _dense(
    pages: Float[Array, 'B p 2 K block'], head_dim: int, room: int
) -> KV:
  """Pages of one layer, side by side, and room behind them."""
  rows, count, _, heads, block = pages.shape
  k = pages[:, :, 0].reshape(rows, count, heads, head_dim, block // head_dim)
  v = pages[:, :, 1].reshape(rows, count, heads, block // head_dim, head_dim)
  k, v = k.transpose(0, 2, 3, 1, 4), v.transpose(0, 2, 1, 3, 4)
  row = KV(k.reshape(rows, heads, head_dim, -1), v.reshape(rows, heads, -1, head_dim))
  return _widen(row, room)


def _widen(row: KV, room: int) -> KV:
  return KV(
      jnp.pad(row.k, ((0, 0), (0, 0), (0, 0), (0, room))),
      jnp.pad(row.v, ((0, 0), (0, 0), (0, room), (0, 0))),
  )


def pin(part: Layers) -> Layers:
  """Rows over data and fsdp, heads over tensor, as in training."""
  return {window: _pin(group) for window, group in part.items()}


def _pin(group: Group) -> Group:
  axes = (('layers', *_DENSE_AXES) if isinstance(group, KV) else _DENSE_AXES)
  return jax.tree.map(lambda x: sharding.constrain(x, axes), group)


def behind(row: KV, start: int, length: int) -> KV:
  """A row's places from `start` on, with room up to `length` places."""
  rest = KV(row.k[..., start:], row.v[:, :, start:])
  return _widen(rest, length - rest.k.shape[-1])


def put(target: KV, new: KV, start: Int[Array, ' B']) -> KV:
  """Writes keys and values at each row's own place."""

  def write(target: KV, new: KV, start: Array) -> KV:
    return KV(
        jax.lax.dynamic_update_slice(target.k, new.k, (0, 0, start)),
        jax.lax.dynamic_update_slice(target.v, new.v, (0, start, 0)),
    )

  return jax.vmap(write)(target, new, start)


def put_all(target: KV, new: KV, place: Int[Array, '']) -> KV:
  """Writes one token at the same place of every row."""
  return KV(
      jax.lax.dynamic_update_slice(target.k, new.k, (0, 0, 0, place)),
      jax.lax.dynamic_update_slice(target.v, new.v, (0, 0, place, 0)),
  )


def no_tokens(like: KV, length: int) -> KV:
  """Empty keys and values for `length` places of the same rows and heads."""
  rows, heads, dim, _ = like.k.shape
  return KV(
      jnp.zeros((rows, heads, dim, length), like.k.dtype),
      jnp.zeros((rows, heads, length, dim), like.v.dtype),
  )


def close_buffers(
    buffers: Group, page_size: int
) -> Float[Array, 'pages L 2 K block']:
  """The buffers as pages, row by row."""
  of_layer = functools.partial(_pages, page_size=page_size)
  if isinstance(buffers, KV):
    pages = jax.vmap(of_layer, out_axes=1)(buffers)
  else:
    pages = jnp.stack([of_layer(buffer) for buffer in buffers], axis=1)
  if pages.dtype == jnp.bfloat16:
    pages = jax.lax.bitcast_convert_type(pages, _BITS)
  return sharding.constrain(pages, POOL_AXES)


def _pages(buffer: KV, page_size: int) -> Float[Array, 'pages 2 K block']:
  """A buffer of one layer, cut into pages."""
  rows, heads, dim, length = buffer.k.shape
  count = length // page_size
  k = buffer.k.reshape(rows, heads, dim, count, page_size)
  v = buffer.v.reshape(rows, heads, count, page_size, dim)
  k = k.transpose(0, 3, 1, 2, 4).reshape(rows * count, heads, -1)
  v = v.transpose(0, 2, 1, 3, 4).reshape(rows * count, heads, -1)
  return jnp.stack([k, v], axis=1)


def write(
    pool: Float[Array, 'pages L 2 K block'],
    ids: Int[Array, 'B W'],
    pages: Float[Array, 'new L 2 K block'],
) -> Float[Array, 'pages L 2 K block']:
  """Writes pages to their ids, in order; ids out of range are dropped."""

  def put_pages(pool: Array, ids: Array, pages: Array) -> Array:
    return pool.at[ids.reshape(-1)].set(pages, mode='drop')

  def put_own(pool: Array, ids: Array, pages: Array) -> Array:
    ids = _own_ids(pool, ids)
    return put_pages(pool, jnp.where(ids < 0, pool.shape[0], ids), pages)

  cut = _cut(pool)
  if cut is None:
    return put_pages(pool, ids, pages)
  specs = (cut, PartitionSpec(cut[0], None), cut)
  return jax.shard_map(put_own, in_specs=specs, out_specs=cut)(pool, ids, pages)
