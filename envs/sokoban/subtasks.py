"""What good play in Sokoban is made of, and which of it an episode showed.

The names are RetroAgent's (arXiv 2603.08561), which says nothing about the last
one; here it is not to come back to a state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envs.sokoban import engine, solver
from envs.sokoban.engine import ACTIONS, State

MOVES, NAVIGATION, BOX, DEADLOCK, PROGRESS, SYSTEM = (
    'valid_moves', 'navigation', 'box_interaction', 'deadlock_avoidance',
    'goal_progress', 'system',
)  # fmt: skip
SUBTASKS: Mapping[str, str] = {
    MOVES: 'make no move that is blocked or is none',
    NAVIGATION: 'walk to a box',
    BOX: 'push a box',
    DEADLOCK: 'leave no box where it is lost',
    PROGRESS: 'bring boxes nearer to targets than they were',
    SYSTEM: 'come back to no state that was there before',
}


def completed(start: State, actions: Sequence[str]) -> list[str]:
  """Names of `SUBTASKS` that hold of an episode.

  Args:
    start: where it began.
    actions: one per turn; what is none of `ACTIONS` changed nothing.
  """
  states = [start]
  for action in actions:
    last = states[-1]
    known = action in ACTIONS
    states.append(engine.move(last, ACTIONS.index(action))[0] if known else last)
  end, moved = states[-1], [state.player for state in states]
  pushed = [state.boxes for state in states]
  seen = set(zip(moved, pushed, strict=True))
  found = {
      MOVES: bool(actions) and all(a != b for a, b in zip(moved, moved[1:])),
      NAVIGATION: any(map(_beside_a_box, states[1:])),
      BOX: end.boxes != start.boxes or len(set(pushed)) > 1,
      DEADLOCK: not solver.is_stuck(end),
      PROGRESS: _pushes_left(end) < _pushes_left(start),
      SYSTEM: bool(actions) and len(seen) == len(states),
  }
  return [name for name in SUBTASKS if found[name]]


def _beside_a_box(state: State) -> bool:
  return any(state.boxes >> state.player + shift & 1 for shift in state.room.shifts)


def _pushes_left(state: State) -> int:
  """Fewest pushes to targets, each box alone; a lost one counts as the whole room."""
  alive, area = solver.push_distances(state.room), state.room.height * state.room.width
  return sum(alive.get(box, area) for box in engine.cells(state.boxes))
