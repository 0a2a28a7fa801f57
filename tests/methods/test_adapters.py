"""A run that trains adapters: what its phases start from, keep and play."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import webshop
from leafe_jax import experiment, settings
from leafe_jax.config import Policy
from leafe_jax.endings import RunStopped
from leafe_jax.experience.examples import Example
from leafe_jax.learner import checkpoints
from leafe_jax.methods.run import BASE, Run
from leafe_jax.methods.training import train_on
from leafe_jax.policy import lora, model
from leafe_jax.rundir import RunDirectory
from tests import chat_checkpoint

TINY = Policy(
    num_layers=1, embed_dim=8, num_heads=2, num_kv_heads=1, head_dim=4, mlp_dim=8,
    lora_rank=2, max_length=64,
)  # fmt: skip


@pytest.fixture(name='run')
def _run(tmp_path):
  """A run whose base is there: random weights."""
  config = settings.from_config_dict(webshop.get_config('debug'))
  sampler = dataclasses.replace(config.sampler, num_pages=8, length_buckets=(64,))
  config = dataclasses.replace(config, policy=TINY, sampler=sampler)
  run = Run(config, RunDirectory(tmp_path), 'hash')
  base = model.init_params(TINY, run.shape.vocab_size, jax.random.key(0), run.mesh)
  checkpoints.save_params(run.params_path(BASE), base)
  return run


def _train(run, phase):
  ids = np.arange(1, 9, dtype=np.int32)
  weights = np.array([0, 1, 1, 1, 1, 1, 1, 1], np.float32)
  examples = [Example(ids, weights, 'cf', f't{i}') for i in range(8)]
  config = dataclasses.replace(
      run.config.distill, steps=3, checkpoint_every=3, row_length=16, batch_rows=2
  )
  directory = run.directory.phase(phase).dir
  return train_on(run, phase, directory, run.start(), examples, config, {})


def test_a_phase_trains_and_keeps_adapters_over_the_base(run):
  before = jax.device_get(checkpoints.load_params(run.params_path(BASE)))
  result = _train(run, 'distill/x')
  assert result == {
      'updates': 3, 'examples': 8, 'examples_cut': 0, 'frozen': BASE,
  }
  kept = checkpoints.load_params(run.params_path('distill/x'))
  assert kept.keys() == lora.table(TINY, 9).keys()
  trained = run.trained('distill/x')
  assert all(np.array_equal(kept[name], array) for name, array in trained.items())
  assert any(np.any(array) for name, array in kept.items() if '_lora_b_' in name)
  jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(run.frozen))
  again = run.start('distill/x')  # training can go on from a phase
  assert all(np.array_equal(again[name], array) for name, array in kept.items())


def test_the_base_plays_without_adapters_and_whole_policies_as_they_are(run):
  assert run.trained(BASE) == {}
  assert lora.are_adapters(run.start())
  whole = checkpoints.load_params(run.params_path(BASE), run.abstract_params())
  assert run.frozen_beneath(whole) == {}
  assert run.frozen_beneath({}) is run.frozen_beneath(run.start())
  assert run.base_player().version == 0
  assert run.player(run.start(), 1).version == 1


def test_options_that_do_not_go_together_stop_a_run_before_it_starts(run):
  policy = dataclasses.replace(TINY, lora_targets=('q', 'w'))
  with pytest.raises(ValueError, match='lora_targets is w; choose from q, k, v'):
    experiment.phase_inputs(dataclasses.replace(run.config, policy=policy))


QWEN3_5 = Policy(
    num_layers=2, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=16,
    layer_kinds=('delta', 'full'), delta_key_heads=1, delta_value_heads=2,
    delta_key_dim=4, delta_value_dim=4, qk_norm=True, norm_plus_one=True,
    output_gate=True, rope_share=0.5,
)  # fmt: skip


@pytest.mark.parametrize(
    ('shape', 'targets', 'message'),
    [
        (QWEN3_5, ('q', 'mix', 'out'), ''),
        (chat_checkpoint.POLICY, ('q', 'mix'), 'lora_targets is mix; choose from q, k'),
    ],
)
def test_targets_are_those_of_the_checkpoint_s_layers(
    tmp_path, shape, targets, message
):
  """Which are not known before it is read; what no layer has is refused at once."""
  checkpoint = chat_checkpoint.write(tmp_path / 'model', policy=shape)
  config = settings.from_config_dict(webshop.get_config('debug'))
  options = dict(checkpoint=str(checkpoint), max_length=512, lora_rank=2)
  policy = Policy(**options, lora_targets=targets)
  view = dict(config.env.options, view='text')
  config = dataclasses.replace(
      config, policy=policy, env=dataclasses.replace(config.env, options=view)
  )
  experiment.phase_inputs(config)
  run = Run(config, RunDirectory(tmp_path / 'run'), 'hash')
  if message:
    with pytest.raises(RunStopped, match=message):
      run.check()
  else:
    run.check()
  with pytest.raises(ValueError, match='lora_targets is w; choose from .*mix'):
    experiment.phase_inputs(dataclasses.replace(
        config, policy=dataclasses.replace(policy, lora_targets=('q', 'w'))
    ))
