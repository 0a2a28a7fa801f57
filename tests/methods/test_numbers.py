"""Tables longer than vocabularies, and weights that are not finite, in a run."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import pytest

from leafe_jax import experiment
from leafe_jax.endings import RunStopped
from leafe_jax.learner.checkpoints import load_params, save_params
from leafe_jax.learner.update import NonFiniteLoss
from leafe_jax.methods import grpo, stage1
from leafe_jax.methods.arms import Phase
from leafe_jax.methods.collect import load_trees
from leafe_jax.methods.effort import Effort
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.text.tokenizers import known_ids
from tests.methods import bandit
from tests.text.chat_tokenizers import CHATML, make_tokenizer

PADDED = dataclasses.replace(bandit.POLICY, vocab_size=128)


def test_ids_that_pad_a_table_are_never_said(tmp_path):
  run = bandit.make_run(tmp_path, policy=PADDED)
  words = len(run.tokenizer)
  assert words < run.shape.vocab_size == 128  # most of what could be drawn
  directory = run.directory.phase('explore').dir
  stage1.EXPLORE.body(run, directory)
  nodes = [node for tree in load_trees(directory) for node in tree.nodes]
  said = {i for node in nodes for turn in node.turns for i in turn.response_ids}
  assert len(said) > 9 and max(said) < words
  assert not any('<unk>' in turn.response for n in nodes for turn in n.turns
                 if run.tokenizer.unk_token_id not in turn.response_ids)


def test_a_text_with_an_id_of_the_padding_can_be_shown(tmp_path):
  run = bandit.make_run(tmp_path, policy=PADDED)
  right = run.tokenizer.convert_tokens_to_ids('right')
  assert run.transcript.text([right, 127, right]) == 'right <unk> right'
  chat = ChatTranscript(make_tokenizer(CHATML))
  [letter] = chat.tokenizer.encode('a', add_special_tokens=False)
  assert chat.text([letter, 5000, letter]) == 'aa'


def test_known_ids_are_those_of_the_vocabulary_and_of_added_tokens():
  tokenizer = make_tokenizer(CHATML)
  size = len(tokenizer)
  assert known_ids(tokenizer, size).all()
  padded = known_ids(tokenizer, size + 7)
  assert padded.sum() == size and not padded[size:].any()
  # A table that is shorter is refused elsewhere; here it is only not overrun.
  assert known_ids(tokenizer, 3).all()


def spoil(run):
  path = run.params_path('warm_start')
  params = load_params(path, run.abstract_params())
  norm = params['final_norm_d'].at[0].set(jnp.nan)
  save_params(path, {**params, 'final_norm_d': norm})


@pytest.mark.parametrize('phase', [stage1.EXPLORE, grpo.GRPO], ids=['explore', 'grpo'])
def test_weights_that_are_not_finite_stop_the_run_with_one_line(tmp_path, phase):
  run = bandit.make_run(tmp_path)
  spoil(run)
  place = run.directory.phase(phase.name)
  with pytest.raises(RunStopped) as info:
    experiment._result(phase, run, place.dir)
  message = str(info.value)
  version = 1 if phase is grpo.GRPO else 0
  assert message.startswith(
      f'phase {phase.name}: the logits of policy version {version} are not finite '
  )
  assert 'policy.checkpoint' in message and '\n' not in message


def test_an_update_that_is_not_finite_stops_the_run_with_one_line(tmp_path):
  run = bandit.make_run(tmp_path)

  def body(run, directory):
    metrics = {'loss': math.nan, 'grad_norm': 1.0}
    raise NonFiniteLoss(7, metrics, directory / 'batch.npz')

  phase = Phase('distill/leafe', (), body, lambda config: Effort())
  with pytest.raises(RunStopped) as info:
    experiment._result(phase, run, tmp_path)
  message = str(info.value)
  assert message.startswith('phase distill/leafe: update 7 is not finite (loss=nan')
  assert 'batch.npz' in message and 'learning_rate' in message and '\n' not in message
