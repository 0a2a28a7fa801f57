"""A scripted teacher for the find tasks in the compact view.

Three players in one, as in `envs.webshop.expert`: a script (`correct`) that goes
from room to room until it has seen something of the right kind, focuses on it,
takes it and brings it to its box; a demonstrator (`act`) that searches at random,
mistakes kinds and forgets to take things; and a critic (`diagnose`, `advise`).
They read nothing but the history's texts. What they bring along is common
knowledge: which names are animals or plants, and where such are usually found.
"""

from __future__ import annotations

import dataclasses
import random

from envs import api, teaching
from envs.scienceworld import compact
from envs.scienceworld.compact import Request

# Where to look first; then every other room.
_HAUNTS = {
    'animal': ('outside',),
    'plant': ('greenhouse',),
    'living': ('outside', 'greenhouse'),
    'nonliving': ('kitchen', 'outside'),
}


@dataclasses.dataclass(slots=True)
class Notes:
  """What a careful reader of a history knows, updated turn by turn.

  Attributes:
    request: what is wanted.
    room: where one is.
    things: in sight on arrival, without what was taken since.
    visited: rooms that were seen.
    focus, focus_room: the thing focused on and where; empty before.
    held: things taken and not put down yet.
    stuck: things that could not be focused on or taken.
  """

  request: Request
  room: str = ''
  things: tuple[str, ...] = ()
  visited: set[str] = dataclasses.field(default_factory=set)
  focus: str = ''
  focus_room: str = ''
  held: set[str] = dataclasses.field(default_factory=set)
  stuck: set[str] = dataclasses.field(default_factory=set)

  def read(self, action: str, observation: str) -> None:
    """Takes in what `action` led to."""
    page = compact.parse_page(observation)
    thing = (action.split() + ['', ''])[1]
    if page.kind == compact.AT:
      self.room, self.things = page.room, page.things
      self.visited.add(page.room)
    elif page.kind == compact.FOCUSED:
      self.focus, self.focus_room = thing, self.room
    elif page.kind == compact.HAVE:
      self.held.add(thing)
    elif page.kind == compact.PLACED:
      self.held.discard(thing)
    elif page.kind == compact.REFUSED and not action.startswith(compact.PUT):
      self.stuck.add(thing)

  def fitting(self) -> list[str]:
    """Things in sight that are of the wanted kind."""
    kind = compact.KINDS.get(self.request.kind, ())
    return [t for t in self.things if t in kind and t not in self.stuck]

  def rooms_to_try(self) -> list[str]:
    """Rooms not seen yet, likely ones alone while there are any."""
    likely = _HAUNTS.get(self.request.kind, ())
    new = [room for room in likely if room not in self.visited]
    return new or [r for r in compact.ROOMS if r not in self.visited]

  def choices(self) -> list[str]:
    """Sensible actions, the script's own first; never empty."""
    if not self.focus:
      if found := self.fitting():
        return [f'{compact.FOCUS} {thing}' for thing in found]
      rooms = self.rooms_to_try() or list(compact.ROOMS)
      return [f'{compact.GO} {room}' for room in rooms]
    put = f'{compact.PUT} {self.focus} {self.request.box}'
    take = f'{compact.TAKE} {self.focus}'
    if self.room == self.request.room and self.focus_room == self.room:
      return [put, take]
    if self.focus in self.held:
      at_box = self.room == self.request.room
      return [put if at_box else f'{compact.GO} {self.request.room}']
    if self.room == self.focus_room:
      return [take]
    return [f'{compact.GO} {self.focus_room}']

  def buttons(self) -> list[str]:
    """Everything that could be done here, sensible or not."""
    actions = [f'{compact.GO} {room}' for room in compact.ROOMS]
    for thing in self.things:
      actions += [f'{compact.FOCUS} {thing}', f'{compact.TAKE} {thing}']
    actions += [f'{compact.PUT} {t} {self.request.box}' for t in sorted(self.held)]
    return actions

  def reason(self, action: str) -> str:
    """Words that justify `action` here."""
    if action.startswith(compact.FOCUS):
      return f'{compact.IS} {self.request.kind}'
    if action.startswith(compact.TAKE):
      return compact.FIRST
    if action.startswith(compact.PUT):
      return f'{self.request.box} {compact.HERE}'
    if self.focus in self.held:
      return f'{compact.BRING} {self.focus}'
    return f'{compact.ABSENT} {self.focus or self.request.kind}'


class FindTeacher(teaching.NotesTeacher[Notes]):
  """See the module's docstring.

  Attributes:
    quality: chance that the demonstrator focuses on a thing of the right kind
      where it sees one, rather than on anything in sight.
    patience: chance that it goes on searching where it sees none.
    search: chance that it then goes where the script would go.
    care: chance that it takes the thing along.
    reflection_quality: chance that a diagnosis is the script's.
  """

  def __init__(
      self,
      quality: float = 0.75,
      patience: float = 0.8,
      search: float = 0.4,
      care: float = 0.75,
      reflection_quality: float = 0.9,
  ):
    """ValueError names an option that is not a probability."""
    teaching.check_chances(
        quality=quality, patience=patience, search=search, care=care,
        reflection_quality=reflection_quality,
    )
    self.quality, self.patience, self.search = quality, patience, search
    self.care, self.reflection_quality = care, reflection_quality

  def open_notes(self, history: api.History) -> Notes:
    start = compact.parse_page(history.observations[0])
    if start.request is None:
      raise ValueError(f'not the start of a find task: {history.observations[0]!r}')
    notes = Notes(start.request)
    notes.read('', history.observations[0])
    return notes

  def act(self, history: api.History, rng: random.Random) -> str:
    """What the demonstrator does."""
    return self.play(self.read(history), rng)

  def play(self, notes: Notes, rng: random.Random) -> str:
    """The same, of notes."""
    choices = notes.choices()
    verb = choices[0].split()[0]
    if not notes.focus:
      keep = self.quality if verb == compact.FOCUS else self.patience
      if notes.things and rng.random() >= keep:
        return f'{compact.FOCUS} {rng.choice(notes.things)}'
      if verb == compact.GO and rng.random() >= self.search:
        return f'{compact.GO} {rng.choice(compact.ROOMS)}'
      return rng.choice(choices)
    if verb == compact.TAKE and rng.random() >= self.care:
      return f'{compact.GO} {notes.request.room}'
    at_box = notes.room == notes.request.room
    if at_box and notes.focus not in notes.held and rng.random() >= self.care:
      return f'{compact.PUT} {notes.focus} {notes.request.box}'
    return choices[0]
