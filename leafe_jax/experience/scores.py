"""Log-probabilities of what trees say, under another policy than the one that said it.

A response is scored after the history that training shows: without the hint that it may
have been sampled with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from leafe_jax.experience import pipeline
from leafe_jax.tree import Node, Tree, segments

# (rows) -> log-probability of every token, [B, T]; rows as of `pipeline.pack_rows`.
Score = Callable[[Mapping[str, np.ndarray]], np.ndarray]
# Of a tree: node -> its own turns -> log-probabilities of the response's tokens.
OfTree = list[list[list[float]]]


def of_trees(
    trees: Sequence[Tree], score: Score, row_length: int, batch_rows: int
) -> list[OfTree]:
  """Scores of all responses.

  Args:
    trees: whose paths fit into rows.
    score: of a batch of `batch_rows` rows.
    row_length: tokens per packed row.
    batch_rows: rows scored at a time.
  """
  sequences: list[dict[str, np.ndarray]] = []
  count = 1  # place 0: what nobody asks for
  for tree in trees:
    for node in tree.nodes:
      found, count = _sequences(tree, node, count)
      sequences += found
  flat = np.zeros(count, np.float32)
  if sequences:
    rows = pipeline.pack_rows(sequences, row_length)
    for first in range(0, len(rows['tokens']), batch_rows):
      part = {
          name: _padded(values[first : first + batch_rows], batch_rows)
          for name, values in rows.items()
      }
      flat[part['place']] = score(part)
  return _cut(trees, [round(float(value), 4) for value in flat[1:]])


def _sequences(
    tree: Tree, node: Node, count: int
) -> tuple[list[dict[str, np.ndarray]], int]:
  """Arrays [T] of a path, with a place for each token of the node's own responses.

  The last part alone can hold turns of its own, unless prompts begin anew.
  """
  own = {id(turn) for turn in node.turns}
  found = []
  for part in segments(tree.path(node)):
    tokens: list[int] = []
    places: list[int] = []
    for turn in part:
      prompt, said = [*turn.prompt_ids, *turn.opener_ids], turn.response_ids
      tokens += [*prompt, *said]
      places += [0] * len(prompt)
      if id(turn) in own:
        places += range(count, count + len(said))
        count += len(said)
      else:
        places += [0] * len(said)
    if any(places):
      found.append({
          'tokens': np.asarray(tokens, np.int32), 'place': np.asarray(places, np.int64)
      })
  return found, count


def _padded(values: np.ndarray, rows: int) -> np.ndarray:
  missing = rows - len(values)
  return np.pad(values, ((0, missing), (0, 0))) if missing else values


def _cut(trees: Sequence[Tree], flat: Sequence[float]) -> list[OfTree]:
  values = iter(flat)
  return [
      [
          [[next(values) for _ in turn.response_ids] for turn in node.turns]
          for node in tree.nodes
      ]
      for tree in trees
  ]


def fits(tree: Tree, found: Any) -> bool:
  """Whether a value that was read is of a tree of this shape."""
  return isinstance(found, list) and [
      [len(said) for said in turns] for turns in found
  ] == [[len(turn.response_ids) for turn in node.turns] for node in tree.nodes]
