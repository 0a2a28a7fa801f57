"""Matrix-product operations of a traced program, counted from its jaxpr.

Recomputed activations count, loops count as often as they run; elementwise
work, which is a few percent, does not. Causal kernels skip about half of their
grid, and count as half; ragged paged attention meets all places of a row's
pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

_CAUSAL_KERNELS = 0.5
_OF_GROUPS = ('_multiply', '_add_up')  # programs of `policy.grouped`


def count(jaxpr: Any, *, open_loop: int = 1) -> float:
  """Operations of all devices together.

  Args:
    jaxpr: of `jax.stages.Traced`.
    open_loop: how often a loop runs that ends by data.
  """
  inner = getattr(jaxpr, 'jaxpr', jaxpr)
  return sum(_equation(equation, open_loop) for equation in inner.eqns)


def _equation(equation: Any, open_loop: int) -> float:
  name, params = equation.primitive.name, equation.params
  if name == 'dot_general':
    return _product(equation)
  if name == 'ragged_dot_general' or params.get('name') in _OF_GROUPS:
    return _grouped(equation)
  if name == 'while':
    return open_loop * count(params['body_jaxpr'], open_loop=open_loop)
  if name == 'cond':
    branches = [count(branch, open_loop=open_loop) for branch in params['branches']]
    return max(branches)
  if name == 'pallas_call':
    grid = math.prod(size for size in params['grid_mapping'].grid)
    return _CAUSAL_KERNELS * grid * count(params['jaxpr'], open_loop=1)
  if params.get('name') == 'ragged_paged_attention':
    return _paged_attention(equation)
  inner = sum(count(jaxpr, open_loop=open_loop) for jaxpr in _jaxprs(params))
  if name == 'scan':
    return params['length'] * inner
  if name == 'shard_map':  # written for one device
    return params['mesh'].size * inner
  return inner


def _jaxprs(params: dict[str, Any]) -> Iterator[Any]:
  for value in params.values():
    if hasattr(getattr(value, 'jaxpr', value), 'eqns'):
      yield value


def _product(equation: Any) -> float:
  """2 * batch * rows * columns * contracted."""
  left = equation.invars[0].aval.shape
  (contracted, _), _ = equation.params['dimension_numbers']
  out = math.prod(equation.outvars[0].aval.shape)
  return 2.0 * out * math.prod(left[axis] for axis in contracted)


def _grouped(equation: Any) -> float:
  """Every row meets the matrix of its group alone; blocks count as full."""
  rows = next(v.aval.shape for v in equation.invars if len(v.aval.shape) > 1)
  return 2.0 * math.prod(rows) * equation.outvars[0].aval.shape[-1]


def _paged_attention(equation: Any) -> float:
  """Two products of queries [B * T, N, H] with all places of the page table."""
  queries, pool, _, table = (var.aval.shape for var in equation.invars[:4])
  return 4.0 * math.prod(queries) * table[1] * pool[1]
