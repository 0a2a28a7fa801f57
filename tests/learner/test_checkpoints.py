from __future__ import annotations

import pathlib
from typing import NamedTuple

import jax
import numpy as np
import pytest

from leafe_jax.learner import checkpoints as ckpt


class State(NamedTuple):
  weights: dict[str, jax.Array]
  step: jax.Array


def make(step: int) -> State:
  weights = {'a': np.arange(600, dtype=np.float32) + step, 'b': np.full((2, 3), step)}
  return State(jax.device_put(weights), jax.device_put(np.int32(step)))


def same(a, b) -> bool:
  return all(jax.tree.leaves(jax.tree.map(
      lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), a, b
  )))


def steps_dir(root: pathlib.Path, step: int) -> pathlib.Path:
  return root / 'steps' / str(step)


@pytest.fixture
def saved(tmp_path) -> pathlib.Path:
  """Checkpoints 1, 2, 3, of which two are kept."""
  checkpoints = ckpt.Checkpoints(tmp_path / 'c')
  for step in (1, 2, 3):
    key = jax.random.fold_in(jax.random.key(0), step)
    checkpoints.save(step, make(step), cursor={'seen': step}, keys={'s': key},
                     metadata={'phase': 'test'})
  checkpoints.close()
  return tmp_path / 'c'


def restore(root: pathlib.Path) -> ckpt.Restored | None:
  checkpoints = ckpt.Checkpoints(root)
  try:
    return checkpoints.restore(make(0))
  finally:
    checkpoints.close()


def test_everything_comes_back(saved):
  found = restore(saved)
  assert found.step == 3 and found.cursor == {'seen': 3}
  assert found.metadata == {'phase': 'test'}
  assert isinstance(found.state, State) and same(found.state, make(3))
  key = jax.random.fold_in(jax.random.key(0), 3)
  assert found.keys['s'].dtype == key.dtype
  assert np.array_equal(jax.random.key_data(found.keys['s']), jax.random.key_data(key))


def test_two_checkpoints_are_kept(saved):
  checkpoints = ckpt.Checkpoints(saved)
  assert checkpoints.steps() == [2, 3]
  assert sorted(p.stem for p in (saved / 'seals').iterdir()) == ['2', '3']
  checkpoints.close()


def test_an_empty_directory_holds_nothing(tmp_path):
  assert restore(tmp_path / 'new') is None


def cut(step: pathlib.Path) -> None:
  largest = max(step.rglob('state/**/*'), key=lambda p: p.stat().st_size * p.is_file())
  largest.write_bytes(largest.read_bytes()[:-20])


def flip(step: pathlib.Path) -> None:
  largest = max(step.rglob('state/**/*'), key=lambda p: p.stat().st_size * p.is_file())
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(bytes(content))


def lose(step: pathlib.Path) -> None:
  (step / 'state' / 'manifest.ocdbt').unlink()


def unseal(step: pathlib.Path) -> None:
  (step.parents[1] / 'seals' / f'{step.name}.json').unlink()


@pytest.mark.parametrize('damage', [cut, flip, lose, unseal])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(
    saved, damage, caplog
):
  damage(steps_dir(saved, 3))
  found = restore(saved)
  assert found.step == 2 and same(found.state, make(2))
  assert 'checkpoint 3' in caplog.text and 'half-written or damaged' in caplog.text
  again = ckpt.Checkpoints(saved)
  again.save(3, make(33))
  again.close()
  assert same(restore(saved).state, make(33))


def test_another_shape_is_refused_not_taken_for_damage(saved):
  checkpoints = ckpt.Checkpoints(saved)
  target = make(0)
  target.weights['a'] = jax.device_put(np.zeros(5, np.float32))
  expected = r'weights/a is \(600,\) in .*\(5,\) is wanted'
  with pytest.raises(ValueError, match=expected):
    checkpoints.restore(target)
  assert checkpoints.steps() == [2, 3]
  checkpoints.close()


def test_the_state_may_be_donated_as_soon_as_save_returns(tmp_path):
  add = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  checkpoints = ckpt.Checkpoints(tmp_path / 'c')
  value = np.arange(500_000, dtype=np.float32)
  state = {'a': jax.device_put(value)}
  checkpoints.save(1, state)
  for _ in range(5):
    state = add(state)
  jax.block_until_ready(state)
  checkpoints.close()
  again = ckpt.Checkpoints(tmp_path / 'c')
  assert np.array_equal(again.restore(state).state['a'], value)
  again.close()


def test_params_come_back_onto_any_target(tmp_path):
  weights = make(4).weights
  ckpt.save_params(tmp_path / 'p', make(3).weights)
  ckpt.save_params(tmp_path / 'p', weights)
  assert same(ckpt.load_params(tmp_path / 'p'), weights)
  assert same(ckpt.load_params(tmp_path / 'p', weights), weights)


def test_unfinished_params_are_refused(tmp_path):
  with pytest.raises(ckpt.DamagedCheckpoint, match='never finished'):
    ckpt.load_params(tmp_path / 'p')
  ckpt.save_params(tmp_path / 'p', make(1).weights)
  (tmp_path / 'p' / 'params' / '_METADATA').unlink()
  with pytest.raises(ckpt.DamagedCheckpoint, match='_METADATA is missing'):
    ckpt.load_params(tmp_path / 'p')


def test_params_of_another_model_are_refused(tmp_path):
  ckpt.save_params(tmp_path / 'p', make(1).weights)
  other = {**make(1).weights, 'c': jax.device_put(np.ones(2, np.float32))}
  with pytest.raises(ValueError, match='c is absent'):
    ckpt.load_params(tmp_path / 'p', other)
