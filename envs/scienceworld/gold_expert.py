"""A scripted teacher for all tasks in the simulator's own texts, in sentences.

The simulator has a solution of each task, a list of commands, without which no
short script could play the thirty of them. This one walks along it: it does the
next command, goes back to where the solution went on if it finds itself elsewhere,
and waits where something is not there yet. What it says is of what the agent has
read: the task, the rooms, the answers. The demonstrator strays from the solution:
it looks around, wanders off, or focuses on what is not asked for, which is fatal.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Sequence

from envs import api, teaching
from envs.scienceworld.simulator import AMBIGUOUS, UNKNOWN

LOOK, WAIT, ANY = 'look around', 'wait1', '0'
_IDLE = (LOOK, 'inventory', WAIT)
_ROOM = re.compile(r'called the (?P<room>[\w ]+)\.')
_ARRIVED = re.compile(r'You (?P<how>teleport|move) to the (?P<room>[\w ]+)\.')
_WAY = re.compile(r'(?P<verb>open door|go) to (?P<room>[\w ]+)')
_DOOR = re.compile(r'A door to the ([\w ]+) \(that is open\)')
_THING = re.compile(r'\b[Aa]n? (?:substance called )?([a-z][a-z ]*?)(?=[,.()\n:]|$)')
_NO_THINGS = ('agent', 'substance', 'air')
# A step is tried so often, with waiting between, before it is left out.
_MAX_TRIES = 8
# Ends of names that tell the simulator where a thing is.
_PLACE = re.compile(r' in (?:your )?inventory$|^the ')

# Sentences by command; a and b are the names in it. The first that matches.
_SENTENCES = [
    (re.compile(pattern), sentence) for pattern, sentence in (
        ('open door to (?P<a>.+)', 'The door to the {a} has to be open.'),
        ('close door to (?P<a>.+)', 'The door to the {a} should be closed.'),
        ('open (?P<a>.+)', 'I have to see what is in the {a}.'),
        ('close (?P<a>.+)', 'The {a} should be closed.'),
        ('pick up (?P<a>.+)', 'I take the {a} along, as I need it.'),
        ('put down (?P<a>.+)', 'I do not need the {a} now.'),
        ('move (?P<a>.+) to (?P<b>.+)', 'The {a} must go to the {b}.'),
        ('pour (?P<a>.+) (?:in|into) (?P<b>.+)', 'The {a} has to be in the {b}.'),
        ('dunk (?P<a>.+) (?:in|into) (?P<b>.+)', 'The {a} is filled from the {b}.'),
        ('mix (?P<a>.+)', 'All that I need is in the {a}, so I mix it.'),
        ('activate (?P<a>.+)', 'The {a} has to be on.'),
        ('deactivate (?P<a>.+)', 'The {a} is not needed any more.'),
        ('disconnect (?P<a>.+)', 'The {a} has to be free.'),
        ('connect (?P<a>.+) to (?P<b>.+)', 'Current passes from the {a} to the {b}.'),
        ('use (?P<a>thermometer.*) on (?P<b>.+)', 'I measure how warm the {b} is.'),
        ('use (?P<a>.+) on (?P<b>.+)', 'I use the {a} on the {b}.'),
        ('focus on (?P<a>.+)', 'The {a} is what the task asks for.'),
        ('read (?P<a>.+)', 'The {a} may say what to do.'),
        ('(?:examine|look at|look in) (?P<a>.+)', 'I check what became of the {a}.'),
        ('eat (?P<a>.+)', 'The {a} can be eaten.'),
        ('flush (?P<a>.+)', 'I see what flushing the {a} does.'),
        ('inventory', 'I check what I carry.'),
        ('task', 'I read again what is asked for.'),
        ('wait.*', 'Something happens by itself here, so I let time go by.'),
        (r'\d+', 'Of these I mean number {number}.'),
    )
]  # fmt: skip


def shortened(path: Sequence[str], doors_are_open: bool) -> tuple[str, ...]:
  """A solution without what changes nothing."""
  kept = []
  for step in path:
    way, into = _WAY.fullmatch(step), re.fullmatch('pour (.+) into (.+)', step)
    if doors_are_open and way and way['verb'] == 'open door':
      continue
    if into and into[1] == into[2]:
      continue
    kept.append(step)
  return tuple(kept)


def named(words: str) -> str:
  """The name of a thing as one would say it: without its place, no word twice."""
  kept: list[str] = []
  for word in _PLACE.sub('', words).split():
    if word not in kept[-1:]:
      kept.append(word)
  return ' '.join(kept)


@dataclasses.dataclass(slots=True)
class Notes:
  """Implements `teaching.Notes`.

  Attributes:
    path: the solution.
    done: how much of it was done.
    trail: rooms from where the solution goes on to the present one.
    jumps: whether the agent has teleported, so that the world allows it.
    known: rooms that were looked at.
    doors, things: open doors' rooms, and what was in sight at the last look here.
    asked: whether the simulator asks which of several things is meant.
    tries: how often the next step was refused.
    waiting: whether to wait before the step is tried again.
  """

  path: tuple[str, ...]
  done: int = 0
  trail: list[str] = dataclasses.field(default_factory=lambda: [''])
  jumps: bool = False
  known: set[str] = dataclasses.field(default_factory=set)
  doors: tuple[str, ...] = ()
  things: tuple[str, ...] = ()
  asked: bool = False
  tries: int = 0
  waiting: bool = False

  @property
  def room(self) -> str:
    return self.trail[-1]

  @property
  def step(self) -> str:
    """What the solution does next; empty at its end."""
    return self.path[self.done] if self.done < len(self.path) else ''

  def read(self, action: str, observation: str) -> None:
    """Takes in what `action` led to."""
    self.asked = observation.startswith(AMBIGUOUS)
    self.waiting = False
    meant = ' '.join(action.split()) == self.step
    arrived = _ARRIVED.match(observation)
    stays = self.step.startswith('go to ') and not arrived
    if meant and (stays or observation.startswith(UNKNOWN)):
      self._refused()
    elif meant:
      self.done, self.tries = self.done + 1, 0
    # A number of the solution answers a question that may not be asked this time.
    if self.step.isdigit() and not self.asked:
      self.done += 1
    if arrived:
      self._arrive(arrived['room'], arrived['how'] == 'teleport', meant)
    if looked := _ROOM.search(observation):
      self._look(looked['room'], observation)

  def _refused(self) -> None:
    self.tries += 1
    self.waiting = self.tries <= _MAX_TRIES
    if not self.waiting:
      self.done, self.tries = self.done + 1, 0

  def _arrive(self, room: str, jumped: bool, meant: bool) -> None:
    self.jumps = self.jumps or jumped
    self.doors, self.things = (), ()
    ahead = None if meant else self._ahead(room)
    if ahead is not None:
      self.done, self.tries = ahead, 0
    if meant or ahead is not None:
      self.trail = [room]
    elif room in self.trail:
      del self.trail[self.trail.index(room) + 1 :]
    else:
      self.trail.append(room)

  def _ahead(self, room: str) -> int | None:
    """Where the solution goes on from a room that it was on its way through."""
    found = None
    for place in range(self.done, len(self.path)):
      way = _WAY.fullmatch(self.path[place])
      if way is None:
        break
      if way['verb'] == 'go' and way['room'] == room:
        found = place + 1
    return found

  def _look(self, room: str, look: str) -> None:
    if not self.room:
      self.trail = [room]
    seen, _, around = look.partition('You also see')
    self.known.add(room)
    self.doors = tuple(_DOOR.findall(around))
    names = _THING.findall(seen.partition('you see')[2])
    self.things = tuple(dict.fromkeys(n for n in names if n not in _NO_THINGS))

  def choices(self) -> list[str]:
    """The script's own action, and no other."""
    if self.asked:
      return [self.step if self.step.isdigit() else ANY]
    if len(self.trail) > 1:
      home, last = self.trail[0], self.trail[-2]
      return [f'teleport to {home}' if self.jumps else f'go to {last}']
    if self.waiting and self.step.startswith('go to '):
      return [self.step.replace('go', 'open door', 1)]
    return [WAIT if self.waiting or not self.step else self.step]

  def buttons(self) -> list[str]:
    ways = [f'go to {room}' for room in self.doors]
    return [*self.choices(), *_IDLE, *ways, *(f'focus on {t}' for t in self.things)]

  def reason(self, action: str) -> str:
    """A sentence that leads to `action` here."""
    return self._say(action).replace('in the outside', 'outside')

  def _say(self, action: str) -> str:
    way = re.fullmatch(r'(?:go|teleport) to (?:the )?(.+)', action)
    if way:
      return self._why_go(way[1])
    if action == LOOK:
      seen = 'I look again at' if self.room in self.known else 'I do not know yet'
      return f'{seen} what is in the {self.room}.'
    if action == WAIT and not self.asked and self.step != WAIT:
      late = 'That is not possible yet, so I wait.'
      return late if self.waiting else 'I wait and see what happens.'
    if action.startswith('focus on ') and action != self.step:
      return f'Perhaps the {named(action[len("focus on ") :])} is what is asked for.'
    for pattern, sentence in _SENTENCES:
      if found := pattern.fullmatch(action):
        names = {key: named(name) for key, name in found.groupdict().items()}
        return sentence.format(number=action, **names)
    return 'I try something else.'

  def _why_go(self, room: str) -> str:
    if room in self.trail[:-1]:
      return f'I have no business in the {self.room} and go back to the {room}.'
    if action_of_way(self.step) != room:
      return f'Perhaps the {room} has something of use.'
    ways = [action_of_way(step) for step in self.path[self.done :]]
    end = next((i for i, way in enumerate(ways) if not way), len(ways))
    goal = ways[end - 1]
    if goal != room:
      return f'The way to the {goal} leads through the {room}.'
    known = 'I have more to do' if room in self.known else 'What I need may be'
    return f'{known} in the {room}.'


def action_of_way(step: str) -> str:
  """The room that a step of a solution leads to; empty where it does not."""
  way = _WAY.fullmatch(step)
  return way['room'] if way else ''


class GoldTeacher(teaching.SpokenTeacher[Notes]):
  """See the module's docstring.

  Attributes:
    quality: chance, turn by turn, that the demonstrator does as the solution does.
    patience: chance that, where it does not, it does nothing fatal: it does not
      focus on a thing in sight.
    search: chance that it then stays in the room.
    reflection_quality: chance that a diagnosis is the script's.
  """

  def __init__(
      self,
      path_of: Callable[[str], Sequence[str]],
      quality: float = 0.9,
      patience: float = 0.6,
      search: float = 0.5,
      reflection_quality: float = 0.9,
  ):
    """ValueError names an option that is not a probability.

    Args:
      path_of: the solution of what the agent is asked (`api.Task.instruction`);
        ValueError if that is no task.
    """
    teaching.check_chances(
        quality=quality, patience=patience, search=search,
        reflection_quality=reflection_quality,
    )
    self._path_of = path_of
    self.quality, self.patience, self.search = quality, patience, search
    self.reflection_quality = reflection_quality

  def open_notes(self, history: api.History) -> Notes:
    notes = Notes(tuple(self._path_of(history.instruction)))
    notes.read('', history.observations[0])
    return notes

  def act(self, history: api.History, rng: random.Random) -> str:
    """What the demonstrator does."""
    notes = self.read(history)
    best = notes.choices()[0]
    astray = len(notes.trail) > 1
    if notes.asked or astray or rng.random() < self.quality:
      return best
    if notes.things and rng.random() >= self.patience:
      return f'focus on {rng.choice(notes.things)}'
    if notes.doors and rng.random() >= self.search:
      return f'go to {rng.choice(notes.doors)}'
    return rng.choice(_IDLE)
