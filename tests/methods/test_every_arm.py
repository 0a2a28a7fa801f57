"""Every arm there is, in one debug run as a user starts it."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import webshop
from leafe_jax import settings
from leafe_jax.experience import dataset
from leafe_jax.learner import checkpoints
from leafe_jax.methods.catalogue import ARMS
from leafe_jax.policy import model

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAYERS = 1  # most of the time is spent on compiling


@pytest.fixture(name='finished', scope='module')
def _finished(tmp_path_factory):
  """The directory of a run."""
  workdir = tmp_path_factory.mktemp('runs') / 'study'
  command = [
      sys.executable, '-m', 'leafe_jax.main', '--config=configs/webshop.py:debug',
      f'--config.arms={",".join(ARMS)}', '--config.grpo.match_explore=True',
      '--config.evaluate.num_tasks=2', '--config.evaluate.num_samples=4',
      '--config.distill.steps=6', '--config.distill.batch_rows=4',
      '--config.distill.checkpoint_every=6',
      '--config.grpo.checkpoint_every=9', '--config.ace.num_tasks=4',
      '--config.explore.num_tasks=6',
      f'--config.policy.num_layers={LAYERS}', '--config.policy.max_length=256',
      '--config.sampler.prefill_buckets=(128,)',
      '--config.sampler.length_buckets=(256,)', f'--workdir={workdir}',
  ]
  done = subprocess.run(
      command, cwd=ROOT, env=os.environ.copy(), timeout=900, check=False, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
  )
  assert done.returncode == 0, done.stdout[-4000:]
  return workdir


def test_every_arm_is_trained_evaluated_and_billed(finished):
  results = json.loads((finished / 'results.json').read_text())
  assert list(results['arms']) == list(ARMS)
  assert all(arm['n_samples'] == 4 for arm in results['arms'].values())
  budget = {arm: spent['env_steps'] for arm, spent in results['budget'].items()}
  assert budget['base'] == budget['advice'] == 0
  assert budget['leafe_ee'] == budget['leafe'] + budget['iwm']
  assert budget['leafe_grpo'] > budget['grpo'] > 0


def mean_nll(weights, examples):
  """Nats per trained token, each example in a row of its own."""
  policy = settings.from_config_dict(webshop.get_config('debug')).policy
  policy = dataclasses.replace(policy, num_layers=LAYERS)
  size = (len(examples), max(map(len, examples)))
  tokens, trained, segments = (np.zeros(size, int) for _ in range(3))
  for row, example in enumerate(examples):
    tokens[row, : len(example)] = example.ids
    trained[row, : len(example)] = example.weights
    segments[row, : len(example)] = 1
  positions = np.broadcast_to(np.arange(size[1]), size)
  score = jax.jit(model.token_scores, static_argnums=1)
  scores = score(weights, policy, tokens, positions, segments)
  return -np.sum(trained * scores.logprobs) / trained.sum()


@pytest.mark.parametrize(
    'phase', ['world_model', 'distill/imitation', 'distill/leafe_ee', 'distill/advice']
)
def test_what_an_arm_is_taught_becomes_likelier(finished, phase):
  examples = list(dataset.read(finished / phase / 'data'))[:16]
  before, after = (
      mean_nll(checkpoints.load_params(finished / where / 'params'), examples)
      for where in ('warm_start', phase)
  )
  assert after < before
