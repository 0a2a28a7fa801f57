"""Decoding straight from KV pages, with the Pallas kernel for TPUs.

`turn` gathers a row's pages into dense keys and values once per response; here
nothing is gathered, and a step reads just the pages that a row has. The price
is another layout of the pool, the one that
`jax.experimental.pallas.ops.tpu.paged_attention` reads:

    keys and values, each [K, L * pages, P, H]; page i of layer l is l * pages + i

`decode_step` is a program of its own: the sampler does not dispatch it yet.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import attention, layers, model, sharding

_BLOCKS = (8, 4, 2, 1)  # pages that the kernel reads at a time
_POOL_AXES = ('kv_heads', 'pages', None, None)


class Pool(NamedTuple):
  """Keys and values [K, L * pages, P, H]; arrays, or their shapes."""

  k: Any
  v: Any


class Rows(NamedTuple):
  """Rows of one step.

  Attributes:
    token: [B] the last token of each row, not read yet.
    length: [B] tokens before it, all in pages.
    pages: [B, p] ids of the row's pages in order, with room for one more token;
      padding is any valid id.
  """

  token: Array
  length: Array
  pages: Array


def abstract_pool(
    policy: config_lib.Policy, num_pages: int, page_size: int, mesh: Mesh
) -> Pool:
  """Shapes, types and shardings: KV heads over tensor."""
  shape = (
      policy.num_kv_heads, policy.num_layers * num_pages, page_size, policy.head_dim
  )
  place = NamedSharding(mesh, sharding.partition_spec(_POOL_AXES, shape, mesh))
  array = jax.ShapeDtypeStruct(shape, jnp.dtype(policy.dtype), sharding=place)
  return Pool(array, array)


def decode_step(
    config: config_lib.Policy, params: model.Params, pool: Pool, rows: Rows
) -> tuple[Float[Array, 'B V'], Pool]:
  """Reads one token a row; the logits of the next and the pool with its keys.

  Args:
    config: sizes and types.
    params: weights.
    pool: donate it: the step writes one place a row and layer.
    rows: the tokens and where their pages are.
  """
  num_pages = pool.k.shape[1] // config.num_layers
  page_size = pool.k.shape[2]
  page, slot = rows.length // page_size, rows.length % page_size
  target = jnp.take_along_axis(rows.pages, page[:, None], axis=1)[:, 0]
  angles = layers.rope_angles(rows.length[:, None], config)

  def layer(
      carry: tuple[Array, Pool], of_layer: tuple[Array, model.Params]
  ) -> tuple[tuple[Array, Pool], None]:
    (x, pool), (index, weights) = carry, of_layer
    first = index * num_pages
    normed = layers.rms_norm(x, weights['attn_norm_ld'], config.norm_eps)
    new = layers.key_value(normed, weights, angles, config)
    k, v = (
        pages.at[:, first + target, slot].set(rows_of.swapaxes(0, 1)[:, :, 0])
        for pages, rows_of in zip(pool, new, strict=True)
    )
    pool = Pool(k, v)
    q = layers.query(normed, weights, angles, config)[:, :, 0]
    mixed = attend(q, pool, rows.length + 1, first + rows.pages)
    x = x + layers.project_out(mixed[:, :, None], weights)
    normed = layers.rms_norm(x, weights['mlp_norm_ld'], config.norm_eps)
    x = x + layers.feed_forward(normed, weights)
    return (sharding.constrain(x, ('batch', None, None)), pool), None

  x = layers.embed(params, rows.token[:, None], config)
  xs = (jnp.arange(config.num_layers), model.stacks(params))
  (x, pool), _ = jax.lax.scan(layer, (x, pool), xs)
  return layers.unembed(params, x[:, 0], config), pool


def attend(
    q: Float[Array, 'B N H'],
    pool: Pool,
    lengths: Int[Array, ' B'],
    pages: Int[Array, 'B p'],
) -> Float[Array, 'B N H']:
  """Each row's query over the first `lengths` places of its pages.

  The Pallas kernel on TPUs; a gather and plain products elsewhere.
  """
  q = q * q.shape[-1] ** -0.5
  if attention.target_platform() != 'tpu':
    return _attend_gathered(q, pool, lengths, pages)
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return _attend_kernel(q, *pool, lengths, pages)
  heads = sharding.partition_spec(_POOL_AXES, pool.k.shape, mesh)[0]
  rows = sharding.partition_spec(('batch',), lengths.shape, mesh)[0]
  of_pool = PartitionSpec(heads, None, None, None)
  return jax.shard_map(
      _attend_kernel,
      in_specs=(
          PartitionSpec(rows, heads, None), of_pool, of_pool, PartitionSpec(rows),
          PartitionSpec(rows, None),
      ),
      out_specs=PartitionSpec(rows, heads, None),
      check_vma=False,  # the kernel does not say how its output varies
  )(q, *pool, lengths, pages)


def _attend_kernel(
    q: Array, k: Array, v: Array, lengths: Array, pages: Array
) -> Array:
  from jax.experimental.pallas.ops.tpu.paged_attention import paged_attention

  block = next(size for size in _BLOCKS if pages.shape[1] % size == 0)
  return paged_attention(q, k, v, lengths, pages, pages_per_compute_block=block)


def _attend_gathered(q: Array, pool: Pool, lengths: Array, pages: Array) -> Array:
  rows, heads, dim = q.shape
  kv_heads, _, page_size, _ = pool.k.shape
  shape = (kv_heads, rows, pages.shape[1] * page_size, dim)
  k, v = (x[:, pages].reshape(shape) for x in pool)
  grouped = q.reshape(rows, kv_heads, heads // kv_heads, dim)
  scores = jnp.einsum(
      'bkgh,kbsh->bkgs', grouped, k, preferred_element_type=jnp.float32
  )
  known = (jnp.arange(shape[2]) < lengths[:, None])[:, None, None]
  weights = jax.nn.softmax(jnp.where(known, scores, attention.MASKED), axis=-1)
  mixed = jnp.einsum('bkgs,kbsh->bkgh', weights.astype(v.dtype), v)
  return mixed.reshape(rows, heads, dim).astype(q.dtype)
