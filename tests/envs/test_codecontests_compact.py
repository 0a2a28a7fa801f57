"""The tiny language, its tasks and its teacher."""

from __future__ import annotations

import dataclasses
import random

import pytest

from envs import api
from envs.codecontests import compact, env, expert, generator
from envs.codecontests.judge import Verdict
from tests.envs import codecontests_support as support

SMALL = dict(public_tests=4, train_tasks=60, validation_tasks=10, test_tasks=20)


def play(world: api.World, task: api.Task, act) -> tuple[api.History, api.Step]:
  session = world.session()
  step = session.reset(task)
  history = api.History(task.instruction, (step.observation,), ())
  while not (step.terminated or step.truncated):
    action = act(history)
    step = session.step(action)
    history = dataclasses.replace(
        history,
        observations=(*history.observations, step.observation),
        actions=(*history.actions, action),
    )
  return history, step


def test_every_word_computes_what_its_python_computes():
  inputs = [(3, 1, 2), (9, 9, 4), (5, 6, 8)]
  sandbox = support.sandbox()
  for word in compact.CLAUSES:
    for digits in inputs:
      program = compact.to_python((word, 'first'))
      ran = sandbox.run(program, compact.write_numbers(digits), support.LIMITS)
      expected = compact.write_numbers(compact.run((word, 'first'), digits))
      assert ran.stdout.decode().strip() == expected, word


def test_the_tiny_judge_agrees_with_the_real_one():
  problem = generator.build(**SMALL)[0]
  programs = random.Random(0).sample(
      compact.rivals(compact.parse_statement(problem.statement).families), 4
  )
  for program in programs:
    tiny = compact.TinyJudge().grade(problem, compact.write_program(program))
    real = support.judge().grade(problem, compact.to_python(program))
    assert tiny == real


def test_exactly_one_program_passes_all_tests():
  for problem in generator.build(**SMALL)[:20]:
    families = compact.parse_statement(problem.statement).families
    solved = [
        program
        for program in compact.rivals(families)
        if compact.TinyJudge().grade(problem, compact.write_program(program)).solved
    ]
    assert len(solved) == 1


def test_splits_share_no_choice():
  world = env.make(**SMALL)
  seen: dict[str, str] = {}
  for split in api.SPLITS:
    for task in world.tasks(split):
      problem = world.problem(task.payload['problem'])
      families = compact.parse_statement(problem.statement).families
      choice = next(
          f'{families} {program}'
          for program in compact.rivals(families)
          if compact.TinyJudge().grade(problem, compact.write_program(program)).solved
      )
      assert seen.setdefault(choice, split) == split


def test_pages_read_back():
  example = compact.Example((4, 7, 1), (4, 1))
  statement = compact.write_statement(('edge', 'count'), example)
  assert statement == 'edge count in 4 7 1 out 4 1'
  assert compact.parse_statement(statement) == (('edge', 'count'), example)
  assert compact.parse_page(statement) == compact.Page('start', example)
  page = compact.parse_page('test in 4 7 1 out 4 1 got 7 wrong edge')
  assert page == compact.Page('failed', example, 'edge')
  for text, kind in (
      (compact.SOLVED, 'solved'),
      (compact.HIDDEN, 'hidden'),
      (compact.REFUSED, 'refused'),
  ):
    assert compact.parse_page(text).kind == kind
  with pytest.raises(ValueError, match='some prose'):
    compact.parse_page('some prose')


@pytest.mark.parametrize(
    'response', ['', 'print', 'first', 'print ten', 'print' + ' first' * 5]
)
def test_what_is_not_of_the_language_is_refused(response):
  problem = generator.build(**SMALL)[0]
  report = compact.TinyJudge().grade(problem, response)
  assert not report.valid
  assert compact.CompactView().answer(problem, report, 1, 4) == compact.REFUSED


def test_passing_the_public_tests_alone_says_that_a_hidden_one_fails():
  view, judge = compact.CompactView(), compact.TinyJudge()
  texts = set()
  for problem in generator.build(**{**SMALL, 'public_tests': 1}):
    for program in compact.rivals(compact.parse_statement(problem.statement).families):
      report = judge.grade(problem, compact.write_program(program))
      text = view.answer(problem, report, 1, 4)
      if report.hidden is Verdict.WRONG_ANSWER:
        texts.add(text)
  assert texts == {compact.HIDDEN}


def test_every_word_of_every_text_is_in_the_vocabulary():
  world, rng = env.make(**SMALL), random.Random(0)
  words = set(world.vocabulary())
  teacher = world.teacher(reflection_quality=0.5)
  for task in world.tasks('train'):
    history, _ = play(world, task, lambda seen: teacher.act(seen, rng))
    diagnosis = teacher.diagnose(history, True, rng)
    assert diagnosis is not None
    texts = [*history.observations, *history.actions, diagnosis.experience]
    texts += [teacher.advise(history, teacher.correct(history)), compact.REFUSED]
    assert set(' '.join(texts).split()) <= words
    assert max(len(text.split()) for text in history.actions) <= 8


def test_the_script_solves_nearly_everything_and_the_demonstrator_far_from_it():
  world, rng = env.make(**SMALL), random.Random(0)
  teacher = world.teacher()
  script = [play(world, t, teacher.correct)[1].success for t in world.tasks('train')]
  assert sum(script) >= 0.95 * len(script)
  shown = [
      play(world, task, lambda seen: teacher.act(seen, rng))[1].success
      for task in world.tasks('train') * 3
  ]
  assert 0.2 * len(shown) < sum(shown) < 0.8 * len(shown)


HISTORY = api.History(
    'edge bound in 4 7 1 out 4 7',
    ('edge bound in 4 7 1 out 4 7',
     'test in 4 7 1 out 4 7 got 4 1 wrong bound',
     'test in 4 7 1 out 4 7 got 1 1 wrong edge'),
    ('print first smallest', 'print last smallest'),
)  # fmt: skip


def test_a_failed_test_names_the_first_clause_that_differs():
  world = env.make(**SMALL, clauses=2)
  task = world.tasks('train')[0]
  families = compact.parse_statement(task.instruction).families
  teacher = expert.CodeTeacher()
  right = compact.parse_program(
      teacher.correct(api.History(task.instruction, (task.instruction,), ()))
  )
  assert right is not None
  session = world.session()
  for clause in (0, 1):
    (other,) = set(compact.FAMILIES[families[clause]]) - {right[clause]}
    session.reset(task)
    text = session.step(
        compact.write_program((*right[:clause], other, *right[clause + 1 :]))
    ).observation
    assert compact.parse_page(text).wrong in ('', families[clause])


def test_a_diagnosis_names_the_first_turn_that_ignored_a_failed_test():
  teacher = expert.CodeTeacher(reflection_quality=1.0)
  diagnosis = teacher.diagnose(HISTORY, True, random.Random(0))
  assert diagnosis == api.Diagnosis(2, 'wrong bound print first largest')


def test_advice_ends_in_the_action():
  teacher = expert.CodeTeacher()
  action = teacher.correct(HISTORY)
  assert action == 'print first largest'
  assert teacher.advise(HISTORY, action) == 'wrong edge print first largest'


def test_an_episode_in_progress_without_a_mistake_carries_on():
  teacher = expert.CodeTeacher(reflection_quality=1.0)
  history = api.History(
      'bound in 4 4 4 out 4',
      ('bound in 4 4 4 out 4', 'test in 4 2 1 out 1 got 4 wrong bound'),
      ('print largest',),
  )
  assert teacher.diagnose(history, False, random.Random(0)) is None
  assert teacher.diagnose(history, True, random.Random(0)) == api.Diagnosis(
      1, 'wrong bound print smallest'
  )


def test_only_what_was_shown_to_be_wrong_is_changed():
  notes = expert.read(
      api.History(HISTORY.instruction, HISTORY.observations[:2], HISTORY.actions[:1])
  )
  assert notes.choices() == [('first', 'largest')]


def test_probabilities_of_the_teacher_are_checked():
  with pytest.raises(ValueError, match='care is 2'):
    expert.CodeTeacher(care=2)


def test_too_few_different_tasks_are_reported():
  with pytest.raises(ValueError, match='train_tasks is 9000'):
    generator.build(clauses=1, train_tasks=9000)
