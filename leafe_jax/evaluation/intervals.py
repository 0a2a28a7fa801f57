"""How sure the numbers are: bootstrap over tasks and McNemar's exact test.

Tasks are resampled, not samples: the question is what another draw of tasks
would show. The resampled weights depend on (number of tasks, resamples, seed)
alone, so two arms on the same tasks are resampled together and their
difference is a paired one.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
  """A mean over tasks with its percentile interval."""

  mean: float
  lo: float
  hi: float


def bootstrap(
    values: Float[np.ndarray, 'N K'],
    resamples: int = 2000,
    seed: int = 0,
    level: float = LEVEL,
) -> list[Interval]:
  """Percentile intervals of the means of K figures over N tasks.

  Args:
    values: one row per task; paired differences are rows of a - b.
    resamples: number of bootstrap draws.
    seed: the same seed gives the same bits.
    level: coverage.

  Returns:
    K intervals.

  Raises:
    ValueError: no tasks, no resamples, or a level outside (0, 1).
  """
  num_tasks = len(values)
  if not num_tasks or resamples < 1 or not 0 < level < 1:
    raise ValueError(
        f'cannot resample {num_tasks} tasks {resamples} times at level {level}; '
        'need tasks >= 1, resamples >= 1 and a level in (0, 1)'
    )
  tail = 50.0 * (1.0 - level)
  lo, hi = np.percentile(
      _resampled_means(values, resamples, seed), [tail, 100.0 - tail], axis=0
  )
  means = values.mean(axis=0)
  return [Interval(*map(float, row)) for row in zip(means, lo, hi, strict=True)]


def _resampled_means(
    values: Float[np.ndarray, 'N K'], resamples: int, seed: int
) -> Float[np.ndarray, 'R K']:
  num_tasks = len(values)
  rng = np.random.default_rng(seed)
  weights_rn = rng.multinomial(
      num_tasks, np.full(num_tasks, 1.0 / num_tasks), size=resamples
  )
  # einsum's own loop and not BLAS: threads would change the last bits.
  return np.einsum('rn,nk->rk', weights_rn.astype(float), values) / num_tasks


def mcnemar(first: Bool[np.ndarray, ' N'], second: Bool[np.ndarray, ' N']) -> float:
  """Two-sided exact p-value for 'both arms solve the same share of tasks'.

  Only tasks that exactly one arm solves carry information: under the null
  each is a fair coin (McNemar 1947, in its exact binomial form). 1.0 when
  there is none.

  Raises:
    ValueError: different numbers of tasks.
  """
  from scipy import stats  # takes a second, and most starts compare nothing

  first, second = np.asarray(first, bool), np.asarray(second, bool)
  if first.shape != second.shape:
    raise ValueError(
        f'arms with {first.size} and {second.size} tasks cannot be paired'
    )
  only_first = int(np.sum(first & ~second))
  only_second = int(np.sum(second & ~first))
  if not only_first + only_second:
    return 1.0
  test = stats.binomtest(only_first, only_first + only_second, 0.5)
  return float(test.pvalue)
