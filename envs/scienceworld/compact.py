"""The find tasks in a few words a turn, for small policies: one grammar, both ways.

      start     find animal red-box kitchen at hallway picture
      went      at outside axe dove wolf fountain
      focused   focused dove      the world now knows what is meant to be found
      took      have dove
      placed    placed dove
      refused   no                nothing happened
      solved    solved
      failed    failed            something of another kind was focused on

A start says what to find, which box it belongs in, where the box is, and what
is in sight. Responses and what they mean to the simulator:

      go outside            teleport to outside, then look around
      focus dove            focus on dove
      take dove             pick up dove
      put dove red-box      move dove to red box

This is an abridged world, not the whole simulator: of what is in a room it
shows the things in `LEXICON` alone, without their state or container, and of
several things with the same name an action means the first. A hyphen joins the
words of a name. Texts are written and read here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from envs.scienceworld.simulator import Game, Outcome

ROOMS = (
    'hallway', 'kitchen', 'bathroom', 'living-room', 'bedroom', 'art-studio',
    'greenhouse', 'workshop', 'foundry', 'outside',
)  # fmt: skip
ANIMALS = (
    'blue-jay', 'butterfly', 'dove', 'crocodile', 'turtle', 'wolf', 'frog',
    'giant-tortoise', 'parrot', 'beaver',
)  # fmt: skip
PLANTS = (
    'apple-tree', 'avocado-tree', 'banana-tree', 'cherry-tree', 'lemon-tree',
    'orange-tree', 'peach-tree', 'pea-plant',
)  # fmt: skip
PORTABLE = (
    'picture', 'painting', 'drawing', 'finger-painting', 'axe', 'shovel', 'lighter',
    'stopwatch', 'thermometer', 'battery',
)  # fmt: skip
OTHER = ('potato', 'fountain', 'couch', 'bathtub')
BOXES = ('red-box', 'green-box', 'blue-box', 'orange-box', 'yellow-box', 'purple-box')
LEXICON = ANIMALS + PLANTS + PORTABLE + OTHER + BOXES
# What may be asked for, and what answers to it.
KINDS = {
    'living': ANIMALS + PLANTS,
    'plant': PLANTS,
    'animal': ANIMALS,
    'nonliving': PORTABLE,
}
FIND, AT, FOCUSED, HAVE, PLACED = 'find', 'at', 'focused', 'have', 'placed'
REFUSED, SOLVED, FAILED = 'no', 'solved', 'failed'
GO, FOCUS, TAKE, PUT = 'go', 'focus', 'take', 'put'
# Why to do something; experience texts are a reason and an action.
ABSENT, IS, FIRST, BRING, HERE = 'absent', 'is', 'first', 'bring', 'here'

_KIND_NAMES = {'living thing': 'living', 'non-living thing': 'nonliving'}
_TASK = re.compile(
    r'find a\(n\) (?P<kind>[\w -]+)\..* move it to the (?P<box>\w+ box) '
    r'in the (?P<room>[\w ]+)\.'
)
_ROOM = re.compile(r'called the (?P<room>[\w ]+)\.')
# Longest first, so that a finger painting is no painting.
_NAMES = sorted((name.replace('-', ' ') for name in LEXICON), key=len, reverse=True)
_THINGS = re.compile(rf'\b(?:{"|".join(_NAMES)})\b')
_ANSWERS = {FOCUS: FOCUSED, TAKE: HAVE, PUT: PLACED}
_DONE = {FOCUS: 'You focus on', TAKE: 'You move', PUT: 'You move'}


@dataclasses.dataclass(frozen=True)
class Request:
  """What a task asks for."""

  kind: str
  box: str
  room: str


@dataclasses.dataclass(frozen=True)
class Page:
  """What an observation says.

  Attributes:
    kind: its first word: 'at' (also for the start), 'focused', 'have', 'placed',
      'no', 'solved' or 'failed'.
    room, things: where one is and what is in sight; of 'at' alone.
    request: of the start alone.
  """

  kind: str
  room: str = ''
  things: tuple[str, ...] = ()
  request: Request | None = None


def vocabulary() -> tuple[str, ...]:
  """Every word of observations, responses and advice."""
  words = (
      FIND, AT, FOCUSED, HAVE, PLACED, REFUSED, SOLVED, FAILED, GO, FOCUS, TAKE, PUT,
      ABSENT, IS, FIRST, BRING, HERE, *KINDS, *ROOMS, *LEXICON,
  )  # fmt: skip
  return tuple(dict.fromkeys(words))


def parse_page(observation: str) -> Page:
  """Reads an observation."""
  match observation.split():
    case ['find', kind, box, room, 'at', place, *things]:
      return Page(AT, place, tuple(things), Request(kind, box, room))
    case ['at', place, *things]:
      return Page(AT, place, tuple(things))
    case [word, *_]:
      return Page(word)
  return Page(REFUSED)


def is_look(text: str) -> bool:
  """Whether a text is a look around."""
  return _ROOM.search(text) is not None


def shorten(look: str) -> str:
  """A look around as 'at room thing thing'; each name once, in order."""
  room = _ROOM.search(look)
  if room is None:
    raise ValueError(f'not a look around: {look!r}')
  seen = _THINGS.findall(look.partition('You also see')[0].lower())
  things = dict.fromkeys(_join(name) for name in seen)
  return ' '.join([AT, _join(room['room']), *things])


def shorten_task(description: str) -> str:
  """A task as 'find kind box room'. ValueError on other tasks."""
  found = _TASK.search(description)
  if found is None:
    raise ValueError(f'not a find task: {description!r}')
  kind = _KIND_NAMES.get(found['kind'], found['kind'])
  return ' '.join([FIND, kind, _join(found['box']), _join(found['room'])])


def _join(name: str) -> str:
  return name.replace(' ', '-')


def _split(word: str) -> str:
  return word.replace('-', ' ')


class CompactView:
  """Implements `envs.scienceworld.env.View`."""

  def first(self, description: str, look: str) -> str:
    return f'{shorten_task(description)} {shorten(look)}'

  def to_action(self, response: str) -> str:
    """See the module's docstring; empty for words of another form."""
    match response.split():
      case ['go', room] if room in ROOMS:
        return f'teleport to {_split(room)}'
      case ['focus', thing] if thing in LEXICON:
        return f'focus on {_split(thing)}'
      case ['take', thing] if thing in LEXICON:
        return f'pick up {_split(thing)}'
      case ['put', thing, box] if thing in LEXICON and box in BOXES:
        return f'move {_split(thing)} to {_split(box)}'
    return ''

  def admissible(self, game: Game) -> list[str]:
    del game
    return []

  def render(self, response: str, outcome: Outcome, game: Game) -> str:
    if outcome.score < 0:
      return FAILED
    if outcome.completed:
      return SOLVED
    words: Sequence[str] = response.split()
    if not words:
      return REFUSED
    if words[0] == GO and outcome.text.startswith('You teleport'):
      return shorten(game.look())
    if words[0] in _DONE and outcome.text.startswith(_DONE[words[0]]):
      return f'{_ANSWERS[words[0]]} {words[1]}'
    return REFUSED
