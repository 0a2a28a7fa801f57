"""Scores what a run's trees say under the policy of an arm, for tools.watch.

    python -m tools.score_trees --run=DIR --arm=leafe
    python -m tools.score_trees --run=DIR --arm=base

A tree stores how likely a token was when it was sampled: by the base, and with the hint
in the prompt where there was one. This adds how likely the same responses are to an
arm's trained policy after the same history without any hint, so that one sees whether a
correction was learnt. Of the run scores/ARM.jsonl is written, a line a tree: `task_id`,
and `nodes`, per episode and turn the natural-log probabilities.
"""

from __future__ import annotations

import functools
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from leafe_jax import command_line, files, settings
from leafe_jax.experience import scores
from leafe_jax.learner.scoring import Scorer
from leafe_jax.methods import catalogue
from leafe_jax.methods.collect import load_trees
from leafe_jax.methods.run import Run
from leafe_jax.rundir import RunDirectory
from leafe_jax.tree import Tree

_CHUNK = 32  # trees that are packed together
_SOURCE = 'explore'


def score(rundir: pathlib.Path, arm: str, batch_rows: int = 8) -> pathlib.Path:
  """Writes the file, all of it or nothing, and returns its path.

  Args:
    rundir: of the run; its trees and the arm must be finished.
    arm: whose policy scores.
    batch_rows: rows of `policy.max_length` tokens that are scored at a time.

  Raises:
    FileNotFoundError: no run, or it has not come so far.
    ValueError: an unknown arm.
  """
  run, weights = _open(rundir), catalogue.find_arm(arm).weights
  for phase in (_SOURCE, weights):
    if not run.directory.phase(phase).done():
      raise FileNotFoundError(f'{rundir}: phase {phase} is not finished')
  trees = load_trees(run.directory.phase(_SOURCE).dir)
  out = rundir / 'scores' / f'{arm}.jsonl'
  out.parent.mkdir(exist_ok=True)
  partial = out.with_name(f'{out.name}{files.PARTIAL}')
  with partial.open('w', encoding='utf-8') as file:
    for tree, found in _scored(run, weights, trees, batch_rows):
      file.write(json.dumps({'task_id': tree.task_id, 'nodes': found}) + '\n')
  files.replace(partial, out)
  return out


def _open(rundir: pathlib.Path) -> Run:
  directory = RunDirectory(rundir, make=False)
  saved = directory.config() if rundir.is_dir() else None
  if saved is None:
    raise FileNotFoundError(f'no config.json of a run in {rundir}')
  config = settings.from_config_dict(saved)
  return Run(config, directory, settings.sha256(config))


def _scored(
    run: Run, weights: str, trees: Sequence[Tree], batch_rows: int
) -> Iterator[tuple[Tree, scores.OfTree]]:
  params = run.start(weights)
  scorer = Scorer(run.shape.policy, run.mesh, run.frozen_beneath(params))
  one = functools.partial(scorer, params)
  for start in range(0, len(trees), _CHUNK):
    part = trees[start : start + _CHUNK]
    found = scores.of_trees(part, one, run.shape.policy.max_length, batch_rows)
    yield from zip(part, found, strict=True)
    sys.stderr.write(f'{min(start + _CHUNK, len(trees))} of {len(trees)} trees\n')


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments: {argv[1:]}')
  values = flags.FLAGS
  try:
    print(score(pathlib.Path(values.run), values.arm, values.batch_rows))
  except ValueError as error:
    raise command_line.UsageError(str(error)) from error


def define_flags() -> None:
  """Defines the flags; by the program alone, as tools share their names."""
  command_line.define_path('run', None, 'Directory of the run.', required=True)
  flags.DEFINE_string('arm', 'leafe', 'Arm whose policy scores.')
  flags.DEFINE_integer(
      'batch_rows', 8, 'Rows that are scored at a time.', lower_bound=1
  )


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
