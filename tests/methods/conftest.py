"""What tests of several methods begin with."""

from __future__ import annotations

import pytest

from tests.methods import taught_bandit


@pytest.fixture(name='base', scope='session')
def _base(tmp_path_factory):
  """The directory of a run whose base follows hints."""
  directory = tmp_path_factory.mktemp('base')
  taught_bandit.make_run(directory)
  return directory
