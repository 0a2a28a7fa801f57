"""Products of arrays, in the form that is fast for their type.

Half precision pays only where the sums of a product are float32: then it runs on
the matrix units of a CPU (AVX512_BF16, AMX), at two to six times the speed of
the plain form. TPUs and GPUs sum like that in any case. The derivatives that
`jnp.einsum` has lose the form, as the cotangents of float32 sums are float32; so
products of halves have rules of their own here. Those of float32 are plain ones.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from leafe_jax.policy import sharding

_HALF = (jnp.bfloat16, jnp.float16)
_TILE = 64  # summed places that are turned around together, see `_turn`


def einsum(
    form: str,
    left: Float[Array, ...],
    right: Float[Array, ...],
    dtype: Any = None,
) -> Float[Array, ...]:
  """`jnp.einsum` of two arrays, sums in float32.

  Args:
    form: 'btd,df->btf', say. Every letter stands in two of the three parts.
    left: its type is that of the product.
    right: any float type, such as that of a stored weight; its gradient comes
      in this type, not rounded to that of the product.
    dtype: of the result; None: as `left`.
  """
  dtype = left.dtype if dtype is None else jnp.dtype(dtype)
  if left.dtype not in _HALF:
    return jnp.einsum(
        form, left, right.astype(left.dtype), preferred_element_type=dtype
    )
  return _of_halves(form, dtype, left, right)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _of_halves(form: str, dtype: Any, left: Array, right: Array) -> Array:
  return _sum_wide(form, left, right.astype(left.dtype)).astype(dtype)


def _forward(
    form: str, dtype: Any, left: Array, right: Array
) -> tuple[Array, tuple[Array, Array]]:
  return _of_halves(form, dtype, left, right), (left, right)


def _backward(
    form: str, dtype: Any, saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
  del dtype
  left, right = saved
  given, out = form.split('->')
  of_left, of_right = given.split(',')
  cotangent = cotangent.astype(left.dtype)
  to_left = _sum_wide(
      f'{out},{of_right}->{of_left}', cotangent, right.astype(left.dtype)
  )
  to_right = _sum_wide(f'{of_left},{out}->{of_right}', left, cotangent)
  return to_left.astype(left.dtype), to_right.astype(right.dtype)


_of_halves.defvjp(_forward, _backward)


def _sum_wide(form: str, left: Array, right: Array) -> Float[Array, ...]:
  """The product of two halves in float32."""
  if sharding.target_platform() == 'cpu' and sharding.is_alone():
    return _on_cpu(_Parts.of(form), left, right)
  return jnp.einsum(form, left, right, preferred_element_type=jnp.float32)


class _Parts(NamedTuple):
  """The letters of a product: of its three arrays, and by what becomes of them."""

  left: str
  right: str
  out: str
  batch: str  # in all three
  rows: str  # left and out
  columns: str  # right and out
  summed: str  # left and right

  @classmethod
  def of(cls, form: str) -> _Parts:
    given, out = form.split('->')
    left, right = given.split(',')

    def only(letters: str, *parts: str) -> str:
      return ''.join(x for x in letters if all(x in part for part in parts))

    batch = only(left, right, out)
    rest = [
        ''.join(x for x in only(*pair) if x not in batch)
        for pair in ((left, out), (right, out), (left, right))
    ]
    return cls(left, right, out, batch, *rest)

  @property
  def turns(self) -> bool:
    """Whether the left side's summed axes must be brought to its end."""
    return not self.left.endswith(self.summed)

  def swapped(self) -> _Parts:
    return _Parts.of(f'{self.right},{self.left}->{self.out}')


def _on_cpu(parts: _Parts, left: Array, right: Array) -> Float[Array, ...]:
  """The form that XLA has for the matrix units.

  The summed axes of the rows' side come last, and nothing stands around the
  product that XLA would merge into it. Where axes must be swapped, it is those
  of the smaller arrays: of one side, or of the other and of the result.
  """
  sizes = dict(zip(parts.left + parts.right, left.shape + right.shape))
  if not parts.out.startswith(parts.batch + parts.rows):
    parts, left, right = parts.swapped(), right, left
  other = parts.swapped()
  result = 2 * math.prod(sizes[letter] for letter in parts.out)  # in halves
  if parts.turns * left.size <= other.turns * right.size + result:
    product = _rows_times_columns(parts, left, right)
  else:
    product = _turn(_rows_times_columns(other, right, left))
  letters = parts.batch + parts.rows + parts.columns
  product = product.reshape([sizes[letter] for letter in letters])
  return product.transpose([letters.index(letter) for letter in parts.out])


def _rows_times_columns(
    parts: _Parts, left: Array, right: Array
) -> Float[Array, 'B R C']:
  """Rows of the left side times columns of the right one."""
  order = (parts.summed, parts.rows) if parts.turns else (parts.rows, parts.summed)
  rows = _group(left, parts.left, parts.batch, *order)
  rows = _turn(rows) if parts.turns else rows
  last = not parts.swapped().turns
  order = (parts.columns, parts.summed) if last else (parts.summed, parts.columns)
  columns = _group(right, parts.right, parts.batch, *order)
  if rows.shape[1] > 1:
    return _matmul(rows, columns, last)
  # For a single row XLA would widen the whole right side.
  return _matmul(jnp.repeat(rows, 2, axis=1), columns, last)[:, :1]


def _group(x: Array, letters: str, *groups: str) -> Float[Array, 'B R S']:
  """One axis for each group of letters."""
  order = ''.join(groups)
  if order != letters:
    x = x.transpose([letters.index(letter) for letter in order])
  sizes = dict(zip(order, x.shape))
  merged = [functools.reduce(lambda n, a: n * sizes[a], group, 1) for group in groups]
  return x.reshape(merged)


def _turn(x: Float[Array, 'B S R']) -> Float[Array, 'B R S']:
  """Swaps the last axes, in tiles.

  A plain transpose would be merged into the product, which then is a slow one;
  and with the axes that were grouped, the copy would be.
  """
  batch, summed, rows = x.shape
  x = jax.lax.optimization_barrier(x)
  tile = next(size for size in (_TILE, 32, 16, 8, 4, 2, 1) if summed % size == 0)
  shape = (summed // tile, tile, rows)
  if batch == 1:
    tiles = x.reshape(shape).transpose(2, 0, 1)
  else:
    tiles = x.reshape(batch, *shape).transpose(0, 3, 1, 2)
  return tiles.reshape(batch, rows, summed)


def _matmul(
    rows: Float[Array, 'B R S'], columns: Float[Array, 'B a b'], last: bool
) -> Float[Array, 'B R C']:
  """`columns` are [B, C, S] if its summed axis is `last`, else [B, S, C]."""
  if rows.shape[0] == 1:
    form = (((1,), (int(last),)), ((), ()))
    rows, columns = rows[0], columns[0]
  else:
    form = (((2,), (1 + last,)), ((0,), (0,)))
  product = jax.lax.dot_general(rows, columns, form, preferred_element_type=jnp.float32)
  return product.reshape(-1, *product.shape[-2:])
