"""The base policy: taught from scratch, or a checkpoint, as it is or taught.

A checkpoint that is taught (`warm_start.steps` above 0) is imported by a phase of its
own. With adapters, what it is taught is adapters over the import, and whatever is
trained later goes on from them. Nothing here depends on the run's seed then, so that
runs of all seeds can share one cold start.
"""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator

import jax
from absl import logging

from leafe_jax import hosts, seals
from leafe_jax.endings import RunStopped
from leafe_jax.experience import conversations, dataset
from leafe_jax.experience.examples import Example
from leafe_jax.learner.checkpoints import save_params
from leafe_jax.methods import origin
from leafe_jax.methods.demonstrations import warm_start_examples
from leafe_jax.methods.run import COLD_SEED, IMPORT, Run, is_cold
from leafe_jax.methods.training import train_on
from leafe_jax.policy import huggingface
from leafe_jax.policy.model import init_params
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.text.conversation import Narrator
from leafe_jax.text.transcript import Transcript

_FILES = 'conversations.json'  # the files of warm_start.data, as they were


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


def cold_start(run: Run, directory: pathlib.Path) -> dict:
  """Teaches the imported checkpoint; saves it, or its adapters, as the base."""
  data = directory / 'data'
  hosts.first(lambda: _note_files(run, directory))
  hosts.first(lambda: _write_examples(run, run.transcript, data))
  return train_on(
      run, 'cold start', directory, run.start(IMPORT), dataset.read(data),
      run.config.warm_start, {}, COLD_SEED,
  )


def _note_files(run: Run, directory: pathlib.Path) -> None:
  """Notes what is read, at first; RunStopped if it has to be read again and differs."""
  path = directory / _FILES
  if not run.config.warm_start.data or dataset.is_intact(directory / 'data'):
    return
  found = {
      str(file): seals.digest(file)
      for file in conversations.files(run.config.warm_start.data)
  }
  if not path.exists():
    directory.mkdir(parents=True, exist_ok=True)
    seals.write_record(path, found)
  elif seals.read_record(path) != found:
    raise RunStopped(
        f'the files of warm_start.data are not those that the cold start began with '
        f'({path}), and its examples are to be made again; put the files back, or '
        f'remove {directory}'
    )


def import_checkpoint(run: Run, directory: pathlib.Path) -> dict:
  """Takes a Hugging Face checkpoint as the base."""
  checkpoint = run.checkpoint
  shape, _ = run.shape, run.transcript  # a template that cannot work costs no weights
  with run.naming_the_checkpoint():
    params = huggingface.load_params(checkpoint, shape, run.mesh)
  hosts.first(lambda: origin.keep(checkpoint, directory))
  save_params(directory / 'params', params)
  return {'checkpoint': run.config.policy.checkpoint}


def _write_examples(run: Run, transcript: Transcript, data: pathlib.Path) -> None:
  # The position of a checkpoint counts in all of these examples, in this order.
  if not dataset.is_intact(data):
    if data.exists():
      logging.warning('%s is made again, to the same bits', data)
    dataset.write(data, _examples(run, transcript))
  else:  # which no shard tells of
    dataset.describe(data)


def _examples(run: Run, transcript: Transcript) -> Iterator[Example]:
  config = run.config
  if config.warm_start.data:
    yield from conversations.read(config.warm_start.data, _narrator(run))
  if not config.warm_start.num_demonstrations:
    return
  _check_teacher(run)
  teacher = run.teacher()
  assert teacher is not None
  seed = COLD_SEED if is_cold(config) else config.seed
  yield from warm_start_examples(
      run.world, transcript, teacher, run.tasks('train'), config.env.horizon,
      config.explore.reflect_every, config.warm_start,
      random.Random(f'{seed}/demonstrations'),
  )


def check_sources(run: Run) -> None:
  """RunStopped where what is to teach the base is not there."""
  config = run.config
  from_scratch = not config.policy.checkpoint
  if from_scratch or (is_cold(config) and config.warm_start.num_demonstrations):
    _check_teacher(run)
  if is_cold(config) and config.warm_start.data:
    try:
      conversations.check(config.warm_start.data, _narrator(run))
    except conversations.DataError as error:
      raise RunStopped(str(error)) from error


def _narrator(run: Run) -> Narrator:
  transcript = run.transcript
  assert isinstance(transcript, ChatTranscript)  # a checkpoint's
  return Narrator(transcript, run.config.policy.template)


def _check_teacher(run: Run) -> None:
  config = run.config
  if run.teacher() is not None:
    return
  if not is_cold(config):
    raise RunStopped(
        f'{config.env.name} has no scripted teacher for a policy that starts '
        'from scratch; give a checkpoint: --config.policy.checkpoint=DIR'
    )
  raise RunStopped(
      f'warm_start.num_demonstrations={config.warm_start.num_demonstrations}: '
      f'{config.env.name} has no scripted teacher with these options. Teach the '
      'checkpoint from files (--config.warm_start.data=FILE) with '
      '--config.warm_start.num_demonstrations=0, or not at all '
      '(--config.warm_start.steps=0)'
  )
