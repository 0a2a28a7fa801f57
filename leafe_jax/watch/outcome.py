"""What arms achieve so far: of the waves of an evaluation that are complete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from leafe_jax.evaluation.passk import pass_at_k, powers_up_to
from leafe_jax.watch.forest import Counts

_Z = 1.96


def so_far(counts: Sequence[Counts]) -> dict[str, Any]:
  """Pass@k of the tasks that were evaluated, with intervals for a normal mean.

  The report has bootstrap intervals; these are for a look on the way.
  """
  sizes = {len(task.successes) for task in counts}
  n = min(sizes, default=0)
  if not n:
    return {}
  solved = np.array([sum(map(bool, task.successes[:n])) for task in counts])
  return {
      'tasks': len(counts), 'samples': n,
      'points': [_point(solved, n, k) for k in powers_up_to(n)],
  }


def _point(solved: np.ndarray, n: int, k: int) -> dict[str, float]:
  found = pass_at_k(solved, n, k)
  mean = float(found.mean())
  spread = _Z * float(found.std(ddof=1)) / len(found) ** 0.5 if len(found) > 1 else 0.0
  low, high = max(0.0, mean - spread), min(1.0, mean + spread)
  return {
      'k': k, 'mean': round(mean, 5), 'lo': round(low, 5), 'hi': round(high, 5)
  }
