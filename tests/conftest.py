"""What all tests share: CPU only, quick compiles, reproducible examples."""

from __future__ import annotations

import os
import pathlib

import hypothesis
import pytest

# Before jax is imported. Tests run in two processes on two cores, so one thread
# each; their programs run for milliseconds, so little optimisation pays.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault(
    'XLA_FLAGS',
    '--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1 '
    '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true '
    '--xla_cpu_use_fusion_emitters=false',
)
# Compiling is most of the time; test processes find each other's programs here,
# and a second run finds those of the first.
_CACHE = pathlib.Path(__file__).parent.parent / '.pytest_cache' / 'compiled'
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(_CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')

hypothesis.settings.register_profile(
    'tests', deadline=None, derandomize=True, max_examples=30, database=None
)
hypothesis.settings.load_profile('tests')


@pytest.fixture(autouse=True, scope='session')
def _whole_files_in_the_cache():
  """jax writes a compiled program in place; another process would read half of it."""
  from jax._src import lru_cache  # jax has no public place for this.

  def put(cache: lru_cache.LRUCache, key: str, value: bytes) -> None:
    path = pathlib.Path(os.fspath(cache.path)) / f'{key}-cache'
    part = path.with_name(f'{path.name}.{os.getpid()}')
    part.write_bytes(value)
    part.replace(path)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(lru_cache.LRUCache, 'put', put)
    yield
