"""Attention over KV pages in place, for GPUs: a Pallas kernel for Triton.

One kernel reads the pool of `ragged` as it lies, for one query a row (decoding)
or many (prefill). A program of it has a block of queries of one row that share
a KV head, and goes over some of the row's places with an online softmax
(Dao et al., 2022, arXiv 2205.14135). Decoding has few queries, so there the
places of a row are shared among programs (Flash-Decoding, Dao et al., 2023) and
their parts join outside the kernel. Pallas is imported where it is used: only
GPUs need it.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from leafe_jax.policy.attention import MASKED

MIN_SIDE = 16  # of a product on tensor cores; sizes are powers of two
_BLOCK_ROWS = 64  # queries times heads of a program, in prefill
_BLOCK_PLACES = 64  # keys and values in registers at a time
_SPLIT_PLACES = 512  # of a program, in decoding


def attend(
    q: Float[Array, 'B T N H'],
    pool: Float[Array, 'slots P heads H'],
    pages: Int[Array, 'B p'],
    start: Int[Array, ' B'],
    window: int = 0,
    *,
    interpret: bool = False,
) -> Float[Array, 'B T N H']:
  """As `ragged.attend`.

  Args:
    q: queries, not scaled.
    pool: KV head k has its keys at 2 k and its values at 2 k + 1.
    pages: each row's slots in order, all of them in the pool.
    start: places before the first query.
    window: places that a query sees, its own included; 0: all before it.
    interpret: run the kernel as plain operations, where there is no GPU.
  """
  num_kv_heads = pool.shape[2] // 2
  blocks, block = _fold(q, num_kv_heads)
  places = pages.shape[1] * pool.shape[1]
  split = _SPLIT_PLACES if q.shape[1] == 1 else places
  num_splits = -(-places // split)
  sizes = _Sizes(pool.shape[1], block, split, window)
  parts = _run(blocks, pool, pages, start, sizes, num_splits, interpret)
  return _unfold(_join(*parts), q, block).astype(q.dtype)


def _fold(q: Float[Array, 'B T N H'], num_kv_heads: int) -> tuple[Array, int]:
  """Queries as [B, K, blocks, rows, H], and the tokens of a block.

  The rows of a block are its tokens times the query heads of a KV head; these
  heads are padded to a power of two, and the tokens to whole blocks.
  """
  rows, length, heads, dim = q.shape
  groups = heads // num_kv_heads
  wide = _power_of_two(groups)
  block = max(MIN_SIDE // wide, min(_BLOCK_ROWS // wide, _power_of_two(length)), 1)
  q = q.reshape(rows, length, num_kv_heads, groups, dim)
  missing = -length % block
  q = jnp.pad(q, ((0, 0), (0, missing), (0, 0), (0, wide - groups), (0, 0)))
  q = q.transpose(0, 2, 1, 3, 4)
  return q.reshape(rows, num_kv_heads, -1, block * wide, dim), block


def _power_of_two(size: int) -> int:
  """The least one that is not smaller."""
  return 1 << (size - 1).bit_length()


def _unfold(
    mixed: Float[Array, 'B K blocks rows H'], q: Float[Array, 'B T N H'], block: int
) -> Float[Array, 'B T N H']:
  rows, length, heads, dim = q.shape
  num_kv_heads = mixed.shape[1]
  wide = mixed.shape[3] // block
  mixed = mixed.reshape(rows, num_kv_heads, -1, wide, dim).transpose(0, 2, 1, 3, 4)
  return mixed[:, :length, :, : heads // num_kv_heads].reshape(q.shape)


class _Sizes(NamedTuple):
  """Of a page, a block of tokens, a program's share of the places, the window."""

  page: int
  block: int
  split: int
  window: int


def _run(
    q: Float[Array, 'B K blocks rows H'],
    pool: Float[Array, 'slots P heads H'],
    pages: Int[Array, 'B p'],
    start: Int[Array, ' B'],
    sizes: _Sizes,
    num_splits: int,
    interpret: bool,
) -> Any:
  """The kernel on all blocks: values before division, greatest scores, totals."""
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import triton

  kernel = functools.partial(_kernel, sizes=sizes)
  *grid, height, dim = q.shape
  of_block = pl.BlockSpec((None, None, None, height, dim), lambda *at: (*at[:3], 0, 0))
  whole = pl.BlockSpec((None,) * 4 + (height, dim), lambda *at: (*at, 0, 0))
  column = pl.BlockSpec((None,) * 4 + (height,), lambda *at: (*at, 0))
  shape = (*grid, num_splits, height)
  return pl.pallas_call(
      kernel,
      grid=(*grid, num_splits),
      in_specs=[of_block, pl.BlockSpec(), pl.BlockSpec(), pl.BlockSpec()],
      out_specs=[whole, column, column],
      out_shape=[
          jax.ShapeDtypeStruct((*shape, dim), jnp.float32),
          jax.ShapeDtypeStruct(shape, jnp.float32),
          jax.ShapeDtypeStruct(shape, jnp.float32),
      ],
      compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
      interpret=interpret,
      name='paged_flash_attention',
  )(q, pool.reshape(-1, *pool.shape[2:]), pages, start)


def _kernel(
    q_ref: Any,  # [rows, H]
    pool_ref: Any,  # [slots * P, heads, H]
    pages_ref: Any,  # [B, p]
    start_ref: Any,  # [B]
    mixed_ref: Any,  # [rows, H]
    top_ref: Any,  # [rows]
    total_ref: Any,  # [rows]
    *,
    sizes: _Sizes,
) -> None:
  from jax.experimental import pallas as pl

  row, head = pl.program_id(0), pl.program_id(1)
  page_size, block, split, window = sizes
  first = start_ref[row] + pl.program_id(2) * block  # the first query's own place
  q = q_ref[...]
  height, dim = q.shape
  own = first + jax.lax.div(jnp.arange(height), height // block)
  low = pl.program_id(3) * split
  end = jnp.minimum(first + block, pages_ref.shape[1] * page_size)
  end = jnp.minimum(end, low + split)
  if window:  # whole steps behind the window of the first query
    behind = jnp.maximum(first - window + 1 - low, 0)
    low += jax.lax.div(behind, _BLOCK_PLACES) * _BLOCK_PLACES
  num_steps = pl.cdiv(jnp.maximum(end - low, 0), _BLOCK_PLACES)

  def step(index: Array, so_far: tuple[Array, Array, Array]) -> Any:
    places = low + index * _BLOCK_PLACES + jnp.arange(_BLOCK_PLACES)
    real = jnp.minimum(places, end - 1)  # beyond it nothing is read
    page = pages_ref[row, jax.lax.div(real, page_size)]
    slots = page * page_size + jax.lax.rem(real, page_size)
    k, v = pool_ref[slots, 2 * head, :], pool_ref[slots, 2 * head + 1, :]
    seen = places[None] <= jnp.minimum(own, end - 1)[:, None]
    if window:
      seen &= own[:, None] - places[None] < window
    return _mix_in(so_far, q, k, v, seen)

  nothing = (
      jnp.zeros((height, dim), jnp.float32),
      jnp.full(height, MASKED, jnp.float32),
      jnp.zeros(height, jnp.float32),
  )
  mixed_ref[...], top_ref[...], total_ref[...] = jax.lax.fori_loop(
      0, num_steps, step, nothing
  )


def _mix_in(
    so_far: tuple[Float[Array, 'rows H'], Float[Array, ' rows'], Float[Array, ' rows']],
    q: Float[Array, 'rows H'],
    k: Float[Array, 'places H'],
    v: Float[Array, 'places H'],
    seen: Bool[Array, 'rows places'],
) -> tuple[Array, Array, Array]:
  """A step of the online softmax: mixed values, greatest scores, totals."""
  from jax.experimental.pallas import triton

  mixed, top, total = so_far
  # Unasked, tensor cores would round float32 to TensorFloat-32.
  product = functools.partial(
      triton.dot, precision='highest' if q.dtype == jnp.float32 else None
  )
  scores = jnp.where(seen, product(q, k.T) * q.shape[1] ** -0.5, MASKED)
  higher = jnp.maximum(top, scores.max(axis=1))
  weights = jnp.where(seen, jnp.exp(scores - higher[:, None]), 0.0)
  kept = jnp.exp(top - higher)
  mixed = mixed * kept[:, None] + product(weights.astype(v.dtype), v)
  return mixed, higher, total * kept + weights.sum(axis=1)


def _join(
    mixed: Float[Array, 'B K blocks splits rows H'],
    top: Float[Array, 'B K blocks splits rows'],
    total: Float[Array, 'B K blocks splits rows'],
) -> Float[Array, 'B K blocks rows H']:
  """One softmax over the parts; every query sees its own place at least."""
  share = jnp.exp(top - top.max(axis=3, keepdims=True))
  mixed = (mixed * share[..., None]).sum(axis=3)
  return mixed / (total * share).sum(axis=3)[..., None]
