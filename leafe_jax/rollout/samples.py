"""Independent episodes of the policy alone: no reflection, no rollback, no hint."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from absl import logging

from envs import api
from leafe_jax.rollout.crew import Crew
from leafe_jax.rollout.episode import Episode, Player, Start, no_memory
from leafe_jax.rollout.explore import prefill_roots
from leafe_jax.rollout.ledger import Ledger, warn_of_overlong
from leafe_jax.rollout.play import journaled, play
from leafe_jax.rollout.timing import Meter
from leafe_jax.sampler import Rules
from leafe_jax.tree import Node, Tree

Memory = Callable[[api.Task], str]


def play_samples(
    player: Player,
    tasks: Sequence[api.Task],
    count: int,
    rules: Rules,
    rows: int,
    purpose: str,
    ledgers: Mapping[str, Ledger],
    on_end: Callable[[str, Node], None],
    memory: Memory = no_memory,
    bare: int = 0,
) -> None:
  """Plays `count` episodes of each task from one shared reset state.

  Args:
    player: policy and world.
    tasks: with distinct ids.
    count: episodes per task; node ids count them from 0.
    rules: of sampling.
    rows: most episodes that run at the same time.
    purpose: part of the random keys.
    ledgers: one per task id; pay.
    on_end: called with a task's id and a finished episode, in order of ending.
    memory: a task's lessons, fixed for its episodes.
    bare: how many episodes of each task have no lessons, the first ones.
  """
  meter = Meter(player.clock, lambda: player.sampler.stats)
  crew = Crew(tasks, player.clock, player.world)
  shown = {
      task.id: [''] * min(bare, count) + [memory(task)] * (count - bare)
      for task in tasks
  }
  roots = prefill_roots(
      player, crew, tasks, lambda task: dict.fromkeys(shown[task.id])
  )

  def waiting() -> Iterator[tuple[str, Episode]]:
    for task, root in zip(tasks, roots, strict=True):
      for sample, lessons in enumerate(shown[task.id]):
        node = Node(sample, None, 1, None, 0)
        start = Start(task, root.get(lessons), lessons)
        yield task.id, Episode(
            player, node, start, ledgers[task.id], keep_decisions=False
        )

  play(
      player, crew, waiting(), rules, rows, purpose,
      lambda task_id, episode: on_end(task_id, episode.node),
  )
  logging.info('%d episodes in %s', count * len(tasks), meter)
  warn_of_overlong(ledgers.values())


def play_groups(
    player: Player,
    tasks: Sequence[api.Task],
    size: int,
    rules: Rules,
    rows: int,
    purpose: str,
    memory: Memory = no_memory,
    bare: int = 0,
    journal: pathlib.Path | None = None,
) -> list[Tree]:
  """As `play_samples`; one tree of `size` roots per task, its bill included.

  `journal` is where the responses are kept if the player says so (`journaled`), for a
  step that is made again after a stop; whoever made the step removes it.
  """
  own = journaled(player, journal, tasks) if journal else player
  trees = {task.id: Tree(task.id, task.instruction, task.split) for task in tasks}
  ledgers = {task.id: Ledger() for task in tasks}
  play_samples(
      own, tasks, size, rules, rows, purpose, ledgers,
      lambda task_id, node: trees[task_id].nodes.append(node), memory, bare,
  )
  if own.journal is not None:  # what is asked next finds the same pages either way
    player.sampler.forget()
  for task_id, tree in trees.items():
    tree.nodes.sort(key=lambda node: node.id)
    tree.budget = ledgers[task_id].as_dict()
  return list(trees.values())


def replay(
    player: Player,
    cases: Sequence[tuple[Node, Start]],
    rules: Rules,
    rows: int,
    purpose: str,
    ledger: Ledger,
) -> None:
  """One more episode per case, in which the policy is shown something.

  Args:
    player: policy and world.
    cases: fresh nodes with distinct ids, and where they begin: the memory of the
      start stands in the first prompt, the experience of a node at its turn tau.
    rules: of sampling.
    rows: most episodes that run at the same time.
    purpose: part of the random keys.
    ledger: pays.
  """
  player.sampler.forget()  # a wave begins, see `explore.prefill_roots`
  tasks = {start.task.id: start.task for _, start in cases}
  crew = Crew([*tasks.values()], player.clock, player.world)
  waiting = (
      (start.task.id, Episode(player, node, start, ledger, keep_decisions=False))
      for node, start in cases
  )
  play(player, crew, waiting, rules, rows, purpose, lambda task_id, episode: None)
