"""Results as Markdown tables, for notes and pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from leafe_jax.evaluation.tables import (
  describe_tasks,
  end_ks,
  excludes_zero,
  shown_arms,
  shown_ks,
  shown_pairs,
  trouble_notes,
  type_rows,
)


def render(results: Mapping[str, Any]) -> str:
  """All tables of a results.json, single run or pooled."""
  parts = [
      f'**Seed {seed} is missing.** {reason}\n'
      for seed, reason in results.get('gaps', {}).items()
  ]
  parts.append(_comparison(results, 'Pass@k'))
  for temperature, figures in results.get('at_temperature', {}).items():
    parts.append(_comparison(figures, f'Pass@k at temperature {temperature}'))
  if results.get('by_type'):
    parts.append(_types(results))
  if results.get('tasks'):
    parts.append(f'## Tasks\n\n{describe_tasks(results["tasks"])}\n')
  if results.get('per_seed'):
    parts.append(_per_seed(results))
  if results.get('strategies'):
    parts.append(_strategies(results['strategies']))
  if results.get('budget'):
    parts.append(_budget(results['budget']))
  return '\n'.join(parts)


def _comparison(results: Mapping[str, Any], title: str) -> str:
  ks = shown_ks(results)
  first = next(iter(results['arms'].values()))
  arms = [
      [name, *(_point(a['pass_at_k'][k]) for k in ks)]
      for name, a in results['arms'].items()
  ]
  pairs = [
      [name, *(_difference(figures[k]) for k in ks), f'{figures["mcnemar_p"]:.2g}']
      for name, figures in shown_pairs(results).items()
  ]
  heads = [f'@{k}' for k in ks]
  notes = trouble_notes(results)
  return (
      f'## {title}\n\n{first["n_tasks"]} tasks, {first["n_samples"]} samples each, '
      f'temperature {first["temperature"]:g}; in %, 95 % intervals over tasks.\n\n'
      + _table(['arm', *heads], arms)
      + (f'\n{" ".join(notes)}\n' if notes else '')
      + '\nPaired differences in points; bold where the interval excludes 0, all '
      f'others are not significant; p: McNemar at k = {ks[-1]}.\n\n'
      + _table(['arms', *heads, 'p'], pairs)
  )


def _types(results: Mapping[str, Any]) -> str:
  ends, arms = end_ks(results), shown_arms(results)
  columns = [(arm, k) for arm in arms for k in ends]
  rows = [
      [name, str(row['n_tasks']), *(_point(row['arms'][a][k]) for a, k in columns)]
      for name, row in type_rows(results).items()
  ]
  heads = ['type', 'tasks', *(f'{arm} @{k}' for arm, k in columns)]
  return '## By type of task\n\n' + _table(heads, rows)


def _per_seed(results: Mapping[str, Any]) -> str:
  ends = end_ks(results)
  seeds = results['per_seed']
  rows = [
      [arm, *(f'{100 * seeds[s][arm][k]:.1f}' for k in ends for s in seeds)]
      for arm in results['arms']
  ]
  heads = [f'@{k}, seed {seed}' for k in ends for seed in seeds]
  return '## Per seed\n\n' + _table(['arm', *heads], rows)


def _strategies(strategies: Mapping[str, Any]) -> str:
  shares = list(next(iter(strategies.values()))['by_steps'])
  rows = [
      [
          name, _point(found['solved']),
          *(f'{100 * found["by_steps"][share]:.1f}' for share in shares),
          f'{found["episodes"]:,}', f'{found["env_steps"]:,}',
          f'{found["sampled_tokens"]:,}', f'{found["reflection_tokens"]:,}',
          f'{found["p"]:.2g}',
      ]
      for name, found in strategies.items()
  ]  # fmt: skip
  heads = [
      'strategy', 'tasks solved', *(f'at {share} of the steps' for share in shares),
      'episodes', 'env steps', 'tokens', 'reflection tokens', 'p against the first',
  ]  # fmt: skip
  return '## Stage 1 at equal environment steps\n\n' + _table(heads, rows)


def _budget(budget: Mapping[str, Mapping[str, int]]) -> str:
  names = list(dict.fromkeys(name for costs in budget.values() for name in costs))
  rows = [
      [arm, *(f'{costs.get(name, 0):,}' for name in names)]
      for arm, costs in budget.items()
  ]
  heads = [name.replace('_', ' ') for name in names]
  return '## Budget\n\n' + _table(['arm', *heads], rows)


def _point(point: Mapping[str, float]) -> str:
  return f'{100 * point["mean"]:.1f} [{100 * point["lo"]:.1f}, {100 * point["hi"]:.1f}]'


def _difference(point: Mapping[str, float]) -> str:
  text = (
      f'{100 * point["mean"]:+.1f} [{100 * point["lo"]:+.1f}, {100 * point["hi"]:+.1f}]'
  )
  return f'**{text}**' if excludes_zero(point) else text


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  lines = [heads, ['---'] * len(heads), *rows]
  return ''.join(f'| {" | ".join(line)} |\n' for line in lines)
