"""The whole debug run as a user starts it: outcome, resume, kill at any point."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from leafe_jax.experience import dataset
from leafe_jax.learner import checkpoints
from leafe_jax.tree import Tree

ROOT = pathlib.Path(__file__).resolve().parents[1]
ARMS = ['base', 'rft', 'leafe_reh', 'leafe']
# A file whose appearance says 'now in the middle of this phase'.
KILL_AT = [
    'warm_start/checkpoints/seals/*.json',
    'explore/wave_0000.jsonl',
    'sample/wave_0000.jsonl',
    'distill/leafe/checkpoints/seals/*.json',
    'evaluate/leafe_reh/wave_0000.jsonl',
]


def _command(workdir, *flags):
  return [
      sys.executable, '-m', 'leafe_jax.main', '--config=configs/webshop.py:debug',
      f'--workdir={workdir}', *flags,
  ]


def _start(workdir, *flags):
  return subprocess.Popen(
      _command(workdir, *flags), cwd=ROOT, stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, text=True, env=os.environ.copy(),
  )


def _finish(process):
  output, _ = process.communicate(timeout=600)
  assert process.returncode == 0, output[-4000:]
  return output


def _kill_when(process, workdir, pattern):
  """SIGKILL as soon as a file matches; whether it was still running then."""
  deadline = time.monotonic() + 600
  while process.poll() is None and time.monotonic() < deadline:
    if any(workdir.glob(pattern)):
      process.send_signal(signal.SIGKILL)
      process.communicate()
      return process.returncode == -signal.SIGKILL
    time.sleep(0.005)
  return False


@pytest.fixture(name='finished', scope='module')
def _finished(tmp_path_factory):
  """(directory, output) of an undisturbed run."""
  workdir = tmp_path_factory.mktemp('runs') / 'straight'
  return workdir, _finish(_start(workdir))


def _results(workdir):
  results = json.loads((workdir / 'results.json').read_text())
  del results['wall_s'], results['speed']
  return results


def _weights(workdir, phase):
  return checkpoints.load_params(workdir / phase / 'params')


def test_a_run_ends_with_a_table_and_the_path_of_the_report(finished):
  workdir, output = finished
  assert 'Pass@k' in output
  assert str(workdir / 'report' / 'index.html') in output
  assert (workdir / 'report' / 'index.html').stat().st_size > 10_000
  assert (workdir / 'report' / 'passk.png').read_bytes()[:4] == b'\x89PNG'
  assert list((workdir / 'tensorboard').rglob('events.*'))


def test_results_hold_every_arm_and_pair(finished):
  workdir, _ = finished
  results = json.loads((workdir / 'results.json').read_text())
  assert list(results['arms']) == ARMS
  assert 'leafe - base' in results['paired']
  assert set(results['arms']['leafe']['pass_at_k']) == {'1', '2', '4', '8'}
  assert results['budget']['leafe']['env_steps'] > 0
  assert results['wall_s']['warm_start'] > 0
  assert results['speed']['explore']['seconds']['decode'] > 0
  assert results['speed']['evaluate/leafe']['tokens']['reused'] > 0
  assert results['stage1']['counts']['tasks'] == 8


def test_both_sources_spend_about_the_same_environment_steps(finished):
  workdir, _ = finished
  for tree in _trees(workdir, 'sample'):
    budget = {t.task_id: t.budget['env_steps'] for t in _trees(workdir, 'explore')}
    longest = max(len(node.turns) for node in tree.nodes)
    assert 0 <= tree.budget['env_steps'] - budget[tree.task_id] < longest


def test_training_data_is_free_of_hints(finished):
  workdir, _ = finished
  hints = {
      tuple(turn.hint_ids)
      for tree in _trees(workdir, 'explore')
      for node in tree.nodes
      for turn in node.turns
      if turn.hint_ids
  }
  assert hints
  first = {hint[0] for hint in hints}
  for example in dataset.read(workdir / 'distill' / 'leafe' / 'data'):
    assert not first & set(example.ids.tolist())


def test_the_same_command_again_does_nothing_again(finished):
  workdir, _ = finished
  before = (workdir / 'results.json').stat().st_mtime_ns
  _finish(_start(workdir))
  assert (workdir / 'results.json').stat().st_mtime_ns == before


def test_another_config_is_refused_with_the_difference(finished):
  workdir, _ = finished
  process = _start(workdir, '--config.distill.beta=7.5')
  output, _ = process.communicate(timeout=120)
  assert process.returncode != 0
  assert 'distill.beta' in output and '7.5' in output


def test_a_fork_keeps_what_the_change_leaves_as_it_is(finished, tmp_path):
  workdir, _ = finished
  fork = tmp_path / 'fork'
  _finish(_start(fork, '--config.evaluate.num_samples=4', f'--fork_from={workdir}'))
  phase = 'distill/leafe'
  assert _same_weights(_weights(fork, phase), _weights(workdir, phase))
  assert '4' in _results(fork)['arms']['leafe']['pass_at_k']
  assert '8' not in _results(fork)['arms']['leafe']['pass_at_k']


def test_a_run_killed_in_every_phase_ends_with_the_same_bits(finished, tmp_path):
  workdir, _ = finished
  killed = tmp_path / 'killed'
  hits = [_kill_when(_start(killed), killed, pattern) for pattern in KILL_AT]
  assert sum(hits) >= len(KILL_AT) - 1  # one may be over before the signal
  _finish(_start(killed))
  assert _results(killed) == _results(workdir)
  for phase in ('warm_start', 'distill/rft', 'distill/leafe_reh', 'distill/leafe'):
    assert _same_weights(_weights(killed, phase), _weights(workdir, phase)), phase


def test_damage_is_made_good_with_the_same_bits(finished, tmp_path):
  workdir, _ = finished
  damaged = tmp_path / 'damaged'
  shutil.copytree(workdir, damaged)
  shard = next((damaged / 'warm_start' / 'data').glob('*.array_record-*'))
  for path, old, new in (
      (damaged / 'explore' / 'wave_0001.jsonl', b'search', b'serach'),
      (damaged / 'evaluate' / 'rft' / 'wave_0000.jsonl', b'"successes": [', b'['),
      (damaged / 'evaluate' / 'leafe' / 'DONE.json', b'wall_s": ', b'wall_s": 9'),
      (damaged / 'distill' / 'leafe' / 'params' / 'seal.json', b'files', b'fi1es'),
      (damaged / 'tokenizer' / 'tokenizer.json', b'"search": ', b'"searhc": '),
      (shard, shard.read_bytes()[5000:5040], bytes(40)),
  ):
    content = path.read_bytes()
    assert old in content, path
    path.write_bytes(content.replace(old, new, 1))
  (damaged / 'sample' / 'wave_0000.jsonl').unlink()
  (damaged / 'results.json').unlink()
  output = _finish(_start(damaged))
  for name in ('explore/wave_0001.jsonl', 'sample/wave_0000.jsonl', shard.name):
    assert re.search(rf'{re.escape(name)} (differs|is missing).*made again', output)
  assert _results(damaged) == _results(workdir)
  for name in ('explore/wave_0001.jsonl', 'tokenizer/tokenizer.json'):
    assert (damaged / name).read_bytes() == (workdir / name).read_bytes()
  for phase in ('warm_start', 'distill/leafe'):
    assert _same_weights(_weights(damaged, phase), _weights(workdir, phase))


def _same_weights(left, right):
  return left.keys() == right.keys() and all(
      np.array_equal(np.asarray(left[name]), np.asarray(right[name])) for name in left
  )


def _trees(workdir, phase):
  return [
      Tree.from_json(line)
      for path in sorted((workdir / phase).glob('wave_*.jsonl'))
      for line in path.read_text().splitlines()
  ]
