"""How fast the environments are, beside their packages' own interfaces.

  python -m tools.bench_envs [--only=webshop,sokoban] [--repeats=5] [--seconds=0.5] \\
      [--json=FILE] [--baseline=tools/baselines/envs.json]

Every environment of `tools/bench_cases.py` whose packages are installed plays the
same 20 actions again and again: steps, resets, snapshots, restores, and 'replay',
a reset and the 20 actions, which is what going back would cost without snapshots.
Repeats are interleaved, ours and the package's side by side, and figures are
median (min..max) over them. Ratios bear a busy machine, rates do not:

  vs own   our steps/s over those of the package's own interface
  gain     replay time over restore time

With --workers=0,1,2 it measures instead how many steps, each with a snapshot, 32
sessions take a second in so many worker processes (`tools/bench_workers.py`; 0: in
process); worlds of real programs and of waiting join the rows. With --fleet=ray the
workers are behind Ray, on this machine.

--json writes the figures; --baseline compares the medians of the ratios and shows
in red what fell by more than 10 %.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rich.console
import rich.table
from absl import flags

from envs import api, registry
from leafe_jax import command_line
from tools import bench_cases, bench_workers
from tools.bench_cases import CASES, Case

_ONLY = flags.DEFINE_list('only', [], 'Rows whose names start so; empty for all.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Interleaved repeats.', lower_bound=1)
_SECONDS = flags.DEFINE_float(
    'seconds', 0.5, 'Time of each repeat of a row.', lower_bound=0
)
_WORKERS = flags.DEFINE_list(
    'workers', [], 'Numbers of worker processes to compare; empty: no comparison.'
)
_FLEET = flags.DEFINE_enum(
    'fleet', 'process', ('process', 'ray'),
    'What the workers are, with --workers: processes, or actors of Ray.',
)  # fmt: skip
_JSON = command_line.define_path('json', '', 'Where to write the figures.')
_BASELINE = command_line.define_path('baseline', '', 'Figures to compare with.')

RATIOS = ('vs own', 'gain')
_TOLERANCE = 0.1
_UNITS = {
    'steps/s': 1.0, 'own steps/s': 1.0, 'reset ms': 1e3, 'snapshot us': 1e6,
    'restore us': 1e6, 'replay ms': 1e3,
}  # fmt: skip
Spread = tuple[float, float, float]


class Row:
  """One environment being measured.

  Attributes:
    samples: figure to a value per repeat.
    extra: further figures, measured once.
    num_bytes: size of the snapshot after the walk.
    note: why there is no interface to compare with; empty where there is.
  """

  def __init__(self, case: Case):
    self._case = case
    self._world = registry.make(case.env, **case.options)
    self._task = self._world.tasks('train')[0]
    self._session = self._world.session()
    self._walk = bench_cases.find_walk(case, self._session, self._task)
    self.note = case.missing_reference()
    self._reference = case.reference() if case.reference and not self.note else None
    self.num_bytes = 0
    self.samples: dict[str, list[float]] = {}
    self.extra: dict[str, float] = {}

  def measure(self, seconds: float) -> None:
    """One repeat: episodes until the time is up."""
    spent: dict[str, list[float]] = {}

    def clock(name: str, work: Callable[[], Any], times: int = 1) -> Any:
      start = time.perf_counter()
      result = work()
      taken = (time.perf_counter() - start) / times
      spent.setdefault(name, []).append(taken)
      return result

    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not spent:
      self._episode(clock)
    for name, taken in spent.items():
      value = statistics.median(taken)  # a neighbour's burst is not ours
      value = 1 / value if name.endswith('/s') else value * _UNITS[name]
      self.samples.setdefault(name, []).append(value)
    newest = {name: values[-1] for name, values in self.samples.items()}
    gain = newest['replay ms'] * 1e3 / newest['restore us']
    self.samples.setdefault('gain', []).append(gain)
    if self._reference is not None:
      ratio = newest['steps/s'] / newest['own steps/s']
      self.samples.setdefault('vs own', []).append(ratio)

  def _episode(self, clock: Callable[..., Any]) -> None:
    session, walk = self._session, self._walk
    clock('reset ms', lambda: session.reset(self._task))
    clock('steps/s', lambda: _take(session, walk), len(walk))
    snapshot = clock('snapshot us', session.snapshot)
    self.num_bytes = snapshot.num_bytes
    clock('restore us', lambda: session.restore(snapshot))
    clock('replay ms', lambda: (session.reset(self._task), _take(session, walk)))
    if self._reference is not None:
      self._reference.reset()
      clock('own steps/s', lambda: _take(self._reference, walk), len(walk))

  def finish(self, seconds: float) -> None:
    """Measures what is measured once, and frees the world."""
    if self._case.extra is not None:
      self.extra = dict(self._case.extra(seconds))
    self._world.close()

  def figures(self) -> dict[str, Any]:
    """All of it, of JSON types."""
    spreads = {name: list(spread(values)) for name, values in self.samples.items()}
    return {**spreads, 'snapshot bytes': self.num_bytes, 'extra': self.extra}


def _take(player: Any, walk: Sequence[str]) -> None:
  for action in walk:
    player.step(action)


def spread(values: Sequence[float]) -> Spread:
  """(min, median, max)."""
  return min(values), statistics.median(values), max(values)


def measure(
    names: Sequence[str], repeats: int, seconds: float
) -> tuple[dict[str, Row], dict[str, str]]:
  """Measured rows, and why others were skipped."""
  rows, skipped = {}, {}
  for name in names:
    if reason := CASES[name].missing():
      skipped[name] = reason
      continue
    try:
      rows[name] = Row(CASES[name])
    except (ValueError, TypeError, OSError, ImportError, api.EnvError) as error:
      skipped[name] = f'{type(error).__name__}: {error}'
  for _, row in itertools.product(range(repeats), rows.values()):
    row.measure(seconds)
  for row in rows.values():
    row.finish(seconds)
  return rows, skipped


def regressions(
    rows: Mapping[str, Mapping[str, Any]], baseline: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, str], float]:
  """(row, ratio) -> change of its median, where it fell by more than 10 %."""
  fallen = {}
  for name, ratio in itertools.product(rows, RATIOS):
    before = baseline.get(name, {}).get(ratio)
    after = rows[name].get(ratio)
    if before and after and after[1] < before[1] * (1 - _TOLERANCE):
      fallen[name, ratio] = after[1] / before[1] - 1
  return fallen


def show(
    rows: Mapping[str, Row], skipped: Mapping[str, str], baseline: Mapping[str, Any]
) -> None:
  """Prints the table."""
  columns = (*_UNITS, *RATIOS)
  table = rich.table.Table('environment', 'bytes', *columns)
  fallen = regressions({name: row.figures() for name, row in rows.items()}, baseline)
  for name, row in rows.items():
    cells = [
        _cell(row.samples.get(column), fallen.get((name, column)))
        for column in columns
    ]
    table.add_row(name, f'{row.num_bytes:,}', *cells)
  console = rich.console.Console(width=None if sys.stdout.isatty() else 240)
  console.print(table)
  for name, row in rows.items():
    for what, value in row.extra.items():
      console.print(f'{name}: {what} {_number(value)}')
    if row.note:
      console.print(f'{name}: not compared, {row.note}')
  for name, reason in skipped.items():
    console.print(f'{name}: skipped, {reason}')


def _cell(values: Sequence[float] | None, change: float | None) -> str:
  if not values:
    return '-'
  low, middle, high = map(_number, spread(values))
  text = f'{middle} ({low}..{high})'
  return text if change is None else f'[bold red]{text} {change:+.0%}[/]'


def _number(value: float) -> str:
  return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def compare_workers(names: Sequence[str]) -> None:
  """Measures and prints steps per second by number of workers."""
  if not all(count.isdecimal() for count in _WORKERS.value):
    raise command_line.UsageError(
        f'--workers={",".join(_WORKERS.value)}: numbers of processes, such as 0,1,2'
    )
  cases = {name: CASES[name] for name in names if not CASES[name].missing()}
  if any(name.startswith('codecontests') for name in names):
    cases['codecontests programs'] = bench_workers.PROGRAMS
  cases['a world that waits 5 ms'] = bench_workers.WAITING
  counts = [int(count) for count in _WORKERS.value]
  found = bench_workers.measure(
      cases, counts, _REPEATS.value, _SECONDS.value, _FLEET.value
  )
  table = rich.table.Table('steps/s', *next(iter(found.values()), {}))
  for name, figures in found.items():
    table.add_row(name, *(_cell(values, None) for values in figures.values()))
  rich.console.Console(width=None if sys.stdout.isatty() else 120).print(table)
  if _JSON.value:
    text = json.dumps({'cores': os.cpu_count(), 'steps/s': found}, indent=1)
    pathlib.Path(_JSON.value).write_text(f'{text}\n', 'utf-8')


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments: {argv[1:]}')
  names = [
      name for name in CASES if not _ONLY.value or name.startswith(tuple(_ONLY.value))
  ]
  if not names:
    raise command_line.UsageError(
        f'--only={",".join(_ONLY.value)}: choose from {", ".join(CASES)}'
    )
  if _WORKERS.value:
    compare_workers(names)
    return
  if _FLEET.value != 'process':
    raise command_line.UsageError(f'--fleet={_FLEET.value} needs --workers=1,2,...')
  baseline = {}
  if _BASELINE.value:
    baseline = json.loads(pathlib.Path(_BASELINE.value).read_text('utf-8'))['rows']
  rows, skipped = measure(names, _REPEATS.value, _SECONDS.value)
  show(rows, skipped, baseline)
  if _JSON.value:
    machine = f'{platform.machine()}, {os.cpu_count()} cores, Python {sys.version[:6]}'
    figures = {
        'machine': machine.strip(),
        'command': ' '.join(['python -m tools.bench_envs', *sys.argv[1:]]),
        'skipped': skipped,
        'rows': {name: row.figures() for name, row in rows.items()},
    }
    pathlib.Path(_JSON.value).write_text(json.dumps(figures, indent=1) + '\n', 'utf-8')


if __name__ == '__main__':
  command_line.run(main)
