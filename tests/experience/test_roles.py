"""What the browser says of a turn is what training does with it."""

import random

import pytest

from leafe_jax.config import Experience
from leafe_jax.experience import build, roles
from tests.evaluation import runs


def corrected_tree():
  """A branch at turn 2 that solves, with another action than its parent's."""
  tree = runs.branching_tree()
  tree.nodes[2].success, tree.nodes[2].score = True, 1.0
  return tree


@pytest.mark.parametrize('hinted', [False, True])
def test_the_trained_tokens_are_those_of_the_examples(hinted):
  config = Experience(reh_hinted=hinted)
  tree = corrected_tree()
  found = roles.of_tree(tree, config, beta=2.0)
  _, summary = build.build([tree], config, random.Random(0))
  turns = {(n.id, t.index): t for n in tree.nodes for t in n.turns}
  sizes = {'reh': 0, 'cf': 0}
  for place, of_turn in found.items():
    for role in of_turn:
      if role.kind:
        sizes[role.kind] += len(turns[place].response_ids)
        assert role.weight == (2.0 if role.kind == 'reh' else 1.0)
  assert sizes == {'reh': summary.reh_tokens, 'cf': summary.cf_tokens}
  assert all(sizes.values())


def test_an_event_that_is_not_trained_says_why():
  found = roles.of_tree(corrected_tree(), Experience(), 1.0)
  assert [role.why for role in found[3, 2]] == ["the parent's action again"]
  assert not any(place[0] == 1 for place in found)  # nothing of a failure


def test_what_is_only_perhaps_drawn_says_so():
  found = roles.of_tree(runs.root_tree(), Experience(reh_fraction=0.5), 1.0)
  assert [role.drawn for of_turn in found.values() for role in of_turn] == [False] * 2
