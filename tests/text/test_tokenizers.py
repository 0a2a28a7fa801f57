"""Tokenizers give the ids of their file, whatever lies beside it."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from leafe_jax.text.tokenizers import (
  TokenizerError,
  build_word_tokenizer,
  load_tokenizer,
)
from tests.text.chat_tokenizers import CHATML, make_tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = "Don't pay $12345 for  two\n\nred BOXES, \u4f60\u597d caf\u00e9 \U0001f600"


def _byte_pairs() -> dict[str, int]:
  """Bytes, and words of two that only some pre-tokenizers let grow."""
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  return {symbol: i for i, symbol in enumerate(alphabet)}


def _save(directory, backend, model_type, **config):
  """A tokenizer beside the config of a model."""
  tokenizer = transformers.PreTrainedTokenizerFast(
      tokenizer_object=backend, eos_token='<|im_end|>'
  )
  tokenizer.chat_template = CHATML
  tokenizer.save_pretrained(directory)
  (directory / 'config.json').write_text(json.dumps({'model_type': model_type}))
  path = directory / 'tokenizer_config.json'
  fields = json.loads(path.read_text()) | config
  path.write_text(json.dumps(fields))


def _digits_together() -> tokenizers.Tokenizer:
  """Merges digits, which the pre-tokenizer of Qwen2 keeps apart."""
  vocabulary = _byte_pairs()
  for pair in ('12', '34', 'on', '\u0120t'):
    vocabulary[pair] = len(vocabulary)
  backend = tokenizers.Tokenizer(
      models.BPE(vocabulary, [('1', '2'), ('3', '4'), ('o', 'n'), ('\u0120', 't')])
  )
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  return backend


def _lower_case() -> tokenizers.Tokenizer:
  backend = _digits_together()
  backend.normalizer = normalizers.Lowercase()
  return backend


def _words() -> tokenizers.Tokenizer:
  backend = tokenizers.Tokenizer(
      models.WordLevel({'<unk>': 0, 'red': 1, 'box': 2}, unk_token='<unk>')
  )
  backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  return backend


def _out_of_reach() -> tokenizers.Tokenizer:
  """As Llama 3: whole words that no merge leads to."""
  vocabulary = _byte_pairs() | {'Don': 256, "'t": 257}
  model = models.BPE(vocabulary, [], ignore_merges=True)
  backend = tokenizers.Tokenizer(model)
  backend.normalizer = normalizers.NFC()
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  return backend


BACKENDS = {
    'digits': _digits_together,
    'lower': _lower_case,
    'words': _words,
    'out of reach': _out_of_reach,
}


@pytest.mark.parametrize('model_type', ['qwen2', 'qwen3', 'llama'])
@pytest.mark.parametrize('made_by', ['Qwen2TokenizerFast', 'LlamaTokenizerFast', None])
@pytest.mark.parametrize('backend', BACKENDS)
def test_ids_are_those_of_the_file(tmp_path, backend, made_by, model_type):
  backend = BACKENDS[backend]()
  named = {'tokenizer_class': made_by} if made_by else {}
  _save(tmp_path, backend, model_type, **named)
  original = tokenizers.Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
  tokenizer = load_tokenizer(tmp_path)
  ids = original.encode(TEXT).ids
  assert tokenizer.encode(TEXT, add_special_tokens=False) == ids
  assert tokenizer.decode(ids) == original.decode(ids, skip_special_tokens=False)
  assert tokenizer.chat_template == CHATML
  assert tokenizer.eos_token == '<|im_end|>'


def test_transformers_alone_would_give_other_ids(tmp_path):
  """Else the tests above would show nothing."""
  _save(tmp_path, _digits_together(), 'qwen2')
  rebuilt = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
  assert rebuilt.encode('12345') != load_tokenizer(tmp_path).encode('12345')


def test_a_tokenizer_that_transformers_changes_anyway_is_refused(tmp_path, monkeypatch):
  _save(tmp_path, _digits_together(), 'qwen2')
  rebuilt = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
  reader = transformers.PreTrainedTokenizerFast
  monkeypatch.setattr(reader, 'from_pretrained', lambda *_, **__: rebuilt)
  with pytest.raises(TokenizerError, match=r'tokenizer\.json encodes .*12345') as error:
    load_tokenizer(tmp_path)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('model_type', ['qwen2', 'qwen3', 'llama'])
def test_decoding_keeps_blanks_before_punctuation(tmp_path, model_type):
  _save(
      tmp_path, _digits_together(), model_type, clean_up_tokenization_spaces=True
  )
  text = "women 's shoes , size 5 . do n't !"
  tokenizer = load_tokenizer(tmp_path)
  assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize('model_type', ['qwen2', 'qwen3', 'llama'])
@pytest.mark.parametrize('files', [{}, {'tokenizer_config.json': '{}'}])
def test_a_directory_without_a_vocabulary_is_refused(tmp_path, files, model_type):
  """transformers makes an empty tokenizer of one or three tokens."""
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': model_type}))
  for name, content in files.items():
    (tmp_path / name).write_text(content)
  with pytest.raises(FileNotFoundError, match=r'no tokenizer in .*tokenizer\.json'):
    load_tokenizer(tmp_path)


POINTER = 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7031645\n'


@pytest.mark.parametrize(
    ('name', 'content', 'named'),
    [
        ('tokenizer.json', POINTER, 'tokenizer.json is a Git LFS pointer'),
        ('tokenizer.json', '{"model": {"vocab', 'tokenizer.json is not JSON'),
        ('tokenizer.json', '', 'tokenizer.json is not JSON'),
        ('tokenizer.json', '[1]', 'tokenizer.json holds a list'),
        ('tokenizer.json', '{"model": null}', 'has no model with a vocabulary'),
        ('tokenizer.json', '{"model": {"type": "BPE"}}', 'has no model'),
        ('tokenizer_config.json', POINTER, 'tokenizer_config.json is a Git LFS'),
        ('tokenizer_config.json', '{"chat', 'tokenizer_config.json is not JSON'),
        ('tokenizer_config.json', '"x"', 'tokenizer_config.json holds a str'),
        ('special_tokens_map.json', '{', 'special_tokens_map.json is not JSON'),
        ('tokenizer.model', POINTER, 'tokenizer.model is a Git LFS pointer'),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path, name, content, named):
  _save(tmp_path, _digits_together(), 'llama')
  (tmp_path / name).write_text(content)
  with pytest.raises(TokenizerError, match=named) as error:
    load_tokenizer(tmp_path)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('fast_tokenizer_files', ['tokenizer.json', '../other/tokenizer.4.0.0.json']),
        ('fast_tokenizer_files', '../other.json'),
        ('vocab', '/etc/passwd'),
        ('merges', 'merges.txt'),
    ],
)
def test_fields_that_are_opened_as_files_elsewhere_are_refused(tmp_path, field, value):
  _save(tmp_path, _digits_together(), 'llama')
  path = tmp_path / 'tokenizer_config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
  with pytest.raises(TokenizerError, match=f'tokenizer_config.json: {field}'):
    load_tokenizer(tmp_path)


@pytest.mark.parametrize('model_type', ['qwen2', 'llama'])
@pytest.mark.parametrize(
    ('part', 'value'),
    [
        ('version', '9'),
        ('pre_tokenizer', {'type': 'Unheard'}),
        ('decoder', {'type': 'Unheard'}),
        ('model', {'type': 'Unheard', 'vocab': {'a': 0}}),
        ('model', {'type': 'BPE', 'vocab': {'a': -1}, 'merges': []}),
        ('model', {'type': 'BPE', 'vocab': {'a': 'x'}, 'merges': []}),
        ('model', {'type': 'BPE', 'vocab': {'a': 0}, 'merges': [['a', 'b']]}),
        ('model', {'type': 'BPE', 'vocab': {}, 'merges': []}),
    ],
)
def test_a_file_that_no_library_understands_is_refused(
    tmp_path, part, value, model_type
):
  _save(tmp_path, _digits_together(), model_type)
  path = tmp_path / 'tokenizer.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {part: value}))
  with pytest.raises(TokenizerError) as error:
    load_tokenizer(tmp_path)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'files',
    [
        {'vocab.txt': 'a\nb\n'},
        {'vocab.json': '{"a'},
        {'vocab.json': '{"a": 0}'},
        {'tokenizer.model': 'nothing of use'},
    ],
)
@pytest.mark.parametrize('model_type', ['qwen2', 'llama'])
def test_vocabularies_of_no_use_make_no_empty_tokenizer(tmp_path, files, model_type):
  _save(tmp_path, _digits_together(), model_type)
  (tmp_path / 'tokenizer.json').unlink()
  for name, content in files.items():
    (tmp_path / name).write_text(content)
  with pytest.raises(TokenizerError) as error:
    load_tokenizer(tmp_path)
  assert '\n' not in str(error.value)


CODE = """
import pathlib
import re
pathlib.Path(__file__).with_name('RAN').touch()
class T: pass
"""


PROGRAM = """
import sys
from leafe_jax.text.tokenizers import TokenizerError, load_tokenizer
for directory in sys.argv[1:]:
  try:
    load_tokenizer(directory)
    print('read')
  except TokenizerError as error:
    print('refused:', error)
"""


def test_no_code_of_the_directory_runs_and_nobody_is_asked(tmp_path):
  places = [tmp_path / name for name in ('llama', 'qwen2', 'unheard_of')]
  for place in places:
    _save(
        place, _digits_together(), place.name, tokenizer_class='T',
        auto_map={'AutoTokenizer': ['code.T', None]},
    )
    fields = {'model_type': place.name, 'auto_map': {'AutoConfig': 'code.T'}}
    (place / 'config.json').write_text(json.dumps(fields))
    (place / 'code.py').write_text(CODE)
  done = subprocess.run(
      [sys.executable, '-c', PROGRAM, *map(str, places)], cwd=ROOT, input='y\n' * 9,
      capture_output=True, text=True, check=False,
  )
  assert done.returncode == 0, done.stderr
  llama, qwen2, unheard_of = done.stdout.splitlines()
  assert qwen2 == 'read'  # transformers knows better than its auto_map
  for line in (llama, unheard_of):
    assert line.startswith('refused:') and 'custom code' in line
  assert not list(tmp_path.rglob('RAN'))


def test_a_link_to_elsewhere_is_not_followed(tmp_path):
  place = tmp_path / 'tokenizer'
  build_word_tokenizer(['red', 'box'], horizon=3).save_pretrained(place)
  (place / 'tokenizer.json').replace(tmp_path / 'other.json')
  (place / 'tokenizer.json').symlink_to(tmp_path / 'other.json')
  with pytest.raises(TokenizerError, match=r'tokenizer.json is a link to .*other.json'):
    load_tokenizer(place)
  for blobs in (tmp_path / 'models--me--mine' / 'blobs', tmp_path / 'blobs'):
    blobs.mkdir(parents=True)  # of a cache
    (blobs / 'abc').write_bytes((tmp_path / 'other.json').read_bytes())
    (place / 'tokenizer.json').unlink()
    (place / 'tokenizer.json').symlink_to(blobs / 'abc')
    assert load_tokenizer(place).encode('red')


def test_word_level_tokenizers_come_back(tmp_path):
  saved = build_word_tokenizer(['red', 'box', "it's"], horizon=3)
  saved.save_pretrained(tmp_path)
  tokenizer = load_tokenizer(tmp_path)
  assert tokenizer.get_vocab() == saved.get_vocab()
  assert tokenizer.encode("red it's <t1>") == saved.encode("red it's <t1>")


def test_a_chat_tokenizer_comes_back(tmp_path):
  saved = make_tokenizer(CHATML)
  saved.save_pretrained(tmp_path)
  assert load_tokenizer(tmp_path).encode(TEXT) == saved.encode(TEXT)


def test_what_is_installed_is_at_least_what_was_tested():
  [least] = re.findall(r"'transformers>=([\d.]+)'", (ROOT / 'setup.py').read_text())
  lock = (ROOT / 'requirements.lock').read_text()
  [tested] = re.findall(r'^transformers==([\d.]+)$', lock, re.MULTILINE)
  assert tested.startswith(least)
