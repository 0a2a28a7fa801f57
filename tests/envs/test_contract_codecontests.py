"""The environment contract on generated tasks and on real programs."""

from __future__ import annotations

from envs import registry
from envs.codecontests import compact
from envs.contract import EnvironmentContract
from tests.envs import codecontests_support as support


def _small_world():
  return registry.make(
      'codecontests', train_tasks=20, validation_tasks=5, test_tasks=5
  )


class TestGeneratedTasks(EnvironmentContract):

  def world(self):
    return _small_world()

  def actions(self, task):
    """Two wrong programs, words of no program, then the right one."""
    statement = compact.parse_statement(task.instruction)
    programs = compact.rivals(statement.families)
    problem = _small_world().problem(task.payload['problem'])
    right = next(
        program
        for program in programs
        if all(
            compact.run(program, tuple(map(int, test.input.split())))
            == tuple(map(int, test.output.split()))
            for test in problem.hidden
        )
    )
    wrong = [compact.write_program(p) for p in programs if p != right]
    return (wrong[0], wrong[1], 'print nonsense', compact.write_program(right))


class TestGeneratedTasksThatFail(TestGeneratedTasks):

  def actions(self, task):
    return (*super().actions(task)[:3], 'print first')


class TestRealPrograms(EnvironmentContract):
  """A program costs two processes; what does not parse as one costs none."""

  num_costly = 30

  def is_costly(self, action):
    return not support.judge().refusal(action)

  def world(self):
    return support.world()

  def actions(self, task):
    return (
        'print(3)', 'print(', 'import sys\nraise ValueError(sys)',
        'a, b = map(int, input().split())\nprint(a + b)',
    )  # fmt: skip
