"""Solutions: exact distances in small rooms, A* over pushes in any.

`MoveTable` knows the fewest moves from every state of a room, by breadth-first
search backwards from the solved ones; what it does not hold is lost. `solve`
finds a solution with the fewest pushes where the table would be too large.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math

from envs import api
from envs.sokoban import engine
from envs.sokoban.engine import ACTIONS, Room, State

MAX_TABLE = 200_000

# The state before the push that led to a node, and the push.
_Links = dict[tuple[int, int], tuple[State, int]]


class SearchLimit(api.EnvError):
  """A search was given up; whether there is a solution is not known."""


def table_size(room: Room, boxes: int) -> int:
  """At most how many states a room has."""
  return math.comb(len(room.floor), boxes) * len(room.floor)


class MoveTable:
  """Fewest moves to solve, from every state of a room with as many boxes as
  targets. ValueError where there are more than `MAX_TABLE` states."""

  def __init__(self, room: Room):
    size = table_size(room, room.targets.bit_count())
    if size > MAX_TABLE:
      raise ValueError(f'a room of {size} states; a table holds {MAX_TABLE}')
    self._area = room.height * room.width
    self._moves = self._search(room)

  def _search(self, room: Room) -> dict[int, int]:
    area, walls = self._area, room.walls
    goals = [cell for cell in room.floor if not room.targets >> cell & 1]
    front = [(cell, room.targets) for cell in goals]
    found = {room.targets * area + cell: 0 for cell in goals}
    for player, boxes in front:
      moves = found[boxes * area + player] + 1
      for shift in room.shifts:
        origin, ahead = player - shift, player + shift
        if (walls | boxes) >> origin & 1:
          continue
        befores = [boxes]
        if boxes >> ahead & 1:
          befores.append(boxes ^ 1 << ahead ^ 1 << player)
        for before in befores:
          key = before * area + origin
          if key not in found:
            found[key] = moves
            front.append((origin, before))
    return found

  def moves(self, state: State) -> float:
    """Fewest moves to solve a state of the room; infinite if it is lost."""
    return self._moves.get(state.boxes * self._area + state.player, math.inf)


@functools.lru_cache(maxsize=8192)
def table(room: Room) -> MoveTable:
  """The room's table; see `MoveTable`."""
  return MoveTable(room)


@functools.lru_cache(maxsize=8192)
def push_distances(room: Room) -> dict[int, int]:
  """Fewest pushes from each cell to a target for a box alone.

  A cell that is missing is dead: no box on it gets anywhere useful.
  """
  front = [*engine.cells(room.targets)]
  found = dict.fromkeys(front, 0)
  for cell in front:
    for shift in room.shifts:
      origin, stand = cell - shift, cell - 2 * shift
      if room.walls >> origin & 1 or room.walls >> stand & 1:
        continue
      if origin not in found:
        found[origin] = found[cell] + 1
        front.append(origin)
  return found


def is_stuck(state: State) -> bool:
  """Whether a box is plainly lost: on a dead cell, or off target in a square
  of walls and boxes. Says False of subtler losses."""
  room = state.room
  alive = push_distances(room)
  closed = room.walls | state.boxes
  for box in engine.cells(state.boxes & ~room.targets):
    if box not in alive:
      return True
    for vertical in (-room.width, room.width):
      for beside in (-1, 1):
        square = 1 << box + vertical | 1 << box + beside | 1 << box + vertical + beside
        if closed & square == square:
          return True
  return False


def solve(state: State, max_nodes: int = 100_000) -> tuple[str, ...] | None:
  """Actions of a solution with the fewest pushes; None where there is none.

  Raises:
    SearchLimit: `max_nodes` states were looked at in vain.
  """
  alive = push_distances(state.room)
  if is_stuck(state):
    return None
  start, ticket = state, itertools.count()
  links: _Links = {}
  cost = {_node(start): 0}
  queue = [(_bound(start, alive), 0, next(ticket), start)]
  closed: set[tuple[int, int]] = set()
  for _ in range(max_nodes):
    if not queue:
      return None
    *_, state = heapq.heappop(queue)
    here = _node(state)
    if here in closed:
      continue
    closed.add(here)
    if state.solved:
      return _retrace(start, state, links)
    for before, action in _pushes(state):
      after, _ = engine.move(before, action)
      there = _node(after)
      pushes = cost[here] + 1
      if pushes >= cost.get(there, math.inf) or is_stuck(after):
        continue
      cost[there], links[there] = pushes, (before, action)
      bound = pushes + _bound(after, alive)
      heapq.heappush(queue, (bound, -pushes, next(ticket), after))
  raise SearchLimit(f'no solution among the first {max_nodes} states')


def _node(state: State) -> tuple[int, int]:
  """Names a state; all places that the player can walk to are one."""
  area = engine.reachable(state.room, state.player, state.boxes)
  return state.boxes, area & -area


def _bound(state: State, alive: dict[int, int]) -> int:
  return sum(alive[box] for box in engine.cells(state.boxes))


def _pushes(state: State) -> list[tuple[State, int]]:
  """(state with the player behind a box, action that pushes it)."""
  room = state.room
  area = engine.reachable(room, state.player, state.boxes)
  closed = room.walls | state.boxes
  return [
      (state._replace(player=box - shift), action)
      for box in engine.cells(state.boxes)
      for action, shift in enumerate(room.shifts)
      if area >> box - shift & 1 and not closed >> box + shift & 1
  ]


def _retrace(start: State, end: State, links: _Links) -> tuple[str, ...]:
  """The actions from start to end, walks included."""
  actions: list[str] = []
  goal, node = end.player, _node(end)
  while node in links:
    before, action = links[node]
    after, _ = engine.move(before, action)
    actions = [ACTIONS[action], *walk(after, goal), *actions]
    goal, node = before.player, _node(before)
  return (*walk(start, goal), *actions)


def walk(state: State, goal: int) -> list[str]:
  """Actions that bring the player to a cell without a push."""
  room = state.room
  steps = engine.distances(room, goal, state.boxes)
  player, actions = state.player, []
  while player != goal:
    action = next(
        action
        for action, shift in enumerate(room.shifts)
        if steps.get(player + shift, math.inf) < steps[player]
    )
    actions.append(ACTIONS[action])
    player += room.shifts[action]
  return actions
