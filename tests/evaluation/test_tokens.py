"""Tokens as texts: each by itself, whatever the tokenizer makes of spaces and bytes."""

import json

import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers

from leafe_jax.evaluation import report, specimens
from leafe_jax.evaluation.tokens import spell_tree, speller
from leafe_jax.text.tokenizers import build_word_tokenizer
from tests.evaluation import runs


def fast(backend):
  return transformers.PreTrainedTokenizerFast(tokenizer_object=backend)


def byte_level():
  """Every byte a token, and one word."""
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  vocabulary = {char: i for i, char in enumerate([*alphabet, 'Ġgo'])}
  backend = tokenizers.Tokenizer(models.BPE(vocabulary, []))
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  return fast(backend), vocabulary


def test_words_and_control_tokens_are_shown():
  tokenizer = build_word_tokenizer(['click', 'buy'], 3)
  ids = tokenizer.encode('<act> click buy <end>')
  assert speller(tokenizer)(ids) == ['<act>', 'click', 'buy', '<end>']


def test_a_part_of_a_character_has_its_own_name():
  tokenizer, vocabulary = byte_level()
  pieces = speller(tokenizer)([vocabulary['Ġgo'], *tokenizer.encode('a é')])
  assert pieces[:3] == [' go', 'a', ' ']
  assert len(pieces) == 5 and all(piece and '\ufffd' not in piece for piece in pieces)


def test_pieces_of_sentences_keep_their_blank():
  backend = tokenizers.Tokenizer(models.BPE({'\u2581go': 0, 'es': 1}, []))
  backend.decoder = decoders.Metaspace()
  assert speller(fast(backend))([0, 1]) == [' go', 'es']


def test_a_turn_has_its_hint_apart_and_its_roles_beside():
  tree = runs.branching_tree()
  spelt = spell_tree(
      tree, lambda ids: [str(i) for i in ids], {(2, 2): [{'kind': 'cf'}]}, prompts=False
  )
  assert [len(turns) for turns in spelt] == [len(node.turns) for node in tree.nodes]
  first = spelt[2][0]
  assert first == {
      'response': ['5', '2'], 'logprobs': [-0.123, -0.5], 'hint': ['9'],
      'opener': ['1'], 'asked': 2, 'roles': [{'kind': 'cf'}],
  }  # fmt: skip
  whole = spell_tree(tree, lambda ids: [str(i) for i in ids], {}, prompts=True)
  assert whole[2][0]['prompt'] == ['7', '777777']


def test_tokens_find_room_in_the_report_or_are_left_out(monkeypatch):
  trees = [runs.branching_tree(f't{i}') for i in range(20)]
  spelling = lambda tree: [[{'response': ['</script>'] * 50}]]  # noqa: E731
  monkeypatch.setattr(report, 'MAX_TOKEN_BYTES', 9_000)
  page = report.render_report(runs.make_results(), trees, spelling=spelling)
  text = page.split('id="tokens-data">')[1].split('</script>')[0]
  found = json.loads(text)
  assert len(text) <= 9_000 and 5 < len(found) < 20
  assert found['0'] == [[{'response': ['</script>'] * 50}]]
  assert specimens.encode_sparsely([None, 1, None, 2], 100) == '{"1":1,"3":2}'
  assert specimens.encode_sparsely([], 100) == '{}'
