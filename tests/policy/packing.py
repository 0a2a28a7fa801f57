"""Sequences that share a row, and what the training forward says of them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from leafe_jax.policy import model

SCORE = jax.jit(model.token_scores, static_argnums=1)


def packed(rows: Sequence[Sequence[int]]) -> np.ndarray:
  """Tokens, positions and segments of sequences that share a row of 40 places."""
  tokens, places, segments = found = np.zeros((3, 1, 40), np.int32)
  start = 0
  for number, row in enumerate(rows, start=1):
    own = np.s_[0, start : start + len(row)]
    tokens[own], places[own], segments[own] = row, np.arange(len(row)), number
    start += len(row)
  return found
