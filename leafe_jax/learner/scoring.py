"""Scores of many sequences by a frozen policy, a few packed rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from leafe_jax.experience import pipeline
from leafe_jax.learner.update import pad_rows

# (weights, packed rows) -> arrays [B, T, ...]: a `policy_gradient.Scorer`, ...
Score = Callable[[Any, Mapping[str, np.ndarray]], Any]
# Sequences that are packed and scored together; bounds the memory this takes.
CHUNK = 512


def score_sequences(
    score: Score,
    params: Any,
    sequences: Sequence[Sequence[int]],
    row_length: int,
    batch_rows: int,
) -> list[Any]:
  """What `score` says of the tokens of each sequence: trees of arrays [T, ...].

  Args:
    score: gives arrays [B, T, ...], or a tree of them, for packed rows.
    params: of the policy that scores.
    sequences: token ids, none longer than a row.
    row_length: tokens per packed row.
    batch_rows: rows scored at a time.
  """
  found: list[Any] = []
  for start in range(0, len(sequences), CHUNK):
    chunk = sequences[start : start + CHUNK]
    ends = np.cumsum([0, *map(len, chunk)])
    rows = pipeline.pack_rows([
        {'tokens': np.asarray(ids, np.int32),
         'place': np.arange(first + 1, first + 1 + len(ids))}
        for ids, first in zip(chunk, ends, strict=False)
    ], row_length)  # fmt: skip
    flat = score_places(score, params, rows, int(ends[-1]), batch_rows)
    found += [
        jax.tree.map(lambda x, a=a, b=b: x[a:b], flat)
        for a, b in zip(ends, ends[1:], strict=False)
    ]
  return found


def score_places(
    score: Score, params: Any, rows: Mapping[str, np.ndarray], count: int,
    batch_rows: int,
) -> Any:  # fmt: skip
  """What `score` says of `count` tokens: a tree of arrays [count, ...].

  Args:
    score, params, batch_rows: as for `score_sequences`.
    rows: packed, with 'place': 1, 2, ... for the tokens in their order, 0 on padding.
    count: the last place.
  """
  parts = []
  for first in range(0, len(rows['tokens']), batch_rows):
    part = {
        name: pad_rows(value[first : first + batch_rows], batch_rows)
        for name, value in rows.items()
    }
    parts.append((part['place'], score(params, part)))

  def gather(*arrays: np.ndarray) -> np.ndarray:
    flat = np.zeros((count + 1, *arrays[0].shape[2:]), arrays[0].dtype)  # 0: padding
    for (place, _), values in zip(parts, arrays, strict=True):
      flat[place] = values
    return flat[1:]

  return jax.tree.map(gather, *(values for _, values in parts))
