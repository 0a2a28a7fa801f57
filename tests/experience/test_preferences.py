"""Pairs of D_cf: what is chosen, what is rejected, how rows hold them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leafe_jax.config import Experience
from leafe_jax.experience import build, dataset, examples, pipeline, preferences
from leafe_jax.experience.examples import Example
from leafe_jax.experience.preferences import Pair

HINT = 900


def prefer(tree, summary=None, **changes):
  config = dataclasses.replace(Experience(), **changes)
  return preferences.pairs([tree], config, summary)


def trained(example):
  return example.ids[example.weights > 0].tolist()


def prompt(example):
  return example.ids[: np.flatnonzero(example.weights)[0]].tolist()


def test_the_correction_is_preferred_to_what_the_parent_did_in_its_place(grower):
  g = grower()
  root = g.add(['a', 'b', 'c'])
  branch = g.add(['x', 'y'], root, tau=2, success=True)
  [pair] = prefer(g.tree)
  assert trained(pair.chosen) == branch.turns[0].response_ids
  assert trained(pair.rejected) == root.turns[1].response_ids
  assert prompt(pair.chosen) == prompt(pair.rejected)
  assert prompt(pair.chosen)[-3:] == [2, 12, 800]  # o_2 and the opener
  assert HINT not in pair.chosen.ids
  assert HINT not in pair.rejected.ids
  assert (pair.chosen.kind, pair.rejected.kind) == ('cf', 'rejected')


def test_a_rejected_action_may_be_the_corrected_one_of_a_deeper_tree(grower):
  g = grower()
  root = g.add(['a', 'b'])
  first = g.add(['x', 'b'], root, tau=1)
  second = g.add(['y'], first, tau=1, success=True)
  [pair] = prefer(g.tree)
  assert trained(pair.chosen) == second.turns[0].response_ids
  assert trained(pair.rejected) == first.turns[0].response_ids


@pytest.mark.parametrize('cf_filter', ['success', 'all'])
def test_the_events_are_those_of_d_cf(grower, cf_filter):
  g = grower()
  root = g.add(['a', 'b', 'c'])
  for action, tau, success in [('x', 1, True), ('y', 2, False), ('a', 1, True),
                               ('z', 3, True), ('w', 2, True), ('v', 2, True)]:
    g.add([action], root, tau=tau, success=success)
  config = dataclasses.replace(Experience(), cf_filter=cf_filter)
  expected = build.counterfactual([g.tree], config)
  found = [pair.chosen for pair in prefer(g.tree, cf_filter=cf_filter)]
  assert [e.ids.tolist() for e in found] == [e.ids.tolist() for e in expected]
  assert len(found) == 3


def test_where_the_parent_saw_something_else_there_is_no_pair(grower):
  g = grower()
  root = g.add(['a', 'b'])
  branch = g.add(['x'], root, tau=2, success=True)
  branch.turns[0].observation = 'another page'  # the rollback lost an action
  branch.turns[0].prompt_ids = [2, 99]
  summary = build.Summary()
  assert prefer(g.tree, summary) == []
  assert summary.dropped['dpo: the parent did not answer the same prompt'] == 1


def test_pairs_survive_the_disk_and_halves_are_left_out(grower, tmp_path):
  trees = []
  for name in ('one', 'two'):
    g = grower(name)
    root = g.add(['a', 'b'])
    g.add(['x'], root, tau=2, success=True)
    g.add(['y'], root, tau=1, success=True)
    trees.append(g.tree)
  found = preferences.pairs(trees, Experience())
  both = [half for pair in found for half in (pair.chosen, pair.rejected)]
  dataset.write(tmp_path / 'd', both[:-1])
  joined = preferences.join(dataset.read(tmp_path / 'd'))
  assert [key(pair) for pair in joined] == [key(pair) for pair in found[:-1]]


def key(pair):
  return pair.chosen.ids.tolist(), pair.rejected.ids.tolist()


def make_pair(prompt_length, chosen, rejected, first=1):
  """Tokens count up from `first`, so that each is known by its value."""
  history = list(range(first, first + prompt_length))
  halves, start = [], first + prompt_length
  for kind, count in [(examples.COUNTERFACTUAL, chosen), (examples.REJECTED, rejected)]:
    answer = list(range(start, start + count))
    halves.append(examples.make([(history, 0.0), (answer, 1.0)], kind, 'task', first))
    start += count
  return Pair(*halves)


shapes = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))


@given(st.lists(shapes, min_size=1, max_size=8), st.integers(34, 70))
def test_rows_hold_each_pair_whole_as_two_segments(sizes, length):
  pairs = [make_pair(*size, first=100 * i + 1) for i, size in enumerate(sizes)]
  rows = preferences.rows(pairs, length)
  found = {}
  for row in range(len(rows['tokens'])):
    segments = rows['segment_ids'][row]
    assert segments.max() % 2 == 0
    for number in range(1, segments.max() + 1):
      inside = segments == number
      tokens = rows['tokens'][row][inside].tolist()
      np.testing.assert_array_equal(
          rows['positions'][row][inside], np.arange(len(tokens))
      )
      found[row, number] = (tokens, rows['weights'][row][inside].tolist())
  for pair in pairs:
    chosen = (pair.chosen.ids.tolist(), pair.chosen.weights.tolist())
    rejected = (pair.rejected.ids.tolist(), pair.rejected.weights.tolist())
    [(row, number)] = [place for place, value in found.items() if value == chosen]
    assert number % 2 == 1
    assert found[row, number + 1] == rejected
  places = np.sort(rows['place'][rows['place'] > 0])
  np.testing.assert_array_equal(places, np.arange(1, sum(map(len, pairs)) + 1))


@given(shapes, st.integers(4, 30))
def test_both_sequences_of_a_long_pair_lose_the_same_prompt(size, length):
  pair = make_pair(*size)
  cut = preferences.fit([pair], length)
  if size[1] + size[2] + 2 > length:
    assert cut == []  # not even one token of the prompt fits
    return
  assert len(cut[0]) <= length
  assert trained(cut[0].chosen) == trained(pair.chosen)
  assert trained(cut[0].rejected) == trained(pair.rejected)
  assert prompt(cut[0].chosen) == prompt(cut[0].rejected)
  assert len(prompt(cut[0].chosen)) == min(size[0], (length - size[1] - size[2]) // 2)


def test_batches_carry_the_reference_of_each_token_and_can_be_set_back():
  pairs = [make_pair(3 + i % 4, 2, 1 + i % 3, first=20 * i + 1) for i in range(12)]
  # Made up so that every token's reference follows from the token.
  references = [
      -0.5 * np.concatenate([pair.chosen.ids, pair.rejected.ids]) for pair in pairs
  ]
  packing = pipeline.Packing(batch_rows=2, row_length=40, bins=4)

  def start():
    return preferences.batches(pairs, references, packing, seed=0)

  stream = start()
  for _ in range(3):
    batch = next(stream)
    assert batch['tokens'].shape == (2, 40)
    np.testing.assert_array_equal(batch['ref_logprobs'], -0.5 * batch['tokens'])
  state = stream.get_state()
  expected = next(stream)
  again = start()
  again.set_state(state)
  for name, value in next(again).items():
    np.testing.assert_array_equal(value, expected[name])
  stream.close()
  again.close()


def test_a_pair_counts_the_tokens_of_both_sequences():
  example = Example(np.arange(4, dtype=np.int32), np.zeros(4, np.float32), 'cf')
  assert len(Pair(example, example)) == 8
