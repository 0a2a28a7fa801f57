"""Pools finished runs, other seeds or other arms, made here or elsewhere.

    python -m tools.merge_results --runs=DIR,DIR,... --out=DIR

Runs of one seed must share their base; of an arm that several of them have,
the counts must agree. Writes results.json, study.md and report/index.html.
"""

from __future__ import annotations

import pathlib
import sys

from absl import flags

from leafe_jax import buckets, command_line, settings

_RUNS = flags.DEFINE_list('runs', None, 'Directories of runs.', required=True)
_OUT = command_line.define_path('out', None, 'Where to write.', required=True)


def main(argv: list[str]) -> int:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected argument {argv[1]!r}')
  if not _RUNS.value:
    raise command_line.UsageError('--runs names no directory')
  from leafe_jax.methods import study

  try:
    runs = [study.open_run(buckets.open_run(path)) for path in _RUNS.value]
    digest = settings.sha256(runs[0].config)
    page = study.write_pooled(runs, pathlib.Path(_OUT.value), digest)
  except ValueError as error:
    sys.stderr.write(f'merge_results: {error}\n')
    return 2
  print(pathlib.Path(_OUT.value) / 'study.md')
  print(page)
  return 0


if __name__ == '__main__':
  command_line.run(main)
