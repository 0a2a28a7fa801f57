"""Stage 1 as phases: trees by reflection and rollback, and other ways to spend.

All ways but the first spend, task by task, the environment steps that exploring
spent: independent samples, iterative refinement (arXiv 2603.16843, table 3),
and the controls, in which one part of the exploration is replaced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from envs import api
from leafe_jax.config import Experiment, Explore
from leafe_jax.methods.arms import BASE, STAGE1_READS, Phase
from leafe_jax.methods.collect import collect, stream_trees
from leafe_jax.methods.effort import Effort, exploring
from leafe_jax.methods.run import Run
from leafe_jax.rollout.grow import Limits


def exploration(name: str, start: str = BASE) -> Phase:
  """One tree per training task, grown by the weights of the phase `start`."""

  def explore(run: Run, directory: pathlib.Path) -> dict:
    config = run.config.explore
    limits = Limits(config.attempts, config.max_env_steps)
    return _collect(run, name, directory, config, lambda task: limits, start)

  def most(config: Experiment) -> Effort:
    return exploring(config, config.explore, config.explore.num_tasks)

  return Phase(name, STAGE1_READS, explore, most, explores=True, after=(start,))


def matched(name: str, **changes: Any) -> Phase:
  """Exploration with other options, at the environment steps of `explore`.

  A task on which that took no step (its prompt is too long, its world broke) is
  tried once, as 0 would mean no limit.
  """

  def body(run: Run, directory: pathlib.Path) -> dict:
    spent = {
        tree.task_id: tree.budget['env_steps']
        for tree in stream_trees(run.directory.phase(EXPLORE.name).dir)
    }
    config = dataclasses.replace(run.config.explore, **changes)

    def limits(task: api.Task) -> Limits:
      steps = spent[task.id]
      return Limits(0, steps) if steps else Limits(1, 0)

    return _collect(run, name, directory, config, limits, BASE)

  def most(config: Experiment) -> Effort:
    changed = dataclasses.replace(config.explore, **changes)
    return exploring(config, changed, config.explore.num_tasks)

  return Phase(
      name, STAGE1_READS, body, most, budget_of=EXPLORE, explores=True,
      after=(BASE, EXPLORE.name),
  )


EXPLORE = exploration('explore')
# Fresh episodes one by one.
SAMPLE = matched('sample', reflect_every=0, max_depth=0, num_roots=1, restart=True)
# Chains of four attempts, each told how the last one ended.
REFINE = matched(
    'refine', feedback='outcome', hint_scope='branch', reflect_every=0, max_depth=3,
    max_requests=1, num_roots=1, restart=True,
)
RANDOM_TURN = matched('explore_random_turn', turn='random')
NO_HINT = matched('explore_no_hint', feedback='none')
BRANCH_HINT = matched('explore_branch_hint', hint_scope='branch')
NOISY = matched('explore_noisy', replay_noise=0.3)


def _collect(
    run: Run,
    name: str,
    directory: pathlib.Path,
    config: Explore,
    limits: Callable[[api.Task], Limits],
    start: str,
) -> dict:
  tasks = run.tasks('train', config.num_tasks)
  with contextlib.closing(run.writer(name)) as writer:
    bill = collect(
        name, directory, run.player_of(start), tasks, config, limits,
        run.config.sampler.max_rows, writer,
    )
  return {'budget': bill.as_dict()}
