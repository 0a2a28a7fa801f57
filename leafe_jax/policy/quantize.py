"""Frozen weights in 8 or 4 bits (arXiv 2305.14314), as arrays of qwix.

qwix's own way in wraps modules; ours are functions of arrays, which its
`quantize` and `dequantize` take as they are. It is an optional package, only
imported when `policy.quantize` asks for it.

    int8  symmetric, one scale per output channel
    nf4   4-bit normal floats, one scale per 64 inputs of an output channel

A weight is spelt out where it is used, in the type of the product; its
gradient does not exist.
"""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from leafe_jax.policy import sharding

_TILES = {'int8': None, 'nf4': 64}  # inputs that share a scale; None: all


def _qwix() -> Any:
  try:
    return importlib.import_module('qwix')
  except ModuleNotFoundError as error:
    raise ValueError(
        'policy.quantize needs the package qwix: pip install qwix==0.1.8'
    ) from error


def check(form: str) -> None:
  """ValueError for an unknown form, or without the package that it needs."""
  if form == 'none':
    return
  if form not in _TILES:
    raise ValueError(f'policy.quantize is {form!r}; choose from none, int8, nf4')
  _qwix()


def is_quantized(weight: Any) -> bool:
  return not isinstance(weight, (jax.Array, np.ndarray))


def dense(weight: Any, dtype: Any) -> jax.Array:
  """A weight, quantised or not, as a plain array of a type."""
  if is_quantized(weight):
    weight = _qwix().dequantize(weight)
  return jax.numpy.asarray(weight, dtype)


def quantize(
    weight: jax.Array,
    form: str,
    axes: sharding.LogicalAxes,
    inputs: tuple[int, ...],
    mesh: Mesh,
) -> Any:
  """A weight in fewer bits, sharded as the weight is.

  Args:
    weight: any float type; its scales are float32.
    form: 'int8' or 'nf4'.
    axes: the weight's logical axes.
    inputs: the dimensions that its product contracts; the last one shares
      scales, all others have their own.
    mesh: that the weight lives on.

  Returns:
    A `qwix.QArray`, a pytree of arrays with as many dimensions as the weight.
  """
  convert = functools.partial(_convert, form=form, inputs=inputs)
  target = jax.tree.map(
      lambda part: part.sharding, abstract(weight, form, axes, inputs, mesh)
  )
  return jax.jit(convert, out_shardings=target)(weight)


def abstract(
    weight: Any, form: str, axes: sharding.LogicalAxes, inputs: tuple[int, ...],
    mesh: Mesh | AbstractMesh,
) -> Any:
  """Shapes, types and shardings of what `quantize` returns, nothing allocated."""
  def place(part: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    spec = sharding.partition_spec(axes, part.shape, mesh)
    return jax.ShapeDtypeStruct(
        part.shape, part.dtype, sharding=NamedSharding(mesh, spec)
    )

  convert = functools.partial(_convert, form=form, inputs=inputs)
  return jax.tree.map(place, jax.eval_shape(convert, weight))


def _convert(weight: jax.Array, form: str, inputs: tuple[int, ...]) -> Any:
  last, tile = inputs[-1], _TILES[form]
  others = tuple(i for i in range(weight.ndim) if i != last)
  tiles = {} if tile is None else {last: math.gcd(tile, weight.shape[last])}
  return _qwix().quantize(
      weight.astype('float32'), form, channelwise_axes=others, tiled_axes=tiles
  )
