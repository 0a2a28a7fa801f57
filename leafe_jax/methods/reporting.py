"""The last phase: figures, tables and the page, from what the others left."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from absl import logging

from leafe_jax import settings
from leafe_jax.evaluation import results as results_lib
from leafe_jax.evaluation import stage1, tables
from leafe_jax.evaluation.report import write_report
from leafe_jax.methods.assess import load_outcomes
from leafe_jax.methods.collect import load_trees
from leafe_jax.methods.leafe import find_arm
from leafe_jax.methods.run import Run
from leafe_jax.rollout.ledger import Ledger


def report(run: Run, directory: pathlib.Path) -> dict[str, Any]:
  """Writes results.json, passk.png and report/index.html; logs the tables."""
  del directory  # the report belongs to the run, not to a phase
  results = collect_results(run)
  root = run.directory.path
  results_lib.write_results(root / 'results.json', results)
  page = write_report(
      root / 'report', results, _trees(run),
      json.dumps(settings.to_dict(run.config), indent=2), name=root.name,
  )
  writer = run.writer('evaluate')
  for arm, figures in results['arms'].items():
    for k, point in figures['pass_at_k'].items():
      writer.write(int(k), {f'pass_at_k/{arm}': point['mean']})
  writer.close()
  logging.info('\n%s\nreport: %s', tables.render_tables(results), page)
  return {'page': str(page.relative_to(root))}


def collect_results(run: Run) -> dict[str, Any]:
  """The content of results.json; see `evaluation.results.build_results`.

  `speed` is added: phase -> seconds and tokens (`rollout.timing.Meter`). Like
  `wall_s` it differs between runs.
  """
  config = run.config
  arms = [
      results_lib.count(
          name, load_outcomes(run.directory.phase(f'evaluate/{name}').dir),
          config.evaluate.temperature,
      )
      for name in config.arms
  ]
  results = results_lib.build_results(
      arms,
      config_sha256=run.config_sha256,
      seeds={'run': config.seed},
      budget={name: _budget(run, name) for name in config.arms},
      stage1=stage1.describe(_trees(run)),
      wall_s=run.directory.wall_times(),
      resamples=config.evaluate.bootstrap,
  )
  return {**results, 'speed': run.directory.speeds()}


def _trees(run: Run) -> list:
  return load_trees(run.directory.phase('explore').dir)


def _budget(run: Run, name: str) -> dict[str, int]:
  """What the arm's experience cost; the base and evaluation cost none of it."""
  source = find_arm(name).source
  if not source:
    return Ledger().as_dict()
  return run.directory.phase(source).result()['budget']
