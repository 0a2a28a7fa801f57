"""Episodes as sequences: what was sampled, where, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from leafe_jax.experience import pipeline, trajectories
from leafe_jax.tree import Node, Turn


def turn(index, prompt, response, hint=()):
  return Turn(
      index, 'seen', list(prompt), [9], list(response), [-float(i) for i in response],
      'said', 'said', hint_ids=list(hint),
  )


def test_tokens_stand_in_reading_order_with_their_turn_and_logprob():
  node = Node(0, None, 1, None, 0, [turn(1, [1, 2], [5, 6]), turn(2, [3], [7])])
  found = trajectories.from_root(node)
  assert found.tokens.tolist() == [1, 2, 9, 5, 6, 3, 9, 7]
  assert found.turns.tolist() == [0, 0, 0, 1, 1, 0, 0, 2]
  assert found.logprobs.tolist() == [0, 0, 0, -5, -6, 0, 0, -7]


@pytest.mark.parametrize(
    'node',
    [
        Node(1, 0, 2, 'e', 1, [turn(2, [1], [5])]),
        Node(0, None, 1, None, 0, [turn(1, [1], [5], hint=[4])]),
    ],
)
def test_what_the_policy_did_not_sample_at_this_prompt_is_refused(node):
  with pytest.raises(ValueError, match='branch or was given a hint'):
    trajectories.from_root(node)


def test_every_sequence_is_packed_once_and_whole():
  rng = np.random.default_rng(0)
  sequences = [
      {'tokens': rng.integers(1, 50, n).astype(np.int32),
       'advantages': np.full(n, i, np.float32)}
      for i, n in enumerate(rng.integers(1, 24, 30))
  ]
  rows = pipeline.pack_rows(sequences, 24)
  found = []
  for row in range(len(rows['tokens'])):
    for segment in range(1, rows['segment_ids'][row].max() + 1):
      inside = rows['segment_ids'][row] == segment
      tokens = rows['tokens'][row][inside]
      assert rows['positions'][row][inside].tolist() == list(range(len(tokens)))
      found.append((rows['advantages'][row][inside].tolist(), tokens.tolist()))
  assert sorted(found) == sorted(
      (s['advantages'].tolist(), s['tokens'].tolist()) for s in sequences
  )
  assert np.mean(rows['segment_ids'] > 0) > 0.7


def test_a_sequence_longer_than_a_row_is_refused():
  with pytest.raises(ValueError, match='a sequence of 5 tokens; rows have 4'):
    pipeline.pack_rows([{'tokens': np.zeros(5, np.int32)}], 4)
