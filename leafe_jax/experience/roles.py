"""What of a tree is trained on, turn by turn, for whoever reads the tree."""

from __future__ import annotations

import dataclasses

from leafe_jax.config import Experience
from leafe_jax.experience import build, examples
from leafe_jax.tree import Node, Tree

Place = tuple[int, int]  # a node's id and the number of one of its turns


@dataclasses.dataclass(frozen=True)
class Role:
  """What becomes of a response.

  Attributes:
    kind: 'cf' or 'reh'; empty for a corrected action that is not trained.
    weight: in the loss, of each of its tokens.
    why: of an event, the reason why it is not in D_cf.
    drawn: whether it is trained for certain, or only if its episode is drawn.
  """

  kind: str
  weight: float
  why: str = ''
  drawn: bool = True


def of_tree(tree: Tree, config: Experience, beta: float) -> dict[Place, list[Role]]:
  """Roles of the turns that have any, as LEAFE's distillation sees the tree.

  Args:
    tree: of Stage 1.
    config: how examples are built.
    beta: weight of L_reh.

  Raises:
    HintLeak: a hint block is part of a training prompt.
  """
  found: dict[Place, list[Role]] = {}
  for place in _rehearsed(tree, config):
    role = Role(examples.REHEARSAL, beta, drawn=config.reh_fraction >= 1)
    found.setdefault(place, []).append(role)
  kept = {example.node for example in build.counterfactual([tree], config)}
  for node in tree.nodes:
    if node.parent is not None and node.turns:
      role = _of_event(tree, node, node.id in kept, config)
      found.setdefault((node.id, node.tau), []).append(role)
  return found


def _rehearsed(tree: Tree, config: Experience) -> list[Place]:
  """Turns of successful episodes, each in the first of them."""
  trained: set[tuple[str, int, int]] = set()
  return [
      (owner, turn.index)
      for node in tree.nodes if node.success
      for owner, turn in tree.owned_path(node)
      if build.rehearsal_weight(tree, node, owner, turn, config, trained)
  ]  # fmt: skip


def _of_event(tree: Tree, node: Node, kept: bool, config: Experience) -> Role:
  if kept:
    return Role(examples.COUNTERFACTUAL, 1.0)
  why = build.objection(tree, node, config)
  return Role('', 0.0, why or 'the same as another event, or over the cap of the task')
