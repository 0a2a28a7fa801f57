"""Transcripts: how observations, responses, hints and reflections are spelt.

A transcript only grows at its end (design: prefixes stay whole):

    first(o_1) opener a_1  next(o_2) opener a_2  ...  next(o_t) opener a_t

A memory, lessons that hold for the whole episode, stands in first(o_1), before
o_1, and stays there.

h_t is everything up to and including o_t, without the opener. A hint e goes
between o_tau and the opener and is gone afterwards; a reflection is asked for
at the end of a fork of h_t. Pieces are tokenised one by one and never again.
Chat policies may be shown the last turns alone instead, in prompts that begin
anew at every turn (`ChatTranscript.window`).

`WordTranscript` spells small policies' episodes in special tokens;
`ChatTranscript` uses the chat template of a checkpoint's tokenizer.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Protocol

from leafe_jax.text import tokenizers as tok
from leafe_jax.token_ids import shared


class UnknownWords(ValueError):
  """A text of the world that a word-level vocabulary cannot spell; names the words."""


class ReflectionError(ValueError):
  """A reflection that names no turn or no experience."""


@dataclasses.dataclass(frozen=True)
class ParsedReflection:
  """(tau, e); tau None means 'carry on'."""

  tau: int | None
  experience: str


class Transcript(Protocol):
  """See the module's docstring; all methods return token ids."""

  tokenizer: tok.Tokenizer
  stop_ids: tuple[int, ...]
  opener_ids: tuple[int, ...]

  def first(
      self, rules: str, instruction: str, observation: str, memory: str = ''
  ) -> list[int]:
    """The prompt of turn 1: rules of the game, the task, memory, o_1.

    `memory` holds one lesson a line.
    """
    ...

  def next(self, turn: int, observation: str, cut_off: int = 0) -> list[int]:
    """What o_turn adds after the response of the turn before.

    `cut_off`: that response was cut off after so many tokens, which a transcript
    with words for it tells the policy.
    """
    ...

  def hint(self, experience: str) -> list[int]:
    """The block that shows e, to be put between o_tau and the opener."""
    ...

  def feedback(self, observation: str) -> list[int]:
    """As `hint`, of what the world answered to an action taken here."""
    ...

  def reflection(self, turn: int, terminal: bool) -> list[int]:
    """Asks for (tau, e) after `turn` turns, opener included."""
    ...

  def response(self, text: str) -> list[int]:
    """A response with its stop token, as training target."""
    ...

  def reflection_response(self, tau: int | None, experience: str) -> str:
    """The text of a well-formed reflection."""
    ...

  def parse_reflection(self, text: str, turn: int, terminal: bool) -> ParsedReflection:
    """Strict parsing. Raises ReflectionError."""
    ...

  def text(self, ids: Sequence[int]) -> str:
    """Text of response ids, without the stop token."""
    ...

  def answer(self, text: str) -> str:
    """What a response says outside its thoughts; all else means nothing."""
    ...


def closing(transcript: Transcript, response_ids: Sequence[int]) -> list[int]:
  """The stop token that a response lacks, when it was cut off; else nothing."""
  stops = transcript.stop_ids
  ended = bool(response_ids) and response_ids[-1] in stops
  return [] if ended else [stops[0]]


def check_tau(tau: int, turn: int) -> int:
  """Clips a rollback turn into 1..turn (methods: tau = clip(tau, 1, t))."""
  return max(1, min(tau, turn))


class WordTranscript:
  """Special tokens around words; for policies trained from scratch.

      <bos> <t1> o_1 <act> a_1 <end> <t2> o_2 <act> ...
      memory:      <bos> <hint> lesson <use> <hint> lesson <use> <t1> o_1 <act> ...
      hint:        <hint> e <use>
    feedback:    the same
      reflection:  <reflect> <failed> -> <t3> e <end>   or   <none> <end>
  """

  _PATTERN = re.compile(r'<t(\d+)> (\S.*)')

  def __init__(self, tokenizer: tok.Tokenizer):
    self.tokenizer = tokenizer
    self._ids = tokenizer.get_vocab()
    self.stop_ids = (self._id(tok.END),)
    self.opener_ids = (self._id(tok.ACT),)
    self._special = frozenset(tokenizer.all_special_ids)

  def _id(self, token: str) -> int:
    return self._ids[token]

  @functools.lru_cache(maxsize=65_536)  # noqa: B019 - lives as long as the run
  def _encode(self, text: str) -> tuple[int, ...]:
    ids = self.tokenizer.encode(text, add_special_tokens=False)
    if self.tokenizer.unk_token_id in ids:
      unknown = [word for word in text.split() if word not in self._ids]
      raise UnknownWords(f'words outside the vocabulary: {unknown} in {text!r}')
    return tuple(shared(ids))

  def first(
      self, rules: str, instruction: str, observation: str, memory: str = ''
  ) -> list[int]:
    del rules, instruction  # the first observation of a compact view is the task
    lessons = [i for line in memory.split('\n') if line for i in self.hint(line)]
    return [self._id(tok.BOS), *lessons, *self.next(1, observation)]

  def next(self, turn: int, observation: str, cut_off: int = 0) -> list[int]:
    del cut_off  # the world's own answer says it in words that the policy knows
    return [self._id(tok.turn_mark(turn)), *self._encode(observation)]

  def hint(self, experience: str) -> list[int]:
    return [self._id(tok.HINT), *self._encode(experience), self._id(tok.USE)]

  def feedback(self, observation: str) -> list[int]:
    return self.hint(observation)

  def reflection(self, turn: int, terminal: bool) -> list[int]:
    del turn
    return [self._id(tok.REFLECT), self._id(tok.FAILED if terminal else tok.GOING)]

  def response(self, text: str) -> list[int]:
    return [*self._encode(text), self._id(tok.END)]

  def reflection_response(self, tau: int | None, experience: str) -> str:
    return tok.NONE if tau is None else f'{tok.turn_mark(tau)} {experience}'

  def parse_reflection(self, text: str, turn: int, terminal: bool) -> ParsedReflection:
    if text == tok.NONE:
      if terminal:
        raise ReflectionError('a failed episode must name a turn')
      return ParsedReflection(None, '')
    match = self._PATTERN.fullmatch(text)
    if match is None or '<' in match[2]:
      raise ReflectionError(f'not of the form "<tN> words": {text!r}')
    return ParsedReflection(check_tau(int(match[1]), turn), match[2])

  def text(self, ids: Sequence[int]) -> str:
    body = [i for i in ids if i not in self.stop_ids]
    # A row of the table that pads it has no word: None.
    words = self.tokenizer.convert_ids_to_tokens(body)
    return ' '.join(word or tok.UNKNOWN for word in words)

  def answer(self, text: str) -> str:
    return text
