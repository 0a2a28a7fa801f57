"""Responses of trees are scored after the history that training shows."""

import numpy as np

from leafe_jax.experience import scores
from tests.evaluation import runs


def by_token(rows):
  """A stand-in whose 'log-probability' is the token and its position."""
  return -(rows['tokens'] + rows['positions'] / 100).astype(np.float32)


def test_every_own_response_is_scored_once_where_it_stands():
  trees = runs.all_trees()
  found = scores.of_trees(trees, by_token, row_length=32, batch_rows=2)
  assert [scores.fits(tree, of) for tree, of in zip(trees, found, strict=True)] == (
      [True] * 3
  )
  # A turn is 7, 777777, 1, then the response 5, 2; hints (9) have no place.
  deep = found[0][3][0]
  assert np.allclose(deep, [-5.08, -2.09], atol=1e-3)
  assert np.allclose(found[0][0][2], [-5.13, -2.14], atol=1e-3)


def test_prompts_that_begin_anew_are_sequences_of_their_own():
  tree = runs.root_tree()
  tree.nodes[0].turns[1].fresh = True
  [found] = scores.of_trees([tree], by_token, row_length=16, batch_rows=4)
  assert np.allclose(found[0], [[-5.03, -2.04]] * 2, atol=1e-3)


def test_scores_of_another_tree_are_known_by_their_shape():
  tree = runs.root_tree()
  [found] = scores.of_trees([tree], by_token, row_length=32, batch_rows=1)
  assert scores.fits(tree, found)
  assert not scores.fits(runs.branching_tree(), found) and not scores.fits(tree, None)
