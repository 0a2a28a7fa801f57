"""HotpotQA, distractor setting: two of ten paragraphs answer (arXiv 1809.09600).

A file is a list of

    {"_id": .., "question": .., "answer": .., "type": "bridge", "level": "hard",
     "context": [[title, [sentence, ..]], ..], "supporting_facts": [[title, 0], ..]}

The form of the data hub, where `context` is {"title": [..], "sentences": [..]},
`supporting_facts` {"title": [..], "sent_id": [..]} and the key `id`, is read too.
Supporting facts may name sentences that do not exist; they are only for reports.
The public test file has no answers and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envs.memsearch.files import field, read_list
from envs.memsearch.library import BadFile, Memory, Page, Passage, Question


def load(path: str) -> list[tuple[Memory, list[Question]]]:
  """Each set of paragraphs with its question, in the order of the file.

  Raises:
    FileNotFoundError: there is no such file.
    BadFile: it is not of that form; names the record and the field.
  """
  found = []
  for number, record in enumerate(read_list(path, 'context')):
    place = f'{path}: record {number}'
    if not isinstance(record, Mapping):
      raise BadFile(f'{place} is {type(record).__name__}, not an object')
    name = f'hotpot-{record.get("_id", record.get("id", number))}'
    memory = Memory(name, _pages(record, place))
    found.append((memory, [_question(memory, record, place)]))
  names = {memory.id for memory, _ in found}
  if len(names) < len(found):
    raise BadFile(f'{path}: {len(found) - len(names)} records share an _id with others')
  return found


def _pages(record: Mapping[str, Any], place: str) -> tuple[Page, ...]:
  context = field(record, 'context', (list, Mapping), place)
  pairs = _pairs(context, 'title', 'sentences', f"{place}, 'context'")
  pages = []
  for number, (title, sentences) in enumerate(pairs, start=1):
    if not isinstance(sentences, (list, tuple)):
      raise BadFile(f'{place}: the sentences of {title!r} are no list')
    passages = [
        Passage(f'P{number}:{i}', f'P{number}', f'{title}: {" ".join(str(s).split())}')
        for i, s in enumerate(sentences) if str(s).strip()
    ]
    if passages:
      pages.append(Page(f'P{number}', str(title), tuple(passages)))
  if not pages:
    raise BadFile(f"{place}: 'context' has no sentence; the distractor files have them")
  return tuple(pages)


def _pairs(value: Any, first: str, second: str, place: str) -> list[tuple[Any, Any]]:
  """(title, what belongs to it), from either form."""
  if isinstance(value, Mapping):
    titles, others = field(value, first, list, place), field(value, second, list, place)
    if len(titles) != len(others):
      raise BadFile(f'{place}: {len(titles)} of {first}, {len(others)} of {second}')
    return list(zip(titles, others, strict=True))
  for entry in value:
    if not isinstance(entry, (list, tuple)) or len(entry) != 2:
      raise BadFile(f'{place}: {str(entry)[:60]!r} is no pair')
  return [(entry[0], entry[1]) for entry in value]


def _question(memory: Memory, record: Mapping[str, Any], place: str) -> Question:
  text = ' '.join(field(record, 'question', str, place).split())
  if not text:
    raise BadFile(f'{place}: the question is empty; take the record out')
  if 'answer' not in record:
    raise BadFile(
        f'{place} has no answer (the public test file has none); take another file'
    )
  answer = field(record, 'answer', str, place).strip()
  if not answer:
    raise BadFile(f'{place}: the answer is empty; take the record out')
  kind = str(record.get('type') or 'question')
  return Question(
      memory.id, text, (answer,), kind, 'hotpot', _evidence(memory, record, place)
  )


def _evidence(
    memory: Memory, record: Mapping[str, Any], place: str
) -> tuple[str, ...]:
  facts = record.get('supporting_facts') or []
  pairs = _pairs(facts, 'title', 'sent_id', f"{place}, 'supporting_facts'")
  pages = {page.title: page.id for page in memory.pages}
  known = {passage.id for passage in memory.passages}
  names = [f'{pages.get(str(title))}:{number}' for title, number in pairs]
  return tuple(dict.fromkeys(name for name in names if name in known))
