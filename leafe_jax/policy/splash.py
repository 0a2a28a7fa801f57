"""Pallas splash attention (jax.experimental) over a mesh.

The kernel knows one row on one device: rows and heads are mapped here. A
Pallas call has no sharding rules of its own, so under a mesh it runs inside
`shard_map`, rows over data and fsdp and heads over tensor.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from leafe_jax.policy import sharding

_LANES = 128  # of a TPU's vector unit: lengths are padded to a multiple
_BLOCKS = (512, 256, 128)
_AXES = ('batch', 'heads', 'length', 'head_dim')


def attend(
    q: Float[Array, 'B N T H'],
    k: Float[Array, 'B K T H'],
    v: Float[Array, 'B K T H'],
    segment_ids: Int[Array, 'B T'],
    *,
    window: int = 0,
    interpret: bool,
) -> Float[Array, 'B N T H']:
  """As `attention.attend`.

  Args:
    q: queries.
    k: keys.
    v: values.
    segment_ids: sequence of each place.
    window: keys that a query sees at most, its own included; 0: all before it.
    interpret: run the kernel as plain operations, where there is no TPU.
  """
  length = q.shape[2]
  q = q * q.shape[-1] ** -0.5
  q, k, v = (_pad(x, 2) for x in (q, k, v))
  segment_ids = _pad(segment_ids, 1)
  run = functools.partial(_attend_rows, window=window, interpret=interpret)
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return run(q, k, v, segment_ids)[:, :, :length]
  spec = sharding.partition_spec(_AXES, q.shape, mesh)
  if spec[1] != sharding.partition_spec(_AXES, k.shape, mesh)[1]:
    # Fewer KV heads than tensor shards: every query head gets its own copy.
    k, v = (jnp.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
  mapped = jax.shard_map(
      run,
      in_specs=(spec, spec, spec, PartitionSpec(spec[0], None)),
      out_specs=spec,
      check_vma=False,  # the kernel does not say how its outputs vary
  )
  return mapped(q, k, v, segment_ids)[:, :, :length]


def _pad(x: Array, axis: int) -> Array:
  """Rounds the length up; what is added comes last, so nothing sees it."""
  missing = -x.shape[axis] % _LANES
  if not missing:
    return x
  return jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])


def _attend_rows(
    q: Array, k: Array, v: Array, segment_ids: Array, *, window: int, interpret: bool
) -> Array:
  # Half a second of imports that only TPUs need.
  from jax.experimental.pallas.ops.tpu.splash_attention import (
      splash_attention_kernel as kernels,
  )
  from jax.experimental.pallas.ops.tpu.splash_attention import (
      splash_attention_mask as masks,
  )

  heads, length = q.shape[1], q.shape[2]
  block = next(size for size in _BLOCKS if length % size == 0)
  sizes = kernels.BlockSizes(
      block_q=block, block_kv=block, block_kv_compute=block,
      block_q_dkv=block, block_kv_dkv=block, block_kv_dkv_compute=block,
      block_q_dq=block, block_kv_dq=block,
  )
  square = (length, length)
  mask = masks.CausalMask(square)
  if window:
    mask = masks.LocalMask(square, (window - 1, 0), offset=0)
  kernel = kernels.make_splash_mha_single_device(
      masks.MultiHeadMask([mask] * heads),
      block_sizes=sizes, interpret=interpret,
  )

  def attend_row(q: Array, k: Array, v: Array, ids: Array) -> Any:
    return kernel(q, k, v, kernels.SegmentIds(ids, ids))

  return jax.vmap(attend_row)(q, k, v, segment_ids).astype(v.dtype)
