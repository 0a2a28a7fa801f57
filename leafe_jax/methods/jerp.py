"""JERP: a policy and its rules learn from the same episodes (arXiv 2606.27136).

One group of episodes per task, played with the best rules of the task's pool
in the prompt, feeds both the clipped update of the policy (`methods.online`)
and the edits of the pool by the frozen base (`methods.reflector`).
"""

from __future__ import annotations

import pathlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from envs import api
from leafe_jax import hosts
from leafe_jax.config import Experiment, Grpo, Jerp
from leafe_jax.evaluation.memories import Remembered
from leafe_jax.memory import rules as rules_lib
from leafe_jax.memory.book import FILE, RuleBook, read_book
from leafe_jax.memory.rules import EditError, Limits, Pool, Rule
from leafe_jax.methods import effort, reflector
from leafe_jax.methods.arms import ASK_READS, Arm, Phase
from leafe_jax.methods.effort import Effort
from leafe_jax.methods.grpo import GRPO_READS
from leafe_jax.methods.online import OnlineTraining
from leafe_jax.methods.reflector import Case, Proposal
from leafe_jax.methods.run import Run
from leafe_jax.methods.tuning import tuned
from leafe_jax.rollout.episode import Player, no_memory
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.samples import Memory
from leafe_jax.sampler import Rules
from leafe_jax.tree import Tree


def limits_of(config: Jerp) -> Limits:
  return Limits(
      config.capacity, config.initial_score, config.vote_step, config.prune_at
  )


class RuleNotebook:
  """Rules as an `beside.Notebook`; see `config.Jerp` for the choices.

  Attributes:
    book: all pools.
  """

  asks_base = True
  bare_share = 0.0

  def __init__(self, world: api.World, config: Jerp, reflection: Rules, seed: int):
    self.book = RuleBook(limits_of(config))
    self._world = world
    self._config = config
    self._reflection = reflection
    self._seed = seed

  def key(self, task: api.Task) -> str:
    """Which pool a task belongs to."""
    keys = {'task': task.id, 'type': self._world.task_type(task), 'all': 'all'}
    return keys[self._config.key]

  def working_set(self, task: api.Task) -> list[Rule]:
    """The rules of a task's prompts, until the book changes."""
    if self._config.choice == 'random':
      rng = random.Random(f'{self._seed}/rules/{self.book.step}/{task.id}')
      return self.book.at_random(self._config.top_k, rng)
    return self.book.top(self.key(task), self._config.top_k)

  def recall(self, task: api.Task) -> str:
    return '\n'.join(rule.text for rule in self.working_set(task))

  def learn(
      self, step: int, tasks: Sequence[api.Task], groups: Sequence[Tree],
      player: Player, ledger: Ledger,
  ) -> dict[str, float]:
    """Reflects, edits, prunes, remembers successes. Returns figures."""
    config = self._config
    if config.freeze_after and step > config.freeze_after:
      return self._figures(0, 0)
    cases = [self._case(t, group) for t, group in zip(tasks, groups, strict=True)]
    # First, as a stop may leave it: nothing is noted before all is known.
    proposals = reflector.propose(
        player, cases, config, self._reflection, step, ledger
    )
    for case in cases:
      self.book.pool(self.key(case.task)).note_use(
          [rule.id for rule in case.shown], step
      )
    counts = [
        self._edit(self.book.pool(self.key(case.task)), lines, step)
        for case, lines in zip(cases, proposals, strict=True)
    ]
    for case in cases:
      self._conclude(case, step)
    self.book.step = step
    applied, offered = np.sum(counts, axis=0)
    return self._figures(int(applied), int(offered))

  def save(self, directory: pathlib.Path) -> dict[str, Any]:
    hosts.first(lambda: self.book.write(directory))
    return self.book.to_json()

  def load(self, state: Mapping[str, Any]) -> None:
    self.book = RuleBook.from_json(state, limits_of(self._config))

  def _case(self, task: api.Task, group: Tree) -> Case:
    key = self.key(task)
    pool = self.book.pool(key)
    # Rules of other pools, in the ablation, are neither used nor voted on.
    own = [r for r in self.working_set(task) if pool.rules.get(r.id) is r]
    return Case(
        task, group, list(pool.rules.values()), own,
        list(self.book.references.get(key, [])),
    )

  def _edit(
      self, pool: Pool, proposals: Sequence[Proposal], step: int
  ) -> tuple[int, int]:
    """(edits applied, lines offered); what cannot be applied is logged."""
    added = applied = 0
    for proposal in proposals:
      try:
        edit = rules_lib.parse_edit(proposal.line)
        if edit.op == rules_lib.MERGE and not self._config.merge:
          raise EditError('MERGE is switched off')
        # Votes from outcomes carry no provenance and are not the reflector's.
        added += bool(proposal.provenance)
        if added > self._config.max_edits:
          raise EditError(f'more than {self._config.max_edits} edits')
      except EditError as error:
        pool.reject(proposal.line, str(error), step)
      else:
        applied += pool.apply(edit, step, proposal.provenance)
    return applied, len(proposals)

  def _conclude(self, case: Case, step: int) -> None:
    key = self.key(case.task)
    self.book.pool(key).prune(step)
    success = next((node for node in case.group.nodes if node.success), None)
    if success is not None:
      text = f'{case.task.instruction}\n{reflector.compact(success)}'
      self.book.remember(key, text, self._config.max_references)

  def _figures(self, applied: int, offered: int) -> dict[str, float]:
    scores = [r.score for p in self.book.pools.values() for r in p.rules.values()]
    return {
        'rules': float(len(scores)),
        'rule_utility': float(np.mean(scores or [0.0])),
        'edits': float(applied),
        'edits_without_effect': float(offered - applied),
    }


def notebook_of(run: Run) -> RuleNotebook:
  """An empty notebook for a run."""
  explore = run.config.explore
  reflection = Rules(
      explore.reflect_temperature, explore.max_reflection_tokens,
      run.transcript.stop_ids,
  )
  return RuleNotebook(run.world, run.config.jerp, reflection, run.config.seed)


def jerp(run: Run, directory: pathlib.Path) -> dict:
  """Trains policy and rules together."""
  del directory  # the phase's, as `tuned` knows

  def fit(config: Grpo, place: pathlib.Path) -> dict:
    notebook = notebook_of(run)
    result = OnlineTraining(run, 'jerp', place, 0.0, notebook, config).train()
    return {**result, 'rules': notebook.book.num_rules()}

  return tuned(run, JERP.name, run.config.grpo, fit, ('params', FILE))


def memory_at_test(run: Run) -> Memory:
  """The learnt rules of a task's pool, none for a pool that never was."""
  if not run.config.jerp.at_test:
    return no_memory
  notebook = notebook_of(run)
  directory = run.directory.phase(JERP.name).dir
  notebook.book = read_book(directory, limits_of(run.config.jerp))
  return notebook.recall


def remembered(run: Run) -> list[Remembered]:
  """The rules of all pools."""
  directory = run.directory.phase(JERP.name).dir
  book = read_book(directory, limits_of(run.config.jerp))
  return [
      Remembered(
          rule.text, key, '; '.join(rule.provenance), f'utility {rule.score:g}',
          rule.score, rule.n_used,
      )
      for key, pool in book.pools.items() for rule in pool.rules.values()
  ]  # fmt: skip


def _effort(config: Experiment) -> Effort:
  grpo = config.grpo
  asked = max(
      config.jerp.max_reflector_tokens,
      grpo.group_size * config.explore.max_reflection_tokens,
  )
  lessons = effort.asking(grpo.steps * grpo.tasks_per_step, asked)
  return effort.tuned(config, effort.optimising(config, 'jerp', asks=True) + lessons)


JERP = Phase('jerp', (*GRPO_READS, *ASK_READS, 'jerp'), jerp, _effort)

ARMS = (
    Arm(
        'jerp', 'GRPO with a pool of rules in the prompt', (JERP,), JERP.name,
        (JERP.name,), memory_at_test, remembered=remembered,
    ),
)
