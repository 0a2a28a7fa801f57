"""What all tests share: CPU only, quick compiles, reproducible examples."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time

import hypothesis
import pytest

# Before jax is imported. Tests run in two processes on two cores, so one thread
# each; their programs run for milliseconds, so little optimisation pays.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault(
    'XLA_FLAGS',
    '--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1 '
    '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true',
)
# Compiling is most of the time; a second run finds its programs here. One
# directory per process: jax does not guard the files against other writers.
_WORKER = os.environ.get('PYTEST_XDIST_WORKER', 'main')
_CACHE = pathlib.Path(__file__).parent.parent / '.pytest_cache' / 'compiled' / _WORKER
_WRITTEN_S = 10  # after which nobody writes a file of a program any more
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(_CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')

hypothesis.settings.register_profile(
    'tests', deadline=None, derandomize=True, max_examples=30, database=None
)
hypothesis.settings.load_profile('tests')


@pytest.fixture(scope='module', autouse=True)
def _programs_of_the_other_worker():
  """Links what another process has compiled meanwhile."""
  own = {entry.name for entry in os.scandir(_CACHE)} if _CACHE.exists() else set()
  _CACHE.mkdir(parents=True, exist_ok=True)
  written = time.time() - _WRITTEN_S
  for other in _CACHE.parent.iterdir():
    for entry in os.scandir(other):
      if entry.name not in own and entry.stat().st_mtime < written:
        with contextlib.suppress(FileExistsError):  # a process of this one's was first
          os.link(entry.path, _CACHE / entry.name)
        own.add(entry.name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Leaves out what is marked as slow, unless LEAFE_SLOW is set."""
  if os.environ.get('LEAFE_SLOW'):
    return
  for item in items:
    if mark := item.get_closest_marker('slow'):
      item.add_marker(pytest.mark.skip(reason=f'{mark.args[0]}: LEAFE_SLOW=1 runs it'))
