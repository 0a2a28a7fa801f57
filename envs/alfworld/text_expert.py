"""A scripted teacher for ALFWorld's own texts, in sentences.

It plays as `envs.alfworld.expert` does, which reads a few words a turn: what the
game says and what was done are put into those words (`shorten_page`,
`shorten_command`), and what is to be done back into the game's (`Reader.command`).
Task, room and results are read off the texts alone.
"""

from __future__ import annotations

import dataclasses
import random
import re

from envs import api, teaching
from envs.alfworld import compact, expert
from envs.alfworld.problems import TEMPLATES

_HOLES = re.compile(r'\\{(\w+)\\}')


def _pattern(template: str) -> re.Pattern[str]:
  """Reads a task's text; articles and both prepositions are forgiven."""
  text = _HOLES.sub(lambda hole: rf'(?P<{hole[1]}>\w+)', re.escape(template))
  text = re.sub(
      r'\\ (in|on)\\ (\(\?P<recep>)', r'\\ (?:in/on|in|on)\\ (?:the\\ )?\2', text
  )
  return re.compile(text.replace(r'put\ a\ (?', r'put\ (?:a|an|some)\ (?'))


_TASKS = [
    (compact.WANTED[task_type], _pattern(template))
    for task_type, templates in TEMPLATES.items()
    for template in templates
]
_FIRST = re.compile(r'you see (?P<room>.*?)\.\s+Your task is to: (?P<task>.*)', re.S)


def read_task(text: str) -> compact.Request | None:
  """What a task asks for, e.g. 'put a hot apple in fridge'; None if it is unknown."""
  for wanted, pattern in _TASKS:
    if found := pattern.fullmatch(text.strip().removesuffix('.').lower()):
      parts = found.groupdict()
      return compact.Request(
          wanted, parts['obj'], parts.get('recep') or parts.get('toggle', '')
      )
  return None


def shorten_first(observation: str) -> str:
  """The first observation in the words of `envs.alfworld.compact`.

  ValueError on what is not the start of a game, or asks for what no game does.
  """
  found = _FIRST.search(observation)
  task = found['task'].partition('\n')[0] if found else ''
  request = read_task(task)
  if found is None or request is None:
    raise ValueError(f'not the start of a game: {observation[:200]!r}')
  words = [compact.WANT, request.wanted, request.obj, request.place, compact.SEE]
  return ' '.join([*words, *compact.names_in(found['room'])])


def shorten_page(observation: str) -> str:
  """A later observation, likewise; the list of commands below it is left out."""
  text = observation.partition('\nYou can: ')[0]
  # At a place, 'look' names what is near, not what is on it.
  return compact.REFUSED if text.startswith('You are') else compact.abridge_text(text)


def shorten_command(command: str) -> str:
  """A command, likewise; empty for what has no short form."""
  return compact.abridge(' '.join(command.split()).removesuffix('.').lower())


@dataclasses.dataclass(slots=True)
class Notes(expert.Notes):
  """As its parent; takes in, gives out and justifies the game's own words."""

  def read(self, action: str, observation: str) -> None:
    expert.Notes.read(self, shorten_command(action), shorten_page(observation))

  def choices(self) -> list[str]:
    return [self.command(words) for words in expert.Notes.choices(self)]

  def buttons(self) -> list[str]:
    return [self.command(words) for words in expert.Notes.buttons(self)]

  def command(self, words: str) -> str:
    """The game's command of a short form, where one is."""
    verb, _, name = words.partition(' ')
    here = ' '.join(self.here)
    match verb:
      case compact.GO:
        return f'go to {name}'
      case compact.TAKE:
        return f'take {name} from {here}'
      case compact.PUT:
        return f'move {name} to {here}'
      case compact.CLEAN | compact.HEAT | 'cool':
        return f'{verb} {name} with {here}'
    return words

  def reason(self, action: str) -> str:
    """A sentence that leads to `action` here."""
    verb, _, name = shorten_command(action).partition(' ')
    thing, wanted = ' '.join(self.held), self.request.obj
    match verb:
      case compact.GO:
        return self._why_go(name, thing)
      case compact.OPEN:
        return f'The {name} is closed; {_a(wanted)} may be inside.'
      case compact.TAKE:
        return f'I see {name}; I need {_a(wanted)}.'
      case compact.PUT if self.held[0] != wanted:
        return f'I hold {name}, but need {_a(wanted)}.'
      case compact.PUT:
        return f'The {name} belongs here.'
      case compact.USE:
        return f'I hold {thing}; here is the light.'
      case 'clean' | 'heat' | 'cool':
        return f'I can {verb} {name} here.'
    return f'I try {action}.'

  def _why_go(self, place: str, thing: str) -> str:
    kind, _, number = place.partition(' ')
    if thing.strip() and self.held[0] != self.request.obj:
      return f'I hold {thing}, the wrong thing; I look for room.'
    if thing.strip() and self.needs_treatment():
      verb, appliance = compact.TREATED[self.request.wanted]
      if kind == appliance:
        return f'I must {verb} {thing} first, with the {appliance}.'
    if thing.strip():
      return f'I hold {thing}; now the {self.request.place}.'
    if found := self.targets().get((kind, number)):
      return f'I saw {" ".join(found[0])} there.'
    if (kind, number) in self.contents:
      return f'I look at {place} again.'
    return f'No {self.request.obj} yet; I have not seen {place}.'


def _a(noun: str) -> str:
  return f'an {noun}' if noun[:1] in 'aeiou' else f'a {noun}'


class TextHouseholdTeacher(teaching.SpokenTeacher[Notes]):
  """See the module's docstring; options as of `expert.HouseholdTeacher`."""

  def __init__(
      self,
      quality: float = 0.85,
      search: float = 0.6,
      patience: float = 0.75,
      care: float = 0.7,
      reflection_quality: float = 0.9,
  ):
    """ValueError names an option that is not a probability."""
    self._player = expert.HouseholdTeacher(
        quality, search, patience, care, reflection_quality
    )
    self.reflection_quality = reflection_quality

  def open_notes(self, history: api.History) -> Notes:
    start = compact.parse_page(shorten_first(history.observations[0]))
    assert start.request is not None  # shorten_first read it
    return Notes(start.request, start.names)

  def act(self, history: api.History, rng: random.Random) -> str:
    """What the demonstrator does."""
    first, *later = history.observations
    short = api.History(
        history.instruction,
        (shorten_first(first), *map(shorten_page, later)),
        tuple(map(shorten_command, history.actions)),
    )
    return self.read(history).command(self._player.act(short, rng))
