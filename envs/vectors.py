"""Cosine similarity of texts by their words: tf-idf over the terms of `envs.bm25`."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from envs import bm25


class WordVectors:
  """Texts as unit vectors, one place per term; immutable after construction.

  A term weighs (1 + ln tf) * (ln((1 + N) / (1 + n)) + 1), as is usual where no
  embedding model is at hand: it knows words, not meanings.
  """

  def __init__(self, texts: Sequence[str]):
    counts = [collections.Counter(bm25.analyse(text)) for text in texts]
    found = collections.Counter(term for count in counts for term in count)
    self._places = {term: place for place, term in enumerate(sorted(found))}
    self._idf = np.array([
        np.log((1 + len(texts)) / (1 + found[term])) + 1 for term in self._places
    ])
    rows = [self._unit(count) for count in counts]
    self._rows = np.stack(rows) if rows else np.zeros((0, len(self._places)))

  def _unit(self, counts: collections.Counter[str]) -> Float[np.ndarray, ' T']:
    row = np.zeros(len(self._places))
    for term, count in counts.items():
      if term in self._places:
        row[self._places[term]] = 1 + np.log(count)
    row = row * self._idf
    length = float(np.linalg.norm(row))
    return row / length if length else row

  def scores(self, query: str) -> Float[np.ndarray, ' N']:
    """Cosine of every text with the query; 0 where they share no term."""
    return self._rows @ self._unit(collections.Counter(bm25.analyse(query)))

  def top(self, query: str, count: int) -> list[int]:
    """Numbers of the nearest texts, at most `count`, earlier ones first among equals.

    None that shares no term with the query.
    """
    scores = np.round(self.scores(query), 9)
    order = np.argsort(-scores, kind='stable')[:count]
    return [int(number) for number in order if scores[number] > 0]
