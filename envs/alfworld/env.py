"""ALFWorld as a world of `envs.api`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from envs import api
from envs.alfworld import files, grammar, rooms
from envs.alfworld.engine import Engine, Node
from envs.alfworld.files import Entry
from envs.alfworld.problems import Game, Goal
from envs.alfworld.view import TextView
from envs.options import check_choice, complete, defaults, refuse_foreign

SOURCES = ('synthetic', 'files')
VIEWS = ('text', 'compact')


class View(Protocol):
  """How a session shows itself and what it understands."""

  def first(self, text: str, node: Node, goal: Goal) -> str:
    """The first observation."""
    ...

  def to_command(self, response: str, node: Node) -> str:
    """The engine's command."""
    ...

  def render(self, text: str, node: Node) -> str:
    """The observation that a text of the engine becomes."""
    ...

  def instructions(self) -> str:
    """How to play, for language models."""
    ...

  def admissible(self, node: Node) -> Sequence[str]:
    """Responses that do something in a state."""
    ...

  def parse_response(self, response: str) -> str:
    """The action in a response. Raises InvalidAction."""
    ...


@dataclasses.dataclass(frozen=True)
class State:
  """All of a session: the game, its state, and the steps taken."""

  game: Game = dataclasses.field(repr=False)
  node: Node
  steps: int


class AlfworldSession(api.TextEnv):
  """One episode; light, for games and what they answer are the world's."""

  def __init__(self, world: AlfworldWorld):
    self._world = world
    self._state: State | None = None

  def reset(self, task: api.Task, seed: int = 0) -> api.Step:
    """Starts a game. Nothing is random, so `seed` is unused."""
    del seed
    game = self._world.game(task)
    text, node = self._world.engine.start(game)
    self._state = State(game, node, 0)
    first = self._world.view.first(text, node, game.goal)
    return api.Step(first, info={'valid': True})

  def step(self, action: str) -> api.Step:
    before = self._state
    if before is None:
      raise api.EpisodeOver('step before the first reset')
    if self._world.is_over(before):
      raise api.EpisodeOver('step after the end of the episode')
    view = self._world.view
    command = view.to_command(action, before.node)
    text, node = self._world.engine.step(before.game, before.node, command)
    self._state = State(before.game, node, before.steps + 1)
    info: dict[str, Any] = {'valid': command.strip() in before.node.menu.operators}
    over = self._world.is_over(self._state)
    if over:
      info |= {'success': node.won, 'score': float(node.won)}
    return api.Step(
        view.render(text, node), float(node.won), node.won, over and not node.won, info
    )

  def admissible(self) -> Sequence[str]:
    state = self._state
    if state is None or self._world.is_over(state):
      return ()
    return self._world.view.admissible(state.node)

  def snapshot(self) -> api.Snapshot:
    if self._state is None:
      raise api.EpisodeOver('snapshot before the first reset')
    size = sys.getsizeof(self._state) + sys.getsizeof(self._state.node)
    return api.Snapshot(self._world.name, self._state, size)

  def restore(self, snapshot: api.Snapshot) -> None:
    snapshot.check(self._world.name, State)
    self._state = snapshot.state


class AlfworldWorld(api.World):
  """The shared part: games, the planners that play them, what they said.

  Attributes:
    name: identifies games and settings; snapshots carry it.
    origin: where the games are from: 'synthetic rooms', 'official game files' or
      'ALFWorld rebuilt from ALFRED, not the official game files'.
    engine: plays.
    view: how sessions show themselves.
  """

  def __init__(
      self,
      name: str,
      origin: str,
      games: Mapping[str, Sequence[Entry]],
      engine: Engine,
      view: View,
      max_steps: int,
  ):
    self.name = name
    self.origin = origin
    self.engine = engine
    self.view = view
    self._max_steps = max_steps
    self._games = {entry.id: entry for made in games.values() for entry in made}
    self._tasks = {
        split: tuple(_task(entry, split) for entry in games[split])
        for split in api.SPLITS
    }

  def tasks(self, split: str) -> Sequence[api.Task]:
    api.check_split(split)
    return self._tasks[split]

  def game(self, task: api.Task) -> Game:
    """What the engine plays for a task."""
    return self._games[task.id].load()

  def session(self) -> AlfworldSession:
    return AlfworldSession(self)

  def is_over(self, state: State) -> bool:
    return state.node.won or 0 < self._max_steps <= state.steps

  def task_type(self, task: api.Task) -> str:
    """One of `problems.TASK_TYPES`."""
    return str(task.payload['task_type'])

  def subtasks(self) -> Mapping[str, str]:
    from envs.alfworld import subtasks

    return subtasks.SUBTASKS

  def completed(self, task: api.Task, history: api.History) -> Sequence[str]:
    from envs.alfworld import subtasks

    answers, spoken = history.observations[1:], isinstance(self.view, TextView)
    return subtasks.completed(self._games[task.id].goal, answers, not spoken)

  def instructions(self) -> str:
    return self.view.instructions()

  def parse_response(self, response: str) -> str:
    return self.view.parse_response(response)

  def vocabulary(self) -> Sequence[str]:
    """Every word of the compact view; the text view is open-ended."""
    if isinstance(self.view, TextView):
      return super().vocabulary()
    from envs.alfworld import compact

    return compact.vocabulary()

  def teacher(self, **options: Any) -> api.Teacher:
    """In a view's own words: a few of the compact one, sentences of the text."""
    if isinstance(self.view, TextView):
      from envs.alfworld import text_expert

      return text_expert.TextHouseholdTeacher(**options)
    from envs.alfworld import expert

    return expert.HouseholdTeacher(**options)


def _task(entry: Entry, split: str) -> api.Task:
  """What the game itself asks for; games may share these words, but no id."""
  return api.Task(
      entry.id, split, entry.goal.text, {'task_type': entry.goal.task_type}
  )


def make(
    games: str = 'synthetic',
    data_dir: str = '',
    view: str = 'text',
    show_commands: bool = False,
    max_steps: int = 50,
    **options: Any,
) -> AlfworldWorld:
  """The world of a source of games.

  Args:
    games: 'synthetic' (needs no data) or 'files'.
    data_dir: directory of game files, official or rebuilt; see `files.load`.
    view: 'text', or 'compact' for small policies.
    show_commands: whether the text view lists what can be done.
    max_steps: the environment's own limit, 0 for none (50: ALFWorld).
    **options: of `rooms.build`; of these, game files take only `task_types` and
      the most games per split (`train_games` ..; 0 for all).

  Raises:
    ValueError: names the bad option and the choices, or the broken file.
    FileNotFoundError: `data_dir` has no games.
    ModuleNotFoundError: the packages of ALFWorld are not installed.
  """
  check_choice('games', games, SOURCES)
  check_choice('view', view, VIEWS)
  if max_steps < 0:
    raise ValueError(f'max_steps is {max_steps}; 0 means no limit')
  if games != 'files':
    refuse_foreign(make, "games='files'", f'games={games!r}', data_dir=data_dir)
  if view != 'text':
    refuse_foreign(make, "view='text'", f'view={view!r}', show_commands=show_commands)
  build = rooms.build if games == 'synthetic' else files.load
  options = complete(make, defaults(build), options)
  if games == 'synthetic':
    origin = 'synthetic rooms'
    found = {
        split: [files.entry_of(game) for game in made]
        for split, made in rooms.build(**options).items()
    }
  else:
    origin, found = files.origin(data_dir), files.load(data_dir, **options)
  settings = (view, show_commands, max_steps, data_dir, sorted(options.items()))
  name = f'alfworld-{games}-{api.observation_hash(repr(settings))[:8]}'
  shown = _make_view(view, show_commands, found)
  return AlfworldWorld(name, origin, found, Engine(), shown, max_steps)


def _make_view(
    view: str, show_commands: bool, games: Mapping[str, Sequence[Entry]]
) -> View:
  """ValueError names a game whose grammar cannot be read."""
  # Not a set: the rules must read the same in every process.
  owners = {(e.domain, e.grammar): e.id for made in games.values() for e in made}
  grammars = []
  for (domain, text), id in owners.items():
    try:
      grammars.append(grammar.parse(domain, text))
    except ValueError as error:
      raise ValueError(f"game {id!r}, field 'grammar': {error}") from error
  if view == 'text':
    return TextView(show_commands, grammars)
  from envs.alfworld import compact

  return compact.CompactView()
