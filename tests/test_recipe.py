"""The README's road, as a newcomer walks it: a checkpoint, an environment, commands.

Nothing is edited but paths; the checkpoint is small and random.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from leafe_jax.methods.collect import load_trees
from tests import chat_checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Two turns of which the last counts: an even number of letters wins.
COIN = '''
from envs import api


class Coin(api.TextEnv):
  def reset(self, task, seed=0):
    self.turn = 0
    return api.Step(f'Say a word of an even number of letters, {task.id}.')

  def step(self, action):
    self.turn += 1
    won = len(action) % 2 == 0 and bool(action)
    info = {'success': won, 'score': float(won), 'valid': bool(action)}
    return api.Step('And now?', float(won), self.turn == 2, info=info)

  def snapshot(self):
    return api.Snapshot('coin', self.turn, 8)

  def restore(self, snapshot):
    self.turn = snapshot.state


class CoinWorld(api.World):
  name = 'coin'

  def __init__(self, size=6):
    self.size = size

  def tasks(self, split):
    return [api.Task(f'{split}-{i}', split, f'toss {i}') for i in range(self.size)]

  def session(self):
    return Coin()


def make(size: int = 6):
  return CoinWorld(size)
'''


class Newcomer:
  """A directory with a checkpoint, a module, and runs."""

  def __init__(self, place: pathlib.Path):
    self.place = place
    self.checkpoint = chat_checkpoint.write(
        place / 'model', terse=6.0, policy=chat_checkpoint.MILLION
    )
    (place / 'my_coin.py').write_text(COIN)

  def call(self, module: str, *arguments: str, code: int = 0) -> str:
    """Runs a program as README says; its output."""
    done = subprocess.run(
        [sys.executable, '-m', module, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, 'PYTHONPATH': str(self.place)},
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr

  def run(self, workdir: str, *arguments: str, env: str = 'my_coin:make') -> str:
    return self.call(
        'leafe_jax.main', f'--config=configs/custom.py:{env},debug',
        f'--config.policy.checkpoint={self.checkpoint}',
        f'--workdir={self.place / workdir}', *arguments,
    )


@pytest.fixture(name='newcomer', scope='module')
def _newcomer(tmp_path_factory):
  return Newcomer(tmp_path_factory.mktemp('newcomer'))


@pytest.fixture(name='explored', scope='module')
def _explored(newcomer):
  """A run that was stopped after exploring."""
  text = newcomer.run(
      'run', '--config.env.options.size=4', '--config.arms=base,leafe',
      '--config.experience.reh_fraction=1', '--config.explore.attempts=6',
      '--until=explore',
  )
  assert 'stopped after explore' in text and 'what it will take' in text
  return newcomer.place / 'run'


@pytest.fixture(name='distilled', scope='module')
def _distilled(newcomer, explored):
  """The same run, gone on to its end."""
  newcomer.run(
      'run', '--config.env.options.size=4', '--config.arms=base,leafe',
      '--config.experience.reh_fraction=1', '--config.explore.attempts=6',
  )
  return explored


def test_it_is_tried(newcomer):
  text = newcomer.call(
      'tools.try_checkpoint', f'--checkpoint={newcomer.checkpoint}',
      '--env=my_coin:make', '--episodes=2', '--horizon=2', '--max_tokens=16',
      '--max_length=1024', code=1,
  )
  assert 'turn 1, sent' in text and 'what to change' in text
  weights = int(text.partition(' weights,')[0].splitlines()[-1].replace(',', ''))
  assert 0.95e6 < weights < 1.1e6


def test_it_is_evaluated_without_a_gate(newcomer):
  newcomer.run('evaluated', '--config.arms=base')
  results = json.loads((newcomer.place / 'evaluated/results.json').read_text())
  assert list(results['arms']) == ['base']
  assert not (newcomer.place / 'evaluated/gate').exists()
  assert (newcomer.place / 'evaluated/report/index.html').exists()


def test_trees_are_grown_and_read(explored):
  trees = load_trees(explored / 'explore')
  assert len(trees) == 2
  assert any(node.success for tree in trees for node in tree.nodes)
  assert not (explored / 'distill').exists()


def _served(checkpoint):
  """Logits of transformers, and ours, on one text."""
  pytest.importorskip('torch', reason='the export is served by transformers on torch')
  from tools import check_parity

  return check_parity.compare(str(checkpoint), length=16, gradients=False)


def _same(first, second):
  import safetensors.numpy

  a, b = (safetensors.numpy.load_file(d / 'model.safetensors') for d in (first, second))
  return all(np.array_equal(a[name], b[name]) for name in a)


def test_it_is_distilled_exported_and_served(newcomer, distilled):
  out = newcomer.place / 'out'
  newcomer.call('tools.export_hf', f'--checkpoint={distilled}', f'--out={out}')
  assert _served(out).holds()
  assert not _same(out, newcomer.checkpoint)


@pytest.mark.parametrize('quantize', [
    pytest.param('none', marks=pytest.mark.slow('as nf4')), 'nf4',
])
def test_adapters_are_distilled_exported_and_served(
    newcomer, distilled, quantize
):
  if quantize != 'none' and importlib.util.find_spec('qwix') is None:
    pytest.skip('quantised weights need qwix')
  name = f'lora_{quantize}'
  newcomer.run(
      name, '--config.env.options.size=4', '--config.arms=leafe',
      '--config.experience.reh_fraction=1', '--config.explore.attempts=6',
      '--config.policy.lora_rank=4', f'--config.policy.quantize={quantize}',
      '--until=distill/leafe',
  )
  out = newcomer.place / f'{name}_out'
  newcomer.call(
      'tools.export_hf', f'--checkpoint={newcomer.place / name}', f'--out={out}'
  )
  assert _served(out).holds()


@pytest.mark.parametrize(
    ('library', 'options'),
    [
        (
            'gymnasium',
            [
                '--config.env.options.env_id=FrozenLake-v1',
                '--config.env.options.observe=render',
                '--config.env.options.kwargs.render_mode=ansi',
            ],
        ),
        ('textarena', ['--config.env.options.env_id=GuessTheNumber-v0']),
    ],
)
def test_games_of_libraries_are_explored(newcomer, library, options):
  pytest.importorskip(library, reason=f'its games need {library}')
  newcomer.run(library, *options, '--until=explore', env=library)
  trees = load_trees(newcomer.place / library / 'explore')
  assert all(tree.nodes and tree.nodes[0].turns for tree in trees)
