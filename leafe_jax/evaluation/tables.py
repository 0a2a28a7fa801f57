"""The tables at the end of a run: arms by k, with intervals; types of tasks."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

KEY_KS = (1, 4, 16, 64, 128)
MANY_ARMS = 5
_TROUBLES = {
    'overlong_share': 'Ended as overlong (no room in policy.max_length)',
    'cut_off_share': 'Turns cut off (no end within explore.max_response_tokens)',
    'invalid_turn_share': 'Turns without a valid action, those cut off among them',
}


def shown_ks(results: Mapping[str, Any], wanted: tuple[int, ...] = KEY_KS) -> list[str]:
  """The k to put in a table: those wanted that exist, and always n."""
  existing = list(next(iter(results['arms'].values()))['pass_at_k'])
  return [k for k in existing if int(k) in wanted or k == existing[-1]]


def end_ks(results: Mapping[str, Any]) -> list[str]:
  """The least and the greatest k, for tables that have room for no more."""
  ks = shown_ks(results)
  return list(dict.fromkeys((ks[0], ks[-1])))


def shown_pairs(results: Mapping[str, Any]) -> Mapping[str, Any]:
  """The differences to put in a table: of many arms those with the two ends.

  The ends are the first arm and `leafe`; all others are in results.json.
  """
  if len(results['arms']) <= MANY_ARMS:
    return results['paired']
  ends = set(shown_arms(results))
  return {
      pair: figures
      for pair, figures in results['paired'].items()
      if ends & set(pair.split(' - '))
  }


def shown_arms(results: Mapping[str, Any]) -> list[str]:
  """The arms to put in a table by type: of many the two ends, as above."""
  arms = list(results['arms'])
  if len(arms) <= MANY_ARMS:
    return arms
  return [arm for arm in arms if arm in (arms[0], 'leafe')]


def flat(results: Mapping[str, Any]) -> tuple[list[str], list[list[str | float]]]:
  """Pass@k of all arms and their differences, for programs: columns and rows.

  A row has the arm, or the pair 'A - B'; k; and the mean with the ends of its 95 %
  interval, all of [0, 1] or, of a pair, [-1, 1].
  """
  curves = {name: arm['pass_at_k'] for name, arm in results['arms'].items()}
  rows: list[list[str | float]] = [
      [name, int(k), point['mean'], point['lo'], point['hi']]
      for name, points in {**curves, **results.get('paired', {})}.items()
      for k, point in points.items()
      if k.isdigit()  # others are tests over all k
  ]
  return ['arm', 'k', 'mean', 'lo', 'hi'], rows


def build_tables(results: Mapping[str, Any]) -> Group:
  """Pass@k of every arm, the paired differences and, where tasks are of several
  types, Pass@k by type, for a rich console."""
  arms = [_arms_table(results), *map(Text, trouble_notes(results))]
  parts = [*arms, Text(), _paired_table(results)]
  if results.get('by_type'):
    parts += [Text(), _types_table(results)]
  if results.get('tasks'):
    parts += [Text(), Text(describe_tasks(results['tasks']))]
  return Group(*parts)


def trouble_notes(results: Mapping[str, Any]) -> list[str]:
  """A sentence for each kind of trouble that some arm had, with its share in %."""
  notes = []
  for share, title in _TROUBLES.items():
    found = [
        f'{name} {100 * figures[share]:.1f} %'
        for name, figures in results['arms'].items()
        if figures.get(share)
    ]
    if found:
      notes.append(f'{title}: {", ".join(found)}.')
  return notes


def describe_tasks(tasks: Mapping[str, Any]) -> str:
  """Split, number and digest in one line."""
  digest = tasks['sha256'] or 'not recorded'
  return f'{tasks["count"]} tasks of the {tasks["split"]} split, sha256 {digest}'


def _new_table(title: str, first: str, columns: list[str]) -> Table:
  table = Table(
      title=title, title_justify='left', title_style='bold', box=box.SIMPLE_HEAD,
      pad_edge=False,
  )
  table.add_column(first, no_wrap=True)
  for column in columns:
    table.add_column(column, justify='right', no_wrap=True)
  return table


def _arms_table(results: Mapping[str, Any]) -> Table:
  ks, arms = shown_ks(results), results['arms']
  first = next(iter(arms.values()))
  table = _new_table(
      f'Pass@k in %, {first["n_tasks"]} tasks x {first["n_samples"]} samples, '
      'with 95 % intervals over tasks',
      'arm', [*(f'@{k}' for k in ks), 'score', 'turns'],
  )
  best = {k: max(a['pass_at_k'][k]['mean'] for a in arms.values()) for k in ks}
  for name, figures in arms.items():
    cells = [
        _cell(figures['pass_at_k'][k], figures['pass_at_k'][k]['mean'] == best[k])
        for k in ks
    ]
    table.add_row(
        name, *cells, f'{figures["mean_score"]:.3f}', f'{figures["mean_turns"]:.1f}'
    )
  return table


def _cell(
    point: Mapping[str, float], bold: bool, signed: bool = False, mark: str = ''
) -> Text:
  sign = '+' if signed else ''
  mean, lo, hi = (f'{100 * point[end]:{sign}.1f}' for end in ('mean', 'lo', 'hi'))
  text = Text(f'{mean}{mark}', style='bold' if bold else '')
  return text.append(f'\n{lo} {hi}', style='not bold dim')


def excludes_zero(point: Mapping[str, float]) -> bool:
  """Whether the interval of a difference leaves out 0."""
  return point['lo'] > 0 or point['hi'] < 0


def _paired_table(results: Mapping[str, Any]) -> Table:
  ks = shown_ks(results)
  table = _new_table(
      'Paired differences in points; * where the interval excludes 0; p: McNemar',
      'arms', [*(f'@{k}' for k in ks), f'p @{ks[-1]}'],
  )
  for name, figures in shown_pairs(results).items():
    cells = []
    for k in ks:
      differs = excludes_zero(figures[k])
      mark = '*' if differs else ' '
      cells.append(_cell(figures[k], differs, signed=True, mark=mark))
    table.add_row(name, *cells, f'{figures["mcnemar_p"]:.2g}')
  return table


def _types_table(results: Mapping[str, Any]) -> Table:
  ks, arms = end_ks(results), shown_arms(results)
  title = 'Pass@k in % by type of task: ' + ' / '.join(f'k = {k}' for k in ks)
  table = _new_table(title, 'type', ['tasks', *arms])
  table.columns[0].overflow, table.columns[0].no_wrap = 'fold', False
  for name, row in type_rows(results).items():
    cells = [
        ' / '.join(f'{100 * row["arms"][arm][k]["mean"]:.1f}' for k in ks)
        for arm in arms
    ]
    table.add_row(name, str(row['n_tasks']), *cells)
  return table


def type_rows(results: Mapping[str, Any]) -> dict[str, Any]:
  """The rows of a table by type, as `results['by_type']`; the last is of all."""
  arms = results['arms']
  whole = {
      'n_tasks': next(iter(arms.values()))['n_tasks'],
      'arms': {name: figures['pass_at_k'] for name, figures in arms.items()},
  }
  return {**results['by_type'], 'all types': whole}


def render_tables(results: Mapping[str, Any], width: int = 100) -> str:
  """The tables as plain text."""
  console = Console(file=io.StringIO(), width=width, color_system=None)
  with console.capture() as captured:
    console.print(build_tables(results))
  lines = (line.rstrip() for line in captured.get().splitlines())
  return '\n'.join(lines).rstrip() + '\n'
