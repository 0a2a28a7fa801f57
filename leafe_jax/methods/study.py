"""A study: the same arms over several seeds, pooled into one report.

Each seed is a run of its own in `seed_S`, with its own base that its arms
share; any of them can be made on another machine, or with other arms, and
merged (`tools.merge_results`).
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from leafe_jax import hosts, redaction, settings
from leafe_jax.config import Experiment, Study
from leafe_jax.endings import EarlyEnd
from leafe_jax.evaluation import markdown, pooling, strategies, tables
from leafe_jax.evaluation import results as results_lib
from leafe_jax.evaluation.report import write_report
from leafe_jax.evaluation.results import ArmCounts
from leafe_jax.evaluation.tasksets import TaskSet
from leafe_jax.files import DONE, write_atomic
from leafe_jax.methods.catalogue import arms_of
from leafe_jax.methods.collect import load_trees
from leafe_jax.methods.phases import evaluate_name
from leafe_jax.methods.reporting import (
  budget_of,
  counts_of,
  spelling_of,
  tasks_of,
  transcripts_of,
  trees_of,
)
from leafe_jax.methods.run import BASE, IMPORT, Run, is_cold
from leafe_jax.rollout.ledger import total
from leafe_jax.rundir import RunDirectory
from leafe_jax.standing import share

OneRun = Callable[[Experiment, pathlib.Path, str], None]
# Stage-1 phases that are compared as ways to spend a budget.
_STRATEGIES = (
    'sample', 'refine', 'explore', 'explore_no_hint', 'explore_random_turn',
    'explore_branch_hint', 'explore_noisy',
)  # fmt: skip


def seeds_of(config: Experiment) -> dict[str, Experiment]:
  """Directory -> config of each seed's run; all train as the first one's sweep says."""
  found = {}
  for seed in config.study.seeds:
    like = f'../{next(iter(found))}' if found and config.tune.factors else ''
    tune = dataclasses.replace(config.tune, like=config.tune.like or like)
    found[f'seed_{seed}'] = dataclasses.replace(
        config, seed=seed, study=Study(), tune=tune
    )
  return found


def run_study(
    config: Experiment, workdir: pathlib.Path, run_one: OneRun, *, pools: bool = True
) -> None:
  """Makes or resumes every seed's run, then pools them in `workdir`.

  A seed that comes to an early end is left out, and named. EarlyEnd if all do.
  """
  runs, gaps = [], {}
  for name, seed_config in seeds_of(config).items():
    directory = RunDirectory(workdir / name)
    hosts.first(lambda d=directory, c=seed_config: d.save_config(settings.to_dict(c)))
    digest = settings.sha256(seed_config)
    logging.info('study: %s', directory.path)
    if runs and is_cold(config):
      hosts.first(lambda d=directory: share(runs[0].directory, d, (IMPORT, BASE)))
    try:
      run_one(seed_config, directory.path, digest)
    except EarlyEnd as error:
      logging.warning('study: %s ended early: %s', name, error)
      gaps[str(seed_config.seed)] = str(error)
    else:
      runs.append(Run(seed_config, directory, digest))
  if not runs:
    raise EarlyEnd(f'no seed of the study came to its end: {next(iter(gaps.values()))}')
  if pools:
    digest = settings.sha256(config)
    hosts.first(lambda: str(write_pooled(runs, workdir, digest, gaps)))


def open_run(path: pathlib.Path) -> Run:
  """A finished run, as it was sealed.

  Raises:
    ValueError: there is none, or an arm of it was not evaluated.
    RunStopped: a file of it is not what was written.
  """
  directory = RunDirectory(path, make=False)
  found = directory.config()
  if found is None or not (path / 'results.json').exists():
    raise ValueError(f'{path} holds no finished run (config.json, results.json)')
  for marker in sorted(path.rglob(DONE)):
    directory.phase(str(marker.parent.relative_to(path))).check()
  config = settings.from_config_dict(found)
  for arm in arms_of(config):
    if not directory.phase(evaluate_name(arm.name)).done():
      raise ValueError(f'{path}: {evaluate_name(arm.name)} is not finished')
  return Run(config, directory, settings.sha256(config))


def write_pooled(
    runs: Sequence[Run],
    out: pathlib.Path,
    digest: str,
    gaps: Mapping[str, str] | None = None,
) -> pathlib.Path:
  """results.json, study.md and the report of all runs together; returns the page.

  Args:
    runs: finished ones.
    out: where to write.
    digest: identifies the config.
    gaps: seed -> why it has no run among them.

  Raises:
    ValueError: runs that cannot be compared.
  """
  _check_sampling(runs)
  out.mkdir(parents=True, exist_ok=True)
  results = pooled_results(runs, digest)
  if gaps:
    results['gaps'] = dict(gaps)
  results_lib.write_results(out / 'results.json', results)
  write_atomic(out / 'study.md', markdown.render(results))
  page = write_report(
      out / 'report', results, trees_of(runs[0]),
      redaction.config_text(runs[0].config), name=out.name,
      transcripts=transcripts_of(runs[0]), spelling=spelling_of(runs[0]),
  )
  logging.info('\n%s\nreport: %s', tables.render_tables(results), page)
  return page


def _check_sampling(runs: Sequence[Run]) -> None:
  """ValueError for runs that were evaluated under different rules."""
  for name in ('top_k', 'top_p', 'min_p', 'stop_strings'):
    values = {getattr(run.config.evaluate, name) for run in runs}
    if len(values) > 1:
      found = ' and '.join(sorted(map(str, values)))
      raise ValueError(f'the runs have evaluate.{name} {found}; need the same')


def pooled_results(runs: Sequence[Run], digest: str) -> dict[str, Any]:
  """As results.json of one run, figures being means over seeds; and 'per_seed'."""
  config = runs[0].config
  resamples = config.evaluate.bootstrap
  seeds = _by_seed(runs, None)
  arms = pooling.pool(seeds)
  results = results_lib.compare(arms, resamples)
  at = {
      f'{t:g}': results_lib.compare(pooling.pool(_by_seed(runs, t)), resamples)
      for t in config.evaluate.more_temperatures
  }
  return {
      **results,
      **results_lib.describe_tasks(arms, _tasks(runs), resamples),
      'per_seed': pooling.per_seed(seeds),
      **({'at_temperature': at} if at else {}),
      'strategies': _strategies(runs, resamples),
      'budget': {
          name: total(
              budget_of(run, arm)
              for run in runs for arm in arms_of(run.config) if arm.name == name
          ).as_dict()
          for name in results['arms']
      },
      'stage1': {},
      'gates': {
          str(run.config.seed): run.directory.phase('gate').result()
          for run in runs if run.directory.phase('gate').done()
      },
      'config_sha256': digest,
      'seeds': {f'run {i}': run.config.seed for i, run in enumerate(runs)},
      'bootstrap': {
          'over': 'tasks', 'resamples': resamples, 'seed': 0, 'level': 0.95,
      },
      'wall_s': {
          f'seed {run.config.seed}': round(sum(run.directory.wall_times().values()), 1)
          for run in runs
      },
  }  # fmt: skip


def _tasks(runs: Sequence[Run]) -> TaskSet:
  """Those of the first run, which the others must have been asked as well."""
  first, *others = map(tasks_of, runs)
  for other in others:
    first.check_same(other)
  return first


def _by_seed(
    runs: Sequence[Run], temperature: float | None
) -> dict[int, dict[str, ArmCounts]]:
  """seed -> arm -> counts; runs of one seed complete each other."""
  seeds: dict[int, dict[str, ArmCounts]] = {}
  for run in runs:
    arms = seeds.setdefault(run.config.seed, {})
    for counts in counts_of(run, temperature):
      known = arms.setdefault(counts.name, counts)
      if list(known.successes) != list(counts.successes):
        raise ValueError(
            f'seed {run.config.seed} has two different arms {counts.name!r}: the '
            'runs do not share a base'
        )
  return seeds


def _strategies(runs: Sequence[Run], resamples: int) -> dict[str, Any]:
  """Each Stage-1 phase that all runs have, tasks of all seeds together."""
  found = {}
  for name in _STRATEGIES:
    places = [run.directory.path / name for run in runs]
    if all((place / 'DONE.json').exists() for place in places):
      trees = [_tagged(run, load_trees(p)) for run, p in zip(runs, places)]
      if all(trees):
        found[name] = list(itertools.chain.from_iterable(trees))
  return strategies.compare(found, resamples) if found else {}


def _tagged(run: Run, trees: list) -> list:
  """The trees, their tasks named apart by seed."""
  return [
      dataclasses.replace(tree, task_id=f'{run.config.seed}/{tree.task_id}')
      for tree in trees
  ]
