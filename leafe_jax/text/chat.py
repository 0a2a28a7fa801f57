"""Transcripts in the chat template of a checkpoint's tokenizer.

The template is rendered once, with marker texts, and cut at the markers; from
then on episodes are spelt from the pieces, so that what was sampled is what is
trained on even where a template would re-render earlier turns (Qwen3 drops
earlier thinking).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from leafe_jax.text import tokenizers as tok
from leafe_jax.text import transcript

_MARKS = ('\u241fquestion\u241f', '\u241fanswer\u241f', '\u241fagain\u241f')

_HINT = (
    '\n\nLesson from an earlier attempt at this same task: {experience}\n'
    'Use it now; do not mention it.'
)
_REFLECT = """

{status} Look back over the numbered steps above. Find the earliest step whose \
change would have altered the outcome. In at most 80 words say what went wrong, \
citing the observation, and what to do at that step. Do not describe later \
steps and do not guess hidden facts. Answer exactly in this form:
<rollback>STEP</rollback><experience>TEXT</experience>"""
_DECLINE = '\nIf all is well so far, answer <rollback>none</rollback>'
_ANSWER = re.compile(
    r'<rollback>\s*(\d+|none)\s*</rollback>\s*'
    r'(?:<experience>(.*?)</experience>)?',
    re.DOTALL,
)


class TemplateError(ValueError):
  """A chat template that cannot be cut into stable pieces."""


class ChatTranscript:
  """Transcript of a chat model; pieces are cut from its template.

  Raises:
    TemplateError: the template has none, or its pieces depend on the contents.
  """

  def __init__(self, tokenizer: tok.Tokenizer):
    self.tokenizer = tokenizer
    self._head, opener, self._between = _cut_template(tokenizer)
    self.opener_ids = tuple(self._encode(opener))
    closing = self._encode(self._between)
    # The first token of what follows a response is what ends it.
    self._stop_id = closing[0]
    self.stop_ids: tuple[int, ...] = (self._stop_id,)
    if isinstance(tokenizer.eos_token_id, int):
      self.stop_ids = tuple(dict.fromkeys((self._stop_id, tokenizer.eos_token_id)))
    self._stop_text = self._decode([closing[0]])

  def _encode(self, text: str) -> list[int]:
    return self.tokenizer.encode(text, add_special_tokens=False)

  def _decode(self, ids: Sequence[int]) -> str:
    return str(self.tokenizer.decode(ids))

  def first(self, rules: str, instruction: str, observation: str) -> list[int]:
    task = f'{rules}\n\nTask: {instruction}\n\nStep 1\n{observation}'
    return self._encode(self._head + task.strip())

  def next(self, turn: int, observation: str) -> list[int]:
    # The response brought its stop token along.
    header = self._between.removeprefix(self._stop_text)
    return self._encode(f'{header}Step {turn}\n{observation}')

  def hint(self, experience: str) -> list[int]:
    return self._encode(_HINT.format(experience=experience))

  def reflection(self, turn: int, terminal: bool) -> list[int]:
    status = (
        f'The attempt failed after step {turn}.'
        if terminal
        else f'The attempt is in progress after step {turn}.'
    )
    text = _REFLECT.format(status=status) + ('' if terminal else _DECLINE)
    return self._encode(text) + list(self.opener_ids)

  def response(self, text: str) -> list[int]:
    return [*self._encode(text), self._stop_id]

  def reflection_response(self, tau: int | None, experience: str) -> str:
    if tau is None:
      return '<rollback>none</rollback>'
    return f'<rollback>{tau}</rollback><experience>{experience}</experience>'

  def parse_reflection(
      self, text: str, turn: int, terminal: bool
  ) -> transcript.ParsedReflection:
    match = _ANSWER.search(text)
    if match is None:
      raise transcript.ReflectionError('no <rollback> and <experience> tags')
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
    body = [i for i in ids if i not in self.stop_ids]
    return self._decode(body)


def _cut_template(tokenizer: tok.Tokenizer) -> tuple[str, str, str]:
  """(text before the first user's words, opener, response end to next user)."""
  if not tokenizer.chat_template:
    raise TemplateError('the tokenizer has no chat template')
  question, answer, again = _MARKS
  messages = [
      {'role': 'user', 'content': question},
      {'role': 'assistant', 'content': answer},
      {'role': 'user', 'content': again},
  ]
  text = str(
      tokenizer.apply_chat_template(
          messages, tokenize=False, add_generation_prompt=True
      )
  )
  pieces = re.split('|'.join(map(re.escape, _MARKS)), text)
  if len(pieces) != 4:
    raise TemplateError('the chat template drops or repeats a message')
  head, _, between, opener = pieces
  alone = tokenizer.apply_chat_template(
      messages[:1], tokenize=False, add_generation_prompt=True
  )
  if alone != head + question + opener:
    raise TemplateError(
        'the chat template changes earlier text when a turn is added: '
        f'{alone!r} does not start a longer conversation'
    )
  return head, opener, between
