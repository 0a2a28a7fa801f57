"""The shop's text pages read back: what an agent can know from what it is shown.

`read_page` takes an observation of `pages.TextView`, plain or rich, and
`read_request` a goal's instruction, of the generated shop or of the official one.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence

from envs.webshop import compact
from envs.webshop.pages import SEPARATOR

NEXT, PREVIOUS, BUY = 'click[Next >]', 'click[< Prev]', 'click[Buy Now]'
FEATURES, BACK = 'click[Features]', 'click[Back to Search]'
NO_CAP = float('inf')

_ASIN = re.compile(r'[A-Z0-9]{10}')
_PRICE = re.compile(r'\$(\d[\d,]*(?:\.\d+)?)')
_MARKS = re.compile(r'^ *\[(?:clicked )?button\] (.*) \[(?:clicked )?button_\]$')
_COUNT = re.compile(r'Page (\d+) \(Total results: (\d+)\)')
_CAP = re.compile(r',? and price lower than (\d+(?:\.\d+)?) dollars?$')
_WITH = re.compile(r' with (?=[\w -]+: )')
_OPTION = re.compile(r'(?:^|, and )([\w -]+): ')
_SCORE = 'Your score (min 0.0, max 1.0)'
_NAMES = ('color', 'size', 'style', 'scent', 'flavor', 'flavor name')


@dataclasses.dataclass(frozen=True)
class Request:
  """What an instruction asks for.

  Attributes:
    query: words to search for.
    material: what a product must be made of; empty if that is not asked.
    options: wanted values, as the instruction writes them.
    names: of the options that it names.
    cap: the most to pay.
  """

  query: str
  material: str = ''
  options: tuple[str, ...] = ()
  names: tuple[str, ...] = ()
  cap: float = NO_CAP


@dataclasses.dataclass(frozen=True)
class Row:
  """A product on a results page; `price` is the least that it costs."""

  asin: str
  title: str
  price: float


@dataclasses.dataclass(frozen=True)
class Page:
  """What an observation shows.

  Attributes:
    kind: 'search', 'results', 'item', 'sub', 'done', or 'other'.
    number, last: of a results page, and whether there are no more after it.
    rows: on it.
    groups: option values of an item, by the name above them.
    price: of an item.
    text: of a sub page, lower case.
  """

  kind: str
  number: int = 0
  last: bool = True
  rows: tuple[Row, ...] = ()
  groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
  price: float = 0.0
  text: str = ''

  @property
  def values(self) -> tuple[str, ...]:
    return tuple(value for _, values in self.groups for value in values)


@functools.lru_cache(maxsize=16_384)
def read_request(instruction: str) -> Request:
  """Reads an instruction; one of no known form is searched for as it is."""
  try:
    material, kind, options, cap = compact.parse_request(instruction)
  except ValueError:
    return _read_official(instruction)
  return Request(kind, material, options, (), float(cap))


def _read_official(instruction: str) -> Request:
  """'i need ... with color: red, and size: l, and price lower than 40.00 dollars'."""
  cap, text = NO_CAP, instruction.strip()
  if found := _CAP.search(text):
    cap, text = float(found[1]), text[: found.start()]
  query, *rest = _WITH.split(text, maxsplit=1)
  names = _OPTION.findall(rest[0]) if rest else []
  values = [value.strip() for value in _OPTION.split(rest[0])[2::2]] if rest else []
  words = re.sub(r'[^\w\s.-]', ' ', query.lower())
  words = re.sub(r'^(?:\s*(?:i|am|looking|for|need|want|would|like|to|buy|a|an|some|'
                 r'find|me|get|please|m|we|in|search|shopping)\b)+', '', words)
  return Request(
      ' '.join(words.split()) or query, '', tuple(values), tuple(names), cap
  )


@functools.lru_cache(maxsize=65_536)
def read_page(observation: str, names: tuple[str, ...] = ()) -> Page:
  """Reads an observation.

  Args:
    observation: of a text view.
    names: of options, besides the common ones: names and values look alike.
  """
  pieces = _split(observation)
  if not pieces:
    return Page('other')
  if pieces[0] == 'WebShop':
    return Page('search')
  if pieces[0].startswith('Thank you for shopping'):
    return Page('done')
  if count := next(filter(None, map(_COUNT.fullmatch, pieces)), None):
    rows = _rows(pieces)
    number, total = int(count[1]), int(count[2])
    # How many a page holds is known from the first one alone.
    return Page('results', number, not rows or number * len(rows) >= total, rows)
  if '< Prev' not in pieces:
    return Page('other')
  below = pieces[pieces.index('< Prev') + 1 :]
  if below and below[-1] == 'Buy Now':
    return _item(below, names)
  return Page('sub', text=' '.join(below).lower())


def _split(observation: str) -> list[str]:
  if SEPARATOR in observation:
    return observation.split(SEPARATOR)
  lines = (_MARKS.sub(r'\1', line) for line in observation.split('\n'))
  return [line.strip() for line in lines
          if line.strip() and not line.startswith('You have clicked ')]


def _rows(pieces: Sequence[str]) -> tuple[Row, ...]:
  triples = zip(pieces, pieces[1:], pieces[2:], strict=False)
  return tuple(
      Row(asin, title, _price(tag)) for asin, title, tag in triples
      if _ASIN.fullmatch(asin) and _PRICE.search(tag)
  )


def _price(tag: str) -> float:
  found = _PRICE.search(tag)
  return float(found[1].replace(',', '')) if found else 0.0


def _item(below: Sequence[str], names: tuple[str, ...]) -> Page:
  """Options, each name above its values, then title, price and buttons."""
  place = next((i for i, p in enumerate(below) if p.startswith('Price: ')), 1)
  groups: list[tuple[str, list[str]]] = []
  for piece in below[: max(place - 1, 0)]:
    if not groups or piece in (*_NAMES, *names):
      groups.append((piece, []))
    else:
      groups[-1][1].append(piece)
  found = tuple((name, tuple(values)) for name, values in groups)
  return Page('item', groups=found, price=_price(below[place]))
