"""Which compiler belongs to this jax; nothing is compiled, so libtpu is not needed."""

from __future__ import annotations

import importlib.metadata

from packaging.requirements import Requirement

from tools import compile_for_tpu


def test_a_compiler_of_another_release_than_jax_asks_for_is_told(caplog):
  compile_for_tpu._warn_of_release('99.1')
  assert 'libtpu 99.1 beside jax' in caplog.text
  assert 'asks for libtpu==' in caplog.text


def test_the_release_that_jax_asks_for_is_not_worth_a_word(caplog):
  required = map(Requirement, importlib.metadata.requires('jax') or [])
  asked = next(wanted for wanted in required if wanted.name == 'libtpu')
  compile_for_tpu._warn_of_release(str(asked.specifier).strip('=').replace('*', '1'))
  assert not caplog.text
