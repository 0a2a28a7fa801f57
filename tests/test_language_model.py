"""A released language model takes the road of a checkpoint: read, taught, written.

Skipped without the model: `make model`, or LEAFE_SMOLLM2=DIR.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest

from leafe_jax import experiment
from leafe_jax.config import Experiment, Policy, WarmStart
from leafe_jax.experience import conversations
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.methods.run import BASE, IMPORT, Run
from leafe_jax.policy import lora
from leafe_jax.rundir import RunDirectory
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.text.conversation import Narrator

DEFAULT = pathlib.Path(__file__).resolve().parent.parent / 'models' / 'smollm2'
MODEL = pathlib.Path(os.environ.get('LEAFE_SMOLLM2') or DEFAULT)
pytestmark = pytest.mark.skipif(
    not (MODEL / 'config.json').is_file(),
    reason=f'no model in {MODEL} (make model, or LEAFE_SMOLLM2=DIR)',
)
CHAT = [
    {'role': 'user', 'content': 'You see a door. What do you do?'},
    {'role': 'assistant', 'content': '<action>open door</action>'},
    {'role': 'user', 'content': 'It is open.'},
    {'role': 'assistant', 'content': '<action>go north</action>'},
]


def make_run(place, rank=0):
  data = place / 'chats.jsonl'
  data.write_text(json.dumps({'messages': CHAT}) + '\n')
  config = dataclasses.replace(
      Experiment(),
      policy=Policy(
          checkpoint=str(MODEL), max_length=512, scan_layers=True, lora_rank=rank,
          logit_chunk=64,
      ),
      warm_start=WarmStart(
          steps=1, data=(str(data),), num_demonstrations=0, batch_rows=1,
          row_length=128, learning_rate=1e-4,
      ),
      arms=('base',),
  )
  return config, Run(config, RunDirectory(place / 'run'), 'hash')


def test_its_template_ends_answers_and_names_itself(tmp_path):
  config, run = make_run(tmp_path)
  transcript = run.transcript
  assert isinstance(transcript, ChatTranscript)
  narrator = Narrator(transcript, config.policy.template)
  [example] = conversations.read(config.warm_start.data, narrator)
  text = str(run.tokenizer.decode(example.ids))
  assert text.startswith('<|im_start|>system\nYou are a helpful AI assistant named')
  said = run.tokenizer.decode(example.ids[example.weights > 0])
  assert said == (
      '<action>open door</action><|im_end|><action>go north</action><|im_end|>'
  )
  assert run.tokenizer.tokenize('a 390') == ['a', 'Ġ', '3', '9', '0']


@pytest.mark.parametrize('rank', [0, 4])
def test_one_update_of_the_cold_start(tmp_path, rank):
  config, run = make_run(tmp_path, rank)
  experiment.run(config, run.directory.path, 'hash', BASE)
  assert run.directory.phase(BASE).result()['updates'] == 1
  after = load_params(run.params_path(BASE))
  assert all(np.isfinite(array).all() for array in after.values())
  if rank:
    assert lora.are_adapters(after)
    assert any(np.any(array) for name, array in after.items() if '_lora_b_' in name)
  else:
    before = load_params(run.params_path(IMPORT))
    assert any(not np.array_equal(before[name], after[name]) for name in before)
