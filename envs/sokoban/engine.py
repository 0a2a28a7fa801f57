"""The rules of Sokoban on immutable states.

Cells are numbered row by row, and sets of cells are integers with one bit a
cell, so a state is a few small numbers: making, comparing and keeping one costs
next to nothing. Walking and pushing are one action. Rewards are those of
gym-sokoban: -0.1 a step, +1 for a box pushed onto a target, -1 for one pushed
off, +10 for the last one.

`envs.sokoban.batch` plays many rooms at once by the same rules.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

ACTIONS = ('up', 'down', 'left', 'right')
STEP_REWARD = -0.1
ON_REWARD = 1.0
OFF_REWARD = -1.0
DONE_REWARD = 10.0

WALL, FLOOR, TARGET, BOX_ON, BOX, PLAYER, PLAYER_ON = '#_O√XPS'
SYMBOLS = (WALL, FLOOR, TARGET, BOX_ON, BOX, PLAYER, PLAYER_ON)


@dataclasses.dataclass(frozen=True)
class Room:
  """What does not move.

  Attributes:
    height, width: with the outer wall, which is always closed.
    walls, targets: sets of cells.
  """

  height: int
  width: int
  walls: int
  targets: int

  @functools.cached_property
  def shifts(self) -> tuple[int, int, int, int]:
    """What each of `ACTIONS` adds to a cell's number."""
    return (-self.width, self.width, -1, 1)

  @functools.cached_property
  def floor(self) -> tuple[int, ...]:
    """Cells without a wall, in order."""
    return tuple(
        cell for cell in range(self.height * self.width) if not self.walls >> cell & 1
    )


class State(NamedTuple):
  """A moment of a game; `boxes` is a set of cells, `player` a cell."""

  room: Room
  player: int
  boxes: int
  steps: int = 0

  @property
  def solved(self) -> bool:
    return not self.boxes & ~self.room.targets


def cells(bits: int) -> Iterator[int]:
  """The members of a set of cells, in order."""
  while bits:
    lowest = bits & -bits
    yield lowest.bit_length() - 1
    bits ^= lowest


def move(state: State, action: int) -> tuple[State, float]:
  """The next state and its reward; against a wall only time passes.

  Args:
    state: where the game stands.
    action: index in `ACTIONS`.
  """
  room, player, boxes, steps = state
  shift = room.shifts[action]
  ahead = player + shift
  bit = 1 << ahead
  if room.walls & bit:
    return State(room, player, boxes, steps + 1), STEP_REWARD
  if not boxes & bit:
    return State(room, ahead, boxes, steps + 1), STEP_REWARD
  beyond = 1 << (ahead + shift)
  if (room.walls | boxes) & beyond:
    return State(room, player, boxes, steps + 1), STEP_REWARD
  after = State(room, ahead, boxes ^ bit ^ beyond, steps + 1)
  reward = STEP_REWARD
  if room.targets & beyond and not room.targets & bit:
    reward += ON_REWARD
  elif room.targets & bit and not room.targets & beyond:
    reward += OFF_REWARD
  if after.solved:
    reward += DONE_REWARD
  return after, reward


def reachable(room: Room, player: int, boxes: int) -> int:
  """Every cell that the player can walk to without a push, its own included."""
  closed = room.walls | boxes
  seen = front = 1 << player
  width = room.width
  while front:
    front = front << 1 | front >> 1 | front << width | front >> width
    front &= ~(closed | seen)
    seen |= front
  return seen


def distances(room: Room, player: int, boxes: int) -> dict[int, int]:
  """Steps to every cell that can be walked to."""
  closed = room.walls | boxes
  found, front = {player: 0}, [player]
  for cell in front:
    for shift in room.shifts:
      beside = cell + shift
      if beside not in found and not closed >> beside & 1:
        found[beside] = found[cell] + 1
        front.append(beside)
  return found


def parse(rows: Sequence[str]) -> State:
  """Reads rows of `SYMBOLS`.

  Raises:
    ValueError: rows differ in length, a symbol is unknown, the outer wall is
      open, or there is not one player and a target for every box.
  """
  height, width = len(rows), len(rows[0]) if rows else 0
  sets = dict.fromkeys(SYMBOLS, 0)
  for y, row in enumerate(rows):
    if len(row) != width:
      raise ValueError(f'row {y} is {len(row)} wide, the first one {width}: {row!r}')
    for x, symbol in enumerate(row):
      if symbol not in sets:
        raise ValueError(f'symbol {symbol!r}; choose from {"".join(SYMBOLS)}')
      sets[symbol] |= 1 << (y * width + x)
  players = [*cells(sets[PLAYER] | sets[PLAYER_ON])]
  boxes = sets[BOX] | sets[BOX_ON]
  targets = sets[TARGET] | sets[BOX_ON] | sets[PLAYER_ON]
  if len(players) != 1:
    raise ValueError(f'{len(players)} players in a room; there must be one')
  if not boxes or boxes.bit_count() != targets.bit_count():
    raise ValueError(
        f'{boxes.bit_count()} boxes and {targets.bit_count()} targets in a room; '
        'there must be as many, and one at least'
    )
  if border(height, width) & ~sets[WALL]:
    raise ValueError('the outer wall of a room is open')
  return State(Room(height, width, sets[WALL], targets), players[0], boxes)


def border(height: int, width: int) -> int:
  """The cells of the outer wall."""
  return sum(
      1 << (y * width + x)
      for y in range(height)
      for x in range(width)
      if y in (0, height - 1) or x in (0, width - 1)
  )


def symbol_at(state: State, cell: int) -> str:
  """The one of `SYMBOLS` that shows a cell."""
  on = state.room.targets >> cell & 1
  if state.room.walls >> cell & 1:
    return WALL
  if state.boxes >> cell & 1:
    return BOX_ON if on else BOX
  if state.player == cell:
    return PLAYER_ON if on else PLAYER
  return TARGET if on else FLOOR


def write(state: State) -> str:
  """The rows of a state, inverse of `parse`; steps are not shown."""
  width = state.room.width
  return '\n'.join(
      ''.join(symbol_at(state, cell) for cell in range(start, start + width))
      for start in range(0, state.room.height * width, width)
  )
