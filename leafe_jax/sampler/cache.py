"""Keys and values on the device: pages of the pool, and dense rows.

Pages live in one pool [pages, L, 2, K, H * P]: a page is one contiguous block
that holds P tokens of all layers, keys as [K, H, P] and values as [K, P, H].
Programs work on dense rows gathered from it, keys [B, K, H, S] and values
[B, K, S, H] per layer: with keys transposed, both products of decoding run
over contiguous memory.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class KV(NamedTuple):
  """Keys [B, K, H, S] and values [B, K, S, H] of one layer."""

  k: Array
  v: Array


def gather(
    pool: Float[Array, 'pages L 2 K block'], ids: Int[Array, 'B p'], head_dim: int
) -> list[KV]:
  """Dense keys and values of each layer, p * P places a row.

  The ids must be in range.
  """
  # The host hands out the ids: without the promise XLA adds a masking pass.
  pages = pool.at[ids].get(mode='promise_in_bounds')
  rows, count, num_layers, _, heads, block = pages.shape
  split_k = (rows, count, heads, head_dim, block // head_dim)
  split_v = (rows, count, heads, block // head_dim, head_dim)
  dense = []
  for layer in range(num_layers):
    k = pages[:, :, layer, 0].reshape(split_k).transpose(0, 2, 3, 1, 4)
    v = pages[:, :, layer, 1].reshape(split_v).transpose(0, 2, 1, 3, 4)
    k, v = k.reshape(rows, heads, head_dim, -1), v.reshape(rows, heads, -1, head_dim)
    dense.append(KV(k, v))
  return dense


def open_buffers(
    pool: Float[Array, 'pages L 2 K block'],
    ids: Int[Array, ' B'],
    head_dim: int,
    num_pages: int,
) -> list[KV]:
  """Room for `num_pages` pages a row and layer; the first is page `ids`."""
  tails = gather(pool, ids[:, None], head_dim)
  room = (num_pages - 1) * (pool.shape[-1] // head_dim)
  return [
      KV(
          jnp.pad(tail.k, ((0, 0), (0, 0), (0, 0), (0, room))),
          jnp.pad(tail.v, ((0, 0), (0, 0), (0, room), (0, 0))),
      )
      for tail in tails
  ]


def put(target: KV, new: KV, start: Int[Array, ' B']) -> KV:
  """Writes keys and values at each row's own place."""

  def write(target: KV, new: KV, start: Array) -> KV:
    return KV(
        jax.lax.dynamic_update_slice(target.k, new.k, (0, 0, start)),
        jax.lax.dynamic_update_slice(target.v, new.v, (0, start, 0)),
    )

  return jax.vmap(write)(target, new, start)


def before(places: int, length: Int[Array, ' B']) -> Bool[Array, 'B 1 S']:
  """Mask of those of S places that come before each row's length."""
  return (jnp.arange(places) < length[:, None])[:, None]


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
    buffers: list[KV], page_size: int
) -> Float[Array, 'pages L 2 K block']:
  """The buffers as pages, row by row."""
  layers_of_pages = []
  for buffer in buffers:
    rows, heads, dim, length = buffer.k.shape
    count = length // page_size
    k = buffer.k.reshape(rows, heads, dim, count, page_size)
    v = buffer.v.reshape(rows, heads, count, page_size, dim)
    k = k.transpose(0, 3, 1, 2, 4).reshape(rows * count, heads, -1)
    v = v.transpose(0, 2, 1, 3, 4).reshape(rows * count, heads, -1)
    layers_of_pages.append(jnp.stack([k, v], axis=1))
  return jnp.stack(layers_of_pages, axis=1)


def write(
    pool: Float[Array, 'pages L 2 K block'],
    ids: Int[Array, 'B W'],
    pages: Float[Array, 'new L 2 K block'],
) -> Float[Array, 'pages L 2 K block']:
  """Writes pages to their ids, in order; ids out of range are dropped."""
  return pool.at[ids.reshape(-1)].set(pages, mode='drop')
