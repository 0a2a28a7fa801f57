"""The teacher of real programs: what it says is read as what it submits."""

from __future__ import annotations

import dataclasses
import functools
import random
import types

import pytest

from envs import api, registry, teaching
from envs.codecontests import contests, mutants, text_expert
from envs.codecontests.env import CodeWorld
from envs.codecontests.fields import BadRow
from envs.codecontests.judge import Judge
from envs.codecontests.view import TextView
from leafe_jax.methods.demonstrations import demonstrate
from leafe_jax.text.chat import ChatTranscript
from tests.envs import codecontests_support as support
from tests.text import chat_tokenizers

ADD = 'a, b = map(int, input().split())\nprint(a + b)'
FIRST = 'Public tests:\n\nInput:\n1 2\nExpected:\n3\n\nInput:\n5 5\nExpected:\n10'
FAILED = (
    'Attempt 1 of 4: 0 of 2 public tests passed.\n\nTest 1: wrong answer\nInput:\n1 2\n'
    'Expected:\n3\nPrinted:\n-1\n\nTest 2: wrong answer\nInput:\n5 5\nExpected:\n10\n'
    'Printed:\n0'
)
WRONG = ADD.replace('+', '-')


def teacher(**options):
  return text_expert.TextCodeTeacher({'Add.': ADD}, **options)


def history(*turns):
  """Of (action, answer); the first observation comes before."""
  return api.History(
      'Add.', (FIRST, *(seen for _, seen in turns)), tuple(done for done, _ in turns)
  )


@functools.cache
def world():
  problem = dataclasses.replace(support.adding(), statement='Add.')
  judge = Judge(support.sandbox(), workers=2)
  return CodeWorld('adding', [problem], judge, TextView(), references={problem.id: ADD})


@pytest.mark.parametrize(
    ('program', 'mistakes'),
    [
        ('x < 3', {'x <= 3', 'x < 4'}),
        ('y = (a) * (b)', {'y = (a) + (b)'}),
        ('y = f(a, b)', {'y = f(b, a)'}),
        ('y = max(a, b)', {'y = min(a, b)'}),
        ('a and b and c', {'a or b and c', 'a and b or c'}),
        ('x += True', {'x -= True', 'x += False'}),
        ('é = "é" ; y = x not in é', {'é = "é" ; y = x in é'}),
        ('f"{a + 1}"', set()),
        ('x = a \\\n  + b', set()),
        ('no program', set()),
        ('', set()),
    ],
)
def test_a_mistake_changes_one_place(program, mistakes):
  assert set(mutants.mutants(program)) == mistakes


def test_what_is_said_before_and_after_a_failure():
  speaks = teacher()
  assert speaks.say(history(), ADD) == (
      f'The first input is 1 2 and the first answer is 3.\n```python\n{ADD}\n```'
  )
  after = history((WRONG, FAILED))
  assert speaks.say(after, ADD).partition('\n')[0] == (
      'Test 1 wants 3, not -1. I replace `print(a - b)` by `print(a + b)`.'
  )
  assert 'the same program' in speaks.say(after, WRONG)
  assert 'anew' in speaks.say(history(('import os\nos.abort()', FAILED)), ADD)
  assert speaks.advise(after, ADD) == (
      'Test 1 wants 3, not -1. The line `print(a - b)` is wrong. '
      f'{teaching.BETTER} `print(a + b)`'
  )


@pytest.mark.parametrize(
    ('answer', 'said'),
    [
        ('Attempt 1 of 4: all public tests passed, a hidden test failed: time limit.',
         'The public tests pass, but a hidden one fails (time limit).'),
        ('Attempt 1 of 4: 0 of 1 public tests passed.\n\nTest 1: runtime error\n'
         "assert f(1) == 2\nError:\nNameError: name 'g' is not defined (line 2)",
         "Test 1 ends with NameError: name 'g' is not defined (line 2)."),
        ('Attempt 1 of 4: 0 of 1 public tests passed.\n\nTest 1: time limit\n'
         'assert f(1) == 2', 'Test 1 ends with the verdict time limit.'),
        ('no program found; write it in a block', 'That was no program.'),
    ],
)  # fmt: skip
def test_failures_are_told_in_a_sentence(answer, said):
  assert text_expert.evidence(answer) == said


def test_advice_is_followed_by_programs_with_its_lines():
  speaks = teacher()
  advice = speaks.advise(history((WRONG, FAILED)), ADD)
  assert speaks.follows(advice, ADD)
  assert speaks.follows(advice, f'# once more\n{ADD}')
  assert not speaks.follows(advice, WRONG)
  assert not speaks.follows('Be careful.', ADD)
  assert speaks.agrees(f'Subtracted. {teaching.BETTER} `print(a + b)`', advice)
  assert not speaks.agrees('Be careful.', advice)


def test_the_first_program_may_be_wrong_but_not_its_mending():
  speaks, rng = teacher(**api.FAULTLESS), random.Random(0)
  for count, turn in ((1, 1), (2, 2), (4, 2)):
    found = speaks.diagnose(history(*[(WRONG, FAILED)] * count), True, rng)
    assert found is not None and found.turn == turn
    assert '`print(a + b)`' in found.experience
  late = history((WRONG, FAILED), (ADD, FAILED), (WRONG, FAILED))
  found = speaks.diagnose(late, True, rng)
  assert found is not None and found.turn == 3
  assert speaks.diagnose(history((WRONG, FAILED)), False, rng) is None


@pytest.mark.parametrize('action', ['', '```', 'é中\x00', 'def f(:', '<code>'])
def test_any_text_is_diagnosed(action):
  speaks = teacher(**api.FAULTLESS)
  seen = history((action, 'no program found; write it'), (action, FAILED))
  assert speaks.diagnose(seen, True, random.Random(0)) is not None
  assert speaks.say(seen, action)


def test_reflections_are_read_by_the_protocol_that_asks_for_them():
  spelt = ChatTranscript(chat_tokenizers.make_tokenizer(chat_tokenizers.CHATML))
  speaks = teacher(reflection_quality=0.5)
  for seed in range(10):
    found = speaks.diagnose(history((WRONG, FAILED)), True, random.Random(seed))
    assert found is not None
    text = spelt.reflection_response(found.turn, found.experience)
    read = spelt.parse_reflection(text, 1, True)
    assert (read.tau, read.experience) == (found.turn, found.experience)
    assert len(found.experience.split()) <= 80


def test_a_problem_without_a_solution_is_named():
  with pytest.raises(ValueError, match="no solution in Python 3 .* 'Sing.'"):
    teacher().correct(api.History('Sing.', (FIRST,), ()))
  with pytest.raises(ValueError, match='care is 2'):
    teacher(care=2)


def test_without_solutions_there_is_no_teacher():
  with pytest.raises(NotImplementedError, match='no solutions in Python 3'):
    support.world().teacher()


def test_solutions_are_spelt_as_they_are_read():
  texts = {
      'dos': 'x = 1\r\nif x:\r\n\tprint(x)  \r\n', 'old': 'print 1',
      'fence': 'print("""\n```\n""")', 'kept': "x = '''a  \n'''\nprint(x)",
  }  # fmt: skip
  found = text_expert.spelt(texts, TextView().parse_response)
  assert found == {
      'dos': 'x = 1\nif x:\n    print(x)', 'fence': texts['fence'],
      'kept': texts['kept'],
  }  # fmt: skip


def test_the_shortest_solution_in_python_3_is_taken():
  row = {
      'name': '1_A. Add', 'description': 'Add.', 'public_tests': None,
      'private_tests': {'input': ['1 2'], 'output': ['3']}, 'generated_tests': None,
  }  # fmt: skip
  lists = {'language': [2, 1, 3, 3], 'solution': ['c++', 'print 3', 'long one', 'ok']}
  rows = [{'language': 'PYTHON3', 'solution': 'ok'}, {'language': 3, 'solution': None}]
  for given, taken in ((lists, 'ok'), (rows, 'ok'), (None, ''), ('?', ''), ([1], '')):
    problem = contests.read({**row, 'solutions': given}, 'train', 1)
    assert problem is not None and problem.reference == taken
  with pytest.raises(BadRow):
    contests.read({**row, 'description': 3}, 'train', 1)


def test_what_is_said_is_played():
  task, rng = world().tasks('train')[0], random.Random(0)
  script = types.SimpleNamespace(act=lambda seen, _: world().teacher().correct(seen))
  assert demonstrate(world(), task, script, 4, rng).success  # type: ignore
  speaks = world().teacher(quality=0.5, care=0.5)
  demos = [demonstrate(world(), task, speaks, 4, rng) for _ in range(6)]
  assert len({demo.history.actions for demo in demos}) > 1
  for demo in demos:
    responses = demo.responses(speaks)
    assert tuple(map(world().parse_response, responses)) == demo.history.actions


@support.needs(support.MBPP)
def test_the_script_solves_what_the_demonstrator_does_not():
  programs = registry.make('codecontests', source='mbpp', data_path=str(support.MBPP))
  speaks, rng = programs.teacher(care=0.0), random.Random(0)
  script = types.SimpleNamespace(act=lambda seen, _: speaks.correct(seen))
  tasks = programs.tasks('train')[:6]
  won = [demonstrate(programs, task, script, 4, rng) for task in tasks]  # type: ignore
  lost = [demonstrate(programs, task, speaks, 2, rng) for task in tasks]
  programs.close()
  assert all(demo.success for demo in won)
  assert not all(demo.success for demo in lost)
  for demo in (*won, *lost):
    said = map(programs.parse_response, demo.responses(speaks))
    assert tuple(said) == demo.history.actions
