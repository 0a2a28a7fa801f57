"""The benchmark of environments: rows, ratios, baselines."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from envs import registry
from tools import bench_cases, bench_envs, bench_workers

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = {'max_steps': -1, 'train_levels': 2, 'validation_levels': 0, 'test_levels': 0}
CASE = bench_cases.Case('sokoban', SMALL)


class Countdown:
  """A package's own interface that does nothing, but counts."""

  def __init__(self):
    self.steps = 0

  def reset(self):
    pass

  def step(self, action):
    self.steps += 1
    return False


def test_every_environment_of_the_registry_has_a_row_or_is_named_by_its_user():
  rows = {case.env for case in bench_cases.CASES.values()}
  assert rows.isdisjoint(bench_cases.NAMED_BY_USERS)
  assert set(registry.names()) <= rows.union(bench_cases.NAMED_BY_USERS)


def test_a_walk_has_twenty_actions_and_does_not_end():
  world = registry.make('sokoban', **SMALL)
  session, task = world.session(), world.tasks('train')[0]
  walk = bench_cases.find_walk(CASE, session, task)
  assert len(walk) == bench_cases.WALK
  session.reset(task)
  assert not any(session.step(action).terminated for action in walk)


def test_a_walk_that_must_end_is_refused():
  world = registry.make('sokoban', **{**SMALL, 'max_steps': 3})
  with pytest.raises(ValueError, match='sokoban: no walk of 20'):
    bench_cases.find_walk(CASE, world.session(), world.tasks('train')[0])


def test_rows_are_measured_side_by_side_and_what_is_missing_is_said(monkeypatch):
  reference = Countdown()
  cases = {
      'small': bench_cases.Case('sokoban', SMALL, reference=lambda: reference),
      'gone': bench_cases.Case('atlantis'),
      'bare': bench_cases.Case('sokoban', needs=('no_such_module',)),
      'bad': bench_cases.Case('sokoban', {'view': 'video'}),
  }
  monkeypatch.setattr(bench_envs, 'CASES', cases)
  rows, skipped = bench_envs.measure(tuple(cases), 2, 0.01)
  assert set(skipped) == {'gone', 'bare', 'bad'}
  assert skipped['bare'] == 'not installed: no_such_module'
  assert 'not registered' in skipped['gone'] and 'video' in skipped['bad']
  figures = rows['small'].figures()
  assert reference.steps >= 40
  for name in ('steps/s', 'own steps/s', 'restore us', 'replay ms', *bench_envs.RATIOS):
    low, middle, high = figures[name]
    assert 0 < low <= middle <= high
  assert figures['snapshot bytes'] > 0


def test_only_ratios_that_fell_by_more_than_a_tenth_are_regressions():
  before = {'a': {'gain': [9, 10, 11], 'vs own': [1, 2, 3], 'steps/s': [9, 9, 9]}}
  after = {
      'a': {'gain': [7, 8, 20], 'vs own': [1, 1.9, 3], 'steps/s': [1, 1, 1]},
      'new': {'gain': [1, 1, 1]},
  }
  fallen = bench_envs.regressions(after, before)
  assert fallen == {('a', 'gain'): pytest.approx(-0.2)}


def test_the_program_writes_figures_and_compares_them(tmp_path):
  path = tmp_path / 'figures.json'
  command = [
      sys.executable, '-m', 'tools.bench_envs', '--only=codecontests', '--repeats=2',
      '--seconds=0.05',
  ]
  subprocess.run([*command, f'--json={path}'], cwd=ROOT, check=True)
  figures = json.loads(path.read_text())
  row = figures['rows']['codecontests embedded']
  row['gain'] = [1e9, 1e9, 1e9]
  path.write_text(json.dumps(figures))
  ran = subprocess.run(
      [*command, f'--baseline={path}'], cwd=ROOT, check=True, capture_output=True,
      text=True,
  )
  assert '-100%' in ran.stdout
  assert 'not compared, no interface of its own' in ran.stdout


def test_steps_are_counted_in_process_and_in_workers():
  found = bench_workers.measure({'small': CASE}, (0, 1), 2, 0.01)
  assert list(found['small']) == ['0 workers', '1 workers']
  assert all(len(rates) == 2 and min(rates) > 0 for rates in found['small'].values())


def test_the_baseline_in_the_repository_can_be_compared_with():
  path = ROOT / 'tools' / 'baselines' / 'envs.json'
  rows = json.loads(path.read_text())['rows']
  assert {'webshop compact', 'sokoban 6x6, 1 box'} <= set(rows)
  assert not bench_envs.regressions(rows, rows)
