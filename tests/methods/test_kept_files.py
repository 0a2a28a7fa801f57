"""Files that the phases of a run share or go on from, when somebody changed them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from configs import webshop
from leafe_jax import settings
from leafe_jax.endings import RunStopped
from leafe_jax.experience import dataset
from leafe_jax.experience.examples import Example
from leafe_jax.methods import collect, origin, warm_start
from leafe_jax.methods.run import Run
from leafe_jax.rundir import RunDirectory
from leafe_jax.tree import Tree


def open_run(path, words=('red', 'box', 'blue')):
  """A run of a world of few words."""
  config = settings.from_config_dict(webshop.get_config('debug'))
  run = Run(config, RunDirectory(path), '')
  run.__dict__['world'] = type('World', (), {'vocabulary': lambda self: list(words)})()
  return run


def swap_ids(path):
  content = json.loads(path.read_text())
  vocabulary = content['model']['vocab']
  vocabulary['red'], vocabulary['box'] = vocabulary['box'], vocabulary['red']
  path.write_text(json.dumps(content))


def cut_short(path):
  path.write_text(path.read_text()[:99])


def lose(path):
  path.unlink()


def lose_the_seal(path):
  path.with_name('seal.json').unlink()
  swap_ids(path)


@pytest.mark.parametrize('damage', [swap_ids, cut_short, lose, lose_the_seal])
def test_a_changed_tokenizer_is_made_again(tmp_path, damage, caplog):
  ids = open_run(tmp_path).tokenizer.get_vocab()
  path = tmp_path / 'tokenizer' / 'tokenizer.json'
  before = path.read_bytes()
  damage(path)
  assert open_run(tmp_path).tokenizer.get_vocab() == ids
  assert path.read_bytes() == before
  assert 'tokenizer is not as it was sealed: made again' in caplog.text


def test_an_untouched_tokenizer_is_only_read(tmp_path, caplog):
  assert open_run(tmp_path).tokenizer
  other = open_run(tmp_path, ('of', 'another', 'world'))
  assert 'red' in other.tokenizer.get_vocab()
  assert 'made again' not in caplog.text


def test_a_tokenizer_that_cannot_be_made_again_stops_the_run(tmp_path):
  assert open_run(tmp_path).tokenizer
  swap_ids(tmp_path / 'tokenizer' / 'tokenizer.json')
  with pytest.raises(RunStopped, match='does not give the same tokenizer.*put the'):
    assert open_run(tmp_path, ('of', 'another', 'world')).tokenizer


def make_examples(count=40):
  rng = np.random.default_rng(0)
  weights = np.ones(30, np.float32)
  weights[0] = 0
  return [
      Example(rng.integers(0, 9, 30).astype(np.int32), weights, 'demo', f't{i}', 0, 1)
      for i in range(count)
  ]


@pytest.mark.parametrize('name', ['shard', 'shards.json'])
@pytest.mark.parametrize('damage', ['flip', 'cut', 'lose'])
def test_the_warm_start_goes_on_with_the_examples_it_began_with(
    tmp_path, monkeypatch, name, damage, caplog
):
  monkeypatch.setattr(warm_start, '_examples', lambda *_: make_examples())
  data = tmp_path / 'data'
  warm_start._write_examples(None, None, data)  # pyright: ignore
  [shard] = data.glob('*.array_record-*')
  path = shard if name == 'shard' else data / name
  before = path.read_bytes()
  middle = len(before) // 3
  changed = before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :]
  if damage == 'lose':
    path.unlink()
  else:
    path.write_bytes(changed if damage == 'flip' else before[:middle])
  warm_start._write_examples(None, None, data)  # pyright: ignore
  assert path.read_bytes() == before
  assert 'made again, to the same bits' in caplog.text
  assert len(dataset.read(data)) == 40


@pytest.mark.parametrize('name', ['dataset_info.json', 'features.json'])
@pytest.mark.parametrize('damage', [lose, cut_short])
def test_the_warm_start_makes_what_describes_its_examples_again(
    tmp_path, monkeypatch, name, damage
):
  monkeypatch.setattr(warm_start, '_examples', lambda *_: make_examples())
  data = tmp_path / 'data'
  warm_start._write_examples(None, None, data)  # pyright: ignore
  before = {path: path.read_bytes() for path in data.iterdir()}
  damage(data / name)
  warm_start._write_examples(None, None, data)  # pyright: ignore
  assert {path: path.read_bytes() for path in data.iterdir()} == before


def test_a_checkpoint_that_is_another_one_by_now_is_named(tmp_path):
  place, phase = tmp_path / 'checkpoint', tmp_path / 'warm_start'
  for directory in (place, phase):
    directory.mkdir()
  for name in ('tokenizer.json', 'model.safetensors', 'README.md'):
    (place / name).write_text(name)
  origin.check(str(place), phase, weights=True)  # nothing was noted yet
  origin.keep(str(place), phase)
  (place / 'README.md').write_text('new words')
  origin.keep(str(place), phase)
  (place / 'model.safetensors').write_text('model.safetenzors')
  origin.check(str(place), phase)  # a start reads the weights of the run
  with pytest.raises(RunStopped, match='model.safetensors differs .*put the old one'):
    origin.keep(str(place), phase)
  (place / 'tokenizer.json').unlink()
  with pytest.raises(RunStopped, match='tokenizer.json is missing'):
    origin.check(str(place), phase)
  (phase / 'checkpoint.json').write_text('{}')
  with pytest.raises(RunStopped, match='checkpoint.json is not as it was written'):
    origin.check(str(place), phase)


@pytest.mark.parametrize('content', ['', '{"schema": 1, "task_id": "a"', '[]', 'x'])
def test_a_wave_of_an_unfinished_phase_that_cannot_be_read_is_explored_again(
    tmp_path, content
):
  path = collect.wave_path(tmp_path, 0)
  task = type('Task', (), {'id': 'a'})()
  collect.save_trees(path, [Tree('a', 'do', 'train')])
  assert collect._explored(tmp_path, 0, [task])  # pyright: ignore
  path.write_text(content)
  assert not collect._explored(tmp_path, 0, [task])  # pyright: ignore
  assert not path.exists()
