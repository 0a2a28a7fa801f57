"""Discovery@k: tasks solved within k attempts in sequence (arXiv 2603.08561).

The samples of an evaluation know nothing of each other. Here an attempt has what the
ones before it taught, on its own task and on the others; beside it stand as many
attempts without memory. A solved task is not tried again.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from envs import api
from leafe_jax.methods import stepwise
from leafe_jax.methods.assess import rules_of
from leafe_jax.methods.collect import journal_path
from leafe_jax.methods.run import Run
from leafe_jax.progress import Progress
from leafe_jax.rollout.episode import Player, no_memory
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.samples import play_groups
from leafe_jax.tree import Tree

WITH, WITHOUT = 'with memory', 'without'


class Pupil(Protocol):
  """Who learns from attempts."""

  def recall_at_test(self, task: api.Task) -> str:
    """The memory of a task's next attempt."""
    ...

  def attempt(
      self, player: Player, tasks: Sequence[api.Task], groups: Sequence[Tree],
      step: int, ledger: Ledger,
  ) -> None:
    """Learns from one attempt at each task; what raises leaves all as it was."""
    ...

  def save(self, directory: pathlib.Path) -> dict[str, Any]:
    """Writes what is to be read; the state as JSON."""
    ...

  def load(self, state: Mapping[str, Any]) -> None:
    """Goes on from what `save` returned."""
    ...


@dataclasses.dataclass
class Side:
  """The attempts with, or without, memory.

  Attributes:
    attempts: made so far.
    solved: task id -> the attempt that solved it.
  """

  attempts: int = 0
  solved: dict[str, int] = dataclasses.field(default_factory=dict)

  def within(self, most: int) -> list[int]:
    """How many tasks were solved within 1, 2, ... attempts."""
    return [sum(at <= k for at in self.solved.values()) for k in range(1, most + 1)]


class Discovery:
  """Attempts in sequence; saved after each of them.

  Args:
    run: the run; `evaluate` has the options.
    directory: of the phase.
    player: the policy of an arm.
    pupil: its memory, as it was trained.
  """

  def __init__(
      self, run: Run, directory: pathlib.Path, player: Player, pupil: Pupil
  ):
    self._config, self._rows = run.config.evaluate, run.config.sampler.max_rows
    self._rules = rules_of(
        self._config, run.config.explore.max_response_tokens,
        run.transcript.stop_ids,
    )
    self._directory, self._player, self._pupil = directory, player, pupil
    self._sides = {WITH: Side(), WITHOUT: Side()}
    self._ledger = Ledger()
    if (state := stepwise.load(directory)) is not None:
      self._sides = {name: Side(**side) for name, side in state['sides'].items()}
      self._ledger = Ledger(**state['ledger'])
      self._pupil.load(state['pupil'])

  def go_through(self, label: str, tasks: Sequence[api.Task]) -> dict[str, Any]:
    """Makes all attempts; the phase's result."""
    most = self._config.discovery
    done = sum(side.attempts for side in self._sides.values())
    with Progress(label, 2 * most, 'attempt', done) as bar:
      for name, side in self._sides.items():
        while side.attempts < most:
          self._attempt(name, side, tasks)
          bar.show({'solved': len(side.solved)})
          bar.advance()
    return {
        'tasks': len(tasks), 'budget': self._ledger.as_dict(),
        'solved': {name: side.within(most) for name, side in self._sides.items()},
    }  # fmt: skip

  def _attempt(self, name: str, side: Side, tasks: Sequence[api.Task]) -> None:
    left = [task for task in tasks if task.id not in side.solved]
    number, remembers = side.attempts + 1, name == WITH
    if left:
      memory = self._pupil.recall_at_test if remembers else no_memory
      groups = play_groups(
          self._player, left, 1, self._rules, self._rows,
          f'discover {name} {number}', memory,
          journal=journal_path(self._directory, number),
      )
      ledger = dataclasses.replace(self._ledger)
      for group in groups:
        ledger.add(group.budget)
      if remembers:
        self._pupil.attempt(self._player, left, groups, number, ledger)
      self._ledger = ledger
      side.solved |= {group.task_id: number for group in groups if group.solved()}
    side.attempts = number
    stepwise.save(self._directory, {
        'sides': {name: dataclasses.asdict(side) for name, side in self._sides.items()},
        'ledger': self._ledger.as_dict(), 'pupil': self._pupil.save(self._directory),
    }, number)  # fmt: skip
