"""Results of benchmarks: ratios, files, and comparison with a baseline.

A file holds one result per preset: `{preset: {'ratios': {name: {'min', 'median',
'max'}}, ...}}`.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any

REGRESSION = 0.9  # of the baseline's median
_RED, _PLAIN = '\033[31m', '\033[0m'


def spread(values: Sequence[float]) -> dict[str, float]:
  return {
      'min': min(values),
      'median': statistics.median(values),
      'max': max(values),
  }


def command(program: str) -> str:
  """How this process was called, without the paths of this machine."""
  paths = ('--json', '--baseline', '--tunix_python', '--torch_python')
  kept = [argument for argument in sys.argv[1:] if not argument.startswith(paths)]
  return ' '.join([f'python -m tools.{program}', *kept])


def save(path: str, preset: str, result: dict[str, Any]) -> None:
  """Puts a preset's result into a file; what was not measured again stays."""
  target = pathlib.Path(path)
  results = json.loads(target.read_text()) if target.exists() else {}
  before = results.get(preset, {})
  parts = {
      name: before.get(name, {}) | value
      for name, value in result.items()
      if isinstance(value, dict)
  }
  target.parent.mkdir(parents=True, exist_ok=True)
  results[preset] = before | result | parts
  target.write_text(json.dumps(results, indent=1) + '\n')


def load(path: str, preset: str) -> dict[str, Any]:
  """A preset's result. ValueError: the file has none."""
  results = json.loads(pathlib.Path(path).read_text())
  if preset not in results:
    raise ValueError(f'no preset {preset!r} in {path}: it has {sorted(results)}')
  return results[preset]


def ratio_lines(
    result: dict[str, Any], baseline: dict[str, Any] | None = None
) -> Iterator[str]:
  """A line per ratio; red where it is below 90 % of the baseline's."""
  before = baseline['ratios'] if baseline else {}
  for name, ratio in result['ratios'].items():
    line = (
        f'  {name:<44}{ratio["median"]:9.2f}x'
        f'   [{ratio["min"]:.2f}, {ratio["max"]:.2f}]'
    )
    if name in before:
      line += f'   baseline {before[name]["median"]:.2f}x'
      if ratio['median'] < REGRESSION * before[name]['median']:
        line = f'{_RED}{line}  REGRESSION{_PLAIN}'
    yield line
