"""Sokoban as a world of `envs.api`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from envs import api
from envs.options import check_choice, complete, defaults, refuse_foreign
from envs.sokoban import boxoban, engine, expert, solver, subtasks
from envs.sokoban import levels as level_lib
from envs.sokoban import view as view_lib
from envs.sokoban.engine import ACTIONS, State
from envs.sokoban.levels import Level

SOURCES = ('generated', 'boxoban')
VIEWS = ('compact', 'text')
_DEFAULT_VIEWS = {'generated': 'compact', 'boxoban': 'text'}
_MAX_STEPS = {'generated': 15, 'boxoban': 100}


class SokobanSession(api.TextEnv):
  """One game; its whole state is a `State`."""

  def __init__(self, world: SokobanWorld):
    self._world = world
    self._state: State | None = None

  def reset(self, task: api.Task, seed: int = 0) -> api.Step:
    """Starts a level. Nothing is random, so `seed` is unused."""
    del seed
    self._state = engine.parse(task.payload['level'].split('\n'))
    return api.Step(self._world.view.render(self._state), info={'valid': True})

  def step(self, action: str) -> api.Step:
    """Moves. What is no move costs a step's reward and changes nothing."""
    before = self._state
    if before is None:
      raise api.EpisodeOver('step before the first reset')
    if self._world.is_over(before):
      raise api.EpisodeOver('step after the end of the episode')
    if action not in ACTIONS:
      return self._world.judge(before, engine.STEP_REWARD, False)
    after, reward = engine.move(before, ACTIONS.index(action))
    self._state = after
    return self._world.judge(after, reward, after.player != before.player)

  def admissible(self) -> tuple[str, ...]:
    """The moves that are not blocked."""
    state = self._state
    if state is None or self._world.is_over(state):
      return ()
    moved = (engine.move(state, index)[0] for index in range(len(ACTIONS)))
    return tuple(
        action for action, after in zip(ACTIONS, moved) if after.player != state.player
    )

  def snapshot(self) -> api.Snapshot:
    if self._state is None:
      raise api.EpisodeOver('snapshot before the first reset')
    return api.Snapshot(self._world.name, self._state, state_bytes(self._state))

  def restore(self, snapshot: api.Snapshot) -> None:
    snapshot.check(self._world.name, State)
    self._state = snapshot.state


def state_bytes(state: State) -> int:
  """Size of what a state does not share with its room, in bytes."""
  return sys.getsizeof(state) + sys.getsizeof(state.boxes)


class SokobanWorld(api.World):
  """The shared part: levels and how they are shown.

  Attributes:
    name: identifies levels and settings; snapshots carry it.
    view: see `envs.sokoban.view`.
  """

  def __init__(
      self,
      name: str,
      view: view_lib.TextView | view_lib.CompactView,
      made: Mapping[str, Sequence[Level]],
      max_steps: int,
  ):
    self.name = name
    self.view = view
    self._max_steps = max_steps
    self._tasks = {
        split: tuple(self._task(split, level) for level in made[split])
        for split in api.SPLITS
    }

  def tasks(self, split: str) -> Sequence[api.Task]:
    api.check_split(split)
    return self._tasks[split]

  def _task(self, split: str, level: Level) -> api.Task:
    # The text alone names a level: splits share none and repeat none.
    payload = {'level': level.text, 'solution_moves': level.solution_moves}
    return api.Task(
        id=f'sokoban-{api.observation_hash(level.text)}',
        split=split,
        instruction=self.view.instruction(level.start),
        payload=payload,
    )

  def session(self) -> SokobanSession:
    return SokobanSession(self)

  def is_over(self, state: State) -> bool:
    return state.solved or 0 < self._max_steps <= state.steps

  def judge(self, state: State, reward: float, valid: bool) -> api.Step:
    """The step that led to `state`; the score counts boxes on targets."""
    info: dict[str, Any] = {'valid': valid}
    over = self.is_over(state)
    if over:
      home = (state.boxes & state.room.targets).bit_count()
      score = home / state.boxes.bit_count()
      info |= {'success': state.solved, 'score': score}
    return api.Step(
        self.view.render(state),
        reward=reward,
        terminated=state.solved,
        truncated=over and not state.solved,
        info=info,
    )

  def instructions(self) -> str:
    return self.view.rules()

  def parse_response(self, response: str) -> str:
    return self.view.parse_response(response)

  def subtasks(self) -> Mapping[str, str]:
    return subtasks.SUBTASKS

  def completed(self, task: api.Task, history: api.History) -> Sequence[str]:
    start = engine.parse(task.payload['level'].split('\n'))
    return subtasks.completed(start, history.actions)

  def vocabulary(self) -> Sequence[str]:
    """Every word of the compact view; the text view is for language models."""
    if not isinstance(self.view, view_lib.CompactView):
      return super().vocabulary()
    return tuple(dict.fromkeys([*self.view.vocabulary(), *expert.WORDS]))

  def teacher(self, **options: Any) -> api.Teacher:
    """In a view's own words: three of the compact one, sentences of the text.

    NotImplementedError where a room has too many states to solve exactly.
    """
    for task in (task for tasks in self._tasks.values() for task in tasks):
      state = engine.parse(task.payload['level'].split('\n'))
      size = solver.table_size(state.room, state.boxes.bit_count())
      if size > solver.MAX_TABLE:
        raise NotImplementedError(
            f'the scripted teacher solves rooms of at most {solver.MAX_TABLE} '
            f'states; {task.id} has {size}'
        )
    if isinstance(self.view, view_lib.CompactView):
      return expert.SokobanTeacher(self.view, **options)
    return expert.SpokenSokobanTeacher(self.view, **options)


def make(
    levels: str = 'generated',
    data_dir: str = '',
    difficulty: str = 'unfiltered',
    view: str = '',
    max_steps: int = 0,
    deadlock_feedback: bool = False,
    **options: Any,
) -> SokobanWorld:
  """The world of a source of levels.

  Args:
    levels: 'generated' (needs no data) or 'boxoban'.
    data_dir, difficulty: see `boxoban.load`; of Boxoban's levels alone.
    view: 'compact' or 'text'; empty for 'compact' with generated levels and
      'text' with Boxoban's.
    max_steps: moves per episode; 0 for 15 with generated levels and 100 with
      Boxoban's, negative for no limit.
    deadlock_feedback: whether observations say that a box is plainly lost.
    **options: of `levels.build`. Of these Boxoban takes only `train_levels`,
      `validation_levels` and `test_levels`, the most levels per split.

  Raises:
    ValueError: names the bad option and the choices.
    FileNotFoundError: `data_dir` has no levels of that difficulty.
  """
  check_choice('levels', levels, SOURCES)
  view = view or _DEFAULT_VIEWS[levels]
  check_choice('view', view, VIEWS)
  options = complete(make, _known(levels), options)
  if levels == 'generated':
    refuse_foreign(
        make, "levels='boxoban'", f'levels={levels!r}', data_dir=data_dir,
        difficulty=difficulty,
    )
    made = level_lib.build(**options)
  else:
    limits = {split: options[f'{split}_levels'] for split in api.SPLITS}
    made = boxoban.load(data_dir, difficulty, limits)
  max_steps = max_steps or _MAX_STEPS[levels]
  starts = [level.start for split in api.SPLITS for level in made[split][:1]]
  if not starts:
    raise ValueError(f'no levels in any split: {options}')
  room = starts[0].room
  if view == 'compact':
    _check_size(room, made)
    shown = view_lib.CompactView(room.height, room.width, deadlock_feedback)
  else:
    shown = view_lib.TextView(deadlock_feedback)
  settings = (view, max_steps, deadlock_feedback, room.height, room.width)
  name = f'sokoban-{levels}-{api.observation_hash(repr(settings))[:8]}'
  return SokobanWorld(name, shown, made, max_steps)


def _check_size(room: engine.Room, made: Mapping[str, Sequence[Level]]) -> None:
  """ValueError where a level is not of the room's size: a cell has one name."""
  for level in (level for levels in made.values() for level in levels):
    rows = level.text.split('\n')
    if (len(rows), len(rows[0])) != (room.height, room.width):
      raise ValueError(
          f'rooms of {room.height}x{room.width} and {len(rows)}x{len(rows[0])}: the '
          "compact view names cells of one size; use view='text'"
      )


def _known(source: str) -> dict[str, Any]:
  """The options of a source of levels, and their defaults."""
  return {
      name: default for name, default in defaults(level_lib.build).items()
      if source == 'generated' or name.endswith('_levels')
  }  # fmt: skip
