"""A real run, disturbed at random, comes out with the bits of a quiet one.

`make soak` draws every kind of fault. Here are the cheap ones, a start or two each:
those without a world of their own, which an undisturbed run is played in first,
without a second process and without a mount. Of signals, which all are met at the same
places, there are three.
"""

from __future__ import annotations

import pytest

from tools.soak import faults, judge
from tools.soak.__main__ import Soak

PATIENCE_S = 900  # of a start, on a busy machine
KINDS = (
    'kill -9', 'SIGTERM', 'two signals', 'files too large', 'flipped bit',
    'truncated file', 'deleted file', 'swapped file',
)  # fmt: skip
SEED = 1


@pytest.fixture(name='soak', scope='module')
def _soak(tmp_path_factory) -> Soak:
  kinds = [fault for fault in faults.FAULTS if fault.name in KINDS]
  place = tmp_path_factory.mktemp('soak')
  return Soak(['--config=tools/soak/small.py'], place, SEED, PATIENCE_S, kinds)


@pytest.mark.parametrize('number', range(len(KINDS)))
def test_a_disturbed_run_has_the_bits_of_an_undisturbed_one(soak, number):
  entry = soak.draw(number)
  assert entry.outcome in (judge.SURVIVED, judge.REGENERATED, judge.REFUSED), entry
  assert soak.next_number() == number + 1
