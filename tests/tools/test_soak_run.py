"""A real run, killed and damaged at random, comes out with the bits of a quiet one."""

from __future__ import annotations

import pytest

from tools.soak import faults, judge
from tools.soak.__main__ import Soak

# Every kind of file, few programs: compiling is most of the time.
SMALL = (
    '--config=configs/webshop.py:debug', '--config.arms=base',
    '--config.policy.num_layers=1', '--config.warm_start.steps=40',
    '--config.warm_start.num_demonstrations=200',
    '--config.warm_start.checkpoint_every=10', '--config.gate.num_tasks=2',
    '--config.evaluate.num_tasks=2', '--config.evaluate.num_samples=2',
    '--config.evaluate.bootstrap=100',
)  # fmt: skip
PATIENCE_S = 900  # of a start, on a busy machine
KINDS = ('kill -9', 'flipped bit', 'SIGTERM')


@pytest.fixture(name='soak', scope='module')
def _soak(tmp_path_factory) -> Soak:
  kinds = [fault for fault in faults.FAULTS if fault.name in KINDS]
  return Soak(SMALL, tmp_path_factory.mktemp('soak'), 1, PATIENCE_S, kinds)


@pytest.mark.parametrize('number', range(len(KINDS)))
def test_a_disturbed_run_has_the_bits_of_an_undisturbed_one(soak, number):
  entry = soak.draw(number)
  assert entry.outcome in (judge.SURVIVED, judge.REGENERATED, judge.REFUSED), entry
