"""The bodies of the phases: each reads what came before and writes its own."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable

from absl import logging

from envs import api
from leafe_jax.config import Explore
from leafe_jax.experience import dataset
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.methods import leafe
from leafe_jax.methods.assess import assess
from leafe_jax.methods.collect import collect, independent, load_trees
from leafe_jax.methods.gate import run_gate
from leafe_jax.methods.leafe import Arm
from leafe_jax.methods.reporting import report
from leafe_jax.methods.run import Run
from leafe_jax.methods.training import train_on
from leafe_jax.methods.warm_start import import_checkpoint, warm_start
from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.grow import Limits
from leafe_jax.rollout.ledger import total
from leafe_jax.rollout.timing import Meter
from leafe_jax.rundir import RunStopped

Body = Callable[[Run, pathlib.Path], dict]

__all__ = ['base', 'distill', 'evaluate', 'explore', 'gate', 'report', 'sample']

_BASE = leafe.ARMS['base']


def base(run: Run, directory: pathlib.Path) -> dict:
  """The policy that everything starts from."""
  if run.config.policy.checkpoint:
    return import_checkpoint(run, directory)
  return warm_start(run, directory)


def _base_player(run: Run) -> Player:
  params = load_params(run.params_path('warm_start'), run.abstract_params())
  return run.player(params, _BASE.version)


def gate(run: Run, directory: pathlib.Path) -> dict:
  """Refuses to explore with a base that cannot reflect."""
  del directory
  config = run.config
  tasks = run.tasks('validation', config.gate.num_tasks)
  teacher = run.teacher(reflection_quality=1.0)  # the script without its mistakes
  result = run_gate(_base_player(run), tasks, teacher, config)
  logging.info('gate: %s', result)
  return dataclasses.asdict(result)


def explore(run: Run, directory: pathlib.Path) -> dict:
  """Stage 1: one tree per training task."""
  config = run.config.explore
  limits = Limits(config.attempts, config.max_env_steps)
  return _collect(run, 'explore', directory, config, lambda task: limits)


def sample(run: Run, directory: pathlib.Path) -> dict:
  """Independent episodes that spend, task by task, what exploring spent."""
  spent = {
      tree.task_id: tree.budget['env_steps']
      for tree in load_trees(run.directory.phase('explore').dir)
  }
  return _collect(
      run, 'sample', directory, independent(run.config.explore),
      lambda task: Limits(0, spent[task.id]),
  )


def _collect(
    run: Run,
    name: str,
    directory: pathlib.Path,
    config: Explore,
    limits: Callable[[api.Task], Limits],
) -> dict:
  tasks = run.tasks('train', config.num_tasks)
  player = _base_player(run)
  meter = Meter(player.clock, player.sampler.stats)
  with contextlib.closing(run.writer(name)) as writer:
    trees = collect(
        name, directory, player, tasks, config, limits,
        run.config.sampler.max_rows, writer,
    )
  logging.info('%s: %s', name, meter.figures())
  budget = total(tree.budget for tree in trees).as_dict()
  return {'budget': budget, 'speed': meter.figures()}


def distill(arm: Arm) -> Body:
  """Stage 2 of an arm: from its trees to its weights."""

  def body(run: Run, directory: pathlib.Path) -> dict:
    config = run.config
    trees = load_trees(run.directory.phase(arm.source).dir)
    found, summary = leafe.examples_of(arm, trees, config.experience, config.seed)
    if not found:
      raise RunStopped(
          f'arm {arm.name!r} has nothing to learn from: no tree of phase '
          f'{arm.source!r} holds a success. Explore more tasks '
          '(--config.explore.num_tasks) or start from a better base.'
      )
    dataset.write(directory / 'data', found)
    params = load_params(run.params_path('warm_start'), run.abstract_params())
    metrics = train_on(
        run, f'distill {arm.name}', directory, params,
        dataset.read(directory / 'data'), config.distill,
        {'reh': config.distill.beta if arm.counterfactual else 1.0},
    )
    return {'experience': summary, **metrics}

  return body


def evaluate(arm: Arm) -> Body:
  """n samples per task of the arm's policy."""

  def body(run: Run, directory: pathlib.Path) -> dict:
    config = run.config
    phase = f'distill/{arm.name}' if arm.source else 'warm_start'
    params = load_params(run.params_path(phase), run.abstract_params())
    player = run.player(params, arm.version)
    meter = Meter(player.clock, player.sampler.stats)
    outcomes = assess(
        f'evaluate {arm.name}', directory, player,
        run.tasks(config.evaluate.split, config.evaluate.num_tasks),
        config.evaluate, config.explore.max_response_tokens,
        config.sampler.max_rows,
    )
    logging.info('evaluate %s: %s', arm.name, meter.figures())
    budget = total(outcome.budget for outcome in outcomes).as_dict()
    return {'budget': budget, 'speed': meter.figures()}

  return body
