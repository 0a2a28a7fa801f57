"""States in which somebody acted, as the tokens that a policy is asked with.

A state can be asked again: for a fresh response by the policy of today, or with
more in the prompt (a hint, the world's answer) by one that is to teach it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from leafe_jax import config as config_lib
from leafe_jax.experience import build
from leafe_jax.tree import Tree, Turn, segments


@dataclasses.dataclass(frozen=True)
class State:
  """Before one action.

  Attributes:
    task_id, node, turn: where it stands in a tree.
    history_ids: h_turn, without hint and opener.
    opener_ids: open the response.
    said: the turn that was taken there.
    extra_ids: what a teacher sees between the two, see `Turn.hint_ids`.
  """

  task_id: str
  node: int
  turn: int
  history_ids: list[int]
  opener_ids: list[int]
  said: Turn
  extra_ids: list[int] = dataclasses.field(default_factory=list)

  @property
  def prompt_ids(self) -> list[int]:
    """All before the response."""
    return [*self.history_ids, *self.opener_ids]

  @property
  def extended_ids(self) -> list[int]:
    """All before the response, as a teacher is shown it."""
    return [*self.history_ids, *self.extra_ids, *self.opener_ids]


def history_of(turns: Sequence[Turn]) -> list[int]:
  """The tokens that the last of the turns was answered after, but its opener."""
  *before, last = segments(turns)[-1]
  ids: list[int] = []
  for turn in before:
    ids += [*turn.prompt_ids, *turn.opener_ids, *turn.response_ids]
  return [*ids, *last.prompt_ids]


def at(
    tree: Tree, node: int, turns: Sequence[Turn], extra_ids: Sequence[int] = ()
) -> State:
  """The state before the last of the turns of an episode, counted from turn 1."""
  last = turns[-1]
  return State(
      tree.task_id, node, last.index, history_of(turns), list(last.opener_ids), last,
      list(extra_ids),
  )


def of_corrections(
    trees: Iterable[Tree], config: config_lib.Experience,
    summary: build.Summary | None = None,
) -> list[State]:  # fmt: skip
  """h_tau of each event of D_cf, with the hint e that brought the correction about.

  Args:
    trees: one per task.
    config: as for `build.counterfactual`.
    summary: is added to; counts events without a hint among `dropped`.

  Raises:
    HintLeak: a hint block is part of a training prompt.
  """
  summary = build.Summary() if summary is None else summary
  found = []
  for tree in trees:
    for example in build.counterfactual([tree], config, summary):
      node = tree.nodes[example.node]
      turn = node.turns[0]
      if not turn.hint_ids:
        summary.dropped['distilled: no hint was shown'] += 1
        continue
      path = tree.path(node)[: node.tau]
      found.append(at(tree, node.id, path, turn.hint_ids))
  return found


def of_episodes(trees: Iterable[Tree]) -> list[State]:
  """Every state of the root of each tree: an expert's episode."""
  return [
      at(tree, 0, tree.nodes[0].turns[: number + 1])
      for tree in trees
      for number in range(len(tree.nodes[0].turns))
  ]


def sequence(
    state: State, response_ids: Sequence[int], **of_response: np.ndarray
) -> dict[str, np.ndarray]:
  """Arrays [T, ...] of a response in its state, to be packed.

  Args:
    state: before it.
    response_ids: its tokens, which have weight 1.
    **of_response: further arrays of its tokens, 0 on the prompt.
  """
  prompt, count = state.prompt_ids, len(response_ids)
  found = {
      'tokens': np.asarray([*prompt, *response_ids], np.int32),
      'weights': np.ones(count, np.float32),
      **of_response,
  }
  return {
      name: value if name == 'tokens' else behind(len(prompt), value)
      for name, value in found.items()
  }


def behind(count: int, values: np.ndarray) -> np.ndarray:
  """The values after `count` zeros."""
  values = np.asarray(values)
  return np.pad(values, ((count, 0),) + ((0, 0),) * (values.ndim - 1))
