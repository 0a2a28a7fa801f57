"""A chat template, rendered once and cut into the pieces between messages.

Episodes are spelt from the pieces, so what was sampled is what is trained on
even where a template would render earlier turns anew (Qwen3 drops earlier
thinking), and a template that reads the clock (Llama 3.2) says the same on
every day and host of a run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2

from leafe_jax import seals
from leafe_jax.files import DamagedFile
from leafe_jax.text.tokenizers import Tokenizer

_MARKS = ('\u241fquestion\u241f', '\u241fanswer\u241f', '\u241fagain\u241f')
# What Python and jinja raise inside a template that cannot be rendered.
_BROKEN = (
    jinja2.TemplateError, ValueError, TypeError, LookupError, AttributeError,
    ArithmeticError, MemoryError, RecursionError, TimeoutError,
)
# Longer than this no honest template takes, which take milliseconds.
MAX_SECONDS = 20.0
# Arguments of apply_chat_template that are ours.
_OURS = ('conversation', 'messages', 'tokenize', 'add_generation_prompt')


class TemplateError(ValueError):
  """A chat template that cannot be cut into stable pieces."""


@dataclasses.dataclass(frozen=True)
class Pieces:
  """A template's own texts.

  Attributes:
    head: before the first user's words.
    opener: between a user's words and a response.
    lead: blanks that the template puts before an answer, part of the response.
    between: from the end of a response to the next user's words.
  """

  head: str
  opener: str
  lead: str
  between: str


def cut(
    tokenizer: Tokenizer, options: Mapping[str, Any] | None = None, system: str = ''
) -> Pieces:
  """The pieces of the tokenizer's template.

  Args:
    tokenizer: with a chat template.
    options: variables of the template, such as enable_thinking; `chat_template`
      is the name of one of several.
    system: the system message, part of the head; empty: none, or the template's
      own.

  Raises:
    TemplateError: there is no template, it cannot be rendered, reads no variable
      of an option's name, or its pieces depend on the contents.
  """
  options = dict(options or {})
  _check_options(tokenizer, options)
  question, answer, again = _MARKS
  roles = ('user', 'assistant') * 2 + ('user',)
  contents = (question, answer, again, answer, question)
  messages = [{'role': r, 'content': c} for r, c in zip(roles, contents, strict=True)]
  before = [{'role': 'system', 'content': system}] if system else []

  def rendered(count: int) -> str:
    return render(tokenizer, [*before, *messages[:count]], options)

  found = _split(rendered(3), 4)
  head, opened, between, opener = found
  alone = rendered(1)
  if alone != head + question + opener:
    raise TemplateError(
        'the chat template changes earlier text when a turn is added: '
        f'{alone!r} does not start a longer conversation'
    )
  longer = _split(rendered(5), 6)
  if (longer[0], longer[2], longer[4], longer[5]) != (head, between, between, opener):
    raise TemplateError(
        f'the chat template changes earlier text when a turn is added: {longer} is '
        f'not {found} with one more turn'
    )
  lead = opened.removeprefix(opener) if opened.startswith(opener) else ''
  return Pieces(head, opener, '' if lead.strip() else lead, between)


def _check_options(tokenizer: Tokenizer, options: Mapping[str, Any]) -> None:
  templates = tokenizer.chat_template
  if not templates:
    raise TemplateError(
        'the tokenizer has no chat template; put one into chat_template.jinja '
        'beside it, or take an instruction-tuned checkpoint'
    )
  if isinstance(templates, Mapping):
    name = options.get('chat_template', 'default')
    if name not in templates:
      raise TemplateError(
          f'the tokenizer has no chat template {name!r}; choose one with '
          f'policy.template.chat_template: {", ".join(templates)}'
      )
    templates = templates[name]
  _refuse_powers(templates)
  for name in options:
    known = name == 'chat_template' or re.search(rf'\b{re.escape(name)}\b', templates)
    if name in _OURS or not known:
      raise TemplateError(
          f'policy.template.{name}: the chat template reads no such variable'
      )


def render(
    tokenizer: Tokenizer,
    messages: Sequence[dict[str, Any]],
    options: Mapping[str, Any],
    opened: bool = True,
    tools: list[Any] | None = None,
) -> str:
  """A conversation as the template says it.

  Args:
    tokenizer: with the template.
    messages: as transformers takes them.
    options: variables of the template.
    opened: whether the opener of a response follows.
    tools: descriptions of tools, as transformers takes them.

  Raises:
    TemplateError: it cannot be rendered.
  """
  try:
    with _limited():
      return str(
          tokenizer.apply_chat_template(
              list(messages), tools=tools, tokenize=False,
              add_generation_prompt=opened, **options,
          )
      )
  except _BROKEN as error:
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise TemplateError(
        'the chat template cannot render a conversation of '
        f'{", ".join(dict.fromkeys(m["role"] for m in messages))}: {reason}'
    ) from error


@contextlib.contextmanager
def _limited() -> Iterator[None]:
  """Ends a template that loops: its sandbox bounds what it reaches, not its time.

  Only the main thread can be interrupted so; elsewhere there is no limit.
  """

  def end(*_: Any) -> None:
    raise TimeoutError(f'it was not done after {MAX_SECONDS:g} s')

  if threading.current_thread() is not threading.main_thread():
    yield
    return
  before = signal.signal(signal.SIGALRM, end)
  signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _refuse_powers(source: str) -> None:
  """Refuses the one operation that takes for ever in a single step."""
  try:
    tokens = [value for _, kind, value in jinja2.Environment().lex(source)
              if kind == 'operator']  # fmt: skip
  except jinja2.TemplateError:
    return  # rendering says what is wrong
  if '**' in tokens:
    raise TemplateError('the chat template raises numbers to powers (**); take it out')


def _split(text: str, count: int) -> list[str]:
  pieces = re.split('|'.join(map(re.escape, _MARKS)), text)
  if len(pieces) != count:
    raise TemplateError('the chat template drops or repeats a message')
  return pieces


def keep(
    path: pathlib.Path, tokenizer: Tokenizer, options: Mapping[str, Any],
    system: str = '',
) -> None:
  """Writes the pieces at a run's first start; compares with them at later ones.

  Raises:
    TemplateError: as `cut`, or the template is another one than then.
  """
  identity = _identity(tokenizer, options)
  if not path.exists():
    pieces = cut(tokenizer, options, system)
    seals.write_record(path, {'sha256': identity, **dataclasses.asdict(pieces)})
  elif _record(path).get('sha256') != identity:
    raise TemplateError(
        f'its chat template is not the one that the run began with ({path}); put '
        'the old one back, or begin anew in another --workdir'
    )


def kept(path: pathlib.Path) -> Pieces:
  """What `keep` wrote. Raises TemplateError."""
  record = _record(path)
  del record['sha256']
  return Pieces(**record)


def _record(path: pathlib.Path) -> dict[str, Any]:
  try:
    return seals.read_record(path)
  except DamagedFile as error:
    raise TemplateError(
        f'{error}; put it back from a copy, or remove it: it is cut from the template '
        'again (one that names the day then names another)'
    ) from error


def _identity(tokenizer: Tokenizer, options: Mapping[str, Any]) -> str:
  text = json.dumps([tokenizer.chat_template, dict(options)], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
