"""The engine against the package's own environment, and its snapshots."""

from __future__ import annotations

import functools
import os
import pathlib
import random
import subprocess
import sys

import pytest

from envs import registry
from envs.alfworld import engine as engine_lib
from envs.alfworld import package, problems, rooms, solver
from envs.alfworld import planner as planner_lib
from envs.alfworld.problems import Goal, Receptacle, Room, Thing
from tests.envs.alfworld_support import needs_engine

pytestmark = needs_engine



@functools.cache
def games():
  """One game of each task type."""
  return rooms.build(train_games=6, validation_games=0, test_games=0)['train']


def walk(engine, game, steps, rng):
  """Random actions that are more often than not about things."""
  text, node = engine.start(game)
  seen = [(text, node.menu.commands)]
  actions = []
  while len(actions) < steps and not node.won:
    commands = [*node.menu.commands, 'open sesame']
    doing = [c for c in commands if c.startswith(('open', 'take', 'move', 'heat'))]
    actions.append(rng.choice(doing if rng.random() < 0.5 else commands))
    text, node = engine.step(game, node, actions[-1])
    seen.append((text, node.menu.commands))
  return actions, seen, node


@pytest.mark.parametrize('index', range(6), ids=problems.TASK_TYPES)
def test_texts_and_commands_are_those_of_the_package(index):
  game = games()[index]
  engine = engine_lib.Engine()
  actions, seen, node = walk(engine, game, 12, random.Random(index))
  env = package.original_env(game.to_file())
  theirs = env.reset()
  texts = [(theirs.feedback, tuple(theirs['admissible_commands']))]
  for action in actions:
    theirs, _, _ = env.step(action)
    texts.append((theirs.feedback, tuple(theirs['admissible_commands'])))
  assert seen == texts
  assert node.won == theirs['won']


@pytest.mark.parametrize('seed', range(4))
def test_a_restored_state_goes_on_as_a_full_replay_does(seed):
  rng = random.Random(seed)
  game = games()[seed]
  engine = engine_lib.Engine()
  prefix, _, node = walk(engine, game, 10, rng)
  for _ in range(3):  # other branches, in this game and another
    walk(engine, game, 6, rng)
    walk(engine, games()[5], 3, rng)
  fresh = engine_lib.Engine()
  _, replayed = fresh.start(game)
  for action in prefix:
    _, replayed = fresh.step(game, replayed, action)
  for _ in range(6):
    assert replayed.menu.commands == node.menu.commands
    assert replayed.won == node.won
    if node.won:
      break
    action = rng.choice(node.menu.commands)
    text, node = engine.step(game, node, action)
    expected, replayed = fresh.step(game, replayed, action)
    assert text == expected


def test_forgetting_changes_nothing_but_the_work():
  game = games()[3]
  forgetful, other = engine_lib.Engine(max_games=1, max_nodes=3), engine_lib.Engine()
  first = walk(forgetful, game, 20, random.Random(7))
  forgetful.start(games()[0])
  assert first[:2] == walk(other, game, 20, random.Random(7))[:2]
  assert forgetful.planner_steps > 3


def test_what_was_done_before_is_looked_up():
  game = games()[0]
  engine = engine_lib.Engine()
  walk(engine, game, 15, random.Random(0))
  before = engine.planner_steps
  walk(engine, game, 15, random.Random(0))
  assert engine.planner_steps == before


def test_a_thing_known_to_be_gone_reads_otherwise_in_the_same_state():
  """Two places at one spot: TextWorld then takes what moved for lying about."""
  spots = [Receptacle(f'Shelf|0{i}', 'Shelf', 'loc|1', False) for i in (1, 2)]
  bin_ = Receptacle('GarbageCan|03', 'GarbageCan', 'loc|2', False)
  things = (Thing('Pen|01', 'Pen', 'Shelf|01'),)
  goal = problems.describe(Goal('pick_and_place_simple', 'Pen', 'GarbageCan'), 0)
  game = problems.make('spots', Room((*spots, bin_), things, 'loc|0'), goal)
  actions = [
      'go to shelf 1', 'look', 'take pen 1 from shelf 2', 'move pen 1 to shelf 1',
      'take pen 1 from shelf 1', 'move pen 1 to shelf 2', 'look',
  ]  # fmt: skip
  env = package.original_env(game.to_file())
  env.reset()
  theirs = [env.step(action)[0].feedback for action in actions]
  engine = engine_lib.Engine()
  _, node = engine.start(game)
  ours = []
  for action in actions:
    text, node = engine.step(game, node, action)
    ours.append(text)
  assert ours == theirs
  assert ours[1] != ours[-1]


def test_what_is_true_is_what_the_planner_says():
  """Lamps too, whose switch has effects that depend on the state."""
  planner = planner_lib.shared()
  for index in (1, 3):
    engine = engine_lib.Engine()
    game = games()[index]
    plan = solver.solve(engine, game)
    _, node = engine.start(game)
    for command in plan:
      _, node = engine.step(game, node, command)
      fresh = engine_lib.Engine()
      _, there = fresh.start(game)
      for operator in node.path():
        _, there = fresh.play(game).act(there, operator)
      true = {a for a, holds in zip(planner.changing(), planner.mask()) if holds}
      known = fresh.play(game).facts(node)
      for predicate in {name for name, _ in planner.changing()}:
        if not predicate.startswith('new-axiom'):
          expected = {a for name, a in true if name == predicate}
          assert expected <= set(known.of(predicate))
          changing = {a for name, a in planner.changing() if name == predicate}
          assert set(known.of(predicate)) & changing == expected


@pytest.mark.parametrize('seed', ['1', '2'])
def test_neither_hash_seed_nor_process_matters(seed):
  code = (
      'import random; from tests.envs import test_alfworld_engine as t; '
      'print(t.walk(t.engine_lib.Engine(), t.games()[4], 15, random.Random(3))[:2])'
  )
  found = subprocess.run(
      [sys.executable, '-c', code], env={**os.environ, 'PYTHONHASHSEED': seed},
      cwd=pathlib.Path(__file__).parents[2], capture_output=True, text=True,
      check=True,
  )  # fmt: skip
  here = walk(engine_lib.Engine(), games()[4], 15, random.Random(3))[:2]
  assert found.stdout.strip() == str(here)


def test_names_are_counted_from_the_last_to_the_first():
  names = engine_lib.call(['apple_bar_1', 'apple_bar_2', 'sink_bar_3_bar_sinkbasin'])
  assert names == {
      'apple_bar_1': 'apple 2', 'apple_bar_2': 'apple 1',
      'sink_bar_3_bar_sinkbasin': 'sinkbasin 1',
  }  # fmt: skip


def test_a_limit_below_one_is_refused():
  with pytest.raises(ValueError, match='max_nodes is 0'):
    engine_lib.Engine(max_nodes=0)


def test_sessions_share_games_and_what_was_said():
  world = registry.make('alfworld', train_games=1, validation_games=1, test_games=1)
  task = world.tasks('train')[0]
  sessions = [world.session() for _ in range(50)]
  texts = {session.reset(task).observation for session in sessions}
  assert len(texts) == 1
  for session in sessions:
    session.step('look')
  assert world.engine.planner_steps == 1
