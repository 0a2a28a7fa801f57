"""One learning rate per arm, chosen on validation tasks by the same small sweep."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from absl import logging

from leafe_jax import buckets, hosts
from leafe_jax.endings import RunStopped
from leafe_jax.evaluation import results
from leafe_jax.files import PARTIAL, replace
from leafe_jax.methods.assess import assess
from leafe_jax.methods.run import Run
from leafe_jax.rundir import Phase, RunDirectory

C = TypeVar('C', bound=Any)  # a config section with a learning_rate


def tuned(
    run: Run,
    phase: str,
    config: C,
    fit: Callable[[C, pathlib.Path], dict[str, Any]],
    keep: tuple[str, ...] = ('params',),
) -> dict[str, Any]:
  """Trains with the configured learning rate, or with the best of a sweep.

  Args:
    run: the run; `config.tune` has the sweep.
    phase: whose weights these are; each try is a part of it, done once.
    config: of the training.
    fit: trains in a directory, where it leaves its weights as `params`.
    keep: what of the best try's directory becomes the phase's.

  Returns:
    What the (best) training returned, with the sweep.

  Raises:
    RunStopped: the run whose choice is to be taken over has made none.
  """
  directory = run.directory.phase(phase).dir
  factors = run.config.tune.factors
  if not factors:
    return fit(config, directory)
  if run.config.tune.like:
    rate = _chosen(run.directory.path / run.config.tune.like, phase)
    found = fit(dataclasses.replace(config, learning_rate=rate), directory)
    return {**found, 'learning_rate': rate}
  rates = [config.learning_rate * factor for factor in factors]
  tries = {rate: _try(run, phase, config, rate, fit) for rate in rates}
  best = max(tries, key=lambda rate: tries[rate]['validation'])
  logging.info('%s: learning rate %g of %s', phase, best, tries)
  for name in keep:
    source = directory / f'rate_{best:g}' / name
    hosts.first(functools.partial(_adopt, source, directory / name))
  scores = {f'{rate:g}': found['validation'] for rate, found in tries.items()}
  return {**tries[best], 'learning_rate': best, 'sweep': scores}


def _chosen(directory: pathlib.Path, phase: str) -> float:
  def read() -> float | None:
    found = RunDirectory(directory, make=False).phase(phase)
    if not found.done():
      return None
    found.check()
    return found.result().get('learning_rate')

  rate = hosts.first(read)
  if rate is None:
    raise RunStopped(
        f'tune.like: {directory} has no learning rate that was chosen for {phase}; '
        'run that arm there first, or sweep here (--config.tune.like=)'
    )
  return rate


def _try(
    run: Run,
    phase: str,
    config: C,
    rate: float,
    fit: Callable[[C, pathlib.Path], dict[str, Any]],
) -> dict[str, Any]:
  place = run.directory.phase(f'{phase}/rate_{rate:g}')
  if not hosts.first(place.done):
    found = fit(dataclasses.replace(config, learning_rate=rate), place.dir)
    score = {**found, 'validation': _judge(run, place)}
    hosts.first(functools.partial(place.complete, score))
  return place.result()


def _judge(run: Run, place: Phase) -> float:
  """Mean of Pass@1 and Pass@n on validation tasks."""
  tune = run.config.tune
  evaluate = dataclasses.replace(
      run.config.evaluate, num_samples=tune.num_samples, keep_episodes=0
  )
  episodes = place.dir / 'validation'
  episodes.mkdir(exist_ok=True)
  outcomes = assess(
      f'judge {place.dir.parent.name}', episodes, run.player_of(place.name),
      run.tasks('validation', tune.num_tasks), evaluate,
      run.config.explore.max_response_tokens, run.config.sampler.max_rows,
  )
  counts = results.count(place.name, outcomes, evaluate.temperature)
  return float(np.mean(counts.pass_at((1, tune.num_samples))))


def _adopt(source: pathlib.Path, target: pathlib.Path) -> None:
  partial = target.with_name(f'{target.name}{PARTIAL}')
  if source.is_dir():
    shutil.copytree(source, partial, dirs_exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    buckets.copy_arrays(source, target, partial)
  else:
    shutil.copyfile(source, partial)
  replace(partial, target)
