"""Transcripts in the chat template of a checkpoint's tokenizer.

The template is cut once (`leafe_jax.text.template`); from then on episodes are
spelt from its pieces, and what the world, the policy or a memory says between
them is content, never control (`leafe_jax.text.spelling`).
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence

from leafe_jax.text import thoughts, transcript
from leafe_jax.text import tokenizers as tok
from leafe_jax.text.prompts import DEFAULT, Prompts
from leafe_jax.text.spelling import Speller
from leafe_jax.text.template import Pieces, TemplateError, cut
from leafe_jax.tree import Turn

_ANSWER = re.compile(
    r'<rollback>\s*([0-9]{1,9}|none)\s*</rollback>\s*'
    r'(?:<experience>(.*?)</experience>)?',
    re.DOTALL,
)


class ChatTranscript:
  """Transcript of a chat model; pieces are cut from its template.

  Args:
    tokenizer: of the checkpoint.
    pieces: of its template; cut here if not given.
    prompts: what is said around the world's words.
    eos_ids: tokens that end a response besides the template's own and the
      tokenizer's, see `huggingface.read_eos`.

  Raises:
    TemplateError: the template has none, its pieces depend on the contents, or
      an answer in it ends without a token that says so.
  """

  def __init__(
      self,
      tokenizer: tok.Tokenizer,
      pieces: Pieces | None = None,
      eos_ids: Sequence[int] = (),
      prompts: Prompts = DEFAULT,
  ):
    self.tokenizer = tokenizer
    self._prompts = prompts
    self._eos_ids = tuple(eos_ids)
    self._pieces = pieces = pieces or cut(tokenizer, system=prompts.system_message)
    try:
      self._speller = Speller(tokenizer)
    except ValueError as error:
      raise TemplateError(str(error)) from error
    if self._speller.holds_control(prompts.system_message):
      raise TemplateError('policy.prompts: system holds tokens of the chat template')
    self._trail, self._stop, self._header = _cut_stop(self._speller, pieces)
    stop_id = self._speller.template(self._stop)[0]
    eos = tokenizer.eos_token_id
    named = (eos,) if isinstance(eos, int) else ()
    self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((stop_id, *named, *eos_ids)))
    self.opener_ids = tuple(self._speller.template_going_on(pieces.opener))
    self._thinks = thoughts.is_open(pieces.opener)

  @property
  def system(self) -> str:
    """The system message that the pieces hold; empty: none, or the template's own."""
    return self._prompts.system_message

  @functools.cached_property
  def tokenizer_id(self) -> str:
    """Tells tokenizers apart that spell in other ids."""
    text = self.tokenizer.backend_tokenizer.to_str()  # pyright: ignore
    return hashlib.sha256(text.encode()).hexdigest()

  @property
  def pieces(self) -> Pieces:
    return self._pieces

  @property
  def header(self) -> str:
    """What the template puts between a stop token and the next user's words."""
    return self._header

  def with_pieces(self, pieces: Pieces) -> ChatTranscript:
    """The same, with other pieces of the template."""
    return ChatTranscript(self.tokenizer, pieces, self._eos_ids, self._prompts)

  def beginning(self, text: str) -> list[int]:
    """A conversation whose first message is just this text."""
    return self._speller.content(self._pieces.head, text)

  def further(self, text: str) -> list[int]:
    """A later message of just this text, behind the end of a response."""
    return self._speller.content_after(self._stop, self._header, text)

  def holds_control(self, text: str) -> bool:
    """Whether a text would speak as the template."""
    return self._speller.holds_control(text)

  def split_answer(self, text: str) -> tuple[str, str]:
    """A rendered answer: through the token that ends it, and what follows.

    Raises:
      TemplateError: it does not end as the template's answers do.
    """
    before, stop, rest = text.rpartition(self._stop)
    if not stop or rest.strip():
      raise TemplateError(
          f'the chat template does not end an answer with {self._stop!r}, but with '
          f'{text[-40:]!r}'
      )
    return before + stop, rest

  def template_ids(self, text: str, going_on: bool) -> list[int]:
    """Tokens of what the template rendered, at the beginning or later."""
    spell = self._speller.template_going_on if going_on else self._speller.template
    return spell(text)

  def answer_ids(self, text: str) -> list[int]:
    """Tokens of an answer that the template rendered, its end included."""
    words = text.removesuffix(self._stop)
    return [*self._speller.template_going_on(words), self.stop_ids[0]]

  def first(
      self, rules: str, instruction: str, observation: str, memory: str = ''
  ) -> list[int]:
    text = self._prompts.first
    return self._begin(text, rules, instruction, memory, observation=observation)

  def window(
      self, turns: int, rules: str, instruction: str, memory: str,
      past: Sequence[Turn], observation: str,
  ) -> list[int]:
    """A prompt that begins anew and shows the last turns alone.

    Args:
      turns: how many, at least 1.
      rules, instruction, memory: as for `first`.
      past: all turns so far, at least one.
      observation: what the last of them led to.
    """
    last, shown = past[-1], past[-turns:]
    note = self._cut_off_note(len(last.response_ids) if last.cut_off else 0)
    return self._begin(
        self._prompts.window, rules, instruction, memory,
        taken=last.index, shown=len(shown), turn=last.index + 1,
        history=''.join(map(self._shown, shown)), observation=note + observation,
    )

  def _shown(self, turn: Turn) -> str:
    said = self._prompts
    action = said.no_action.format() if turn.action is None else turn.action
    return said.window_turn.format(
        turn=turn.index, observation=turn.observation, action=action
    )

  def _begin(
      self, text: str, rules: str, instruction: str, memory: str, **others: object
  ) -> list[int]:
    """A conversation whose first message is `text`, its places filled."""
    said = self._prompts
    message = text.format(
        rules=f'{rules}\n\n{said.style.format()}'.strip(),
        instruction=instruction,
        memory=said.memory.format(memory=memory) if memory else '',
        **others,
    )
    return self._speller.content(self._pieces.head, message.strip())

  def _cut_off_note(self, tokens: int) -> str:
    return self._prompts.cut_off.format(limit=tokens) if tokens else ''

  def question(self, text: str) -> list[int]:
    """A conversation of its own that asks `text`, opener included."""
    return [*self._speller.content(self._pieces.head, text), *self.opener_ids]

  def next(self, turn: int, observation: str, cut_off: int = 0) -> list[int]:
    message = self._prompts.next.format(turn=turn, observation=observation)
    text = self._cut_off_note(cut_off) + message
    # The response brought its stop token along.
    return self._speller.content_after(self._stop, self._header, text)

  def hint(self, experience: str) -> list[int]:
    return self._speller.going_on(self._prompts.hint.format(experience=experience))

  def feedback(self, observation: str) -> list[int]:
    text = self._prompts.feedback.format(observation=observation)
    return self._speller.going_on(text)

  def reflection(self, turn: int, terminal: bool) -> list[int]:
    said = self._prompts
    status = (said.failed if terminal else said.going).format(turn=turn)
    # Formatted too where nothing is filled: braces are written twice.
    text = said.reflect.format(status=status)
    text += '' if terminal else said.decline.format()
    return [*self._speller.going_on(text), *self.opener_ids]

  def response(self, text: str) -> list[int]:
    said = f'{self._pieces.lead}{text}{self._trail}'
    return [*self._speller.said(said), self.stop_ids[0]]

  def reflection_response(self, tau: int | None, experience: str) -> str:
    if tau is None:
      return '<rollback>none</rollback>'
    return f'<rollback>{tau}</rollback><experience>{experience}</experience>'

  def parse_reflection(
      self, text: str, turn: int, terminal: bool
  ) -> transcript.ParsedReflection:
    matches = list(_ANSWER.finditer(text))
    if not matches:
      raise transcript.ReflectionError('no <rollback> and <experience> tags')
    match = matches[-1]  # what it came to
    if match[1] == 'none':
      if terminal:
        raise transcript.ReflectionError('a failed episode must name a step')
      return transcript.ParsedReflection(None, '')
    experience = (match[2] or '').strip()
    if not experience:
      raise transcript.ReflectionError('empty experience')
    return transcript.ParsedReflection(
        transcript.check_tau(int(match[1]), turn), experience
    )

  def text(self, ids: Sequence[int]) -> str:
    return self.all_text([i for i in ids if i not in self.stop_ids])

  def all_text(self, ids: Sequence[int]) -> str:
    """Text of any ids, control tokens as they are written."""
    return str(
        self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
    )

  def spoken(self, ids: Sequence[int]) -> str:
    """The text whose `response` these ids are, their end left out."""
    text = self.all_text(ids).removeprefix(self._pieces.lead)
    return text.removesuffix(self._trail)

  def answer(self, text: str) -> str:
    return thoughts.answer(text, self._thinks)


def _cut_stop(speller: Speller, pieces: Pieces) -> tuple[str, str, str]:
  """(blanks before it, the token that ends a response, the next user's header).

  Raises:
    TemplateError: text ends a response, which a policy may say at any time.
  """
  first = speller.first_control(pieces.between)
  trail = pieces.between if first is None else pieces.between[: first[0]]
  if first is None or trail.strip():
    raise TemplateError(
        f'the chat template ends an answer with {pieces.between!r}, which begins '
        'with text and not with a special token, so nothing would end a response'
    )
  start, end = first
  return trail, pieces.between[start:end], pieces.between[end:]
