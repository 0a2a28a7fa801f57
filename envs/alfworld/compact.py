"""Household games in a few words a turn, for small policies: one grammar, both ways.

      start     want hot apple fridge see cabinet 1 drawer 2 drawer 1 fridge 1
      at        at drawer 2 closed
                at drawer 2 has spoon 1 knife 1          at shelf 1 has nothing
      took      have apple 1
      put       put apple 1
      treated   hot apple 1      (clean, cool)
      lit       lit desklamp 1
      refused   no               nothing happened
      solved    solved

What is wanted is 'one' or 'two' of a thing, a 'clean', 'hot' or 'cool' one, and
where it belongs, or 'light' on it and the kind of lamp. Responses, and what they
mean to the engine, at the place where one is:

      go drawer 2       go to drawer 2          open drawer 2
      take apple 1      take apple 1 from ..    put apple 1    move apple 1 to ..,
                                                               put apple 1 in/on ..
      heat apple 1      heat apple 1 with ..    (clean, cool)
      use desklamp 1

This is the whole game but for slicing, closing, and looking twice. Texts are
written and read here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence

from envs import api
from envs.alfworld import engine, package
from envs.alfworld.engine import Node
from envs.alfworld.problems import TREATMENTS, Goal

# A thing or a piece of furniture: its kind and its number.
Name = tuple[str, str]

WANT, SEE, AT, CLOSED, HAS, NONE = 'want', 'see', 'at', 'closed', 'has', 'nothing'
HAVE, PUT, LIT, REFUSED, SOLVED = 'have', 'put', 'lit', 'no', 'solved'
ONE, TWO, LIGHT, CLEAN, HOT, COOL = 'one', 'two', 'light', 'clean', 'hot', 'cool'
GO, OPEN, TAKE, HEAT, USE = 'go', 'open', 'take', 'heat', 'use'
# Why to do something; experience texts are a reason and an action.
ABSENT, HERE, THERE, FIRST, HIDDEN, WRONG = (
    'absent', 'here', 'there', 'first', 'hidden', 'wrong',
)  # fmt: skip
WANTED = {
    'pick_and_place_simple': ONE, 'pick_two_obj_and_place': TWO,
    'look_at_obj_in_light': LIGHT, 'pick_clean_then_place_in_recep': CLEAN,
    'pick_heat_then_place_in_recep': HOT, 'pick_cool_then_place_in_recep': COOL,
}  # fmt: skip
# By what is wanted: the verb, and the appliance.
TREATED = {
    WANTED[task_type]: (verb, appliance)
    for task_type, (_, _, verb, appliance) in TREATMENTS.items()
}
_STATES = {verb: wanted for wanted, (verb, _) in TREATED.items()}
# Kitchens of ALFRED have up to 47 pieces of furniture.
_MAX_NUMBER = 50
# Response verbs and how their commands begin; games before ALFWorld 0.4 know 'put'.
_COMMANDS = {
    GO: 'go to', OPEN: 'open', USE: 'use', TAKE: 'take', PUT: '(?:move|put)',
    CLEAN: 'clean', HEAT: 'heat', COOL: 'cool',
}  # fmt: skip
_BEGINNINGS = {
    verb: re.compile(rf'{beginning} (?P<name>\w+ \d+)(?: (?:from|to|in/on|with) .+)?')
    for verb, beginning in _COMMANDS.items()
}
_NAME = re.compile(r'\ba (?P<kind>\w+) (?P<number>\d+)')
_PLACE = re.compile(r'(?:On the|The) (?P<place>\w+ \d+)')
_TOOK = re.compile(r'You pick up the (\w+ \d+)')
_MOVED = re.compile(r'You (?:move|put) the (\w+ \d+) (?:to|in/on)')
_TREATMENT = re.compile(r'You (?P<verb>clean|heat|cool) the (?P<name>\w+ \d+)')
_LAMP = re.compile(r'You turn (?:on|off) the (\w+ \d+)')


@dataclasses.dataclass(frozen=True)
class Request:
  """What a game asks for: how, which kind of thing, and where to (or which lamp)."""

  wanted: str
  obj: str
  place: str


@dataclasses.dataclass(frozen=True)
class Page:
  """What an observation says.

  Attributes:
    kind: its first word, 'want' for the start.
    names: furniture at the start; what is in sight at a place; the thing itself
      after an action.
    place: where one is; of 'at' alone.
    closed: whether that place is closed; of 'at' alone.
    request: of the start alone.
  """

  kind: str
  names: tuple[Name, ...] = ()
  place: Name = ('', '')
  closed: bool = False
  request: Request | None = None


def vocabulary() -> tuple[str, ...]:
  """Every word of observations, responses and advice."""
  words = (
      WANT, SEE, AT, CLOSED, HAS, NONE, HAVE, PUT, LIT, REFUSED, SOLVED, ONE, TWO,
      LIGHT, CLEAN, HOT, COOL, GO, OPEN, TAKE, HEAT, USE, ABSENT, HERE, THERE, FIRST,
      HIDDEN, WRONG,
  )  # fmt: skip
  kinds = [name.lower() for name in package.constants().OBJECTS]
  numbers = [str(number) for number in range(1, _MAX_NUMBER + 1)]
  return tuple(dict.fromkeys([*words, *kinds, *numbers]))


def parse_page(observation: str) -> Page:
  """Reads an observation."""
  match observation.split():
    case ['want', wanted, obj, place, 'see', *names]:
      return Page(WANT, _pair(names), request=Request(wanted, obj, place))
    case ['at', kind, number, 'closed']:
      return Page(AT, place=(kind, number), closed=True)
    case ['at', kind, number, 'has', *names]:
      return Page(AT, _pair(names), (kind, number))
    case [word, kind, number]:
      return Page(word, ((kind, number),))
    case [word, *_]:
      return Page(word)
  return Page(REFUSED)


def _pair(words: list[str]) -> tuple[Name, ...]:
  return tuple(zip(words[::2], words[1::2], strict=False))


class CompactView:
  """Implements `envs.alfworld.env.View`."""

  def first(self, text: str, node: Node, goal: Goal) -> str:
    del node
    room = text.partition('you see')[2].partition('Your task')[0]
    wanted = WANTED[goal.task_type]
    place = goal.toggle if wanted == LIGHT else goal.recep
    words = [WANT, wanted, goal.obj.lower(), place.lower(), SEE, *names_in(room)]
    return ' '.join(words)

  def to_command(self, response: str, node: Node) -> str:
    """See the module's docstring; empty for words that do nothing here."""
    words = ' '.join(response.split())
    return next((c for c in node.menu.commands if abridge(c) == words), '')

  def admissible(self, node: Node) -> Sequence[str]:
    return tuple(dict.fromkeys(filter(None, map(abridge, node.menu.commands))))

  def render(self, text: str, node: Node) -> str:
    return SOLVED if node.won else abridge_text(text)

  def instructions(self) -> str:
    return ''

  def parse_response(self, response: str) -> str:
    action = response.strip()
    if not action:
      raise api.InvalidAction('empty response')
    return action


@functools.lru_cache(maxsize=4096)
def abridge(command: str) -> str:
  """The response that means a command; empty for what there is no response for."""
  for verb, beginning in _BEGINNINGS.items():
    if found := beginning.fullmatch(command):
      return f'{verb} {found["name"]}'
  return ''


def names_in(text: str) -> list[str]:
  """Kinds and numbers of what a list names, in its order."""
  return [word for found in _NAME.finditer(text) for word in found.groups()]


def abridge_text(text: str) -> str:
  """What the game answers, in a few words."""
  if text == engine.NOTHING:
    return REFUSED
  if found := _TREATMENT.match(text):
    return f'{_STATES[found["verb"]]} {found["name"]}'
  for word, pattern in ((HAVE, _TOOK), (PUT, _MOVED), (LIT, _LAMP)):
    if done := pattern.match(text):
      return f'{word} {done[1]}'
  return _render_place(text)


def _render_place(text: str) -> str:
  """What going somewhere or opening something reads like."""
  found = _PLACE.search(text)
  if found is None:
    return REFUSED
  place = found['place']
  if 'is closed' in text:
    return f'{AT} {place} {CLOSED}'
  return ' '.join([AT, place, HAS, *(names_in(text[found.end():]) or [NONE])])
