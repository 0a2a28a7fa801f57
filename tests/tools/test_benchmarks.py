"""The benchmark programs run, and say what they should about baselines."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

from tools.benchmarks import bounds, figures, peers, workloads
from tools.benchmarks.presets import PRESETS

ROOT = pathlib.Path(__file__).parents[2]
RESULT = {'ratios': {'a vs b': {'min': 1.0, 'median': 2.0, 'max': 3.0}}}


def run(program: str, *arguments: str) -> str:
  """What a program prints; in a process of its own, as it pins its cores."""
  done = subprocess.run(
      [sys.executable, '-m', f'tools.{program}', '--preset=micro', *arguments],
      cwd=ROOT, capture_output=True, text=True, check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_the_sampler_is_measured_against_itself(tmp_path):
  path = tmp_path / 'sampler.json'
  printed = run(
      'bench_sampler', '--workloads=tree', '--repeats=1', '--tasks=1',
      '--attempts=2', '--turns=2', '--bounds=', '--history=40',
      f'--json={path}',
  )
  result = json.loads(path.read_text())['micro']
  assert set(result['ratios']) == {'tree vs no_reuse'}
  assert result['rollback']['times_cheaper'] > 1
  assert 'tunix skipped, no --tunix_python' in printed


def test_an_update_is_measured(tmp_path):
  path = tmp_path / 'train.json'
  assert 'tokens/s' in run('bench_train', '--repeats=1', f'--json={path}')
  result = json.loads(path.read_text())['micro']
  assert result['tokens_per_second']['min'] > 0
  assert 0 < result['filled'] <= 1


def test_a_fall_below_the_baseline_is_red():
  worse = {'ratios': {'a vs b': {'min': 1.0, 'median': 1.7, 'max': 2.0}}}
  [line] = figures.ratio_lines(worse, RESULT)
  assert '\033[31m' in line and 'REGRESSION' in line
  [line] = figures.ratio_lines(RESULT, RESULT)
  assert '\033[31m' not in line and 'baseline 2.00x' in line


def test_presets_share_a_file(tmp_path):
  path = str(tmp_path / 'figures.json')
  figures.save(path, '4m', RESULT)
  figures.save(path, '15m', {'ratios': {}})
  assert figures.load(path, '4m') == RESULT
  again = {'ratios': {'tree vs no_reuse': figures.spread([8.0])}}
  figures.save(path, '4m', again)
  assert figures.load(path, '4m')['ratios'] == RESULT['ratios'] | again['ratios']
  with pytest.raises(ValueError, match='7b'):
    figures.load(path, '7b')


def test_a_missing_interpreter_says_what_to_install(tmp_path):
  with pytest.raises(peers.PeerUnavailable, match='pip install google-tunix'):
    peers.Peer('tunix', str(tmp_path / 'python'), tmp_path)


def test_branches_play_what_is_left_of_their_root():
  tree = workloads.tree(2, 4, 5, 6, 3, 64)
  assert len(tree.parents) == 2 * 3
  left = [6 - turn for turn in tree.turns]
  assert [len(episode) for episode in tree.observations] == left
  assert tree.num_sampled == 3 * (2 * 5 + sum(left))
  assert tree.length == 5 * (6 + 3)


def test_presets_have_the_sizes_of_their_names():
  sizes = {'4m': 3.7e6, '15m': 15.3e6, '0.5b': 0.494e9, '7b': 7.6e9}
  for name, size in sizes.items():
    assert bounds.num_params(PRESETS[name]) == pytest.approx(size, rel=0.01)


def test_of_the_last_layer_a_longer_prompt_needs_keys_and_values_alone():
  preset = PRESETS['4m']
  one = dataclasses.replace(
      preset, policy=dataclasses.replace(preset.policy, num_layers=1)
  )
  more = bounds.prefill_flops(one, 65) - bounds.prefill_flops(one, 64)
  keys_and_values = 2 * 256 * 2 * 64
  assert more == pytest.approx(2 * keys_and_values, rel=0.02)  # and norms


def test_training_is_measured_beside_torch(tmp_path):
  pytest.importorskip('torch')
  path = tmp_path / 'train.json'
  printed = run(
      'bench_train', '--against=torch', f'--torch_python={sys.executable}',
      '--repeats=1', f'--json={path}',
  )
  result = json.loads(path.read_text())['micro']
  types = ('float32', 'bfloat16')
  rivals = [f'{who} {name}' for who in ('ours', 'torch') for name in types]
  assert set(result['rates']) == {*rivals, 'torch autocast'}
  assert result['ratios']['training, best vs torch']['median'] > 0
  assert 'torch autocast' in printed
