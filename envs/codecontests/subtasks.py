"""The parts of a programming problem, and which of them an episode came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from envs.codecontests.judge import Report, Verdict

PROGRAM, EXAMPLE, EXAMPLES, SOLVE = 'program', 'example', 'examples', 'solve'
SUBTASKS: Mapping[str, str] = {
    PROGRAM: 'submit what is a program',
    EXAMPLE: 'submit a program that passes a public test',
    EXAMPLES: 'submit a program that passes all public tests',
    SOLVE: 'submit a program that passes the hidden tests too',
}


def completed(reports: Iterable[Report]) -> list[str]:
  """Names of `SUBTASKS` that a submission completed.

  Where there are no public tests, a program has passed them.
  """
  done = {name for report in reports for name in _at(report)}
  return [name for name in SUBTASKS if name in done]


def _at(report: Report) -> Iterable[str]:
  verdicts = [outcome.verdict for outcome in report.public]
  if not report.valid or Verdict.COMPILE_ERROR in (*verdicts, report.hidden):
    return
  yield PROGRAM
  passed = [verdict is Verdict.OK for verdict in verdicts]
  if any(passed) or not passed:
    yield EXAMPLE
  if all(passed):
    yield EXAMPLES
  if report.solved:
    yield SOLVE
