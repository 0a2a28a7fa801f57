"""Trees whose token ids say what they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from leafe_jax.tree import Node, Tree, Turn

HINT, USE, OPENER, STOP = 900, 901, 800, 801


def make_turn(
    index: int, action: str | None, history: str = '', hint: bool = False
) -> Turn:
  """A turn of which the tokens depend on its index and its action."""
  value = 100 + sum(map(ord, action or '?'))
  return Turn(
      index=index,
      observation=f'page {index} after {history}',
      prompt_ids=[index, 10 + index],
      opener_ids=[OPENER],
      response_ids=[value, STOP],
      logprobs=[-0.1, -0.1],
      response=action or '???',
      action=action,
      valid=action is not None,
      hint_ids=[HINT, 7, USE] if hint else [],
      error=None if action else 'InvalidAction: ???',
  )


class Grower:
  """Grows a tree node by node."""

  def __init__(self, task_id: str = 'task'):
    self.tree = Tree(task_id, 'find it', 'train')

  def add(
      self,
      actions: Sequence[str | None],
      parent: Node | None = None,
      tau: int = 1,
      success: bool = False,
      score: float = 0.0,
  ) -> Node:
    """A root, or a branch from `tau` of `parent` whose first turn is hinted."""
    node = Node(
        id=len(self.tree.nodes),
        parent=None if parent is None else parent.id,
        tau=tau,
        experience=None if parent is None else 'take the other one',
        depth=0 if parent is None else parent.depth + 1,
        success=success,
        score=1.0 if success else score,
    )
    self.tree.nodes.append(node)
    past = [turn.action or '?' for turn in self.tree.path(node)]
    for i, action in enumerate(actions):
      hint = parent is not None and i == 0
      node.turns.append(make_turn(tau + i, action, ','.join(past), hint))
      past.append(action or '?')
    return node


@pytest.fixture
def grower() -> Callable[..., Grower]:
  return Grower
