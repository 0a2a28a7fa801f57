"""Stage 1 as phases: trees by reflection and rollback, or what is compared."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Sequence

from envs import api
from leafe_jax.config import Explore
from leafe_jax.methods.arms import BASE, STAGE1_READS, Phase
from leafe_jax.methods.collect import collect, independent, load_trees
from leafe_jax.methods.run import Run
from leafe_jax.rollout.grow import Limits
from leafe_jax.rollout.ledger import total


def exploration(name: str, reads: Sequence[str], start: str = BASE) -> Phase:
  """One tree per training task, grown by the weights of the phase `start`."""

  def explore(run: Run, directory: pathlib.Path) -> dict:
    config = run.config.explore
    limits = Limits(config.attempts, config.max_env_steps)
    return _collect(run, name, directory, config, lambda task: limits, start)

  return Phase(name, tuple(reads), explore)


def sample(run: Run, directory: pathlib.Path) -> dict:
  """Independent episodes that spend, task by task, what exploring spent."""
  spent = {
      tree.task_id: tree.budget['env_steps']
      for tree in load_trees(run.directory.phase(EXPLORE.name).dir)
  }
  return _collect(
      run, 'sample', directory, independent(run.config.explore),
      lambda task: Limits(0, spent[task.id]), BASE,
  )


EXPLORE = exploration('explore', STAGE1_READS)
SAMPLE = Phase('sample', STAGE1_READS, sample)


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
    trees = collect(
        name, directory, run.player_of(start), tasks, config, limits,
        run.config.sampler.max_rows, writer,
    )
  return {'budget': total(tree.budget for tree in trees).as_dict()}
