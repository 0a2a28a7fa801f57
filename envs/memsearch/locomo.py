"""LoCoMo: questions about conversations of many sessions (arXiv 2402.17753).

The public file `locomo10.json` is a list of samples:

    {"sample_id": "conv-26",
     "conversation": {"speaker_a": .., "session_1_date_time": "1:56 pm on 8 May, 2023",
                      "session_1": [{"speaker": .., "dia_id": "D1:1", "text": ..}, ..]},
     "qa": [{"question": .., "answer": .., "evidence": ["D1:3"], "category": 2}, ..]}

It is not of one form throughout: answers and categories are texts or numbers, the
evidence is a list, a list as text, or several ids in one text, some of which do not
exist; sessions have dates but no turns; turns share photos of which a caption is
left. Category 5 has `adversarial_answer`, the answer to fall for, and no right one.

Its categories are 1 multi-hop, 2 temporal, 3 open-domain, 4 single-hop and
5 adversarial, which is not the order of the paper. As in the authors' evaluation,
of an answer of category 3 what stands before a semicolon counts, and those of
category 1 are lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from envs.memsearch.files import field, read_list
from envs.memsearch.library import BadFile, Memory, Page, Passage, Question

KINDS = {
    1: 'multi-hop', 2: 'temporal', 3: 'open-domain', 4: 'single-hop', 5: 'adversarial',
}  # fmt: skip
_SESSION = re.compile(r'session_(\d+)')
_EVIDENCE = re.compile(r'D(\d+):0*(\d+)')


def load(path: str) -> list[tuple[Memory, list[Question]]]:
  """Each conversation with its questions, in the order of the file.

  Raises:
    FileNotFoundError: there is no such file.
    BadFile: it is not of that form; names the sample and the field.
  """
  found = []
  for number, sample in enumerate(read_list(path, 'conversation')):
    place = f'{path}: sample {number}'
    name = str(sample.get('sample_id', number)) if isinstance(sample, Mapping) else ''
    talk = field(sample, 'conversation', Mapping, place)
    memory = _memory(f'locomo-{name}', talk, place)
    known = {passage.id for passage in memory.passages}
    asked = field(sample, 'qa', list, place)
    questions = [
        _question(memory.id, record, known, f'{place}, qa {i}')
        for i, record in enumerate(asked)
    ]
    found.append((memory, questions))
  names = [memory.id for memory, _ in found]
  if len(set(names)) < len(names):
    raise BadFile(f'{path}: two samples have one sample_id: {sorted(names)}')
  return found


def _memory(name: str, talk: Mapping[str, Any], place: str) -> Memory:
  numbers = sorted(int(m[1]) for key in talk if (m := _SESSION.fullmatch(str(key))))
  pages = []
  for number in numbers:
    turns = field(talk, f'session_{number}', list, place)
    passages = tuple(
        _turn(turn, number, i, f'{place}, session_{number}, turn {i}')
        for i, turn in enumerate(turns, start=1)
    )
    if passages:
      title = str(talk.get(f'session_{number}_date_time', ''))
      pages.append(Page(f'D{number}', title, passages))
  if not pages:
    raise BadFile(f'{place}: the conversation has no session_1, .. with turns')
  return Memory(name, tuple(pages))


def _turn(turn: Any, session: int, number: int, place: str) -> Passage:
  speaker, text = field(turn, 'speaker', str, place), field(turn, 'text', str, place)
  caption = turn.get('blip_caption')
  said = ' '.join(text.split())
  if caption:
    said = f'{said} [shares a photo: {caption}]'.strip()
  match = _EVIDENCE.fullmatch(str(turn.get('dia_id', '')))
  spoken = int(match[2]) if match and int(match[1]) == session else number
  return Passage(f'D{session}:{spoken}', f'D{session}', f'{speaker}: {said}')


def _question(memory: str, record: Any, known: set[str], place: str) -> Question:
  text = ' '.join(field(record, 'question', str, place).split())
  if not text:
    raise BadFile(f'{place}: the question is empty; take the record out')
  category = str(field(record, 'category', (int, str), place)).strip()
  if not category.isdecimal() or int(category) not in KINDS:
    raise BadFile(f'{place}: category {category!r}; LoCoMo has 1 to 5')
  number = int(category)
  return Question(
      memory, text, _answers(record, number, place), KINDS[number],
      'parts' if number == 1 else 'locomo', _evidence(record.get('evidence'), known),
  )


def _answers(record: Mapping[str, Any], category: int, place: str) -> tuple[str, ...]:
  if category == 5:
    return ()  # whatever else stands there is what one falls for
  answer = str(field(record, 'answer', (str, int, float), place)).strip()
  if category == 3:
    answer = answer.split(';')[0].strip()
  if not answer:
    raise BadFile(f'{place}: the answer is empty; take the record out')
  return (answer,)


def _evidence(evidence: Any, known: set[str]) -> tuple[str, ...]:
  """The ids in it that exist; it is only for reports."""
  found = [f'D{int(m[1])}:{int(m[2])}' for m in _EVIDENCE.finditer(str(evidence))]
  return tuple(dict.fromkeys(name for name in found if name in known))
