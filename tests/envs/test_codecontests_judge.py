"""Verdicts: right, wrong, slow, crashing, greedy and forged programs."""

from __future__ import annotations

import dataclasses
import json

import pytest

from envs.codecontests import loaders, outputs, problems
from envs.codecontests.judge import Verdict
from tests.envs import codecontests_support as support
from tests.envs.codecontests_programs import SOLUTIONS

ADD = 'a, b = map(int, input().split())\nprint(a + b)'


def verdict(program: str, problem: problems.Problem | None = None) -> Verdict:
  """Of the first public test."""
  problem = problem or support.adding()
  return support.judge().run(problem, program, problem.public[0]).verdict


@pytest.mark.parametrize(
    'program, expected',
    [
        (ADD, Verdict.OK),
        (ADD.replace('+ b', '+ b + 1'), Verdict.WRONG_ANSWER),
        ('', Verdict.WRONG_ANSWER),
        ('print("3 3")', Verdict.WRONG_ANSWER),
        ('print(" 3\\n\\n")', Verdict.OK),
        ('1 / 0', Verdict.RUNTIME_ERROR),
        ('raise SystemExit(3)', Verdict.RUNTIME_ERROR),
        ('import os\nos.kill(os.getpid(), 11)', Verdict.RUNTIME_ERROR),
        ('exec("def")', Verdict.RUNTIME_ERROR),
        ('import numpy', Verdict.RUNTIME_ERROR),
        ('while True: pass', Verdict.TIME_LIMIT),
        ('x = bytearray(1 << 30)', Verdict.MEMORY_LIMIT),
        ('while True: print("x" * 9999)', Verdict.OUTPUT_LIMIT),
        ('print(1', Verdict.COMPILE_ERROR),
        ('if 1:\nprint(3)', Verdict.COMPILE_ERROR),
        ('x = "\x00"', Verdict.COMPILE_ERROR),
        ('print(float("nan"))\n' * 1000, Verdict.WRONG_ANSWER),
    ],
)
def test_every_way_to_end_has_its_verdict(program, expected):
  assert verdict(program) is expected


def test_a_right_program_solves_and_a_program_that_knows_the_public_tests_does_not():
  judge, problem = support.judge(), support.adding()
  report = judge.grade(problem, ADD)
  assert report.solved
  assert report.score == 1.0
  known = 'print({"1 2": 3, "5 5": 10}.get(input(), 0))'
  report = judge.grade(problem, known)
  assert not report.solved
  assert report.hidden is Verdict.WRONG_ANSWER
  assert [outcome.verdict for outcome in report.public] == [Verdict.OK] * 2
  assert report.score == 0.5


def test_hidden_tests_do_not_run_before_the_public_ones_pass():
  report = support.judge().grade(support.adding(), 'print(3)')
  assert report.hidden is None
  assert report.first_failure() == 1
  assert report.score == 0.25


def test_an_error_is_told_with_its_line_and_without_addresses():
  problem = support.adding()
  judge = support.judge()
  outcome = judge.run(problem, 'x = 1\nx.y()', problem.public[0])
  assert outcome.error == "AttributeError: 'int' object has no attribute 'y' (line 2)"
  outcome = judge.run(problem, 'raise ValueError(object())', problem.public[0])
  assert '0x...' in outcome.error


def test_the_order_of_sets_repeats():
  problem = support.adding()
  program = 'print(set("abcdefghijklmnop"))'
  runs = {support.judge().run(problem, program, problem.public[0]).output
          for _ in range(3)}  # fmt: skip
  assert len(runs) == 1


def double() -> problems.Problem:
  return problems.Problem(
      'double', 'train', 'Write double(x).', 'function',
      (problems.Test('assert double(2) == 4'),),
      (problems.Test('assert double(3) == 6, "three"'),), time_limit=1,
  )  # fmt: skip


@pytest.mark.parametrize(
    'program, expected',
    [
        ('def double(x): return 2 * x', Verdict.OK),
        ('def double(x): return 0', Verdict.WRONG_ANSWER),
        ('def double(x): return y', Verdict.RUNTIME_ERROR),
        ('def triple(x): return 0', Verdict.RUNTIME_ERROR),
        ('def double(x:', Verdict.COMPILE_ERROR),
        ('raise SystemExit(0)', Verdict.WRONG_ANSWER),
        ('import os\nos._exit(0)', Verdict.WRONG_ANSWER),
        ('"""', Verdict.COMPILE_ERROR),
    ],
)
def test_functions_are_judged_by_test_code(program, expected):
  assert verdict(program, double()) is expected


def test_tokens_are_compared_not_white_space():
  assert outputs.same_output('1  2\n3\n', '1 2 3')
  assert not outputs.same_output('12', '1 2')
  assert not outputs.same_output('nan nan', 'nan')


@support.needs(support.CONTESTS)
def test_reference_programs_solve_real_contest_problems():
  found = loaders.load('codecontests', str(support.CONTESTS), max_tests=8)
  solved = {}
  for start, program in SOLUTIONS.items():
    (problem,) = (p for p in found if problem_name(p).startswith(start))
    # The programs are what is tried here, not the speed of this machine.
    patient = dataclasses.replace(problem, time_limit=20)
    solved[start] = support.judge().grade(patient, program)
  assert len(solved) >= 20
  assert {start: r for start, r in solved.items() if not r.solved} == {}


@support.needs(support.CONTESTS)
def test_variants_of_a_reference_program_fail_as_they_should():
  found = loaders.load('codecontests', str(support.CONTESTS), max_tests=8)
  (problem,) = (p for p in found if problem_name(p).startswith('1374_B.'))
  right = SOLUTIONS['1374_B.']
  for program, expected in (
      (right.replace('2 * a - b', 'a + b'), Verdict.WRONG_ANSWER),
      (right.replace('n //= 3', 'n //= 1'), Verdict.TIME_LIMIT),
      (right.replace('a += 1', 'a += "1"'), Verdict.RUNTIME_ERROR),
      (right.replace('while n % 3 == 0:', 'while n % 3 == 0'), Verdict.COMPILE_ERROR),
  ):
    report = support.judge().grade(problem, program)
    assert not report.solved
    assert expected in {outcome.verdict for outcome in report.public}


def problem_name(problem: problems.Problem) -> str:
  """'1343_a_candies_8456' as '1343_A.'."""
  contest, index, *_ = problem.id.split('_')
  return f'{contest}_{index.upper()}.'


@support.needs(support.MBPP)
def test_mbpp_reference_programs_pass_and_empty_ones_do_not():
  rows = [json.loads(line) for line in support.MBPP.read_text().splitlines()]
  programs = {f'mbpp-{row["task_id"]}': row['code'] for row in rows}
  chosen = loaders.load('mbpp', str(support.MBPP))[10:34]
  failed = [
      problem.id
      for problem in chosen
      if not support.judge().grade(problem, programs[problem.id]).solved
  ]
  assert failed == []
  assert not support.judge().grade(chosen[0], 'pass').solved
