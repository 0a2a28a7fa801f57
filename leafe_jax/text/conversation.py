"""Conversations of others, spelt as this policy's own transcripts are.

Turns of user and assistant by turns are spelt from the pieces of the template, so that
thoughts of former turns stay and nothing that is said counts as control. A conversation
with tools is spelt as the template renders it, message by message; one that it renders
otherwise once it goes on is refused, since no policy would ever see what is trained.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leafe_jax.text import template, thoughts
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.text.template import TemplateError

Pieces = list[tuple[list[int], float]]


class ConversationError(ValueError):
  """A conversation that cannot be spelt; one line says which part and why."""


@dataclasses.dataclass(frozen=True)
class Message:
  """One message.

  Attributes:
    role: 'system', 'user', 'assistant' or 'tool'.
    content: its text.
    trained: whether an assistant's words are learnt.
    more: further fields for the template, such as tool_calls.
    ids: its tokens where the text alone does not say how they were spelt: of an
      answer with its end, of a question with what the template puts before it.
  """

  role: str
  content: str
  trained: bool = False
  more: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  ids: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Conversation:
  """Messages, an assistant's last; `tools` as the template takes them."""

  messages: tuple[Message, ...]
  tools: tuple[Any, ...] = ()


class Narrator:
  """Spells conversations.

  Args:
    transcript: of the policy.
    options: variables of its template.

  Attributes:
    tokenizer: identity of the tokenizer, for ids that come with a conversation.
  """

  def __init__(self, transcript: ChatTranscript, options: Mapping[str, Any]):
    self._own = transcript
    self._options = dict(options)
    self.tokenizer = transcript.tokenizer_id
    self._by_system: dict[str, ChatTranscript] = {transcript.system: transcript}

  def spell(self, conversation: Conversation) -> Pieces:
    """(ids, weight of each of them) in reading order.

    Raises:
      ConversationError: the template has no place for it.
    """
    messages = list(conversation.messages)
    while messages and messages[-1].role != 'assistant':
      messages.pop()  # nobody answers
    self._check_ids(messages)
    system = ''
    if messages and messages[0].role == 'system':
      system = messages.pop(0).content
    try:
      if conversation.tools or any(m.role == 'tool' or m.more for m in messages):
        return list(self._rendered(system, messages, conversation.tools))
      _check_turns(messages)
      return list(_by_turns(self._speaking_under(system), messages))
    except (TemplateError, ValueError) as error:
      raise ConversationError(str(error)) from error

  def _check_ids(self, messages: Sequence[Message]) -> None:
    size = len(self._own.tokenizer)
    for token in (i for message in messages for i in message.ids):
      if token >= size:
        raise ConversationError(
            f'token_ids holds {token}, and the tokenizer has {size} tokens'
        )

  def _speaking_under(self, system: str) -> ChatTranscript:
    """A transcript whose head holds a system message."""
    if system not in self._by_system:
      own = self._own
      pieces = template.cut(own.tokenizer, self._options, system)
      self._by_system[system] = own.with_pieces(pieces)
    return self._by_system[system]

  def _rendered(
      self, system: str, messages: Sequence[Message], tools: Sequence[Any]
  ) -> Iterator[tuple[list[int], float]]:
    """As the template renders it, each answer behind what it was asked with."""
    own = self._own
    for message in messages:
      self._check_content(message)
    known = [{'role': 'system', 'content': system}] if system else []
    given = known + [
        {'role': m.role, 'content': m.content, **m.more} for m in messages
    ]
    done = ''
    for i, message in enumerate(messages, len(known)):
      if message.role != 'assistant':
        continue
      asked = self._render(given[:i], tools, True)
      answered = self._render(given[: i + 1], tools, False)
      prompt = _added(done, asked, i)
      words = _added(asked, answered, i)
      said, rest = own.split_answer(words)
      yield own.template_ids(prompt, bool(done)), 0.0
      yield list(message.ids) or own.answer_ids(said), float(message.trained)
      done = answered.removesuffix(rest) if rest else answered

  def _check_content(self, message: Message) -> None:
    """Rendered, nothing tells control that is said from the template's own."""
    said = [message.content, json.dumps(dict(message.more), ensure_ascii=False)]
    if message.role == 'assistant':  # may think aloud
      said = [part for text in said for part in thoughts.split(text)]
      said = [part for part in said if not thoughts.is_tag(part)]
    for text in said:
      if self._own.holds_control(text):
        raise ConversationError(
            f'a message of {message.role} holds control tokens of the template, in a '
            f'conversation with tools: {text!r:.80}'
        )

  def _render(
      self, messages: Sequence[dict[str, Any]], tools: Sequence[Any], opened: bool
  ) -> str:
    return template.render(
        self._own.tokenizer, messages, self._options, opened, list(tools) or None
    )


def _added(before: str, after: str, message: int) -> str:
  if not after.startswith(before):
    raise ConversationError(
        f'the chat template renders what stands before message {message + 1} otherwise '
        'once that message is there, so its words cannot be trained where a policy '
        'would say them'
    )
  return after[len(before) :]


def _check_turns(messages: Sequence[Message]) -> None:
  """Refuses what pieces of questions and answers cannot spell."""
  wanted = ('user', 'assistant')
  for number, message in enumerate(messages):
    if message.role != wanted[number % 2]:
      raise ConversationError(
          f'message {number + 1} (system messages not counted) is of role '
          f'{message.role}, where {wanted[number % 2]} is wanted: user and assistant '
          'speak by turns, the user first, a system message before them'
      )


def _by_turns(
    transcript: ChatTranscript, messages: Sequence[Message]
) -> Iterator[tuple[list[int], float]]:
  for number, message in enumerate(messages):
    ids, content = list(message.ids), message.content
    if message.role == 'assistant':
      yield list(transcript.opener_ids), 0.0
      yield ids or transcript.response(content), float(message.trained)
    elif ids:
      yield ids, 0.0
    elif number:
      yield transcript.further(content), 0.0
    else:
      yield transcript.beginning(content), 0.0
