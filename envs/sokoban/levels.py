"""Levels by reverse play: start solved, pull the boxes away, hand over.

Whatever is reached by pulls is solved by the same way back, so every level has
a solution, and its length is known. A level has its own seed, made of the
source's seed, the split and a number; splits share no level.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping

from envs import api
from envs.sokoban import engine
from envs.sokoban.engine import Room, State

# Draws per wanted level before the options are called impossible.
_PATIENCE = 200


@dataclasses.dataclass(frozen=True)
class Level:
  """A room at its start.

  Attributes:
    text: its rows, see `engine.parse`.
    solution_moves: length of a known solution, 0 where none is known.
  """

  text: str
  solution_moves: int = 0

  @property
  def start(self) -> State:
    return engine.parse(self.text.split('\n'))


def build(
    height: int = 6,
    width: int = 6,
    boxes: int = 1,
    inner_walls: int = 2,
    depth: int = 6,
    min_moves: int = 3,
    max_moves: int = 12,
    train_levels: int = 2400,
    validation_levels: int = 100,
    test_levels: int = 150,
    seed: int = 0,
) -> Mapping[str, tuple[Level, ...]]:
  """Generates the levels of every split; the same options give the same ones.

  Args:
    height, width: of the room, with its outer wall.
    boxes: as many as targets.
    inner_walls: walls besides the outer one.
    depth: most pulls of the reverse play.
    min_moves, max_moves: bounds of the solution that reverse play finds; the
      shortest one may be shorter.
    train_levels, validation_levels, test_levels: sizes of the splits.
    seed: of the levels, independent of a run's seed.

  Raises:
    ValueError: an option is out of range, or there are too few different
      levels; names the option.
  """
  _check_options(locals())
  counts = dict(
      zip(api.SPLITS, (train_levels, validation_levels, test_levels), strict=True)
  )
  seen: set[str] = set()
  levels: dict[str, tuple[Level, ...]] = {}
  # The small splits first: they stay what they are when train grows.
  for split in reversed(api.SPLITS):
    draws = (
        _draw(
            random.Random(f'sokoban {seed} {split} {number}'),
            height, width, boxes, inner_walls, depth,
        )
        for number in range(_PATIENCE * counts[split])
    )  # fmt: skip
    levels[split] = _choose(draws, split, counts[split], min_moves, max_moves, seen)
  return levels


def _check_options(options: Mapping[str, int]) -> None:
  inside = (options['height'] - 2) * (options['width'] - 2)
  bounds = {
      'height': (4, 32),
      'width': (4, 28),
      'boxes': (1, max(1, inside - options['inner_walls'] - 2)),
      'inner_walls': (0, max(0, inside - 3)),
      'depth': (1, 1000),
      'min_moves': (1, 10_000),
      'max_moves': (options['min_moves'], 10_000),
  }
  for name, value in options.items():
    least, most = bounds.get(name, (0, 1_000_000))
    if not least <= value <= most:
      raise ValueError(f'{name} is {value}; it must be between {least} and {most}')


def _choose(
    draws: Iterator[Level | None],
    split: str,
    count: int,
    min_moves: int,
    max_moves: int,
    seen: set[str],
) -> tuple[Level, ...]:
  """The first `count` new levels of the right length; adds them to `seen`."""
  chosen: list[Level] = []
  for level in draws:
    if len(chosen) == count:
      break
    if level is None or level.text in seen:
      continue
    if min_moves <= level.solution_moves <= max_moves:
      seen.add(level.text)
      chosen.append(level)
  if len(chosen) < count:
    raise ValueError(
        f'{split}_levels is {count}; only {len(chosen)} different levels were '
        'found: allow for more moves, more depth or a larger room'
    )
  return tuple(chosen)


def _draw(
    rng: random.Random, height: int, width: int, boxes: int, walls: int, depth: int
) -> Level | None:
  """One level, or None where the walls split the room or nothing moves."""
  outer = engine.border(height, width)
  inside = [c for c in range(height * width) if not outer >> c & 1]
  inner = rng.sample(inside, walls)
  free = [cell for cell in inside if cell not in inner]
  room = Room(height, width, outer | _bits(inner), _bits(rng.sample(free, boxes)))
  open_cells = engine.reachable(room, free[0], 0)
  if open_cells != _bits(free):
    return None
  starts = [cell for cell in free if not room.targets >> cell & 1]
  state = State(room, rng.choice(starts), room.targets)
  return _play_back(state, rng.randint(1, depth), rng)


def _play_back(state: State, pulls: int, rng: random.Random) -> Level | None:
  """Pulls at random, never to an arrangement that was there before."""
  room, moves, seen = state.room, 0, {state.boxes}
  for number in range(pulls):
    options = [pull for pull in _pulls(state) if pull[1].boxes not in seen]
    if not options:
      break
    place, after = rng.choice(options)
    # The walk before the first pull comes after the last push: not needed.
    walks = engine.distances(room, state.player, state.boxes)
    moves += 1 + (walks[place] if number else 0)
    state = after
    seen.add(state.boxes)
  if state.solved:
    return None
  walks = engine.distances(room, state.player, state.boxes)
  player = rng.choice(sorted(walks))
  return Level(
      engine.write(State(room, player, state.boxes)), moves + walks[player]
  )


def _pulls(state: State) -> list[tuple[int, State]]:
  """(where to stand, state after) of every pull from the reachable cells."""
  room = state.room
  area = engine.reachable(room, state.player, state.boxes)
  closed = room.walls | state.boxes
  found = []
  for box in engine.cells(state.boxes):
    for shift in room.shifts:
      stand, back = box + shift, box + 2 * shift
      if area >> stand & 1 and not closed >> back & 1:
        boxes = state.boxes ^ 1 << box ^ 1 << stand
        found.append((stand, State(room, back, boxes)))
  return found


def _bits(members: list[int]) -> int:
  return sum(1 << cell for cell in members)
