"""A product of rows with the matrix of their group: the experts of a mixture.

`product(rows, weights, sizes)` multiplies the first sizes[0] rows with
weights[0], the next sizes[1] ones with weights[1], and so on. TPUs and GPUs have
`jax.lax.ragged_dot` for this. On CPU that multiplies every row with the matrices
of all groups and masks (jax 0.10.2: 16 groups, 16 times the operations and the
memory); so there groups are cut into blocks of rows, and a loop goes over the
blocks that are not empty.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from leafe_jax.policy import products, sharding

_HALF = (jnp.bfloat16, jnp.float16)
_MAX_BLOCK = 128  # rows of a block


def product(
    rows: Float[Array, 'M I'],
    weights: Float[Array, 'E I O'],
    sizes: Int[Array, ' E'],
) -> Float[Array, 'M O']:
  """Every row times the matrix of its group; sums in float32.

  Args:
    rows: in the order of their groups; their type is that of the product.
    weights: a matrix for each group, of any float type.
    sizes: rows of each group. What stands behind the last group belongs to
      none: it comes out as zeros, and has no gradient.
  """
  known = (jnp.arange(rows.shape[0]) < jnp.sum(sizes))[:, None]
  # The units of TPUs leave open what rows without a group give.
  rows = jnp.where(known, rows, 0)
  weights = weights.astype(rows.dtype)
  if sharding.target_platform() == 'cpu':
    found = _in_blocks(rows, weights, sizes)
  else:
    wide = jnp.float32 if rows.dtype in _HALF else rows.dtype
    found = jax.lax.ragged_dot(rows, weights, sizes, preferred_element_type=wide)
  return jnp.where(known, found.astype(rows.dtype), 0)


class _Blocks(NamedTuple):
  """How the rows of groups are laid out in blocks of one size.

  Attributes:
    source: [blocks * size] the row in each place; any, where there is none.
    filled: [blocks * size] whether there is one.
    place: [M] of each row.
    group: [blocks] whose rows are in a block.
    used: blocks that hold rows; they are the first ones.
  """

  source: Int[Array, ' P']
  filled: Bool[Array, ' P']
  place: Int[Array, ' M']
  group: Int[Array, ' B']
  used: Int[Array, '']

  @property
  def size(self) -> int:
    return self.source.shape[0] // self.group.shape[0]

  @classmethod
  def of(cls, sizes: Int[Array, ' E'], num_rows: int) -> _Blocks:
    groups = sizes.shape[0]
    size = min(_MAX_BLOCK, _power_of_two(-(-num_rows // groups)))
    most = min(num_rows, (num_rows + groups * (size - 1)) // size)
    blocks = -(-sizes // size)
    ends, closed = jnp.cumsum(sizes), jnp.cumsum(blocks)
    # From a row of a group to its place: what the blocks before it leave empty.
    shift = (closed - blocks) * size - (ends - sizes)
    order = jnp.arange(num_rows)
    group = _group_at(ends, order)
    owner = _group_at(closed, jnp.arange(most))
    apart = jnp.repeat(owner, size, total_repeat_length=most * size)
    source = jnp.arange(most * size) - shift[apart]
    filled = source < ends[apart]
    return cls(
        jnp.clip(source, 0, num_rows - 1), filled, order + shift[group], owner,
        closed[-1],
    )

  def cut(self, rows: Float[Array, 'M I']) -> Float[Array, 'B S I']:
    """Rows in their blocks, zeros where there are none."""
    laid = jnp.where(self.filled[:, None], rows[self.source], 0)
    return laid.reshape(-1, self.size, rows.shape[1])

  def joined(self, blocks: Float[Array, 'B S O']) -> Float[Array, 'M O']:
    """Inverse of `cut`; rows without a group hold anything."""
    return blocks.reshape(-1, blocks.shape[2]).at[self.place].get(mode='clip')


def _group_at(ends: Int[Array, ' E'], place: Int[Array, ' N']) -> Int[Array, ' N']:
  found = jnp.searchsorted(ends, place, side='right')
  return jnp.clip(found, 0, ends.shape[0] - 1)


def _power_of_two(count: int) -> int:
  return 1 << max(0, count - 1).bit_length()


@jax.custom_vjp
def _in_blocks(
    rows: Float[Array, 'M I'], weights: Float[Array, 'E I O'], sizes: Int[Array, ' E']
) -> Float[Array, 'M O']:
  blocks = _Blocks.of(sizes, rows.shape[0])
  return blocks.joined(_multiply('si,io->so', blocks, blocks.cut(rows), weights))


def _forward(
    rows: Array, weights: Array, sizes: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
  return _in_blocks(rows, weights, sizes), (rows, weights, sizes)


def _backward(
    saved: tuple[Array, Array, Array], cotangent: Array
) -> tuple[Array, Array, None]:
  rows, weights, sizes = saved
  blocks = _Blocks.of(sizes, rows.shape[0])
  given = blocks.cut(cotangent)
  to_rows = blocks.joined(_multiply('so,io->si', blocks, given, weights))
  to_weights = _add_up(blocks, blocks.cut(rows), given, weights.shape[0])
  return to_rows, to_weights.astype(weights.dtype), None


_in_blocks.defvjp(_forward, _backward)


# Programs of their own, so that `planning.flops` finds them by their names.
@functools.partial(jax.jit, static_argnums=0)
def _multiply(
    form: str,
    blocks: _Blocks,
    cut: Float[Array, 'B S I'],
    weights: Float[Array, 'E I O'],
) -> Float[Array, 'B S O']:
  """Every block times the matrix of its group."""
  width = weights.shape[2 if form.endswith('o') else 1]

  def put(index: Array, found: Array) -> Array:
    own = products.einsum(form, cut[index], weights[blocks.group[index]])
    return found.at[index].set(own)

  empty = jnp.zeros((*cut.shape[:2], width), cut.dtype)
  return jax.lax.fori_loop(0, blocks.used, put, empty)


@functools.partial(jax.jit, static_argnums=3)
def _add_up(
    blocks: _Blocks,
    cut: Float[Array, 'B S I'],
    given: Float[Array, 'B S O'],
    num_groups: int,
) -> Float[Array, 'E I O']:
  """Sums of the rows' outer products by group, float32."""

  def add(index: Array, sums: Array) -> Array:
    own = products.einsum('si,so->io', cut[index], given[index], jnp.float32)
    return sums.at[blocks.group[index]].add(own)

  zeros = jnp.zeros((num_groups, cut.shape[2], given.shape[2]), jnp.float32)
  return jax.lax.fori_loop(0, blocks.used, add, zeros)
