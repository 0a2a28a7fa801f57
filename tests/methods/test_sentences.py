"""Similarity by a sentence encoder: a random one, or that of LEAFE_MINILM."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np
import pytest

pytest.importorskip('torch', reason='pip install torch')

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from leafe_jax.endings import RunStopped
from leafe_jax.methods.sentences import Encoder, SentenceVectors

WORDS = ['[PAD]', '[UNK]', 'buy', 'a', 'red', 'blue', 'shirt', 'hose']


@pytest.fixture(name='place', scope='module')
def _place(tmp_path_factory):
  """A directory as sentence-transformers writes them."""
  place = tmp_path_factory.mktemp('encoder')
  core = Tokenizer(models.WordLevel(
      {word: i for i, word in enumerate(WORDS)}, unk_token='[UNK]'))
  core.pre_tokenizer = pre_tokenizers.Whitespace()
  transformers.PreTrainedTokenizerFast(
      tokenizer_object=core, unk_token='[UNK]', pad_token='[PAD]'
  ).save_pretrained(place)
  config = transformers.BertConfig(
      vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1,
      num_attention_heads=2, intermediate_size=16, max_position_embeddings=16)
  transformers.BertModel(config).save_pretrained(place)
  (place / '1_Pooling').mkdir()
  write(place, {'pooling_mode_mean_tokens': True, 'pooling_mode_cls_token': False})
  (place / 'sentence_bert_config.json').write_text('{"max_seq_length": 4}')
  return place


def write(place, pooling):
  (place / '1_Pooling' / 'config.json').write_text(json.dumps(pooling))


def test_a_text_is_the_mean_of_its_states_at_length_one(place):
  model = transformers.BertModel.from_pretrained(place).eval()
  with torch.inference_mode():
    states = model(torch.tensor([[2, 3, 4, 6]])).last_hidden_state[0]
  mean = states.mean(0).numpy()
  found = Encoder(place)('buy a red shirt hose')  # the fifth word finds no room
  np.testing.assert_allclose(found, mean / np.linalg.norm(mean), rtol=1e-4)


def test_the_same_text_is_nearest_whatever_stands_beside_it(place):
  encoder = Encoder(place)
  texts = ['a blue hose', 'buy a red shirt', 'a red hose']
  vectors = SentenceVectors(encoder, texts)
  assert vectors.top('buy a red shirt', 2)[0] == 1
  assert vectors.scores('buy a red shirt')[1] == 1.0
  alone = SentenceVectors(Encoder(place), texts[2:])
  assert alone.scores('a blue hose')[0] == vectors.scores('a blue hose')[2]


def test_what_is_no_such_encoder_is_refused_in_one_line(place, tmp_path):
  with pytest.raises(RunStopped, match='no directory of sentence-transformers'):
    Encoder(tmp_path)
  write(place, {'pooling_mode_mean_tokens': False, 'pooling_mode_cls_token': True})
  with pytest.raises(RunStopped, match="pooling .'pooling_mode_cls_token'.") as raised:
    Encoder(place)
  assert '\n' not in str(raised.value)
  write(place, {'pooling_mode_mean_tokens': True})


@pytest.mark.skipif(
    'LEAFE_MINILM' not in os.environ, reason='LEAFE_MINILM names no directory')
def test_minilm_knows_meanings():
  vectors = SentenceVectors(Encoder(pathlib.Path(os.environ['LEAFE_MINILM'])), [
      'put a hot apple in the fridge', 'buy a red cotton shirt',
  ])  # fmt: skip
  hot, shirt = vectors.scores('heat some fruit and place it in the refrigerator')
  assert hot > 0.6 > 0.3 > shirt
