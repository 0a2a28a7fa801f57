"""What learns beside a policy that trains on its own episodes.

A notebook keeps lessons for the prompt; a companion adds to what is minimised.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from envs import api
from leafe_jax.learner.losses import Loss
from leafe_jax.rollout.episode import Player, no_memory
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.tree import Node, Tree

Arrays = dict[str, np.ndarray]
BASE_TEACHES, LIVE_TEACHES = 'base', 'live'


class Notebook(Protocol):
  """What stands in the prompt beside the policy, and learns from its episodes.

  Attributes:
    asks_base: whether it is the frozen base that it asks, and not the policy.
    bare_share: share of each group that plays without memory.
  """

  asks_base: bool
  bare_share: float

  def recall(self, task: api.Task) -> str:
    """The memory of a task's episodes, one lesson a line."""
    ...

  def learn(
      self, step: int, tasks: Sequence[api.Task], groups: Sequence[Tree],
      player: Player, ledger: Ledger,
  ) -> dict[str, float]:
    """Learns from the groups of a step, asking the player; figures.

    What raises leaves it as it was.
    """
    ...

  def save(self, directory: pathlib.Path) -> dict[str, Any]:
    """Writes what is to be read to the phase's directory; the state as JSON."""
    ...

  def load(self, state: Mapping[str, Any]) -> None:
    """Goes on from what `save` returned."""
    ...


class Blank:
  """The notebook of a policy without memory."""

  asks_base = False
  bare_share = 0.0
  recall = staticmethod(no_memory)

  def learn(self, *args: Any) -> dict[str, float]:
    del args
    return {}

  def save(self, directory: pathlib.Path) -> dict[str, Any]:
    del directory
    return {}

  def load(self, state: Mapping[str, Any]) -> None:
    del state


@dataclasses.dataclass(frozen=True)
class Scene:
  """A step of training, before its update.

  Attributes:
    step: its number.
    tasks: of the step.
    groups: their episodes.
    player: the policy that played them.
    ledger: pays for what is asked or played.
    score: (whose weights, 'base' or 'live'; token ids of sequences) -> their tokens'
      log-probabilities by the training forward.
    row_length: the longest sequence that can be scored or trained on, in tokens.
  """

  step: int
  tasks: Sequence[api.Task]
  groups: Sequence[Tree]
  player: Player
  ledger: Ledger
  score: Callable[[str, Sequence[Sequence[int]]], list[np.ndarray]]
  row_length: int


@dataclasses.dataclass(frozen=True)
class Study:
  """What a companion makes of a step.

  Attributes:
    annotate: adds arrays to the sequence of an episode's part; all sequences of a
      phase have the same ones.
    further: makes sequences to be trained on beside, of the weight of all response
      tokens of the step; each with the arrays of the others.
    figures: of the step.
    advantages: of a group's episodes, one value per turn each; None: GRPO's.
    afterwards: sequences that the policy is trained on in a pass of its own, once it
      was trained on the episodes; with the arrays of `online.sequence`.
  """

  annotate: Callable[[Tree, Node, Arrays], Arrays]
  further: Callable[[float], list[Arrays]] = lambda weight: []
  figures: Mapping[str, float] = dataclasses.field(default_factory=dict)
  advantages: Callable[[Tree, Sequence[Node]], list[np.ndarray]] | None = None
  afterwards: Sequence[Arrays] = ()


class Companion(Protocol):
  """Adds to the loss of a policy gradient.

  Attributes:
    asks_base: whether the base's weights are needed.
  """

  asks_base: bool

  def loss(self, surrogate: Loss) -> Loss:
    """What is minimised instead of the surrogate."""
    ...

  def study(self, scene: Scene) -> Study:
    """Looks at a step's episodes before the update."""
    ...


class Alone:
  """The companion of a policy that has none."""

  asks_base = False

  def loss(self, surrogate: Loss) -> Loss:
    return surrogate

  def study(self, scene: Scene) -> Study:
    del scene
    return Study(lambda tree, part, arrays: arrays)
