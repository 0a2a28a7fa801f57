"""A scripted teacher for household games in the compact view.

Three players in one, as in `envs.webshop.expert`: a script (`correct`) that looks
into one place after the other until it has seen what is asked for, treats it as
asked, and brings it where it belongs; a demonstrator (`act`) that takes the wrong
things, looks where it has looked, does not open what is closed and forgets to
treat things; and a critic (`diagnose`, `advise`). They read nothing but the
history's texts.
"""

from __future__ import annotations

import dataclasses
import random

from envs import api, teaching
from envs.alfworld import compact
from envs.alfworld.compact import Name, Request

_NOWHERE: Name = ('', '')


@dataclasses.dataclass(slots=True)
class Notes:
  """What a careful reader of a history knows, updated turn by turn.

  Attributes:
    request: what is wanted.
    furniture: every place there is.
    here: where one is; ('', '') at the start.
    closed: places that were closed when last seen.
    contents: what is where, by place that one has seen into.
    held: what one carries; ('', '') for nothing.
    treated: things that were cleaned, heated or cooled as wanted.
    refused: actions that did nothing since something last did.
  """

  request: Request
  furniture: tuple[Name, ...]
  here: Name = _NOWHERE
  closed: set[Name] = dataclasses.field(default_factory=set)
  contents: dict[Name, list[Name]] = dataclasses.field(default_factory=dict)
  held: Name = _NOWHERE
  treated: set[Name] = dataclasses.field(default_factory=set)
  refused: set[str] = dataclasses.field(default_factory=set)

  def read(self, action: str, observation: str) -> None:
    """Takes in what `action` led to."""
    page = compact.parse_page(observation)
    if page.kind == compact.REFUSED:
      self.refused.add(action)
      return
    self.refused.clear()
    if page.kind == compact.AT:
      self._arrive(page)
    elif page.kind == compact.HAVE:
      self.held = page.names[0]
      self._remove(self.held)
    elif page.kind == compact.PUT:
      self.contents.setdefault(self.here, []).append(page.names[0])
      self.held = _NOWHERE
    elif page.kind == self.request.wanted:
      self.treated.add(page.names[0])
    elif page.names:  # heated what was to be cold, or the like
      self.treated.discard(page.names[0])

  def _arrive(self, page: compact.Page) -> None:
    self.here = page.place
    if page.closed:
      self.closed.add(page.place)
    else:
      self.closed.discard(page.place)
      self.contents[page.place] = [n for n in page.names if n != _NOWHERE]

  def _remove(self, thing: Name) -> None:
    for things in self.contents.values():
      if thing in things:
        things.remove(thing)

  def places(self, kind: str) -> list[Name]:
    return [place for place in self.furniture if place[0] == kind]

  def unseen(self) -> list[Name]:
    """Places that one has not seen into."""
    return [place for place in self.furniture if place not in self.contents]

  def destinations(self) -> list[Name]:
    """Where the wanted thing may go: with its like, if two are wanted."""
    places = self.places(self.request.place)
    if self.request.wanted != compact.TWO:
      return places
    started = [p for p in places if self._wanted_at(p)]
    return started[:1] or places

  def _wanted_at(self, place: Name) -> list[Name]:
    things = self.contents.get(place, [])
    return [thing for thing in things if thing[0] == self.request.obj]

  def targets(self) -> dict[Name, list[Name]]:
    """Wanted things to fetch, by the place where they are."""
    done: list[Name] = []
    if self.request.wanted == compact.TWO:
      done = [p for p in self.destinations() if self._wanted_at(p)][:1]
    found = {p: self._wanted_at(p) for p in self.contents if p not in done}
    return {place: things for place, things in found.items() if things}

  def choices(self) -> list[str]:
    """Sensible actions, the script's own first; never empty."""
    options = self._holding() if self.held != _NOWHERE else self._searching()
    return [a for a in options if a not in self.refused] or options

  def _searching(self) -> list[str]:
    """Nothing in hand: fetch what is wanted, or look for it."""
    targets = self.targets()
    if self.here in targets:
      return [_say(compact.TAKE, thing) for thing in targets[self.here]]
    if targets:
      return [_say(compact.GO, place) for place in targets]
    return self._look()

  def _look(self) -> list[str]:
    if self.here in self.closed:
      return [_say(compact.OPEN, self.here)]
    places = [place for place in self.unseen() if place != self.here]
    return [_say(compact.GO, place) for place in places or self.furniture]

  def _holding(self) -> list[str]:
    if self.held[0] != self.request.obj:
      return self._drop()
    if self.request.wanted == compact.LIGHT:
      return self._light()
    if self.needs_treatment():
      verb, appliance = compact.TREATED[self.request.wanted]
      return self._visit(self.places(appliance), _say(verb, self.held))
    put = _say(compact.PUT, self.held)
    if self.here in self.destinations() and self.here in self.closed:
      return [_say(compact.OPEN, self.here)]
    return self._visit(self.destinations(), put)

  def needs_treatment(self) -> bool:
    """Whether what one carries must be cleaned, heated or cooled first."""
    return self.request.wanted in compact.TREATED and self.held not in self.treated

  def _visit(self, places: list[Name], action: str) -> list[str]:
    """`action` at one of the places, else the way there."""
    if self.here in places:
      return [action]
    return [_say(compact.GO, place) for place in places or self.furniture]

  def _light(self) -> list[str]:
    lamps = {
        place: [thing for thing in things if thing[0] == self.request.place]
        for place, things in self.contents.items()
    }
    if lamps.get(self.here):
      return [_say(compact.USE, lamp) for lamp in lamps[self.here]]
    known = [_say(compact.GO, place) for place, found in lamps.items() if found]
    return known or self._look()

  def _drop(self) -> list[str]:
    """Puts a wrong thing down, here or where there is room for it."""
    put = _say(compact.PUT, self.held)
    if self.here in self.contents and put not in self.refused:
      return [put]
    others = [place for place in self.contents if place != self.here]
    return [_say(compact.GO, place) for place in others or self.furniture]

  def buttons(self) -> list[str]:
    """Everything that could be tried here, sensible or not."""
    actions = [_say(compact.GO, place) for place in self.furniture]
    if self.here in self.closed:
      actions.append(_say(compact.OPEN, self.here))
    if self.held != _NOWHERE:
      return [*actions, _say(compact.PUT, self.held)]
    return actions + [_say(compact.TAKE, t) for t in self.contents.get(self.here, ())]

  def reason(self, action: str) -> str:
    """Words that justify `action` here."""
    verb = action.split()[0] if action else ''
    if self.held != _NOWHERE and self.held[0] != self.request.obj:
      return f'{compact.WRONG} {self.held[0]}'
    if verb == compact.OPEN:
      return f'{compact.HIDDEN} {self.request.obj}'
    if verb in (compact.TAKE, compact.PUT, compact.USE):
      return f'{compact.HERE} {self.request.obj}'
    if self.held != _NOWHERE and self.needs_treatment():
      return f'{compact.FIRST} {self.request.wanted}'
    if self.held == _NOWHERE and not self.targets():
      return f'{compact.ABSENT} {self.request.obj}'
    return f'{compact.THERE} {self.request.obj}'


def _say(verb: str, name: Name) -> str:
  return f'{verb} {name[0]} {name[1]}'


class HouseholdTeacher(teaching.NotesTeacher[Notes]):
  """See the module's docstring.

  Attributes:
    quality: chance that the demonstrator takes what is wanted where it sees it,
      rather than anything in sight.
    search: chance that it looks where it has not looked yet.
    patience: chance that it opens what is closed.
    care: chance that it treats what it carries before it puts it away.
    reflection_quality: chance that a diagnosis is the script's.
  """

  def __init__(
      self,
      quality: float = 0.85,
      search: float = 0.6,
      patience: float = 0.75,
      care: float = 0.7,
      reflection_quality: float = 0.9,
  ):
    """ValueError names an option that is not a probability."""
    teaching.check_chances(
        quality=quality, search=search, patience=patience, care=care,
        reflection_quality=reflection_quality,
    )
    self.quality, self.search, self.patience = quality, search, patience
    self.care, self.reflection_quality = care, reflection_quality

  def open_notes(self, history: api.History) -> Notes:
    start = compact.parse_page(history.observations[0])
    if start.request is None:
      raise ValueError(f'not the start of a game: {history.observations[0]!r}')
    return Notes(start.request, start.names)

  def act(self, history: api.History, rng: random.Random) -> str:
    """What the demonstrator does."""
    notes = self.read(history)
    choices = notes.choices()
    verb = choices[0].split()[0]
    if verb == compact.TAKE and rng.random() >= self.quality:
      return _say(compact.TAKE, rng.choice(notes.contents[notes.here]))
    if verb == compact.OPEN and rng.random() >= self.patience:
      return _say(compact.GO, rng.choice(notes.furniture))
    if notes.held != _NOWHERE:
      return self._carry(notes, choices, rng)
    if verb == compact.GO and rng.random() >= self.search:
      return _say(compact.GO, rng.choice(notes.furniture))
    return rng.choice(choices)

  def _carry(self, notes: Notes, choices: list[str], rng: random.Random) -> str:
    """With something in hand: now and then it is put away as it is."""
    careless = notes.held[0] == notes.request.obj and notes.needs_treatment()
    if careless and rng.random() >= self.care:
      if notes.here in notes.destinations():
        return _say(compact.PUT, notes.held)
      return _say(compact.GO, rng.choice(notes.destinations() or notes.furniture))
    return rng.choice(choices)
