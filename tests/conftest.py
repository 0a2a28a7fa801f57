"""What all tests share: CPU only, quick compiles, reproducible examples."""

from __future__ import annotations

import os
import pathlib

import hypothesis
import pytest

# Before jax is imported. Tests run in two processes on two cores, so one thread
# each; their programs run for milliseconds, so little optimisation pays. XLA reads
# flags up to the first word without dashes, and says nothing of those behind it.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault(
    'XLA_FLAGS',
    '--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0 '
    '--xla_llvm_disable_expensive_passes=true',
)
# Compiling is most of the time; a second run finds its programs here. One
# directory per process: jax does not guard the files against other writers.
_WORKER = os.environ.get('PYTEST_XDIST_WORKER', 'main')
_CACHE = pathlib.Path(__file__).parent.parent / '.pytest_cache' / 'compiled' / _WORKER
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(_CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')

hypothesis.settings.register_profile(
    'tests', deadline=None, derandomize=True, max_examples=30, database=None
)
hypothesis.settings.load_profile('tests')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Leaves out what is marked as slow, unless LEAFE_SLOW is set."""
  if os.environ.get('LEAFE_SLOW'):
    return
  for item in items:
    if mark := item.get_closest_marker('slow'):
      item.add_marker(pytest.mark.skip(reason=f'{mark.args[0]}: LEAFE_SLOW=1 runs it'))
