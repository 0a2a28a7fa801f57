"""Tokenizers: a checkpoint's own, or a word-level one built from a world."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
import transformers
from absl import logging
from jaxtyping import Bool
from tokenizers import models, pre_tokenizers

from leafe_jax import seals
from leafe_jax.files import check_links, is_lfs_pointer, read_object

PAD, BOS, ACT, END = '<pad>', '<bos>', '<act>', '<end>'
HINT, USE = '<hint>', '<use>'
REFLECT, FAILED, GOING, NONE = '<reflect>', '<failed>', '<going>', '<none>'
UNKNOWN = '<unk>'
MAX_TURNS = 64

_SPECIAL = (PAD, BOS, ACT, END, HINT, USE, REFLECT, FAILED, GOING, NONE, UNKNOWN)

_FILE = 'tokenizer.json'
# Files that a vocabulary comes from, one of which is enough.
_VOCABULARIES = (_FILE, 'tokenizer.model', 'vocab.json', 'vocab.txt', '*.tiktoken')
_SETTINGS = 'tokenizer_config.json'
_MORE_JSON = ('special_tokens_map.json', 'added_tokens.json')
# Texts that tell apart how they are normalised, cut into words and decoded.
_TELLING = (
    "It's we'll I'VE DON'T they\u2019re 'quoted' can't've",
    'size 12345 $1,299.99 3.5x 10^-7 0x1F 2024-11-26',
    '  two blanks, \ttab\n\n\nthree lines\r\n  indented \n ',
    'snake_case CamelCase HTTPServer iPhone15Pro a-b/c@d.e?f=g&h#i',
    '\u4f60\u597d\uff0c\u4e16\u754c\u3002\u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4 '
    '\u041f\u0440\u0438\u0432\u0435\u0442 \u0645\u0631\u062d\u0628\u0627 \u0e44\u0e17',
    'caf\u00e9 cafe\u0301 na\u00efve \ufb01ne \u00bd \u2126 \uff21 \u00a0x\u200bz',
    '\U0001f600\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469 \u2264 \u2192',
    "women 's shoes , size 5 . ( new ) ! ? n't 'm do n't",
    'click[Buy Now] <action>go to desk 1</action> {"a": [1, 2]}',
    'ALL CAPS Mixed cAsE \u00dcber STRASSE stra\u00dfe \u0130stanbul',
    'a', ' a', 'a ', '', ' ', '\n',
)

# What transformers raises at files of tokenizers that it cannot make sense of.
_READING_FAILS = (
    OSError, ValueError, TypeError, LookupError, AttributeError, ImportError,
)

Tokenizer = transformers.PreTrainedTokenizerBase


class TokenizerError(ValueError):
  """A tokenizer that cannot be read as its files say; one line."""


def turn_mark(turn: int) -> str:
  """The token that starts turn `turn` and names it in reflections."""
  if not 1 <= turn <= MAX_TURNS:
    raise ValueError(f'turn {turn} has no mark; turns go from 1 to {MAX_TURNS}')
  return f'<t{turn}>'


def build_word_tokenizer(words: Sequence[str], horizon: int) -> Tokenizer:
  """A word-level tokenizer over `words`, special tokens and turn marks.

  Words are separated by white space. The order of `words` decides the ids, so
  the same world gives the same tokenizer.

  Args:
    words: every word of the world's texts.
    horizon: turns per episode; marks go one further, for the last observation.
  """
  marks = [turn_mark(turn) for turn in range(1, horizon + 2)]
  special = [*_SPECIAL, *marks]
  ordinary = [word for word in dict.fromkeys(words) if word not in special]
  vocabulary = {word: i for i, word in enumerate([*special, *ordinary])}
  backend = tokenizers.Tokenizer(
      models.WordLevel(vocabulary, unk_token=UNKNOWN)
  )
  backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  named = (PAD, BOS, END, UNKNOWN)
  return transformers.PreTrainedTokenizerFast(
      tokenizer_object=backend,
      pad_token=PAD,
      bos_token=BOS,
      eos_token=END,
      unk_token=UNKNOWN,
      additional_special_tokens=[t for t in special if t not in named],
  )


def save_tokenizer(tokenizer: Tokenizer, directory: pathlib.Path) -> None:
  """Saves a tokenizer and seals its files."""
  tokenizer.save_pretrained(directory)
  seals.write(directory, directory / seals.SEAL)


def known_ids(tokenizer: Tokenizer, size: int) -> Bool[np.ndarray, ' size']:
  """Which of the ids 0 .. size - 1 stand for a text.

  Tables are often longer than their vocabularies: padded to a round number, or
  with gaps.
  """
  known = np.zeros(size, bool)
  ids = np.fromiter(tokenizer.get_vocab().values(), np.int64)
  known[ids[ids < size]] = True
  return known


def load_tokenizer(directory: str | pathlib.Path) -> Tokenizer:
  """The tokenizer saved in `directory`; asks no network and runs no code of it.

  transformers builds some tokenizers anew, by the model they lie beside, and
  then gives other ids than tokenizer.json does. The file counts.

  Raises:
    FileNotFoundError: the directory holds no tokenizer.
    TokenizerError: it is damaged, needs code of its own, or cannot be read as
      its file says.
  """
  directory = pathlib.Path(directory)
  _check_files(directory)
  tokenizer = _read(transformers.AutoTokenizer, directory)
  file = directory / _FILE
  if file.is_file():
    original = _read_file(file)
    if _first_difference(tokenizer, original) is not None:
      logging.warning(
          '%s: transformers would build it anew as %s, with other ids; it is used '
          'as it stands', file, type(tokenizer).__name__,
      )
      tokenizer = _read(transformers.PreTrainedTokenizerFast, directory)
      _refuse_difference(tokenizer, original)
  if not tokenizer.encode(_TELLING[0], add_special_tokens=False):
    raise TokenizerError(
        f'{type(tokenizer).__name__} finds no vocabulary in {directory} that it can '
        'use: save the tokenizer anew, as tokenizer.json'
    )
  # Decoding keeps every blank: actions are compared with texts of the world.
  tokenizer.clean_up_tokenization_spaces = False
  return tokenizer


def check_ids(tokenizer: Tokenizer, vocab_size: int) -> None:
  """Refuses ids that have no row in an embedding of `vocab_size` rows.

  Raises:
    TokenizerError: names the largest id and its token.
  """
  token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
  if largest >= vocab_size:
    raise TokenizerError(
        f'the tokenizer has ids up to {largest} ({token!r}), the embedding '
        f'{vocab_size} rows (vocab_size of config.json): take the tokenizer that the '
        'weights were trained with, or resize the embedding to it'
    )


def _check_files(directory: pathlib.Path) -> None:
  """Refuses what transformers would answer with a traceback, or an empty tokenizer."""
  if not any(path for name in _VOCABULARIES for path in directory.glob(name)):
    raise FileNotFoundError(
        f'no tokenizer in {directory}: none of {", ".join(_VOCABULARIES)}; '
        f'{_SETTINGS} alone holds no vocabulary'
    )
  try:
    check_links(directory)
  except ValueError as error:
    raise TokenizerError(str(error)) from error
  fields = {}
  for name in (_FILE, _SETTINGS, 'config.json', *_MORE_JSON):
    if (directory / name).is_file():
      try:
        fields[name] = read_object(directory / name)
      except ValueError as error:
        raise TokenizerError(str(error)) from error
  for name in _VOCABULARIES:
    for path in directory.glob(name):
      if is_lfs_pointer(path):
        raise TokenizerError(
            f'{path.name} is a Git LFS pointer, not the file; fetch it: git lfs pull'
        )
  model = fields.get(_FILE, {'model': {'vocab': {}}}).get('model')
  if not isinstance(model, dict) or not isinstance(model.get('vocab'), (dict, list)):
    raise TokenizerError(f'{_FILE} has no model with a vocabulary')
  _check_names(fields.get(_SETTINGS, {}))


def _check_names(fields: Mapping[str, Any]) -> None:
  """Refuses fields that transformers opens as files, wherever they are.

  A vocabulary that is a name is opened from the working directory.
  """
  versions = fields.get('fast_tokenizer_files') or []
  if not isinstance(versions, list):
    raise TokenizerError(f'{_SETTINGS}: fast_tokenizer_files is no list of names')
  named = [('fast_tokenizer_files', name) for name in versions if '/' in str(name)]
  named += [(field, fields.get(field)) for field in ('vocab', 'merges')]
  for field, name in named:
    if isinstance(name, str):
      raise TokenizerError(
          f'{_SETTINGS}: {field} names the file {name!r}, which need not be of the '
          'directory; remove the field'
      )


class _Reading:
  """Makes one line of what transformers and tokenizers raise at damaged files.

  tokenizers raises Exception itself, which no except clause can name alone.
  """

  def __enter__(self) -> None:
    pass

  def __exit__(
      self, kind: type[BaseException] | None, error: BaseException | None, trace: object
  ) -> None:
    if kind is Exception or (kind is not None and issubclass(kind, _READING_FAILS)):
      lines = str(error).strip().splitlines() or [kind.__name__]
      raise TokenizerError(
          f'transformers cannot read the tokenizer: {lines[0].strip()}'
      ) from error


def _read(reader: Any, directory: pathlib.Path) -> Tokenizer:
  with _Reading():
    return reader.from_pretrained(
        str(directory), local_files_only=True, trust_remote_code=False
    )


def _read_file(file: pathlib.Path) -> tokenizers.Tokenizer:
  with _Reading():
    original = tokenizers.Tokenizer.from_file(str(file))
  original.no_truncation()
  original.no_padding()
  return original


def _first_difference(
    tokenizer: Tokenizer, original: tokenizers.Tokenizer
) -> str | None:
  """A text that two tokenizers encode or decode differently, None if alike."""
  for text in _probes(tokenizer, original):
    ids = original.encode(text, add_special_tokens=False).ids
    if list(tokenizer.encode(text, add_special_tokens=False)) != ids:
      return text
    decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if decoded != original.decode(ids, skip_special_tokens=False):
      return text
  return None


def _probes(tokenizer: Tokenizer, original: tokenizers.Tokenizer) -> list[str]:
  """Texts to compare on, some made of the vocabulary itself.

  None holds a token that tokenizer_config.json may add to the file's.
  """
  size = original.get_vocab_size()
  ids = range(0, size, max(size // 256, 1))
  made = [original.decode([i], skip_special_tokens=False) for i in ids]
  added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
  texts = [*_TELLING, *made]
  return [text for text in texts if not any(mark in text for mark in added)]


def _refuse_difference(tokenizer: Tokenizer, original: tokenizers.Tokenizer) -> None:
  text = _first_difference(tokenizer, original)
  if text is not None:
    raise TokenizerError(
        f'{_FILE} encodes {text!r} as '
        f'{original.encode(text, add_special_tokens=False).ids}, transformers as '
        f'{tokenizer.encode(text, add_special_tokens=False)}; save the tokenizer '
        'anew with the release of transformers that it was made for'
    )
