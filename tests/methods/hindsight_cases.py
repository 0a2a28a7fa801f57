"""Episodes to look back on."""

from __future__ import annotations

import dataclasses

from envs import api
from leafe_jax.rollout.samples import play_groups
from leafe_jax.sampler import Rules
from leafe_jax.tree import Node, Tree, Turn
from tests.rollout import corridor

RULES = Rules(1.0, 8, ())
TASK = api.Task('t', 'train', 'a red shirt')


def episode(number, *turns, success=False):
  """Turns as (response, valid)."""
  made = [
      Turn(i, 'seen', [1, 2], [3], [4, 5], [-0.5, -0.25], said, said, valid=valid)
      for i, (said, valid) in enumerate(turns, start=1)
  ]
  return Node(number, None, 1, None, 0, made, success, float(success), 'terminated',
              'the end')


def group_of(player, task):
  """One episode walked past door 1, one opened it."""
  nodes = []
  for number, act in enumerate([
      lambda text, request: 'right',
      lambda text, request: 'open' if text.endswith('cell 1 <act>') else 'right',
  ]):
    [tree] = play_groups(corridor.player(act), [task], 1, RULES, 8, 'x')
    nodes.append(dataclasses.replace(tree.nodes[0], id=number))
  return Tree(task.id, task.instruction, 'train', nodes)
