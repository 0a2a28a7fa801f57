"""Synthetic rooms, made up from a seed: games without any data.

They are small and made up, not ALFRED's: kitchens, bathrooms and bedrooms with
one to three pieces of each kind of furniture, and things in places that can hold
them. The engine plays them as it plays any game, and by the same tables of what
fits where.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence

from envs import api
from envs.alfworld import problems
from envs.alfworld.problems import TASK_TYPES, Game, Goal, Receptacle, Room, Thing

OPENABLE = ('Cabinet', 'Drawer', 'Fridge', 'Microwave')


@dataclasses.dataclass(frozen=True)
class Kind:
  """A kind of room: furniture with its least and greatest number, and things."""

  furniture: Mapping[str, tuple[int, int]]
  things: tuple[str, ...]
  lamp: str = ''


KINDS = {
    'kitchen': Kind(
        {'CounterTop': (1, 2), 'Cabinet': (1, 2), 'Drawer': (1, 2), 'Fridge': (1, 1),
         'Microwave': (1, 1), 'SinkBasin': (1, 1), 'GarbageCan': (1, 1)},
        ('Apple', 'Egg', 'Potato', 'Tomato', 'Lettuce', 'Mug', 'Cup', 'Plate', 'Bowl',
         'Spoon', 'Knife'),
    ),
    'bathroom': Kind(
        {'CounterTop': (1, 1), 'Cabinet': (1, 3), 'Drawer': (1, 2), 'SinkBasin': (1, 1),
         'Toilet': (1, 1), 'GarbageCan': (1, 1)},
        ('SoapBar', 'Cloth', 'SoapBottle', 'ToiletPaper', 'SprayBottle', 'Candle'),
    ),
    'bedroom': Kind(
        {'Bed': (1, 1), 'Desk': (1, 1), 'Drawer': (1, 3), 'Dresser': (1, 1),
         'Shelf': (1, 2), 'GarbageCan': (1, 1)},
        ('AlarmClock', 'Book', 'CellPhone', 'CD', 'Pen', 'Pencil', 'KeyChain',
         'CreditCard', 'Laptop'),
        lamp='DeskLamp',
    ),
}  # fmt: skip
_ROOMS_OF = {
    'pick_and_place_simple': ('kitchen', 'bathroom', 'bedroom'),
    'look_at_obj_in_light': ('bedroom',),
    'pick_clean_then_place_in_recep': ('kitchen', 'bathroom'),
    'pick_heat_then_place_in_recep': ('kitchen',),
    'pick_cool_then_place_in_recep': ('kitchen',),
    'pick_two_obj_and_place': ('kitchen', 'bathroom', 'bedroom'),
}
_START = 'loc|0|0|0|30'
_MAX_COPIES = 3


def build(
    task_types: Sequence[str] = (),
    num_things: int = 7,
    game_seed: int = 0,
    train_games: int = 360,
    validation_games: int = 60,
    test_games: int = 120,
) -> dict[str, list[Game]]:
  """Games by split, all different; types of tasks take turns.

  Args:
    task_types: of `problems.TASK_TYPES`; empty for all six.
    num_things: objects in a room, lamps not counted.
    game_seed: of rooms and goals.
    train_games, validation_games, test_games: how many of each split.

  Raises:
    ValueError: an unknown task type, or fewer than 2 things.
  """
  types = tuple(task_types) or TASK_TYPES
  problems.check_types(types)
  if num_things < 2:
    raise ValueError(f'num_things is {num_things}; it must be at least 2')
  rng = random.Random(f'alfworld rooms {game_seed}')
  fresh = _draw_games(types, num_things, rng)
  counts = dict(zip(api.SPLITS, (train_games, validation_games, test_games)))
  return {
      split: [next(fresh) for _ in range(count)] for split, count in counts.items()
  }


def _draw_games(
    types: Sequence[str], num_things: int, rng: random.Random
) -> Iterator[Game]:
  """Endless games without repetitions."""
  seen = set()
  index = 0
  while True:
    drawn = _draw(types[index % len(types)], num_things, rng)
    if drawn is None or drawn in seen:
      continue
    seen.add(drawn)
    index += 1
    room, goal = drawn
    key = api.observation_hash(repr(drawn))
    yield problems.make(f'synthetic-{key}', room, goal)


def _draw(
    task_type: str, num_things: int, rng: random.Random
) -> tuple[Room, Goal] | None:
  """A room and a goal that can be reached in it; None if they do not fit."""
  kind = KINDS[rng.choice(_ROOMS_OF[task_type])]
  receptacles = _furnish(kind, rng)
  goal = _choose_goal(task_type, kind, rng)
  if goal is None:
    return None
  wanted = 2 if task_type == 'pick_two_obj_and_place' else 1
  types = [goal.obj] * wanted
  while len(types) < num_things:
    name = rng.choice(kind.things)
    if types.count(name) < _MAX_COPIES:
      types.append(name)
  rng.shuffle(types)
  if kind.lamp:
    types.append(kind.lamp)
  things = _place(types, receptacles, goal, rng)
  if things is None:
    return None
  room = Room(tuple(receptacles), tuple(things), _START)
  return room, problems.describe(goal, rng.randrange(2))


def _furnish(kind: Kind, rng: random.Random) -> list[Receptacle]:
  receptacles = []
  for name, (least, most) in kind.furniture.items():
    for _ in range(rng.randint(least, most)):
      number = len(receptacles) + 1
      # ALFRED's basins are parts: Sink|..|SinkBasin.
      if name.endswith('Basin'):
        id = f'{name.removesuffix("Basin")}|{number:02d}|{name}'
      else:
        id = f'{name}|{number:02d}'
      location = f'loc|{number}|0|0|30'
      receptacles.append(Receptacle(id, name, location, name in OPENABLE))
  return receptacles


def _choose_goal(task_type: str, kind: Kind, rng: random.Random) -> Goal | None:
  obj = rng.choice(kind.things)
  if task_type == 'look_at_obj_in_light':
    return Goal(task_type, obj, toggle=kind.lamp)
  if task_type in problems.TREATMENTS:
    ability = problems.TREATMENTS[task_type][0].capitalize()
    if not problems.can(ability, obj):
      return None
  places = [name for name in kind.furniture if problems.holds(name, obj)]
  return Goal(task_type, obj, rng.choice(places)) if places else None


def _place(
    types: Sequence[str],
    receptacles: Sequence[Receptacle],
    goal: Goal,
    rng: random.Random,
) -> list[Thing] | None:
  """Puts things where they may be, wanted ones elsewhere than they belong."""
  things = []
  for number, name in enumerate(types, start=1):
    if name in problems.LAMPS:
      places = [r for r in receptacles if r.type in ('Desk', 'Dresser', 'SideTable')]
    else:
      places = [
          r for r in receptacles
          if problems.holds(r.type, name)
          and not (name == goal.obj and r.type == goal.recep)
      ]  # fmt: skip
    if not places:
      return None
    things.append(Thing(f'{name}|{number:02d}', name, rng.choice(places).id))
  return things
