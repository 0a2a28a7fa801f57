"""The unbiased Pass@k estimator, vectorised over tasks.

    Pass@k = 1 - C(n - c, k) / C(n, k)

for a task of which c of n independent samples succeeded (Chen et al. 2021,
arXiv 2107.03374, equation 1). It is the mean, over all subsets of k of the n
samples, of 'one of them succeeded'.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def powers_up_to(n: int) -> tuple[int, ...]:
  """The k at which n samples are reported: 1, 2, 4, ... and n itself.

  Raises:
    ValueError: n < 1.
  """
  if n < 1:
    raise ValueError(f'need at least one sample, not n = {n}')
  return (*(2**i for i in range((n - 1).bit_length())), n)


def pass_at_k(
    successes: Int[np.ndarray, ' N'], n: int, k: int
) -> Float[np.ndarray, ' N']:
  """Pass@k of every task.

  Args:
    successes: c, the number of successful samples of each task.
    n: samples per task.
    k: samples allowed.

  Returns:
    Probabilities in [0, 1].

  Raises:
    ValueError: k outside 1..n or a count outside 0..n.
  """
  _check_k(n, k)
  successes = np.asarray(successes)
  bad = successes[(successes < 0) | (successes > n)]
  if bad.size:
    raise ValueError(f'{bad[0]} successes of n = {n} samples; choose 0..{n}')
  return 1.0 - _failure_table(n, k)[successes]


def _check_k(n: int, k: int) -> None:
  if not 1 <= k <= n:
    raise ValueError(
        f'Pass@{k} cannot be estimated from n = {n} samples; choose k in 1..{n}'
    )


def _failure_table(n: int, k: int) -> Float[np.ndarray, ' n_plus_1']:
  """C(n - c, k) / C(n, k) for c = 0..n, as a running product.

  The c-th factor is 1 - k / (n - c + 1); binomials would overflow.
  """
  factors = 1.0 - k / np.arange(n, 0, -1)
  return np.concatenate([[1.0], np.cumprod(np.maximum(factors, 0.0))])


def pass_at_ks(
    successes: Int[np.ndarray, ' N'], n: int, ks: Sequence[int]
) -> Float[np.ndarray, 'N K']:
  """Pass@k of every task at each of `ks`; errors as in `pass_at_k`."""
  return np.stack([pass_at_k(successes, n, k) for k in ks], axis=1)
