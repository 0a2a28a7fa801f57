"""The environment contract on Sokoban, generated and Boxoban's."""

from __future__ import annotations

import functools
import os
import pathlib

import pytest

from envs import registry
from envs.contract import EnvironmentContract
from envs.sokoban import engine, solver

_ROOT = pathlib.Path(__file__).parents[2]
DATA_DIR = pathlib.Path(
    os.environ.get('LEAFE_DATA_DIR', _ROOT.parent / 'shared' / 'data')
) / 'boxoban'  # fmt: skip

needs_data = pytest.mark.skipif(
    not DATA_DIR.exists(),
    reason='needs Boxoban levels; set LEAFE_DATA_DIR to the parent of boxoban/',
)


def solution(task):
  found = solver.solve(engine.parse(task.payload['level'].split('\n')))
  assert found is not None
  return found


class TestGenerated(EnvironmentContract):

  def world(self):
    return registry.make(
        'sokoban', train_levels=20, validation_levels=5, test_levels=5
    )

  def actions(self, task):
    return solution(task)


class TestTwoBoxesWithALimitAndFeedback(EnvironmentContract):

  def world(self):
    return registry.make(
        'sokoban', height=7, width=8, boxes=2, view='text', max_steps=4,
        deadlock_feedback=True, max_moves=30, train_levels=10,
        validation_levels=3, test_levels=3,
    )  # fmt: skip

  def actions(self, task):
    return ('up', 'left', 'right', 'down')


@functools.cache
def _boxoban(difficulty):
  return registry.make(
      'sokoban', levels='boxoban', data_dir=str(DATA_DIR), difficulty=difficulty,
      train_levels=50, validation_levels=10, test_levels=10,
  )  # fmt: skip


@needs_data
class TestUnfilteredBoxoban(EnvironmentContract):

  def world(self):
    return _boxoban('unfiltered')

  def actions(self, task):
    return solution(task)


@needs_data
class TestMediumBoxobanInWords(EnvironmentContract):

  def world(self):
    return registry.make(
        'sokoban', levels='boxoban', data_dir=str(DATA_DIR), difficulty='medium',
        view='compact', train_levels=10, validation_levels=3, test_levels=3,
    )  # fmt: skip

  def actions(self, task):
    return solution(task)
