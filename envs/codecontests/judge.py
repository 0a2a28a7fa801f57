"""Verdicts: runs a program on a problem's tests and compares.

Public tests run first, all of them, for the feedback; hidden tests run only
when those pass, and stop at the first failure. Of hidden tests nothing leaves
this module but verdicts and counts. What is no program at all, prose above all,
costs no process.

In problems of kind 'function' the test code runs in the program's process, so
a program that sets out to forge its tests there can; a random word printed
after the tests makes sure that they were reached.
"""

from __future__ import annotations

import ast
import concurrent.futures
import dataclasses
import enum
import functools
import re
import secrets
import sys
import warnings
from collections.abc import Iterable
from typing import Protocol

from envs.codecontests.problems import Problem, Test
from envs.codecontests.sandbox import Execution, Limits, Sandbox

# As on Codeforces; the text is parsed in this process.
MAX_SOURCE = 65_536
_SIGXCPU = 128 + 24
_SYNTAX = re.compile(r'^(?:SyntaxError|IndentationError|TabError)\b', re.MULTILINE)
_ADDRESS = re.compile(r'0x[0-9a-f]{6,}')


class Verdict(enum.StrEnum):
  """How a program did on a test."""

  OK = 'ok'
  WRONG_ANSWER = 'wrong answer'
  RUNTIME_ERROR = 'runtime error'
  TIME_LIMIT = 'time limit'
  MEMORY_LIMIT = 'memory limit'
  OUTPUT_LIMIT = 'output limit'
  COMPILE_ERROR = 'compile error'


@dataclasses.dataclass(frozen=True)
class Outcome:
  """One test: verdict, what was printed, the last words of an error."""

  verdict: Verdict
  output: str = ''
  error: str = ''


@dataclasses.dataclass(frozen=True)
class Report:
  """One submission.

  Attributes:
    public: an outcome per public test.
    hidden: verdict of the first hidden test that failed; OK if none did, or
      None if they did not run.
    hidden_passed: hidden tests passed before that.
    total: tests of the problem.
    valid: whether the submission was a program at all.
  """

  public: tuple[Outcome, ...]
  hidden: Verdict | None
  hidden_passed: int
  total: int
  valid: bool = True

  @property
  def solved(self) -> bool:
    return self.hidden is Verdict.OK

  @property
  def score(self) -> float:
    """Share of tests known to pass; 1.0 only if solved."""
    passed = sum(outcome.verdict is Verdict.OK for outcome in self.public)
    return (passed + self.hidden_passed) / self.total

  def first_failure(self) -> int | None:
    """Index of the first public test that failed."""
    for index, outcome in enumerate(self.public):
      if outcome.verdict is not Verdict.OK:
        return index
    return None


class Grader(Protocol):
  """Grades submissions; `Judge` by running them."""

  def grade(self, problem: Problem, program: str) -> Report:
    """The report on one submission."""
    ...

  def close(self) -> None:
    """Frees what it holds."""
    ...


def same_tokens(actual: str, expected: str) -> bool:
  """Equal but for white space."""
  return actual.split() == expected.split()


class Judge:
  """Runs submissions in a sandbox, several tests at once."""

  def __init__(self, sandbox: Sandbox, workers: int = 2, cache: int = 4096):
    """`cache` reports are kept, so that a repeated submission is free."""
    self._sandbox = sandbox
    self._pool = concurrent.futures.ThreadPoolExecutor(workers, 'judge')
    self._workers = workers
    self._grade = functools.lru_cache(cache)(self._run_all)

  def grade(self, problem: Problem, program: str) -> Report:
    return self._grade(problem, program)

  def close(self) -> None:
    self._pool.shutdown()

  def refusal(self, program: str) -> str:
    """Why a text is no program, in Python's words; empty if it may be one."""
    size = len(program.encode(errors='replace'))
    if size > MAX_SOURCE:
      return f'SyntaxError: a program of {size} bytes; {MAX_SOURCE} are the most'
    if self._sandbox.python != sys.version_info[:2]:
      return ''  # another Python has another grammar
    return syntax_error(program)

  def _run_all(self, problem: Problem, program: str) -> Report:
    total = len(problem.public) + len(problem.hidden)
    if error := self.refusal(program):
      outcome = Outcome(Verdict.COMPILE_ERROR, error=error)
      hidden = None if problem.public else outcome.verdict
      return Report((outcome,) * len(problem.public), hidden, 0, total)
    public = tuple(
        self._pool.map(lambda test: self.run(problem, program, test), problem.public)
    )
    if any(outcome.verdict is not Verdict.OK for outcome in public):
      return Report(public, None, 0, total)
    passed = 0
    for outcome in self._run_hidden(problem, program):
      if outcome.verdict is not Verdict.OK:
        return Report(public, outcome.verdict, passed, total)
      passed += 1
    return Report(public, Verdict.OK, passed, total)

  def _run_hidden(self, problem: Problem, program: str) -> Iterable[Outcome]:
    """Outcomes in order; a few tests ahead at most, for the first that fails."""
    for start in range(0, len(problem.hidden), self._workers):
      batch = problem.hidden[start : start + self._workers]
      yield from self._pool.map(lambda test: self.run(problem, program, test), batch)

  def run(self, problem: Problem, program: str, test: Test) -> Outcome:
    """One test."""
    limits = Limits(
        cpu_seconds=problem.time_limit,
        wall_seconds=2.0 * problem.time_limit + 4.0,
        memory_mb=problem.memory_mb,
    )
    if problem.kind == 'stdio':
      ran = self._sandbox.run(program, test.input, limits)
      outcome = judge_execution(ran)
      if outcome.verdict is Verdict.OK and not same_tokens(outcome.output, test.output):
        return dataclasses.replace(outcome, verdict=Verdict.WRONG_ANSWER)
      return outcome
    word = secrets.token_hex(8)
    source = '\n'.join([program, problem.setup, test.input, f'print("{word}")', ''])
    outcome = judge_execution(self._sandbox.run(source, '', limits))
    reached = outcome.output.rstrip().endswith(word)
    # What it printed could hold the word, which differs from run to run.
    outcome = dataclasses.replace(outcome, output='')
    if outcome.verdict is Verdict.OK and not reached:
      return Outcome(Verdict.WRONG_ANSWER, error='the program ended before its test')
    if outcome.error.startswith('AssertionError'):
      return dataclasses.replace(outcome, verdict=Verdict.WRONG_ANSWER)
    return outcome


def syntax_error(program: str) -> str:
  """What Python would say about a text that it cannot parse; else empty."""
  text = program.encode(errors='replace').decode()  # as the sandbox writes it
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of escapes that Python will forbid
      ast.parse(text)
  except SyntaxError as error:
    where = f' (line {error.lineno})' if error.lineno else ''
    return f'{type(error).__name__}: {error.msg}{where}'
  except (ValueError, MemoryError, RecursionError):
    pass  # null bytes and deep nesting: for the sandbox to say
  return ''


def judge_execution(ran: Execution) -> Outcome:
  """The verdict on a run by itself, its output not yet compared."""
  output = ran.stdout.decode(errors='replace')
  error = last_words(ran.stderr.decode(errors='replace'))
  return Outcome(_verdict(ran, error), output, error)


def _verdict(ran: Execution, error: str) -> Verdict:
  if ran.stopped == 'output':
    return Verdict.OUTPUT_LIMIT
  if ran.out_of_memory or error.startswith('MemoryError'):
    return Verdict.MEMORY_LIMIT
  if ran.stopped == 'wall' or ran.exit_code == _SIGXCPU:
    return Verdict.TIME_LIMIT
  if ran.exit_code == 0:
    return Verdict.OK
  if _is_syntax_error(ran.stderr.decode(errors='replace')):
    return Verdict.COMPILE_ERROR
  return Verdict.RUNTIME_ERROR


def _is_syntax_error(stderr: str) -> bool:
  # Python reports errors in the main file itself without a traceback.
  return not stderr.startswith('Traceback') and bool(_SYNTAX.search(stderr))


def last_words(stderr: str) -> str:
  """The last line of an error, with the line number if there is one."""
  lines = [line for line in stderr.strip().splitlines() if line.strip()]
  if not lines:
    return ''
  numbers = re.findall(r'File "/code/main.py", line (\d+)', stderr)
  where = f' (line {numbers[-1]})' if numbers else ''
  return _ADDRESS.sub('0x...', lines[-1].strip()[:300]) + where
