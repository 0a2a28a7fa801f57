"""Constrained choice: responses out of a list, by a trie of token ids.

At every step the policy's distribution is restricted to the children of the
node reached so far and renormalised, so the response is one of the list, and
the probability of each token is the policy's among the tokens that could come.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

DONE = -1  # the child of a last token
_NOWHERE = -2  # the parent of padding
_SMALLEST = 64


class Trie(NamedTuple):
  """A list of responses.

  Attributes:
    edges: [E, 3] parent node, token, child node; node 0 is the root.
    longest: tokens of the longest response.
  """

  edges: np.ndarray
  longest: int

  @property
  def room(self) -> int:
    """Edges after padding: a power of two, so that few programs do."""
    return max(_SMALLEST, 1 << (len(self.edges) - 1).bit_length())

  def node_after(self, tokens: Sequence[int]) -> int:
    """The node that some tokens of a response lead to."""
    node = 0
    for token in tokens:
      parent, spelt, child = self.edges.T
      node = int(child[(parent == node) & (spelt == token)][0])
    return node

  def padded(self) -> Int[np.ndarray, 'room 3']:
    padding = ((0, self.room - len(self.edges)), (0, 0))
    return np.pad(self.edges, padding, constant_values=_NOWHERE)


@functools.lru_cache(maxsize=4096)
def build_trie(choices: tuple[tuple[int, ...], ...]) -> Trie:
  """The trie of a list of responses, each with its stop token if it has one.

  Raises:
    ValueError: no response, an empty one, or one that is the beginning of
      another (nothing would say where it ends: give both a stop token).
  """
  if not choices or not all(choices):
    raise ValueError(f'choices must be responses of at least one token: {choices}')
  nodes: dict[tuple[int, ...], int] = {(): 0}
  edges: dict[tuple[int, int], int] = {}
  ends = set(choices)
  for choice in choices:
    for i, token in enumerate(choice):
      before, after = choice[:i], choice[: i + 1]
      if after in ends and after != choice:
        raise ValueError(f'choice {after} is the beginning of choice {choice}')
      child = DONE if after == choice else nodes.setdefault(after, len(nodes))
      edges[nodes[before], token] = child
  table = [(parent, token, child) for (parent, token), child in edges.items()]
  return Trie(np.asarray(table, np.int32), max(map(len, choices)))


def allowed(
    edges: Int[Array, 'B E 3'], node: Int[Array, ' B'], vocab_size: int
) -> Bool[Array, 'B V']:
  """Tokens that lead on from each row's node; all where none does."""
  leads = edges[:, :, 0] == node[:, None]
  rows = jnp.arange(edges.shape[0])[:, None]
  mask = jnp.zeros((edges.shape[0], vocab_size), bool)
  mask = mask.at[rows, edges[:, :, 1]].max(leads, mode='drop')
  return mask | ~jnp.any(leads, axis=1, keepdims=True)


def follow(
    edges: Int[Array, 'B E 3'], node: Int[Array, ' B'], token: Int[Array, ' B']
) -> Int[Array, ' B']:
  """The node after one more token, DONE after a last one."""
  taken = (edges[:, :, 0] == node[:, None]) & (edges[:, :, 1] == token[:, None])
  return jnp.max(jnp.where(taken, edges[:, :, 2], DONE), axis=1)
