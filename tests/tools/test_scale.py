"""The host side without weights: the same bits every time, parts that add up."""

from __future__ import annotations

import os
import subprocess
import sys
import types

from leafe_jax.methods.collect import load_trees
from tools import scale

FLAGS = types.SimpleNamespace(
    tasks=6, wave_tasks=3, attempts=4, rows=8, dispatch_rows=4, horizon=5, response=12,
    max_length=512,
)


def test_a_run_without_weights_is_measured_and_is_the_same_again(tmp_path):
  config = scale.make_config(FLAGS)
  runs = []
  for name in ('one', 'two'):
    root = tmp_path / name
    root.mkdir()
    lines = scale.measure(config, root)
    runs.append(load_trees(root))
  assert runs[0] == runs[1]
  assert lines[0].startswith('6 tasks, 24 episodes, ')
  names = [line.split('  ')[0] for line in lines[1:]]
  assert {'explore', 'resume: read the waves', 'examples', 'files'} <= set(names)
  nodes = [node for tree in runs[0] for node in tree.nodes]
  assert any(node.parent is not None for node in nodes)  # reflections are read
  assert {node.ended_by for node in nodes} == {'terminated', 'horizon'}
  assert len({len(turn.response_ids) for node in nodes for turn in node.turns}) > 3


def test_two_processes_grow_the_trees_of_one(tmp_path):
  sizes = [f'--{name}={value}' for name, value in vars(FLAGS).items()]
  for name, count in (('one', 1), ('two', 2)):
    subprocess.run(
        [sys.executable, '-m', 'tools.scale', *sizes, f'--processes={count}',
         f'--out={tmp_path / name}'],
        check=True, timeout=300,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    )
  assert load_trees(tmp_path / 'one') == load_trees(tmp_path / 'two')
  assert (tmp_path / 'two' / 'wave_0001.host1.jsonl').exists()
