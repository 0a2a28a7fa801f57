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

import importlib
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

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


def dense(weight: Any, dtype: Any) -> jax.Array:
  """A weight, quantised or not, as a plain array of a type."""
  if not isinstance(weight, (jax.Array, np.ndarray)):
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
  last, size = inputs[-1], weight.shape[inputs[-1]]
  tile = _TILES[form]
  others = tuple(i for i in range(weight.ndim) if i != last)
  tiles = {} if tile is None else {last: math.gcd(tile, size)}

  def convert(weight: jax.Array) -> Any:
    wide = weight.astype('float32')
    return _qwix().quantize(wide, form, channelwise_axes=others, tiled_axes=tiles)

  def place(part: jax.ShapeDtypeStruct) -> NamedSharding:
    return NamedSharding(mesh, sharding.partition_spec(axes, part.shape, mesh))

  target = jax.tree.map(place, jax.eval_shape(convert, weight))
  return jax.jit(convert, out_shardings=target)(weight)
