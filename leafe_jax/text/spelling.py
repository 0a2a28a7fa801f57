"""Tokens of a text in which nothing but the template may speak as the template.

Control tokens, such as those that end a turn or begin a role, stand for
themselves in a template's own pieces. What the world or a policy wrote is
content: the same characters there are ordinary text, or a web page could end
the user's turn and speak as the system.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import tokenizers
import transformers

from leafe_jax.text import thoughts
from leafe_jax.text.tokenizers import Tokenizer
from leafe_jax.token_ids import shared

# What may stand before a text that shall get no blank of its own; the last one is
# nothing, behind which it gets one.
_FILLERS = ('.', '\n', 'x', '')


class Speller:
  """Encodes with and without control tokens.

  Control tokens are the tokenizer's special ones, those that open and close
  thoughts, and whatever other added token its chat template names: the marks of
  tool calls are often not called special. Added tokens that only abbreviate
  text, such as runs of blanks, stay what they are.

  Attributes:
    control_ids: of the control tokens.

  Raises:
    ValueError: the tokenizer has no backend of the tokenizers library.
  """

  def __init__(self, tokenizer: Tokenizer):
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerFast):
      raise ValueError(
          f'{type(tokenizer).__name__} is not of the tokenizers library; save it '
          'with a tokenizer.json'
      )
    text = tokenizer.backend_tokenizer.to_str()
    self._full = _bare(text)
    fields = json.loads(text)
    templates = str(tokenizer.chat_template)  # one, or several by name
    for token in fields['added_tokens']:
      token['special'] |= _is_control(token['content'], templates)
    self._plain = _bare(json.dumps(fields))
    # Special tokens are text to it.
    self._plain.encode_special_tokens = True
    control = [token for token in fields['added_tokens'] if token['special']]
    self._unknown = tokenizer.unk_token_id
    self.control_ids = frozenset(token['id'] for token in control)
    self._tags = {t['content'] for t in control if thoughts.is_tag(t['content'])}
    # Behind it text is spelt as in the middle of a text: at the beginning some
    # tokenizers put a blank, and some tokens swallow the blanks after them.
    keeping = [t['content'] for t in control if not (t['lstrip'] or t['rstrip'])]
    neutral = keeping[0] if keeping else ''
    fillers = _FILLERS if self._adds_blanks(neutral) else ('',)
    self._contexts = [neutral + filler for filler in fillers]

  def _adds_blanks(self, anchor: str) -> bool:
    """Whether a blank is put before text that follows a control token (Llama 2)."""
    tokens = self._full.encode(f'{anchor}a', add_special_tokens=False).tokens
    return tokens[len(self.template(anchor)) :] != ['a']

  def template(self, text: str) -> list[int]:
    """Tokens of a template's own text."""
    return shared(self._full.encode(text, add_special_tokens=False).ids)

  def content(self, before: str, text: str) -> list[int]:
    """Tokens of a template's piece and of the content that follows it.

    Both are encoded as one text, as the template's rendering would be, unless
    the content holds what would be a control token.
    """
    ids, own = self.template(before + text), self.template(before)
    if self._controls(ids) == self._controls(own):
      return ids
    cut = max((end for _, end in self._control_spans(before)), default=0)
    return [*self.template(before[:cut]), *self._defused(before[cut:] + text)]

  def content_after(self, anchor: str, before: str, text: str) -> list[int]:
    """As `content`, behind a control token, without that token."""
    return self.content(anchor + before, text)[len(self.template(anchor)) :]

  def going_on(self, text: str) -> list[int]:
    """Tokens of content in the middle of a message."""
    return self._inside(text, self.content)

  def template_going_on(self, text: str) -> list[int]:
    """Tokens of a template's own text behind content."""
    return self._inside(text, lambda before, after: self.template(before + after))

  def _inside(
      self, text: str, spell: Callable[[str, str], list[int]]
  ) -> list[int]:
    """Tokens of a text behind the first context that it leaves as it is."""
    own, ids = [], []
    for before in self._contexts:
      own, ids = self.template(before), spell(before, text)
      if ids[: len(own)] == own:
        break
    return ids[len(own) :]

  def said(self, text: str) -> list[int]:
    """A policy's own words; the tags of its thoughts stand for themselves."""
    if not any(part in self._tags for part in thoughts.split(text)):
      return self.going_on(text)
    return [
        i
        for part in thoughts.split(text)
        for i in (self.template(part) if part in self._tags else self.going_on(part))
    ]

  def holds_control(self, text: str) -> bool:
    """Whether a text would speak as the template."""
    return bool(self._controls(self.template(text)))

  def first_control(self, text: str) -> tuple[int, int] | None:
    """Where the first control token of a template's text is, in characters."""
    return next(iter(self._control_spans(text)), None)

  def _control_spans(self, text: str) -> list[tuple[int, int]]:
    encoded = self._full.encode(text, add_special_tokens=False)
    spans = zip(encoded.ids, encoded.offsets)
    return [span for i, span in spans if i in self.control_ids]

  def _controls(self, ids: Sequence[int]) -> list[int]:
    return [i for i in ids if i in self.control_ids]

  def _defused(self, text: str) -> list[int]:
    ids = shared(self._plain.encode(text, add_special_tokens=False).ids)
    if not self._forbidden(ids):
      return ids
    # A vocabulary that holds a control token's characters as an ordinary word:
    # characters one by one make no such word.
    ones = self._plain.encode_batch(list(text), add_special_tokens=False)
    ids = [i for one in ones for i in one.ids]
    if found := self._forbidden(ids):
      raise ValueError(f'control tokens {found} cannot be spelt as text: {text!r:.80}')
    return ids

  def _forbidden(self, ids: Sequence[int]) -> list[int]:
    # What a vocabulary has no words for may be spelt by a control token.
    return [i for i in self._controls(ids) if i != self._unknown]


def _is_control(token: str, templates: str) -> bool:
  """Of added tokens that are not called special."""
  return bool(token.strip()) and (token in templates or thoughts.is_tag(token))


def _bare(text: str) -> tokenizers.Tokenizer:
  """A tokenizer that neither truncates nor pads."""
  found = tokenizers.Tokenizer.from_str(text)
  found.no_truncation()
  found.no_padding()
  return found
