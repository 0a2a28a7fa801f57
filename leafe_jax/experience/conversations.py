"""Files of conversations as training examples.

One JSON object a line (JSONL), or one JSON array a file, in the forms in which agent
trajectories are given away:

    {"messages": [{"role": "user", "content": "..."}, ...], "tools": [...]}
    {"conversations": [{"from": "human", "value": "...", "loss": null}, ...],
     "system": "...", "tools": "[...]"}
    {"prompt": [messages], "completion": [messages]}      loss on the latter alone
    [messages]

Only an assistant's words are trained, with the token that ends them, and not where a
flag of the message (`loss`, `weight`, `train`) switches that off. A row is taken whole
or refused with its file, its line and the reason; one with nothing to train is left
out and counted. Rows are read one after the other and never held together (but for an
array).
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import logging

from leafe_jax import inputs
from leafe_jax.experience import examples
from leafe_jax.experience.examples import Example
from leafe_jax.text.conversation import (
  Conversation,
  ConversationError,
  Message,
  Narrator,
)

_ROLES = {
    'system': 'system', 'developer': 'system',
    'user': 'user', 'human': 'user',
    'assistant': 'assistant', 'gpt': 'assistant', 'model': 'assistant',
    'function_call': 'assistant',
    'tool': 'tool', 'function': 'tool', 'function_response': 'tool',
    'observation': 'tool',
}  # fmt: skip
_FLAGS = ('loss', 'weight', 'train')
# Fields of a message that a template may read.
_MORE = {
    'system': (), 'user': (), 'assistant': ('tool_calls',),
    'tool': ('tool_call_id', 'name'),
}  # fmt: skip


class DataError(ValueError):
  """A file of conversations that cannot be read; names it, the line and the reason."""


def files(places: Sequence[str]) -> list[pathlib.Path]:
  """The files, in order; of a directory its *.jsonl and *.json by name.

  Raises:
    DataError: nothing is there.
  """
  found: list[pathlib.Path] = []
  for place in map(pathlib.Path, map(inputs.local, places)):
    inside = sorted(p for p in place.glob('*.json*') if p.suffix in ('.jsonl', '.json'))
    if not place.exists():
      raise DataError(f'warm_start.data={place}: there is no such file or directory')
    if place.is_dir() and not inside:
      raise DataError(f'warm_start.data={place}: no *.jsonl or *.json in the directory')
    found += inside if place.is_dir() else [place]
  return found


def read(places: Sequence[str], narrator: Narrator) -> Iterator[Example]:
  """Examples of kind 'demo', one a row.

  Args:
    places: files, or directories of them.
    narrator: spells them.

  Raises:
    DataError: see the module's docstring.
  """
  rows = empty = 0
  for path in files(places):
    for where, row in _rows(path):
      rows += 1
      example = _example(where, row, narrator)
      if example.weights.any():
        yield example
      else:
        empty += 1
  if empty:
    logging.warning('%d of %d conversations have no words to train', empty, rows)


def check(places: Sequence[str], narrator: Narrator) -> None:
  """Spells the first row of each file. DataError: it cannot be spelt, or is none."""
  for path in files(places):
    row = next(iter(_rows(path)), None)
    if row is None:
      raise DataError(f'{path}: it is empty')
    _example(*row, narrator)


def _example(where: str, row: Any, narrator: Narrator) -> Example:
  try:
    conversation, name = parse(row, narrator.tokenizer)
    return examples.make(narrator.spell(conversation), examples.DEMONSTRATION, name)
  except ConversationError as error:
    raise DataError(f'{where}: {error}') from error


def _rows(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
  """(place, value) of every row."""
  with path.open('rb') as file:
    head = file.read(4096).removeprefix(b'\xef\xbb\xbf').lstrip()
    file.seek(0)
    if head.startswith(b'[') and path.suffix == '.json':
      array = _value(file.read(), str(path))
      yield from ((f'{path}, item {i}', row) for i, row in enumerate(array, 1))
      return
    for number, line in enumerate(file, 1):
      text = line.removeprefix(b'\xef\xbb\xbf') if number == 1 else line
      if text.strip():
        yield f'{path}:{number}', _value(text, f'{path}:{number}')


def _value(text: bytes, where: str) -> Any:
  try:
    return json.loads(text.decode('utf-8-sig'))
  except UnicodeDecodeError as error:
    raise DataError(
        f'{where}: not UTF-8 (byte {error.start}); convert the file'
    ) from error
  except (ValueError, RecursionError) as error:
    raise DataError(f'{where}: no JSON: {error}') from error


def parse(row: Any, tokenizer: str = '') -> tuple[Conversation, str]:
  """A row's conversation, and its name ('' if it has none).

  Args:
    row: of a file.
    tokenizer: identity of the tokenizer; a row's token_ids of another one say nothing.

  Raises:
    ConversationError: it is none of the forms.
  """
  if isinstance(row, list):
    row = {'messages': row}
  if not isinstance(row, Mapping):
    raise ConversationError(
        f'a row is an object or a list of messages, not {row!r:.60}'
    )
  given, prompts = _given(row)
  tools = _tools(row.get('tools'))
  calls = tools or any('function_call' in (m.get('from'), m.get('role')) for m in given)
  found = [_message(m, i, bool(calls)) for i, m in enumerate(given, 1)]
  found = [
      dataclasses.replace(m, trained=m.trained and i >= prompts)
      for i, m in enumerate(found)
  ]
  if row.get('token_ids') and row.get('tokenizer') == tokenizer:
    found = _with_ids(row, found)
  name = row.get('task_id', row.get('id', row.get('item_id', '')))
  name = name if isinstance(name, (str, int)) else ''
  messages = _one_system(row.get('system'), _joined(found))
  return Conversation(tuple(messages), tools), str(name)


def _given(row: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], int]:
  """The messages, and how many of them are a prompt that is not learnt."""
  prompt: Any = []
  if 'prompt' in row and 'completion' in row:
    prompt, messages = row['prompt'], row['completion']
  else:
    name = next((n for n in ('messages', 'conversations') if row.get(n)), None)
    if name is None:
      raise ConversationError(
          'neither "messages" nor "conversations" nor "prompt" with "completion" holds '
          f'messages; its fields: {", ".join(map(str, row)) or "none"}'
      )
    messages = row[name]
  for part in (prompt, messages):
    if not isinstance(part, list) or not all(isinstance(m, Mapping) for m in part):
      raise ConversationError(f'messages must be a list of objects, not {part!r:.60}')
  return [*prompt, *messages], len(prompt)


def _message(given: Mapping[str, Any], number: int, calls: bool) -> Message:
  said = given.get('role', given.get('from'))
  role = _ROLES.get(said) if isinstance(said, str) else None
  if role is None:
    raise ConversationError(
        f'message {number} is of role {said!r}; known: {", ".join(_ROLES)}'
    )
  if said == 'observation' and not calls:
    role = 'user'  # where no tools are called, the world answers as the user does
  more = {name: given[name] for name in _MORE[role] if given.get(name)}
  content = _content(given.get('content', given.get('value')), number, more)
  if said == 'function_call':
    more, content = {'tool_calls': _calls(content, number)}, ''
  elif 'tool_calls' in more:
    more['tool_calls'] = [_arguments(call, number) for call in more['tool_calls']]
  thoughts = given.get('reasoning_content') or given.get('thinking')
  if thoughts:
    content = f'<think>\n{thoughts}\n</think>\n\n{content}'
  trained = _trained(given, role, number)
  if trained and not content.strip() and not more:
    raise ConversationError(
        f'message {number} of the assistant is empty, and would teach to say nothing; '
        'set its "loss" to false, or remove it'
    )
  return Message(role, content, trained, more)


def _content(value: Any, number: int, more: Mapping[str, Any]) -> str:
  if value is None and 'tool_calls' in more:
    return ''
  if isinstance(value, list):
    kinds = [p.get('type') if isinstance(p, Mapping) else p for p in value]
    if not all(kind == 'text' for kind in kinds):
      raise ConversationError(
          f'message {number} holds parts {kinds}; only text is read'
      )
    value = ''.join(str(part.get('text', '')) for part in value)
  if not isinstance(value, str):
    raise ConversationError(f'message {number} has content {value!r:.60}, not a text')
  try:
    value.encode()
  except UnicodeEncodeError as error:
    raise ConversationError(
        f'message {number} holds half a character: {error}'
    ) from error
  return value


def _trained(given: Mapping[str, Any], role: str, number: int) -> bool:
  flags = [given[name] for name in _FLAGS if given.get(name) is not None]
  for flag in flags:
    if flag not in (0, 1):
      raise ConversationError(
          f'message {number}: a loss of {flag!r}; it is true or false'
      )
  if role != 'assistant' and any(flags):
    raise ConversationError(
        f'message {number} of {role} has a loss: only an assistant has'
    )
  return role == 'assistant' and all(flags)


def _with_ids(row: Mapping[str, Any], messages: list[Message]) -> list[Message]:
  """With the tokens that the row says, one list a message (`messages.Scribe`)."""
  lists = row['token_ids']
  if not isinstance(lists, list) or len(lists) != len(messages):
    raise ConversationError('token_ids must hold a list for each message')
  for ids in lists:
    if not isinstance(ids, list) or not all(type(i) is int and i >= 0 for i in ids):
      raise ConversationError(f'token_ids holds {ids!r:.60}, no list of token ids')
  return [
      dataclasses.replace(m, ids=tuple(ids))
      for m, ids in zip(messages, lists, strict=True)
  ]


def _arguments(call: Any, number: int) -> Any:
  """A call whose arguments are an object, as templates want it; OpenAI's are a text."""
  if not isinstance(call, Mapping):
    raise ConversationError(f'message {number}: a tool call is {call!r:.60}, no object')
  function = call.get('function', call)
  arguments = function.get('arguments') if isinstance(function, Mapping) else None
  if isinstance(arguments, str):
    try:
      function = {**function, 'arguments': json.loads(arguments)}
    except ValueError as error:
      raise ConversationError(
          f'message {number}: arguments of a tool call are no JSON: {arguments!r:.60}'
      ) from error
  return {**call, 'type': 'function', 'function': function} if 'function' in call else (
      {'type': 'function', 'function': function})


def _calls(text: str, number: int) -> list[Any]:
  """One call, or a list of them."""
  try:
    found = json.loads(text)
  except ValueError as error:
    raise ConversationError(
        f'message {number}: a function_call is no JSON: {text!r:.60}'
    ) from error
  found = found if isinstance(found, list) else [found]
  return [_arguments(call, number) for call in found]


def _tools(value: Any) -> tuple[Any, ...]:
  if isinstance(value, str) and value.strip():
    try:
      value = json.loads(value)
    except ValueError as error:
      raise ConversationError(f'"tools" is no JSON: {value!r:.60}') from error
  if value and not isinstance(value, list):
    raise ConversationError(f'"tools" is {value!r:.60}; it must be a list')
  return tuple(value or ())


def _joined(messages: Sequence[Message]) -> Iterator[Message]:
  """Words of an assistant and the call right after them are one message."""
  before: Message | None = None
  for message in messages:
    calls = message.role == 'assistant' and 'tool_calls' in message.more
    alike = before and (before.role, before.trained) == (message.role, message.trained)
    if before and alike and calls and not message.content and not before.more:
      before = dataclasses.replace(before, more=message.more)
      continue
    if before is not None:
      yield before
    before = message
  if before is not None:
    yield before


def _one_system(given: Any, messages: Iterator[Message]) -> Iterator[Message]:
  """The messages, with at most one of the system, which is the first."""
  system = [given] if isinstance(given, str) and given else []
  rest = []
  for number, message in enumerate(messages, 1):
    if message.role == 'system' and message.content not in system:
      system.append(message.content)
    if message.role == 'system' and number > 1:
      raise ConversationError(
          f'message {number} is of the system: there is one at most, the first'
      )
    if message.role != 'system':
      rest.append(message)
  if len(system) > 1:
    raise ConversationError('"system" and the system message of the row differ')
  yield from (Message('system', text) for text in system if text)
  yield from rest
