"""Small files in the public forms of LoCoMo and HotpotQA, with their oddities."""

from __future__ import annotations

import json
import pathlib
from typing import Any


def talk(number: int, **changes: Any) -> dict[str, Any]:
  """A sample of LoCoMo."""
  return {
      'sample_id': f'conv-{number}',
      'conversation': {
          'speaker_a': 'Ann', 'speaker_b': 'Bob',
          'session_1_date_time': '1:56 pm on 8 May, 2023',
          'session_1': [
              {'speaker': 'Ann', 'dia_id': 'D1:1', 'text': f'My dog is Rex {number}.'},
              {'speaker': 'Bob', 'dia_id': 'D1:2', 'text': '',
               'blip_caption': 'a red kite', 'img_url': ['x']},
          ],
          'session_10_date_time': '2:00 pm on 9 May, 2023',
          'session_10': [{'speaker': 'Bob', 'dia_id': 'D10:1', 'text': 'I row now.'}],
          'session_11_date_time': 'a date without a session',
      },
      'qa': [
          {'question': f'What is the dog of Ann {number}?', 'answer': f'Rex {number}',
           'evidence': ['D1:1'], 'category': 4},
          {'question': f'When was it, {number}?', 'answer': 2022,
           'evidence': ['D1:01; D99:3'], 'category': '2'},
          {'question': f'What does Bob do, {number}?', 'answer': 'rowing, kites',
           'evidence': ['D10:1'], 'category': 1},
          {'question': f'Would he, {number}?', 'answer': 'Likely no; he is shy',
           'evidence': [], 'category': 3},
          {'question': f'What is the dog of Bob {number}?', 'adversarial_answer': 'Rex',
           'evidence': "['D1:1']", 'category': '5'},
      ],
      'event_summary': {},
      **changes,
  }  # fmt: skip


def paragraphs(number: int, **changes: Any) -> dict[str, Any]:
  """A record of HotpotQA, distractor."""
  return {
      '_id': f'5a{number}', 'question': f'Is Rex {number} a dog?', 'answer': 'yes',
      'type': 'comparison', 'level': 'hard',
      'context': [['Rex', ['Rex is a dog.', ' ', 'He barks.']], ['Kite', ['A toy.']]],
      'supporting_facts': [['Rex', 0], ['Kite', 99]],
      **changes,
  }  # fmt: skip


def write(directory: pathlib.Path, name: str, content: Any) -> str:
  """A file of JSON, or of a text as it is; its path."""
  path = directory / name
  path.write_text(content if isinstance(content, str) else json.dumps(content))
  return str(path)


def locomo(directory: pathlib.Path) -> str:
  return write(directory, 'locomo.json', [talk(number) for number in range(3)])


def hotpot(directory: pathlib.Path) -> str:
  return write(directory, 'hotpot.json', [paragraphs(number) for number in range(3)])
