"""ScienceWorld as a world of `envs.api`: a shared Java process, light sessions."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from envs import api
from envs.scienceworld import subtasks
from envs.scienceworld import tasks as task_lib
from envs.scienceworld.simulator import (
    AMBIGUOUS,
    NO_NUMBER,
    UNKNOWN,
    Game,
    Outcome,
    Simulator,
)

VIEWS = ('text', 'compact')
# No action is longer, and the names in this world are plain ASCII: what differs
# is answered here, since the simulator takes long to find nothing in it.
_MAX_LENGTH = 300
# Clears the progress of the task but not the world: an action for debugging.
_BLOCKED = 'reset task'

INSTRUCTIONS = """\
You are in a small world with a kitchen, a workshop, a greenhouse and other rooms,
and have a task of elementary science to do there. Every turn, answer with one
action in tags, e.g. <action>open door to kitchen</action>. OBJ stands for the name
of an object that you see or carry, LOC for the name of a room. The actions are:
open OBJ, close OBJ: open or close a container or a door
activate OBJ, deactivate OBJ: switch a device on or off
connect OBJ to OBJ, disconnect OBJ: electrical parts
use OBJ on OBJ: use a device or tool, e.g. a thermometer, on an object
look around: describe the room
look at OBJ, look in OBJ: describe an object, a container
read OBJ: read a note or a book
move OBJ to OBJ: put an object into a container
pick up OBJ, put down OBJ: into and out of your inventory
pour OBJ in OBJ: pour a liquid into a container
dunk OBJ in OBJ: put a container into a liquid
mix OBJ: let the contents of a container react
eat OBJ, flush OBJ
go to LOC: to a room next to this one, through an open door
teleport to LOC: to any room, where the world allows it
focus on OBJ: say that an object is the one asked for; a wrong one fails the task
inventory: list what you carry
task: read the task again
wait, wait1: let ten steps, or one, go by
If the world asks which of several things you mean, answer with its number alone."""


class View(Protocol):
  """How a session shows itself and what it understands."""

  def first(self, description: str, look: str) -> str:
    """The first observation."""
    ...

  def to_action(self, response: str) -> str:
    """The simulator's action; empty for none."""
    ...

  def render(self, response: str, outcome: Outcome, game: Game) -> str:
    """The observation after an action; may look around in the game."""
    ...

  def admissible(self, game: Game) -> list[str]:
    """Responses that do something now; empty where they cannot be listed."""
    ...


class TextView:
  """The simulator's own texts, for language models."""

  def first(self, description: str, look: str) -> str:
    return f'{description}\n\n{look}'

  def to_action(self, response: str) -> str:
    return response

  def render(self, response: str, outcome: Outcome, game: Game) -> str:
    del response, game
    return outcome.text

  def admissible(self, game: Game) -> list[str]:
    return sorted(filter(is_plausible, game.valid_actions()))


class ScienceWorldSession(api.ReplaySnapshots):
  """One game; its snapshots are the log of its actions."""

  def __init__(self, world: ScienceWorldWorld):
    super().__init__()
    self.world_name = world.name
    self._world = world
    self._game = Game(world.simulator)
    self._over = True
    self._steps = 0
    self._score = 0.0

  def _reset(self, task: api.Task, seed: int) -> api.Step:
    """Starts a variation. Nothing is random, so `seed` is unused."""
    del seed
    level = task_lib.level_of(task, self._world.simplification)
    description, look = self._game.start(level)
    self._over, self._steps, self._score = False, 0, 0.0
    return api.Step(self._world.view.first(description, look), info={'valid': True})

  def _step(self, action: str) -> api.Step:
    if self._over:
      raise api.EpisodeOver('step before the first reset or after the end')
    self._steps += 1
    view = self._world.view
    outcome = self._send(clean(view.to_action(action)))
    observation = view.render(action, outcome, self._game)
    failed = outcome.score < 0
    score = min(max(outcome.score, 0.0), 1.0)
    reward, self._score = score - self._score, score
    ended = failed or outcome.completed
    self._over = ended or 0 < self._world.max_steps <= self._steps
    info: dict[str, Any] = {'valid': is_valid(outcome.text), 'score': score}
    if self._over:
      info['success'] = score >= 1.0
    return api.Step(observation, reward, ended, self._over and not ended, info)

  def _send(self, action: str) -> Outcome:
    """The simulator's answer; what it must not see is answered for it."""
    if not is_plausible(action):
      return Outcome(UNKNOWN, self._score, False)
    outcome = self._game.act(action)
    if self._world.settles_ambiguity and outcome.text.startswith(AMBIGUOUS):
      outcome = self._game.act('0')
    return outcome

  def admissible(self) -> list[str]:
    return [] if self._over else self._world.view.admissible(self._game)

  def goals(self) -> subtasks.Goals:
    """The goals of the present task and which of them are reached."""
    return subtasks.read(self._game.goals())

  def close(self) -> None:
    self._over = True
    self._game.close()


def clean(action: str) -> str:
  """One line of printable text; the connection speaks in lines."""
  return ' '.join(''.join(c if c.isprintable() else ' ' for c in action).split())


def is_plausible(action: str) -> bool:
  """Whether the simulator gets to see a cleaned action."""
  return (
      0 < len(action) <= _MAX_LENGTH
      and action.isascii()
      and action.lower() != _BLOCKED
  )


def is_valid(text: str) -> bool:
  """Whether an answer says that the action did something."""
  return not text.startswith((UNKNOWN, AMBIGUOUS, NO_NUMBER))


class ScienceWorldWorld(api.World):
  """The shared part: the Java process and the list of tasks.

  Attributes:
    name: identifies view and settings; snapshots carry it.
    simulator: see `Simulator`.
    simplification, max_steps: see `make`.
    view: how sessions show themselves.
    settles_ambiguity: whether sessions take the first of several objects that
      an action may mean, instead of asking.
  """

  def __init__(
      self,
      name: str,
      simulator: Simulator,
      task_names: Sequence[str],
      simplification: str,
      max_variations: int,
      max_steps: int,
      view: View,
  ):
    self.name = name
    self.simulator = simulator
    self.simplification = simplification
    self.max_steps = max_steps
    self.view = view
    self.settles_ambiguity = not isinstance(view, TextView)
    self._task_names = tuple(task_names)
    self._max_variations = max_variations
    self._paths: dict[str, Sequence[str]] = {}
    # A world that is dropped without `close` must not leave Java running.
    weakref.finalize(self, simulator.close)

  @functools.cached_property
  def _tasks(self) -> Mapping[str, Sequence[api.Task]]:
    return task_lib.load(
        self.simulator, self._task_names, self.simplification, self._max_variations
    )

  def tasks(self, split: str) -> Sequence[api.Task]:
    """As `World.tasks`; the first call asks the simulator, 0.1 s a task name."""
    api.check_split(split)
    return self._tasks[split]

  def session(self) -> ScienceWorldSession:
    return ScienceWorldSession(self)

  def gold_path(self, task: api.Task) -> list[str]:
    """The simulator's own solution, for the teacher; agents never see it."""
    game = Game(self.simulator)
    path = game.gold_path(task_lib.level_of(task, self.simplification))
    game.close()
    return path

  def subtasks(self) -> Mapping[str, str]:
    return subtasks.SUBTASKS

  def completed(self, task: api.Task, history: api.History) -> Sequence[str]:
    """As `World.completed`: plays the episode again and asks the simulator."""
    session = self.session()
    session.reset(task)
    start, over = session.goals(), False
    for action in filter(None, history.actions):
      if over:
        break
      step = session.step(action)
      over = step.terminated or step.truncated
    end = session.goals()
    session.close()
    return subtasks.completed(start, end)

  def instructions(self) -> str:
    return INSTRUCTIONS if isinstance(self.view, TextView) else ''

  def task_type(self, task: api.Task) -> str:
    return str(task.payload['name'])

  def parse_response(self, response: str) -> str:
    """The action in a response. Raises InvalidAction where there is none.

    The text view reads the last <action>...</action>, else the last line; the
    compact view takes the response as it is.
    """
    if not isinstance(self.view, TextView):
      return super().parse_response(response)
    tagged = api.find_tagged(response)
    found = [tagged] if tagged is not None else response.strip().splitlines()[-1:]
    action = clean(found[-1]) if found else ''
    if not action:
      raise api.InvalidAction('no action found; write <action>look around</action>')
    return action

  def vocabulary(self) -> Sequence[str]:
    """Every word of the compact view; the text view is open-ended."""
    if isinstance(self.view, TextView):
      return super().vocabulary()
    from envs.scienceworld import compact

    return compact.vocabulary()

  def teacher(self, **options: Any) -> api.Teacher:
    if not isinstance(self.view, TextView):
      from envs.scienceworld import expert

      return expert.FindTeacher(**options)
    if {*self._task_names} <= {*task_lib.FIND_TASKS} and self._allows('teleportAction'):
      from envs.scienceworld import text_expert

      return text_expert.TextFindTeacher(**options)
    from envs.scienceworld import gold_expert

    return gold_expert.GoldTeacher(self._path_of, **options)

  def _allows(self, simplification: str) -> bool:
    return bool({'easy', simplification} & {*self.simplification.split(',')})

  def _path_of(self, instruction: str) -> Sequence[str]:
    """The solution of a task by its text, which takes the simulator some seconds."""
    if instruction not in self._paths:
      from envs.scienceworld import gold_expert

      level = task_lib.read_instruction(instruction)
      task = task_lib.task_of(*level, split='')
      self._paths[instruction] = gold_expert.shortened(
          self.gold_path(task), self._allows('openDoors')
      )
    return self._paths[instruction]

  def close(self) -> None:
    self.simulator.close()


def make(
    view: str = 'text',
    task_names: Sequence[str] = (),
    simplification: str = 'easy',
    max_variations: int = 0,
    max_steps: int = 0,
    heap_mb: int = 1536,
) -> ScienceWorldWorld:
  """The world of a selection of tasks.

  Args:
    view: 'text', or 'compact' for small policies (find tasks, 'easy' alone).
    task_names: which tasks; empty for all that the view can show.
    simplification: comma-separated names, see `tasks.SIMPLIFICATIONS`; 'easy'
      for all of them, empty for none.
    max_variations: most variations of a task name in a split, 0 for all.
    max_steps: the environment's own limit in actions, 0 for none. Solutions
      take from 3 actions (lifespan) to almost 200 (friction-unnamed, boil).
    heap_mb: the most memory that the Java process may use for its objects;
      about 30 for each game in progress.

  Raises:
    ValueError: names the bad option and the choices.
    ModuleNotFoundError: the package scienceworld is not installed.
  """
  if view not in VIEWS:
    raise ValueError(f'unknown view {view!r}; choose from {", ".join(VIEWS)}')
  for option, value in (('max_variations', max_variations), ('max_steps', max_steps)):
    if value < 0:
      raise ValueError(f'{option} is {value}; 0 means no limit')
  if view == 'compact' and simplification != 'easy':
    raise ValueError(
        f"the compact view needs simplification 'easy', not {simplification!r}"
    )
  known = task_lib.FIND_TASKS if view == 'compact' else task_lib.known_names()
  names = tuple(task_names) or known
  task_lib.check_names(names, known)
  task_lib.check_simplification(simplification, names)
  simulator = Simulator(heap_mb)
  settings = (view, names, simplification, max_variations, max_steps)
  name = f'scienceworld-{view}-{api.observation_hash(repr(settings))[:8]}'
  return ScienceWorldWorld(
      name, simulator, names, simplification, max_variations, max_steps,
      _make_view(view),
  )  # fmt: skip


def _make_view(view: str) -> View:
  if view == 'text':
    return TextView()
  from envs.scienceworld import compact

  return compact.CompactView()
