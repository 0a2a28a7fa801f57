"""The tokenizer that a GGUF file holds, built from its vocabulary and merges.

A file names how text is split before merges apply (`tokenizer.ggml.pre`), not the
pattern itself. The patterns of the models that are supported are here, as their own
tokenizers have them: another one gives other tokens, and nothing would say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from leafe_jax.text.tokenizers import TokenizerError

_FIELD = 'tokenizer.ggml.'
_CONTROL, _USER_DEFINED = 3, 4
# End of text, of a turn, of a message that calls a tool: all end a response.
_ENDS = ('eos', 'eot', 'eom')
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf'{_WORDS}|\p{{N}}{{1,3}}|{_REST}'
_QWEN2 = rf'{_WORDS}|\p{{N}}|{_REST}'
_SPECIAL = {
    'bos_token': 'bos_token_id', 'eos_token': 'eos_token_id',
    'unk_token': 'unknown_token_id', 'pad_token': 'padding_token_id',
}  # fmt: skip


def build(fields: Mapping[str, Any]) -> transformers.PreTrainedTokenizerFast:
  """The tokenizer, with the file's chat template if it has one.

  Args:
    fields: metadata of the file, by name.

  Raises:
    TokenizerError: it is of another kind, or split in a way that is not known.
  """
  kind = fields.get(f'{_FIELD}model')
  if kind != 'gpt2':
    raise TokenizerError(
        f'{_FIELD}model is {kind!r}; only byte-level BPE (gpt2) is built from a GGUF '
        'file: put the tokenizer files of the original checkpoint beside it '
        '(--tokenizer=DIR)'
    )
  words = fields[f'{_FIELD}tokens']
  merges = [tuple(merge.split(' ', 1)) for merge in fields[f'{_FIELD}merges']]
  backend = tokenizers.Tokenizer(
      models.BPE({word: i for i, word in enumerate(words)}, merges)
  )
  _split(backend, str(fields.get(f'{_FIELD}pre', 'default')))
  backend.decoder = decoders.ByteLevel()
  _add_special(backend, words, fields.get(f'{_FIELD}token_type', ()))
  named = {
      name: words[int(fields[f'{_FIELD}{field}'])]
      for name, field in _SPECIAL.items()
      if f'{_FIELD}{field}' in fields
  }
  found = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **named)
  found.chat_template = fields.get('tokenizer.chat_template')
  return found


def _split(backend: tokenizers.Tokenizer, how: str) -> None:
  by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  as_gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
  if how in ('llama-bpe', 'llama3', 'llama-v3'):
    parts = [_pattern(_LLAMA3), by_bytes]
    # Whole words come before merges.
    backend.model.ignore_merges = True  # pyright: ignore
  elif how == 'qwen2':
    parts = [_pattern(_QWEN2), by_bytes]
    backend.normalizer = normalizers.NFC()  # pyright: ignore
  elif how == 'smollm':
    parts = [pre_tokenizers.Digits(individual_digits=True), as_gpt2]
  elif how in ('gpt-2', 'gpt2'):
    parts = [as_gpt2]
  else:
    raise TokenizerError(
        f'{_FIELD}pre is {how!r}: how it splits text is not known here (known: '
        'llama-bpe, qwen2, smollm, gpt-2); take the tokenizer files of the original '
        'checkpoint (--tokenizer=DIR)'
    )
  backend.pre_tokenizer = pre_tokenizers.Sequence(parts)  # pyright: ignore


def _pattern(pattern: str) -> pre_tokenizers.PreTokenizer:
  return pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated')


def _add_special(
    backend: tokenizers.Tokenizer, words: list[str], types: list[int]
) -> None:
  """Tokens that are matched whole: control tokens, and others that were added."""
  for word, kind in zip(words, types):
    token = tokenizers.AddedToken(word, normalized=False)
    if kind == _CONTROL:
      backend.add_special_tokens([token])
    elif kind == _USER_DEFINED:
      backend.add_tokens([token])


def endings(fields: Mapping[str, Any]) -> dict[str, Any]:
  """generation_config.json: the tokens that begin a text, end a response and pad."""
  names = {'bos_token_id': 'bos_token_id', 'pad_token_id': 'padding_token_id'}
  found: dict[str, Any] = {
      ours: int(fields[f'{_FIELD}{theirs}'])
      for ours, theirs in names.items() if f'{_FIELD}{theirs}' in fields
  }
  ends = [
      int(fields[f'{_FIELD}{name}_token_id'])
      for name in _ENDS if f'{_FIELD}{name}_token_id' in fields
  ]
  if ends:
    found['eos_token_id'] = list(dict.fromkeys(ends))
  return found
