"""A scripted teacher for the find tasks in the simulator's own texts, in sentences.

It plays as `envs.scienceworld.expert` does, which reads a few words a turn: what
the simulator says is put into those words, and what is to be done back into its
own commands. Two things are different here: who comes into a room has to look
around, and who names one of several things is asked which.
"""

from __future__ import annotations

import dataclasses
import random
import re

from envs import api, teaching
from envs.scienceworld import compact, expert
from envs.scienceworld.simulator import AMBIGUOUS

LOOK, ANY = 'look around', '0'

_COMMANDS = [
    (re.compile(r'(?:teleport|go) to (?:the )?(?P<name>[\w ]+)'), compact.GO),
    (re.compile(r'focus on (?:the )?(?P<name>[\w ]+)'), compact.FOCUS),
    (re.compile(r'pick up (?:the )?(?P<name>[\w ]+)'), compact.TAKE),
    (
        re.compile(r'move (?:the )?(?P<name>[\w ]+?) to (?:the )?(?P<box>[\w ]+)'),
        compact.PUT,
    ),
]
_ARRIVED = re.compile(r'You (?:teleport|move) to the (?P<room>[\w ]+)\.')
_DONE = {
    compact.FOCUS: ('You focus on', compact.FOCUSED),
    compact.TAKE: ('You move', compact.HAVE),
    compact.PUT: ('You move', compact.PLACED),
}
_KINDS = {
    'living': 'living thing', 'nonliving': 'non-living thing',
    'animal': 'animal', 'plant': 'plant',
}  # fmt: skip


def shorten_command(command: str) -> str:
  """A command in the words of `envs.scienceworld.compact`; empty for others."""
  command = ' '.join(command.lower().split())
  for pattern, verb in _COMMANDS:
    if found := pattern.fullmatch(command):
      return ' '.join([verb, *(name.replace(' ', '-') for name in found.groups())])
  return ''


def shorten_answer(words: str, observation: str) -> str:
  """What a short command led to, likewise."""
  if found := _ARRIVED.match(observation):
    return f'{compact.AT} {found["room"].replace(" ", "-")}'
  if compact.is_look(observation):
    return compact.shorten(observation)
  verb, _, name = words.partition(' ')
  said, short = _DONE.get(verb, ('', ''))
  if said and observation.startswith(said):
    return f'{short} {name}'
  return compact.REFUSED


def lengthen(words: str) -> str:
  """A short command as the simulator takes it."""
  return compact.CompactView().to_action(words)


@dataclasses.dataclass(slots=True)
class Notes:
  """Implements `teaching.Notes`.

  Attributes:
    short: what the compact view's reader would know.
    unseen: whether what is in this room was not looked at yet.
    asked: the short command of which the simulator asks what it means; or empty.
  """

  short: expert.Notes
  unseen: bool = False
  asked: str = ''

  def read(self, action: str, observation: str) -> None:
    """Takes in what `action` led to."""
    words = self.asked or shorten_command(action)
    if observation.startswith(AMBIGUOUS):
      self.asked = words
      return
    self.asked = ''
    if arrived := _ARRIVED.match(observation):
      # Its things are not known before a look, nor is it searched.
      self.short.room, self.short.things = arrived['room'].replace(' ', '-'), ()
      self.unseen = True
      return
    answer = shorten_answer(words, observation)
    self.unseen = self.unseen and not answer.startswith(compact.AT)
    self.short.read(words, answer)

  def choices(self) -> list[str]:
    if forced := self.forced():
      return [forced]
    return [lengthen(words) for words in self.short.choices()]

  def forced(self) -> str:
    """What has to be done before anything else; empty for nothing."""
    if self.asked:
      return ANY
    return LOOK if self.unseen and not self.short.focus else ''

  def buttons(self) -> list[str]:
    return [LOOK, *(lengthen(words) for words in self.short.buttons())]

  def reason(self, action: str) -> str:
    """A sentence that leads to `action` here."""
    verb, name, *_ = [*shorten_command(action).split(), '', '']
    fits = name in compact.KINDS.get(self.short.request.kind, ())
    name, request = name.replace('-', ' '), self.short.request
    box, focus = request.box.replace('-', ' '), self.short.focus.replace('-', ' ')
    match verb:
      case compact.FOCUS:
        kind = _a(_KINDS[request.kind])
        return f'The {name} is {kind}.' if fits else f'Perhaps the {name} is {kind}.'
      case compact.TAKE:
        return f'The {name} must come along to the {box}.'
      case compact.PUT:
        return f'The {box} is here.'
      case compact.GO:
        return self._why_go(name, focus)
    if self.asked:
      return 'Any of them will do.'
    return f'I do not know what is in the {self.short.room.replace("-", " ")}.'

  def _why_go(self, room: str, focus: str) -> str:
    if self.short.focus in self.short.held:
      return f'I bring the {focus} to the {room}.'
    if focus:
      return f'The {focus} is still in the {room}.'
    kind = _KINDS[self.short.request.kind]
    return f'I see no {kind} here; the {room} may have one.'


def _a(noun: str) -> str:
  return f'an {noun}' if noun[:1] in 'aeiou' else f'a {noun}'


class TextFindTeacher(teaching.SpokenTeacher[Notes]):
  """See the module's docstring; options as of `expert.FindTeacher`."""

  def __init__(
      self,
      quality: float = 0.75,
      patience: float = 0.8,
      search: float = 0.4,
      care: float = 0.75,
      reflection_quality: float = 0.9,
  ):
    """ValueError names an option that is not a probability."""
    self._player = expert.FindTeacher(
        quality, patience, search, care, reflection_quality
    )
    self.reflection_quality = reflection_quality

  def open_notes(self, history: api.History) -> Notes:
    task, _, look = history.observations[0].partition('\n\n')
    start = f'{compact.shorten_task(task)} {compact.shorten(look)}'
    opened = api.History(history.instruction, (start,), ())
    return Notes(self._player.open_notes(opened))

  def act(self, history: api.History, rng: random.Random) -> str:
    """What the demonstrator does."""
    notes = self.read(history)
    return notes.forced() or lengthen(self._player.play(notes.short, rng))
