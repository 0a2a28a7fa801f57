"""This machine: cores, device, and how fast it multiplies and reads."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Dense peaks of data sheets, FLOP/s in bfloat16, by jax's device kind.
_SHEET_PEAKS = {
    'NVIDIA A100': 312e12,
    'NVIDIA H100': 989e12,
    'NVIDIA H200': 989e12,
    'TPU v4': 275e12,
    'TPU v5 lite': 197e12,
    'TPU v5p': 459e12,
    'TPU v6 lite': 918e12,
}
_LIBRARIES = ('jax', 'jaxlib', 'flax', 'numpy')


class Seconds(NamedTuple):
  """Time of one run: on the clock, and on the processor by all threads."""

  wall: float
  cpu: float


def timed(call: Callable[[], Any]) -> tuple[Seconds, Any]:
  """Runs a call and waits for what it returns."""
  wall, cpu = time.perf_counter(), time.process_time()
  result = jax.block_until_ready(call())
  return Seconds(time.perf_counter() - wall, time.process_time() - cpu), result


def best(call: Callable[[], Any], clock: str, repeats: int) -> float:
  """Least seconds of a call on a clock, after a first one to compile."""
  jax.block_until_ready(call())
  return min(getattr(timed(call)[0], clock) for _ in range(repeats))


def pin(cores: Sequence[int]) -> None:
  """Keeps this process and its children on some cores; before jax is used."""
  # Children inherit the mask; thread pools of XLA and torch are sized by it.
  if cores:
    os.sched_setaffinity(0, cores)
  os.environ['OMP_NUM_THREADS'] = str(len(os.sched_getaffinity(0)))


def description() -> dict[str, Any]:
  device = jax.devices()[0]
  return {
      'platform': device.platform,
      'device': device.device_kind,
      'num_devices': jax.device_count(),
      'processor': platform.processor() or platform.machine(),
      'cores': sorted(os.sched_getaffinity(0)),
      'python': platform.python_version(),
      'versions': {name: importlib.metadata.version(name) for name in _LIBRARIES},
  }


def sheet_peak(kind: str) -> float | None:
  """FLOP/s of the data sheet, None for kinds that are not in the table."""
  found = [peak for name, peak in _SHEET_PEAKS.items() if kind.startswith(name)]
  return found[0] if found else None


def matmul_peak(dtype: str, clock: str, repeats: int = 8) -> float:
  """FLOP/s of one large square product with float32 sums, the best of several."""
  size = 1024 if jax.default_backend() == 'cpu' else 8192
  a = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
  product = jax.jit(lambda a, b: jnp.dot(a, b, preferred_element_type=jnp.float32))
  return 2 * size**3 / best(lambda: product(a, a), clock, repeats)


def read_bandwidth(num_bytes: int, dtype: str, clock: str, repeats: int = 8) -> float:
  """Bytes per second at which products with a vector read that many bytes.

  Below the size of the last cache this is the cache's figure: what matters is
  what a policy of that size can reach.
  """
  columns = 1024
  rows = max(1, num_bytes // (columns * jnp.dtype(dtype).itemsize))
  weight, x = jnp.ones((rows, columns), dtype), jnp.ones(columns, dtype)
  product = jax.jit(lambda weight, x: weight @ x)
  seconds = best(lambda: product(weight, x), clock, repeats)
  return weight.nbytes / seconds
