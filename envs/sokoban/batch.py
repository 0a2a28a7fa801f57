"""Many rooms of one size at once, as numpy arrays, by the rules of `engine`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from envs.sokoban import engine

_PER_GAME = ('walls', 'targets', 'boxes', 'player', 'steps')


@dataclasses.dataclass
class Batch:
  """The states of N games; `copy` is a snapshot of all of them.

  Attributes:
    width: of the rooms.
    walls, targets, boxes: [N, H * W] bool.
    player: [N] cells.
    steps: [N] counts.
    max_steps: when a game ends unsolved, 0 for never.
  """

  width: int
  walls: np.ndarray
  targets: np.ndarray
  boxes: np.ndarray
  player: np.ndarray
  steps: np.ndarray
  max_steps: int = 0

  @classmethod
  def of(cls, states: Sequence[engine.State], max_steps: int = 0) -> Batch:
    """A batch of states. ValueError if their rooms differ in size."""
    sizes = {(state.room.height, state.room.width) for state in states}
    if len(sizes) != 1:
      raise ValueError(f'rooms of sizes {sorted(sizes)}; a batch needs one size')
    ((height, width),) = sizes
    area = height * width
    return cls(
        width,
        _unpack([state.room.walls for state in states], area),
        _unpack([state.room.targets for state in states], area),
        _unpack([state.boxes for state in states], area),
        np.array([state.player for state in states]),
        np.array([state.steps for state in states]),
        max_steps,
    )

  @property
  def solved(self) -> np.ndarray:
    """[N] bool: no box is off target."""
    return np.logical_not(np.any(self.boxes & ~self.targets, axis=1))

  @property
  def over(self) -> np.ndarray:
    """[N] bool: games that do not move any more."""
    late = np.full(len(self.steps), False)
    if self.max_steps:
      late = self.steps >= self.max_steps
    return np.logical_or(self.solved, late)

  def copy(self) -> Batch:
    """A batch that shares nothing with this one but walls and targets."""
    return dataclasses.replace(
        self,
        boxes=self.boxes.copy(),
        player=self.player.copy(),
        steps=self.steps.copy(),
    )

  def take(self, games: np.ndarray) -> Batch:
    """The games with these numbers."""
    return dataclasses.replace(
        self, **{name: getattr(self, name)[games] for name in _PER_GAME}
    )

  def replace(self, games: np.ndarray, other: Batch) -> None:
    """Puts the games of `other`, in order, in the places `games`."""
    for name in _PER_GAME:
      # `walls` and `targets` may be shared with a copy: never write into them.
      array = getattr(self, name).copy()
      array[games] = getattr(other, name)
      setattr(self, name, array)

  def step(self, actions: np.ndarray) -> np.ndarray:
    """Moves every game that is not over.

    Args:
      actions: [N] indices in `engine.ACTIONS`.

    Returns:
      [N] rewards, 0 for games that were over.
    """
    games = np.arange(len(self.player))
    live = ~self.over
    shift = np.array([-self.width, self.width, -1, 1])[actions]
    ahead = self.player + shift
    # An outer wall has nothing beyond it; the clipped cell is never used.
    beyond = np.clip(ahead + shift, 0, self.walls.shape[1] - 1)
    free = live & ~self.walls[games, ahead]
    box = self.boxes[games, ahead]
    blocked = self.walls[games, beyond] | self.boxes[games, beyond]
    moved = free & ~(box & blocked)
    pushed = np.flatnonzero(moved & box)
    self.player = np.where(moved, ahead, self.player)
    self.steps = self.steps + live
    rewards = np.where(live, engine.STEP_REWARD, 0.0)
    start, end = ahead[pushed], beyond[pushed]
    self.boxes[pushed, start] = False
    self.boxes[pushed, end] = True
    gain = self.targets[pushed, end].astype(float) - self.targets[pushed, start]
    solved = ~(self.boxes[pushed] & ~self.targets[pushed]).any(axis=1)
    rewards[pushed] += gain + engine.DONE_REWARD * solved
    return rewards


def _unpack(sets: Sequence[int], area: int) -> np.ndarray:
  size = (area + 7) // 8
  data = b''.join(bits.to_bytes(size, 'little') for bits in sets)
  rows = np.frombuffer(data, np.uint8).reshape(len(sets), size)
  return np.unpackbits(rows, axis=1, bitorder='little')[:, :area].astype(bool)
