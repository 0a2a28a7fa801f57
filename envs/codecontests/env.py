"""CodeContests as a world of `envs.api`: shared problems, light sessions."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from envs import api
from envs.codecontests import compact, examples, generator, loaders, subtasks
from envs.codecontests.judge import Grader, Judge, Report
from envs.codecontests.problems import Problem
from envs.codecontests.sandbox import Sandbox
from envs.codecontests.view import TextView, View
from envs.options import refuse_foreign

SOURCES = ('embedded', *loaders.READERS)


@dataclasses.dataclass(frozen=True)
class Attempts:
  """A session's whole state: plain data, no processes.

  Attributes:
    problem: its id.
    programs: submitted so far.
    solved: whether the last one passed every test.
  """

  problem: str
  programs: tuple[str, ...] = ()
  solved: bool = False


class CodeSession(api.TextEnv):
  """One agent at one problem."""

  def __init__(self, world: CodeWorld):
    self._world = world
    self._state: Attempts | None = None

  def reset(self, task: api.Task, seed: int = 0) -> api.Step:
    """Shows the problem. Nothing is random, so `seed` is unused."""
    del seed
    problem = self._world.problem(task.payload['problem'])
    self._state = Attempts(problem.id)
    return api.Step(self._world.view.first(problem), info={'valid': True})

  def step(self, action: str) -> api.Step:
    """Submits a program."""
    state = self._state
    if state is None:
      raise api.EpisodeOver('step before the first reset')
    if self._world.is_over(state):
      raise api.EpisodeOver('step after the end of the episode')
    problem = self._world.problem(state.problem)
    report = self._world.grader.grade(problem, action)
    self._state = Attempts(state.problem, (*state.programs, action), report.solved)
    return self._world.answer(problem, self._state, report)

  def snapshot(self) -> api.Snapshot:
    if self._state is None:
      raise api.EpisodeOver('snapshot before the first reset')
    num_bytes = sys.getsizeof(self._state) + sum(
        map(sys.getsizeof, self._state.programs)
    )
    return api.Snapshot(self._world.name, self._state, num_bytes)

  def restore(self, snapshot: api.Snapshot) -> None:
    snapshot.check(self._world.name, Attempts)
    self._state = snapshot.state


class CodeWorld(api.World):
  """The shared part: problems, the grader and the view.

  Attributes:
    name: identifies problems and settings; snapshots carry it.
    grader, view: see `judge.Grader` and `view.View`.
  """

  def __init__(
      self,
      name: str,
      problems: Sequence[Problem],
      grader: Grader,
      view: View,
      max_turns: int = 4,
      references: Mapping[str, str] | None = None,
  ):
    """ValueError if two problems share an id; names it.

    Args:
      name, problems, grader, view: see the class.
      max_turns: submissions per episode.
      references: solutions by problem id, for the scripted teacher alone.
    """
    self.name = name
    self._references = references or {}
    self.grader = grader
    self.view = view
    self._max_turns = max_turns
    self._problems: dict[str, Problem] = {}
    for problem in problems:
      if self._problems.setdefault(problem.id, problem) is not problem:
        raise ValueError(f'two problems share the id {problem.id!r}')
    self._tasks = {
        split: tuple(_task(problem) for problem in problems if problem.split == split)
        for split in api.SPLITS
    }

  def tasks(self, split: str) -> Sequence[api.Task]:
    api.check_split(split)
    return self._tasks[split]

  def problem(self, problem_id: str) -> Problem:
    """The problem of an id. ValueError for an id of another world."""
    if problem_id not in self._problems:
      raise ValueError(f'{self.name} has no problem {problem_id!r}')
    return self._problems[problem_id]

  def session(self) -> CodeSession:
    return CodeSession(self)

  def is_over(self, state: Attempts) -> bool:
    return state.solved or len(state.programs) >= self._max_turns

  def answer(self, problem: Problem, state: Attempts, report: Report) -> api.Step:
    """The step that led to `state`. Success is to pass every test."""
    observation = self.view.answer(
        problem, report, len(state.programs), self._max_turns
    )
    info: dict[str, Any] = {'valid': report.valid}
    if self.is_over(state):
      info |= {'success': report.solved, 'score': report.score}
    return api.Step(
        observation,
        reward=float(report.solved),
        terminated=report.solved,
        truncated=not report.solved and self.is_over(state),
        info=info,
    )

  def task_type(self, task: api.Task) -> str:
    """The difficulty, of data sets that have one."""
    return self.problem(task.payload['problem']).difficulty or self.name

  def subtasks(self) -> Mapping[str, str]:
    return subtasks.SUBTASKS

  def completed(self, task: api.Task, history: api.History) -> Sequence[str]:
    problem = self.problem(task.payload['problem'])
    programs = filter(None, history.actions)
    return subtasks.completed(self.grader.grade(problem, text) for text in programs)

  def instructions(self) -> str:
    return self.view.instructions()

  def parse_response(self, response: str) -> str:
    """The program in a response. Raises InvalidAction where there is none."""
    return self.view.parse_response(super().parse_response(response))

  def vocabulary(self) -> Sequence[str]:
    """Every word of the tiny language's texts; Python is open-ended."""
    if not isinstance(self.view, compact.CompactView):
      return super().vocabulary()
    return compact.vocabulary()

  def teacher(self, **options: Any) -> api.Teacher:
    if isinstance(self.view, compact.CompactView):
      from envs.codecontests import expert

      return expert.CodeTeacher(**options)
    if not self._references:
      raise NotImplementedError(
          f'{self.name} has no scripted teacher: its data has no solutions in Python 3'
      )
    from envs.codecontests import text_expert

    return text_expert.TextCodeTeacher(self._solutions, **options)

  @functools.cached_property
  def _solutions(self) -> Mapping[str, str]:
    """Solutions by statement, as `parse_response` gives programs."""
    from envs.codecontests import text_expert

    return text_expert.spelt({
        problem.statement: self._references[problem.id]
        for problem in self._problems.values()
        if problem.id in self._references
    }, self.parse_response)

  def close(self) -> None:
    self.grader.close()


def _task(problem: Problem) -> api.Task:
  # Tests stay in the world: a task travels, and holds nothing to leak.
  return api.Task(
      id=f'codecontests-{problem.id}',
      split=problem.split,
      instruction=problem.statement,
      payload={'problem': problem.id},
  )


def make(
    source: str = 'embedded',
    data_path: str = '',
    max_turns: int = 4,
    public_tests: int = 2,
    max_tests: int = 0,
    workers: int = 2,
    allow_unsafe_execution: bool = False,
    **embedded: Any,
) -> CodeWorld:
  """The world of a data set.

  Args:
    source: 'embedded' (generated tasks in a tiny language, needs no data and
      no sandbox), 'codecontests', 'mbpp' or 'humaneval'.
    data_path: file or directory of the data set, see `loaders`.
    max_turns: submissions per episode.
    public_tests: tests that feedback may show, where the data does not say.
    max_tests: most hidden tests per problem, 0 for all; not embedded.
    workers: tests that run at the same time; not embedded.
    allow_unsafe_execution: see `sandbox.Sandbox`; not embedded.
    **embedded: options of `generator.build`; embedded source only.

  Raises:
    ValueError: names the bad option and the choices.
    FileNotFoundError: there is no data.
    SandboxUnavailable: programs cannot be isolated on this machine.
  """
  if source not in SOURCES:
    raise ValueError(f'unknown source {source!r}; choose from {", ".join(SOURCES)}')
  if max_turns < 1 or workers < 1:
    raise ValueError(f'max_turns is {max_turns}, workers {workers}; at least 1 each')
  if source == 'embedded':
    refuse_foreign(
        make, 'source=codecontests, mbpp or humaneval', f'source={source!r}',
        data_path=data_path, max_tests=max_tests, workers=workers,
        allow_unsafe_execution=allow_unsafe_execution,
    )
    _check_names(embedded, *inspect.signature(generator.build).parameters)
    problems = generator.build(public_tests=public_tests, **embedded)
    references = None
    grader, view = compact.TinyJudge(), compact.CompactView()
  else:
    _check_names(embedded)
    problems = loaders.load(source, data_path, public_tests, max_tests)
    references = {p.id: p.reference for p in problems if p.reference}
    grader = Judge(Sandbox(allow_unsafe_execution), workers)
    problems = examples.confirm(problems, grader)
    view = TextView()
  name = f'codecontests-{source}-{_fingerprint(problems, max_turns)}'
  return CodeWorld(name, problems, grader, view, max_turns, references)


def _fingerprint(problems: Sequence[Problem], max_turns: int) -> str:
  """Eight hex digits; worlds share them only if their states are exchangeable."""
  return api.observation_hash(f'{max_turns} {problems!r}')[:8]


def _check_names(options: Mapping[str, Any], *extra: str) -> None:
  """Refuses options that neither `make` nor the source has."""
  known = [*inspect.signature(make).parameters][:-1] + list(extra)
  for name in options:
    if name not in extra:
      raise ValueError(f'unknown option {name!r}; choose from {", ".join(known)}')
