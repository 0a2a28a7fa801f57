"""Rows times the matrix of their group: as the plain loop over groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax.policy import grouped

SIZES = {
    'uneven, one empty': (37, [0, 10, 20, 0, 7]),
    'all in one': (37, [37, 0, 0, 0, 0]),
    'rows of no group': (37, [0, 10, 8, 0, 5]),
    'nothing at all': (3, [0, 0, 0, 0]),
    'one row, last group': (1, [0, 0, 0, 1]),
    'larger than a block': (500, [3, 301, 0, 196]),
    'fewer rows than groups': (6, [0, 1, 0, 0, 2, 0, 0, 0, 3, 0, 0]),
}


def arrays(num_rows, groups, dtype='float32'):
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = (num_rows, 6), (groups, 6, 5), (num_rows, 5)
  return [jax.random.normal(k, s).astype(dtype) for k, s in zip(keys, shapes)]


def looped(rows, weights, sizes):
  """Group by group, in numpy."""
  found = np.zeros((len(rows), weights.shape[2]), np.float32)
  start = 0
  for matrix, size in zip(np.asarray(weights), sizes, strict=True):
    found[start : start + size] = np.asarray(rows)[start : start + size] @ matrix
    start += size
  return found


@pytest.mark.parametrize('name', SIZES)
def test_values_and_gradients_are_those_of_a_loop(name):
  num_rows, sizes = SIZES[name]
  rows, weights, given = arrays(num_rows, len(sizes))
  run = jax.jit(lambda x, w: grouped.product(x, w, jnp.array(sizes)))
  found, pull = jax.vjp(run, rows, weights)
  np.testing.assert_allclose(found, looped(rows, weights, sizes), atol=1e-5)
  to_rows, to_weights = pull(given)
  turned = looped(given, weights.transpose(0, 2, 1), sizes)
  np.testing.assert_allclose(to_rows, turned, atol=1e-5)
  start = 0
  for matrix, size in zip(to_weights, sizes, strict=True):
    own = slice(start, start + size)
    expected = np.asarray(rows)[own].T @ np.asarray(given)[own]
    np.testing.assert_allclose(matrix, expected, atol=1e-4)
    start += size


def test_a_group_without_rows_has_no_gradient_even_of_infinite_rows_of_none():
  rows, weights, given = arrays(8, 3)
  rows = rows.at[5:].set(jnp.inf)  # of no group
  found, pull = jax.vjp(lambda x, w: grouped.product(x, w, jnp.array([2, 0, 3])),
                        rows, weights)
  to_rows, to_weights = pull(given)
  assert np.isfinite(found).all() and np.isfinite(to_rows).all()
  assert not np.asarray(to_weights[1]).any() and np.asarray(to_weights[2]).any()
  assert not np.asarray(to_rows[5:]).any()


def test_halves_are_summed_in_float32():
  rows, weights, _ = arrays(64, 4, 'bfloat16')
  found = grouped.product(rows, weights, jnp.array([10, 20, 30, 4]))
  assert found.dtype == jnp.bfloat16
  exact = looped(rows.astype('float32'), weights.astype('float32'), [10, 20, 30, 4])
  np.testing.assert_allclose(
      np.asarray(found, np.float32), exact, atol=0.02, rtol=0.01)


def test_on_cpu_work_grows_with_rows_and_not_with_groups():
  """jax.lax.ragged_dot would multiply every row with all 16 matrices."""

  def memory(groups):
    shapes = ((512, 64), jnp.float32), ((groups, 64, 32), jnp.float32)
    rows, weights = (jax.ShapeDtypeStruct(*shape) for shape in shapes)
    sizes = jax.ShapeDtypeStruct((groups,), jnp.int32)
    compiled = jax.jit(grouped.product).lower(rows, weights, sizes).compile()
    found = compiled.memory_analysis()
    assert found is not None
    return found.temp_size_in_bytes

  assert memory(16) < 3 * memory(1) < 16 * 512 * 64 * 4
