"""Comparing words needs a package that most environments do without."""

import subprocess
import sys

import pytest

import envs
from leafe_jax.endings import RunStopped
from leafe_jax.methods.words import word_vectors


def test_a_missing_package_is_named_when_a_memory_is_made(monkeypatch):
  monkeypatch.delitem(sys.modules, 'envs.vectors', raising=False)
  monkeypatch.delitem(sys.modules, 'envs.bm25', raising=False)
  monkeypatch.delattr(envs, 'bm25', raising=False)
  monkeypatch.setitem(sys.modules, 'nltk', None)
  monkeypatch.setitem(sys.modules, 'nltk.stem', None)
  with pytest.raises(RunStopped, match='pip install nltk$'):
    word_vectors()


def test_methods_do_not_bring_that_package_along():
  done = subprocess.run([
      sys.executable, '-c',
      'import sys; sys.modules["nltk"] = None; import leafe_jax.methods.catalogue',
  ], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
