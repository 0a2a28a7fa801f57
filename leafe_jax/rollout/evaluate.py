"""Evaluation rollouts: n independent episodes a task, nothing but the policy.

No reflection, no rollback, no hint (arXiv 2603.16843, section 4.1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from envs import api
from leafe_jax.rollout.crew import Crew
from leafe_jax.rollout.episode import Episode, Player, Start
from leafe_jax.rollout.explore import prefill_roots
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.play import play
from leafe_jax.sampler import Rules
from leafe_jax.tree import Node


@dataclasses.dataclass
class TaskOutcome:
  """What n episodes of one task came to.

  Attributes:
    task_id: of the task.
    successes: one 0 or 1 per sample, in the order of the samples.
    scores: the environment's scores, likewise.
    turns: number of turns, likewise.
    budget: what they cost.
  """

  task_id: str
  successes: list[int]
  scores: list[float]
  turns: list[int]
  budget: dict[str, int]


def evaluate(
    player: Player,
    tasks: Sequence[api.Task],
    num_samples: int,
    rules: Rules,
    rows: int,
    on_episode: Callable[[], None] = lambda: None,
) -> list[TaskOutcome]:
  """Plays `num_samples` episodes of each task."""
  outcomes = {
      task.id: TaskOutcome(
          task.id, [0] * num_samples, [0.0] * num_samples, [0] * num_samples, {}
      )
      for task in tasks
  }
  ledgers = {task.id: Ledger() for task in tasks}
  crew = Crew(tasks)
  roots = prefill_roots(player, crew, tasks)

  def waiting() -> Iterator[tuple[str, Episode]]:
    for task, root in zip(tasks, roots, strict=True):
      for sample in range(num_samples):
        yield task.id, Episode(
            player, Node(sample, None, 1, None, 0), Start(task, root),
            ledgers[task.id], keep_decisions=False,
        )

  def on_end(task_id: str, episode: Episode) -> None:
    outcome, node = outcomes[task_id], episode.node
    outcome.successes[node.id] = int(node.success)
    outcome.scores[node.id] = node.score
    outcome.turns[node.id] = len(node.turns)
    on_episode()

  play(player, crew, waiting(), rules, rows, 'evaluate', on_end)
  for task_id, outcome in outcomes.items():
    outcome.budget = ledgers[task_id].as_dict()
  return list(outcomes.values())
