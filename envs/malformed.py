"""Actions that no environment asked for.

A policy may say anything. `actions` draws texts of every kind that has broken a
parser before: nothing at all, a book, control characters, other scripts, halves
of surrogate pairs, unbalanced brackets, numbers, and, most of all, commands that
are almost right, made by changing right ones.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator, Sequence

LONG = 100_000
_CONTROLS = ''.join(map(chr, [*range(32), 127, 0x85, 0xA0, 0x200B, 0x2028, 0xFEFF]))
_SCRIPTS = (
    'öffne die Tür', 'abre la puerta', 'открой дверь', 'افتح الباب', 'दरवाज़ा खोलो',
    '打开门', 'ドアを開ける', '문을 열어', 'άνοιξε την πόρτα', 'เปิดประตู', 'פתח את הדלת',
    '🚪➡️🏠', 'e\u0301\u0323\u0308', '\u202eroodeht nepo', '١٢٣', '²³', 'Ⅷ', 'ﬁ', 'İ',
)  # fmt: skip
_FORMS = (
    '[]', '[[', ']]', '()', '((', '{"action": "look"}', '<action>', '</action>',
    '<action></action>', '<action><action>', '```', '```python\n```', '%s', '%n', '{}',
    '{0}', '\\', '\\n', '\\x00', "'", '"', '"""', ';', '&&', '|', '$(look)', '`look`',
    '../..', '-1', '0', '1e999', 'nan', '99999999999999999999', 'None', 'null', 'True',
    '# comment', '//', '--', '*', '?', '.', '~', 'search[', 'click[]', '[click]',
)  # fmt: skip
_LETTERS = string.ascii_letters + string.digits + string.punctuation + ' '


def actions(examples: Sequence[str], seed: int = 0) -> Iterator[str]:
  """Malformed actions without end, the same for the same arguments.

  Args:
    examples: right actions; half of what comes is made from them.
    seed: of what is drawn.
  """
  rng = random.Random(f'malformed/{seed}')
  kinds: list[Callable[[], str]] = [
      lambda: '',
      lambda: ''.join(rng.choices(' \t\n', k=rng.randint(1, 5))),
      lambda: ''.join(rng.choices(_CONTROLS, k=rng.randint(1, 8))),
      lambda: rng.choice(_SCRIPTS),
      lambda: rng.choice(_FORMS),
      lambda: ''.join(rng.choices(_LETTERS, k=rng.randint(1, 40))),
      lambda: chr(rng.randint(0xD800, 0xDFFF)) + rng.choice(_SCRIPTS),
      lambda: ''.join(chr(rng.randrange(0x110000)) for _ in range(5)),
  ]
  while True:
    if rng.random() < 0.002:
      yield _long(rng, examples)
    elif examples and rng.random() < 0.5:
      yield mutate(rng.choice(examples), rng)
    else:
      yield rng.choice(kinds)()


def _long(rng: random.Random, examples: Sequence[str]) -> str:
  """`LONG` characters of one piece, again and again."""
  piece = rng.choice([*examples, *_FORMS, *_SCRIPTS, 'x']) or 'x'
  return (piece * (LONG // len(piece) + 1))[:LONG]


def mutate(action: str, rng: random.Random) -> str:
  """An action with one to three changes, so that it is almost right."""
  for _ in range(rng.randint(1, 3)):
    action = rng.choice(_CHANGES)(action, rng)
  return action


def _place(action: str, rng: random.Random) -> int:
  return rng.randrange(len(action) + 1)


def _insert(action: str, rng: random.Random) -> str:
  place = _place(action, rng)
  piece = rng.choice([*_LETTERS, *_CONTROLS, *_FORMS, *_SCRIPTS, '\udcff'])
  return action[:place] + piece + action[place:]


def _delete(action: str, rng: random.Random) -> str:
  place = _place(action, rng)
  return action[:place] + action[place + rng.randint(1, 3) :]


def _swap_words(action: str, rng: random.Random) -> str:
  words = action.split(' ')
  rng.shuffle(words)
  return ' '.join(words)


def _repeat_word(action: str, rng: random.Random) -> str:
  words = action.split(' ')
  place = rng.randrange(len(words))
  return ' '.join([*words[:place], words[place], *words[place:]])


_CHANGES: tuple[Callable[[str, random.Random], str], ...] = (
    _insert,
    _delete,
    _swap_words,
    _repeat_word,
    lambda action, rng: action[: _place(action, rng)],
    lambda action, rng: action.swapcase(),
    lambda action, rng: action[::-1],
    lambda action, rng: rng.choice(_CONTROLS) + action + rng.choice(_CONTROLS),
    lambda action, rng: action + rng.choice(' ,;\n') + action,
    lambda action, rng: f'<action>{action}</action>',
)
