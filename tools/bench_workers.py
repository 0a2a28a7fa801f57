"""Steps per second of many sessions, in process and in worker processes.

What `tools.bench_envs --workers=0,1,2` measures: sessions of one world take the
actions of a walk in rounds, as the episodes of a run do (`leafe_jax.rollout.crew`),
each step with the snapshot that exploring takes. Workers gain what the cores beside
the run's own can do, and cost a way there and back for each request. --fleet=ray
puts them behind Ray, on this machine.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence

from envs import api, registry
from envs.remote.cluster import Actor, Cluster
from envs.remote.process import Process
from envs.remote.world import RemoteWorld
from leafe_jax.rollout.crew import Crew
from leafe_jax.rollout.outcome import Outcome
from leafe_jax.rollout.timing import Clock
from tools import bench_cases
from tools.bench_cases import Case

SESSIONS = 32


def code_world() -> api.World:
  """A problem for real programs: isolated where the machine can, else limited.

  Only the program of `PROGRAMS` is run in it.
  """
  from envs.codecontests import env, judge, problems, sandbox, view

  cases = [('1 2\n', '3\n'), ('5 5\n', '10\n'), ('40 2\n', '42\n'), ('-7 7\n', '0\n')]
  tests = tuple(problems.Test(*case) for case in cases)
  problem = problems.Problem(
      'adding', 'train', 'Print the sum of two numbers.', 'stdio', tests[:2], tests[2:]
  )
  try:
    box = sandbox.Sandbox()
  except sandbox.SandboxUnavailable:
    box = sandbox.Sandbox(allow_unsafe_execution=True)
  grader = judge.Judge(box, workers=1)
  return env.CodeWorld('codecontests-adding', [problem], grader, view.TextView(), 1000)


# NUMBER makes each program another one, whose verdict nobody knows yet.
PROGRAMS = Case(
    'tools.bench_workers:code_world',
    actions=('```python\nprint(sum(map(int, input().split())) + NUMBER)\n```',),
)
# What a world of another machine takes: a way there and back.
WAITING = Case(
    'tools.weightless:World', {'count': 1, 'size': 40, 'wait': 0.005},
    actions=tuple('abcdefghijklmnopqrstuvwxyz'),
)


class Row:
  """One world with so many workers being measured."""

  def __init__(self, case: Case, workers: int, fleet: str):
    self._world = world = registry.make(case.env, **case.options)
    if workers:
      connect = functools.partial(Process, case.env, case.options)
      if fleet == 'ray':  # of this machine, where the way is the shortest
        cluster = Cluster(cpus=0.01)
        connect = functools.partial(Actor, case.env, case.options, cluster=cluster)
      self._world = RemoteWorld(world, connect, workers)
    self._task = world.tasks('train')[0]
    self._walk = bench_cases.find_walk(case, world.session(), self._task)
    self._taken = 0
    self._numbers = itertools.count(1)
    self._sessions = [self._world.session() for _ in range(SESSIONS)]
    self._crew = Crew([self._task], Clock(), self._world)
    self._round(self._reset)

  def _reset(self, session: api.TextEnv, outcome: Outcome) -> None:
    outcome.step = session.reset(self._task)

  def _round(self, work: Callable[[api.TextEnv, Outcome], None]) -> None:
    outcomes = self._crew.run([
        (self._task.id, functools.partial(work, session)) for session in self._sessions
    ])
    for outcome in outcomes:
      if outcome.error is not None:
        raise api.EnvError(outcome.error)

  def rate(self, seconds: float) -> float:
    """Steps per second, each with its snapshot; after each walk comes a reset."""

    def step(session: api.TextEnv, outcome: Outcome) -> None:
      outcome.step = session.step(action.replace('NUMBER', str(next(self._numbers))))
      session.snapshot()

    rounds, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds or not rounds:
      if self._taken == len(self._walk):
        self._round(self._reset)
        self._taken = 0
      action = self._walk[self._taken]
      self._round(step)
      self._taken += 1
      rounds += 1
    return rounds * SESSIONS / passed

  def close(self) -> None:
    """Ends the workers and frees the world."""
    self._world.close()


def measure(
    cases: Mapping[str, Case], workers: Sequence[int], repeats: int, seconds: float,
    fleet: str = 'process',
) -> dict[str, dict[str, list[float]]]:
  """Environment -> '2 workers' -> steps per second of each repeat, interleaved."""
  found: dict[str, dict[str, list[float]]] = {}
  for name, case in cases.items():
    with contextlib.ExitStack() as stack:
      rows = {
          f'{count} workers': stack.enter_context(
              contextlib.closing(Row(case, count, fleet))
          )
          for count in workers
      }
      figures = found.setdefault(name, {label: [] for label in rows})
      for _, (label, row) in itertools.product(range(repeats), rows.items()):
        figures[label].append(row.rate(seconds))
  return found
