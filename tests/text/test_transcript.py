"""Transcripts: pieces join to whole prompts, reflections parse strictly."""

import pytest

from leafe_jax.text import tokenizers as tok
from leafe_jax.text import transcript

WORDS = (
    *('want', 'cotton', 'shirt', 'red', 's', 'under', '30'),
    *('click', 'a', 'back', 'no', 'fit', 'search'),
)


@pytest.fixture(name='words')
def _words():
  return transcript.WordTranscript(tok.build_word_tokenizer(WORDS, horizon=15))


def test_an_episode_is_spelt_in_order(words):
  ids = [
      *words.first('', '', 'want cotton shirt'),
      *words.opener_ids,
      *words.response('search cotton shirt'),
      *words.next(2, 'cotton 30 a'),
      *words.hint('fit click a'),
      *words.opener_ids,
  ]
  text = ' '.join(words.tokenizer.convert_ids_to_tokens(ids))
  assert text == (
      '<bos> <t1> want cotton shirt <act> search cotton shirt <end> '
      '<t2> cotton 30 a <hint> fit click a <use> <act>'
  )


def test_a_memory_stands_before_the_first_observation_one_block_a_line(words):
  ids = words.first('', '', 'want cotton', 'fit click a\nno fit click back')
  assert ' '.join(words.tokenizer.convert_ids_to_tokens(ids)) == (
      '<bos> <hint> fit click a <use> <hint> no fit click back <use> '
      '<t1> want cotton'
  )


def test_a_well_formed_reflection_is_read_back(words):
  text = words.reflection_response(3, 'no fit click back')
  ids = words.response(text)
  assert ids[-1] in words.stop_ids
  parsed = words.parse_reflection(words.text(ids), turn=5, terminal=True)
  assert parsed == transcript.ParsedReflection(3, 'no fit click back')


def test_tau_is_clipped_into_the_episode(words):
  parsed = words.parse_reflection('<t9> click back', turn=4, terminal=True)
  assert parsed.tau == 4


@pytest.mark.parametrize(
    'bad', ['', 'click back', '<t3>', '<t3> <t4> click', '<failed> click', '<tx> click']
)
def test_malformed_reflections_are_refused(words, bad):
  with pytest.raises(transcript.ReflectionError):
    words.parse_reflection(bad, turn=4, terminal=True)


def test_declining_is_for_episodes_in_progress_only(words):
  assert words.parse_reflection(tok.NONE, 4, terminal=False).tau is None
  with pytest.raises(transcript.ReflectionError, match='must name a turn'):
    words.parse_reflection(tok.NONE, 4, terminal=True)


def test_a_word_outside_the_vocabulary_is_named(words):
  with pytest.raises(ValueError, match='velvet'):
    words.next(2, 'velvet 30 a')


def test_a_saved_tokenizer_spells_the_same(words, tmp_path):
  words.tokenizer.save_pretrained(tmp_path)
  again = transcript.WordTranscript(tok.load_tokenizer(tmp_path))
  assert again.first('', '', 'want red shirt') == words.first('', '', 'want red shirt')
  assert again.hint('click a') == words.hint('click a')
  assert again.stop_ids == words.stop_ids


def test_a_directory_without_tokenizer_is_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match='tokenizer_config'):
    tok.load_tokenizer(tmp_path)
