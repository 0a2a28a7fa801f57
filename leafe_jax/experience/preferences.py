"""Pairs for preference learning: (h_tau, a'_tau) before (h_tau, a_tau).

Of every branch event that enters D_cf (`build.counterfactual`), the corrected
action is the chosen one and what the parent did in its place the rejected one;
both stand after the same prompt, which never shows the hint.

A pair is packed whole into one row: its chosen sequence is segment 2 k - 1 and
its rejected one segment 2 k, k = 1, 2, ... in the row. So rows can be divided
among devices and micro-batches without tearing a pair apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import grain
import numpy as np
from absl import logging
from jaxtyping import Float

from leafe_jax.config import Experience
from leafe_jax.experience import build, examples, pipeline
from leafe_jax.experience.examples import Example
from leafe_jax.tree import Node, Tree

_NAMES = ('tokens', 'weights', 'offset')


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two responses to one prompt; weights are positive on their tokens alone."""

  chosen: Example
  rejected: Example

  def __len__(self) -> int:
    return len(self.chosen) + len(self.rejected)


def pairs(
    trees: Iterable[Tree], config: Experience, summary: build.Summary | None = None
) -> list[Pair]:
  """A pair per event of D_cf whose parent answered the same prompt.

  Args:
    trees: one per task.
    config: as for `build.counterfactual`.
    summary: is added to; counts what had no pair among `dropped`.

  Raises:
    HintLeak: a hint block is part of a training prompt.
  """
  summary = build.Summary() if summary is None else summary
  found = []
  for tree in trees:
    for chosen in build.counterfactual([tree], config, summary):
      rejected = _rejected(tree, tree.nodes[chosen.node])
      if rejected is None:
        summary.dropped['dpo: the parent did not answer the same prompt'] += 1
      else:
        found.append(Pair(chosen, rejected))
  return found


def _rejected(tree: Tree, node: Node) -> Example | None:
  turn, before = node.turns[0], build.parent_turn(tree, node)
  if before is None or not before.response_ids:
    return None
  if (before.prompt_ids, before.opener_ids) != (turn.prompt_ids, turn.opener_ids):
    return None  # a rollback that lost an action
  return build.answer_at(tree, node, before, examples.REJECTED)


def join(found: Iterable[Example]) -> list[Pair]:
  """Pairs from their examples, as read from a dataset; halves are left out."""
  halves: dict[tuple[str, int, int], dict[bool, Example]] = {}
  for example in found:
    place = (example.task_id, example.node, example.turn)
    event = halves.setdefault(place, {})
    event[example.kind == examples.REJECTED] = example
  return [Pair(e[False], e[True]) for e in halves.values() if len(e) == 2]


def fit(found: Sequence[Pair], length: int) -> list[Pair]:
  """The pairs as they fit into rows of `length` tokens.

  Both sequences of a pair lose the same tokens of their prompt, at the left. A
  pair whose responses alone are too long is left out, with a warning.
  """
  cut = [pair for pair in (_fit(pair, length) for pair in found) if pair is not None]
  if len(cut) < len(found):
    logging.warning(
        '%d of %d pairs have responses longer than a row of %d tokens and are '
        'left out', len(found) - len(cut), len(found), length,
    )
  return cut


def _fit(pair: Pair, length: int) -> Pair | None:
  excess = -(-max(0, len(pair) - length) // 2)
  if excess >= np.flatnonzero(pair.chosen.weights)[0]:  # of the prompt's tokens
    return None
  halves = (pair.chosen, pair.rejected)
  return Pair(*(pipeline.fit(half, len(half) - excess) for half in halves))


def batches(
    found: Sequence[Pair],
    ref_logprobs: Sequence[Float[np.ndarray, ' tokens']],
    packing: pipeline.Packing,
    seed: int,
) -> grain.DatasetIterator[dict[str, np.ndarray]]:
  """An endless iterator over packed batches of pairs.

  Args:
    found: pairs that fit into a row.
    ref_logprobs: per pair, of the tokens of both sequences, chosen first.
    packing: shape of the batches.
    seed: of the order.

  Returns:
    As `pipeline.batches`, with 'ref_logprobs' [B, T] beside the others.
  """
  records = [
      {**_record(pair), 'ref_logprobs': np.asarray(scores, np.float32)}
      for pair, scores in zip(found, ref_logprobs, strict=True)
  ]
  names = (*_NAMES, 'ref_logprobs')
  return pipeline.stream([records], dict, names, packing, seed, _separate)


def rows(found: Sequence[Pair], row_length: int) -> dict[str, np.ndarray]:
  """Packs each pair once.

  Returns:
    Arrays [rows, row_length] as of a `pipeline.Batch`, and 'place': 1, 2, ...
    for the tokens of all pairs one after the other, 0 on padding.
  """
  ends = np.cumsum([0, *map(len, found)])
  records = [
      {**_record(pair), 'place': np.arange(start + 1, start + 1 + len(pair))}
      for pair, start in zip(found, ends, strict=False)
  ]
  return _separate(pipeline.pack_rows(records, row_length))


def _record(pair: Pair) -> dict[str, np.ndarray]:
  """Both sequences as one; 'offset' says where the one of each token begins."""
  halves, first = (pair.chosen, pair.rejected), len(pair.chosen)
  return {
      'tokens': np.concatenate([half.ids for half in halves]),
      'weights': np.concatenate([half.weights for half in halves]),
      'offset': np.repeat(np.array([0, first], np.int32), [first, len(pair.rejected)]),
  }


def _separate(packed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Two segments for each one that holds a pair."""
  kept = {name: value for name, value in packed.items() if name != 'offset'}
  pair, offset = packed['segment_ids'], packed['offset']
  segments = np.where(pair > 0, 2 * pair - 1 + (offset > 0), 0)
  return {
      **kept,
      'segment_ids': segments.astype(np.int32),
      'positions': packed['positions'] - offset,
  }
