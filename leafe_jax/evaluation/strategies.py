"""Ways to spend an exploration budget, side by side (arXiv 2603.16843, table 3).

A task is solved when any episode on it succeeds. At a share of the budget only
episodes that were complete by then count, in the order in which they began;
the budget of a task is what its tree spent, in environment steps or episodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from leafe_jax.evaluation import intervals
from leafe_jax.tree import Tree

SHARES = (0.125, 0.25, 0.5, 1.0)
_DIGITS = 6


def compare(
    strategies: Mapping[str, Sequence[Tree]], resamples: int = 2000
) -> dict[str, Any]:
  """Tasks solved by each strategy, and what it cost.

  Args:
    strategies: name -> trees, one per task, all on the same tasks.
    resamples: bootstrap draws over tasks.

  Returns:
    name -> 'solved' (mean, lo, hi), 'by_steps' and 'by_episodes' (share of the
    budget -> share of the tasks solved), 'episodes', 'env_steps',
    'sampled_tokens', 'reflection_tokens', and 'p': McNemar against the first.

  Raises:
    ValueError: no strategy.
  """
  if not strategies:
    raise ValueError('no strategies to compare')
  solved = {name: _solved(trees) for name, trees in strategies.items()}
  first = next(iter(solved))
  return {
      name: {
          'solved': _interval(solved[name], resamples),
          'by_steps': _curve(trees, 'env_steps'),
          'by_episodes': _curve(trees, 'episodes'),
          **_costs(trees),
          'p': float(f'{intervals.mcnemar(solved[name], solved[first]):.4g}'),
      }
      for name, trees in strategies.items()
  }


def _solved(trees: Sequence[Tree]) -> Bool[np.ndarray, ' N']:
  ordered = sorted(trees, key=lambda tree: tree.task_id)
  return np.array([tree.solved() for tree in ordered])


def _interval(solved: Bool[np.ndarray, ' N'], resamples: int) -> dict[str, float]:
  (found,) = intervals.bootstrap(solved[:, None].astype(float), resamples)
  return {
      'mean': round(found.mean, _DIGITS), 'lo': round(found.lo, _DIGITS),
      'hi': round(found.hi, _DIGITS),
  }  # fmt: skip


def _curve(trees: Sequence[Tree], unit: str) -> dict[str, float]:
  firsts = [_first_success(tree, unit) for tree in trees]
  return {
      f'{share:g}': round(
          sum(first <= share * tree.budget[unit] for first, tree in zip(firsts, trees))
          / len(trees),
          _DIGITS,
      )
      for share in SHARES
  }


def _first_success(tree: Tree, unit: str) -> float:
  """What had been spent when the first success was complete."""
  costs = (1 if unit == 'episodes' else len(node.turns) for node in tree.nodes)
  spent: Iterator[int] = itertools.accumulate(costs)
  return min(
      (s for s, node in zip(spent, tree.nodes) if node.success), default=float('inf')
  )


def _costs(trees: Sequence[Tree]) -> dict[str, int]:
  names = ('episodes', 'env_steps', 'sampled_tokens', 'reflection_tokens')
  return {name: sum(tree.budget[name] for tree in trees) for name in names}
