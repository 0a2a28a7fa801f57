"""The base policy: imported from a checkpoint, or taught by a script."""

from __future__ import annotations

import pathlib
import random

import jax
from absl import logging

from leafe_jax import hosts
from leafe_jax.experience import dataset
from leafe_jax.learner.checkpoints import save_params
from leafe_jax.methods import origin
from leafe_jax.methods.demonstrations import warm_start_examples
from leafe_jax.methods.run import Run
from leafe_jax.methods.training import train_on
from leafe_jax.policy import huggingface
from leafe_jax.policy.model import init_params
from leafe_jax.rundir import RunStopped
from leafe_jax.text.transcript import Transcript


def warm_start(run: Run, directory: pathlib.Path) -> dict:
  """Teaches a fresh policy from scripted data; saves it as the base."""
  config = run.config
  data = directory / 'data'
  transcript = run.transcript
  hosts.first(lambda: _write_examples(run, transcript, data))
  source = dataset.read(data)
  key = jax.random.fold_in(jax.random.key(config.seed), 0)
  params = init_params(run.shape.policy, run.shape.vocab_size, key, run.mesh)
  return train_on(
      run, 'warm start', directory, params, source, config.warm_start, {}
  )


def import_checkpoint(run: Run, directory: pathlib.Path) -> dict:
  """Takes a Hugging Face checkpoint as the base."""
  checkpoint = run.config.policy.checkpoint
  shape, _ = run.shape, run.transcript  # a template that cannot work costs no weights
  with run.naming_the_checkpoint():
    params = huggingface.load_params(checkpoint, shape, run.mesh)
  hosts.first(lambda: origin.keep(checkpoint, directory))
  save_params(directory / 'params', params)
  return {'checkpoint': checkpoint}


def _write_examples(run: Run, transcript: Transcript, data: pathlib.Path) -> None:
  # The position of a checkpoint counts in all of these examples, in this order.
  if not dataset.is_intact(data):
    if data.exists():
      logging.warning('%s is made again, to the same bits', data)
    dataset.write(data, _examples(run, transcript))
  else:  # which no shard tells of
    dataset.describe(data)


def _examples(run: Run, transcript: Transcript) -> list:
  config = run.config
  teacher = run.teacher()
  if teacher is None:
    raise RunStopped(
        f'{config.env.name} has no scripted teacher for a policy that starts '
        'from scratch; give a checkpoint: --config.policy.checkpoint=DIR'
    )
  rng = random.Random(f'{config.seed}/demonstrations')
  return list(
      warm_start_examples(
          run.world, transcript, teacher, run.tasks('train'),
          config.env.horizon, config.explore.reflect_every, config.warm_start, rng,
      )
  )
