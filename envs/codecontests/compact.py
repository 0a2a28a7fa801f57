"""A tiny programming language and its view, for small policies.

This is not Python: a program is a few words, one clause each, and prints one
number per clause about the three digits that it reads. A statement names the
clauses' families only; which member of a family is meant shows in examples.

      edge    first last          of the digits as read
      bound   largest smallest    of the digits
      count   evens odds          how many are even, odd
      step    next before         the first digit plus 1, minus 1
      total   sum spread          all digits; largest minus smallest

      start      edge count in 4 7 1 out 4 1    the task and its first example
      response   print first odds
      failed     test in 4 7 1 out 4 1 got 4 2 wrong count
                                                a public test that failed, and
                                                its first clause to differ
      hidden     hidden fail                    the public tests passed
      refused    no program                     not of the language
      end        solved

`to_python` writes a program as Python; `TinyJudge` evaluates it in process,
with the same verdicts, and a test holds the two together.

This is the only place that knows these texts: the view renders them,
`parse_page` and `parse_statement` read them, `vocabulary` lists their words.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from envs.codecontests.judge import Outcome, Report, Verdict
from envs.codecontests.problems import Problem

PRINT, SOLVED, HIDDEN, REFUSED = 'print', 'solved', 'hidden fail', 'no program'
# Why to do something; experience texts are a reason and a program.
FITS, WRONG = 'fit', 'wrong'
MAX_CLAUSES = 4
DIGITS = range(1, 10)
NUM_DIGITS = 3

FAMILIES = {
    'edge': ('first', 'last'),
    'bound': ('largest', 'smallest'),
    'count': ('evens', 'odds'),
    'step': ('next', 'before'),
    'total': ('sum', 'spread'),
}


class Clause(NamedTuple):
  """What a word computes, as a function and as a Python expression of xs."""

  compute: Callable[[Sequence[int]], int]
  expression: str


CLAUSES = {
    'first': Clause(lambda xs: xs[0], 'xs[0]'),
    'last': Clause(lambda xs: xs[-1], 'xs[-1]'),
    'largest': Clause(max, 'max(xs)'),
    'smallest': Clause(min, 'min(xs)'),
    'evens': Clause(
        lambda xs: sum(x % 2 == 0 for x in xs), 'sum(x % 2 == 0 for x in xs)'
    ),
    'odds': Clause(
        lambda xs: sum(x % 2 == 1 for x in xs), 'sum(x % 2 == 1 for x in xs)'
    ),
    'next': Clause(lambda xs: xs[0] + 1, 'xs[0] + 1'),
    'before': Clause(lambda xs: xs[0] - 1, 'xs[0] - 1'),
    'sum': Clause(sum, 'sum(xs)'),
    'spread': Clause(lambda xs: max(xs) - min(xs), 'max(xs) - min(xs)'),
}
Program = tuple[str, ...]


class Example(NamedTuple):
  """An input and what is to be printed for it."""

  input: tuple[int, ...]
  output: tuple[int, ...]


class Statement(NamedTuple):
  """What a task's text says."""

  families: tuple[str, ...]
  example: Example


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
  """What an observation says.

  Attributes:
    kind: 'start', 'failed', 'hidden', 'refused' or 'solved'.
    example: of 'start' and 'failed'.
    wrong: family of the first clause to differ, of 'failed'.
  """

  kind: str
  example: Example | None = None
  wrong: str = ''


def run(program: Program, digits: Sequence[int]) -> tuple[int, ...]:
  """What a program prints."""
  return tuple(CLAUSES[word].compute(digits) for word in program)


def rivals(families: Sequence[str]) -> list[Program]:
  """Every program that a statement of these families could ask for."""
  return list(itertools.product(*(FAMILIES[name] for name in families)))


def write_program(program: Program) -> str:
  """The response that submits a program."""
  return ' '.join([PRINT, *program])


def parse_program(response: str) -> Program | None:
  """Inverse of `write_program`; None for anything else."""
  match response.split():
    case ['print', *words] if (
        1 <= len(words) <= MAX_CLAUSES and all(word in CLAUSES for word in words)
    ):
      return tuple(words)
  return None


def to_python(program: Program) -> str:
  """The same program in Python."""
  values = ', '.join(CLAUSES[word].expression for word in program)
  return f'xs = [int(word) for word in input().split()]\nprint({values})\n'


def write_numbers(numbers: Sequence[int]) -> str:
  return ' '.join(map(str, numbers))


def write_statement(families: Sequence[str], example: Example) -> str:
  """The task as text."""
  given, wanted = map(write_numbers, example)
  return f'{" ".join(families)} in {given} out {wanted}'


@functools.lru_cache(maxsize=16_384)
def parse_statement(text: str) -> Statement:
  """Inverse of `write_statement`. ValueError on a text of another form."""
  words = text.split()
  families = tuple(words[: words.index('in')]) if 'in' in words else ()
  if not families or any(family not in FAMILIES for family in families):
    raise ValueError(f'not of the form "families in digits out numbers": {text!r}')
  return Statement(families, _parse_example(words[len(families) :]))


@functools.lru_cache(maxsize=65_536)
def parse_page(observation: str) -> Page:
  """Reads an observation. ValueError on a text of another form."""
  match observation.split():
    case ['solved']:
      return Page('solved')
    case ['hidden', 'fail']:
      return Page('hidden')
    case ['no', 'program']:
      return Page('refused')
    case ['test', *words, 'wrong', family] if 'got' in words:
      return Page('failed', _parse_example(words[: words.index('got')]), family)
  return Page('start', parse_statement(observation).example)


def _parse_example(words: Sequence[str]) -> Example:
  """Reads 'in 1 2 3 out 4 5'."""
  out = words.index('out')
  return Example(tuple(map(int, words[1:out])), tuple(map(int, words[out + 1 :])))


class CompactView:
  """Implements `envs.codecontests.view.View`."""

  def first(self, problem: Problem) -> str:
    return problem.statement

  def answer(self, problem: Problem, report: Report, attempt: int, limit: int) -> str:
    del attempt, limit  # a policy counts its turns
    if report.solved:
      return SOLVED
    if not report.valid:
      return REFUSED
    index = report.first_failure()
    if index is None:
      return HIDDEN
    test, printed = problem.public[index], report.public[index].output.strip()
    family = _first_wrong(problem.statement, test.output, printed)
    return f'test in {test.input} out {test.output} got {printed} {WRONG} {family}'

  def instructions(self) -> str:
    families = '; '.join(
        f'{name}: {", ".join(words)}' for name, words in FAMILIES.items()
    )
    return (
        'Write a program that prints one number per word of the task. Answer with '
        f'"print" and one word of each family, in order ({families}).'
    )

  def parse_response(self, response: str) -> str:
    return response.strip()


class TinyJudge:
  """Grades programs of this language; answers as `judge.Judge` would."""

  def grade(self, problem: Problem, program: str) -> Report:
    """The report on a response."""
    words = parse_program(program)
    total = len(problem.public) + len(problem.hidden)
    if words is None:
      return Report((), None, 0, total, valid=False)
    public = tuple(
        _outcome(words, test.input, test.output) for test in problem.public
    )
    if any(outcome.verdict is not Verdict.OK for outcome in public):
      return Report(public, None, 0, total)
    for passed, test in enumerate(problem.hidden):
      verdict = _outcome(words, test.input, test.output).verdict
      if verdict is not Verdict.OK:
        return Report(public, verdict, passed, total)
    return Report(public, Verdict.OK, len(problem.hidden), total)

  def close(self) -> None:
    """Holds nothing."""


def _outcome(program: Program, digits: str, expected: str) -> Outcome:
  output = write_numbers(run(program, [int(word) for word in digits.split()]))
  same = output.split() == expected.split()
  return Outcome(Verdict.OK if same else Verdict.WRONG_ANSWER, f'{output}\n')


def _first_wrong(statement: str, wanted: str, printed: str) -> str:
  """Family of the first clause to differ; too many or too few count too."""
  pairs = itertools.zip_longest(wanted.split(), printed.split())
  place = next(place for place, (want, got) in enumerate(pairs) if want != got)
  families = parse_statement(statement).families
  return families[min(place, len(families) - 1)]


def vocabulary() -> tuple[str, ...]:
  """Every word of observations, responses and experience, none twice."""
  largest = NUM_DIGITS * max(DIGITS)
  phrases = (PRINT, SOLVED, HIDDEN, REFUSED, FITS, WRONG, 'test in out got')
  words = [word for phrase in phrases for word in phrase.split()]
  words += [*FAMILIES, *CLAUSES, *map(str, range(largest + 1))]
  return tuple(dict.fromkeys(words))
