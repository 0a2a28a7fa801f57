"""Token ids that are kept many times are one object each."""

from __future__ import annotations

from leafe_jax.token_ids import shared
from leafe_jax.tree import Node, Tree, Turn
from tests.rollout import corridor


def fresh(*ids):
  """Ids as a tokenizer gives them: objects of their own."""
  return [int(str(i)) for i in ids]


def test_equal_ids_are_one_object():
  one, other = fresh(70_000, 300), fresh(300, 70_000)
  assert one[0] is not other[1]
  one, other = shared(one), shared(other)
  assert one == [70_000, 300] and one[0] is other[1] and one[1] is other[0]


def test_a_tree_that_is_read_shares_them_with_what_is_spelt():
  transcript = corridor.player(lambda text, request: 'right').transcript
  [spelt, *_] = transcript.response('right')
  big = shared(fresh(70_000))[0]
  turn = Turn(1, '', fresh(spelt, 70_000), [], fresh(70_000), [-1.0], '', None)
  tree = Tree('t', '', 'train', [Node(0, None, 1, None, 0, [turn])])
  [found] = Tree.from_json(tree.to_json()).nodes[0].turns
  assert found == turn
  assert found.prompt_ids[1] is big and found.response_ids[0] is big
