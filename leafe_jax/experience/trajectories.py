"""Whole episodes as sequences for policy gradients.

Where history only grows, an episode of the acting policy is one sequence; where
prompts begin anew it is one from each of them on. Every response is conditioned
on exactly the tokens that it was sampled after.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int, UInt32

from leafe_jax.tree import Node, segments


@dataclasses.dataclass(frozen=True)
class Trajectory:
  """One episode, or a part of it, token by token.

  Attributes:
    tokens: ids of prompts, openers and responses in reading order.
    turns: number of the turn whose response a token belongs to, from 1; 0 on
      everything that the policy did not say.
    logprobs: natural-log probability of response tokens when they were
      sampled; 0 elsewhere.
    routes: numbers for the experts that were asked then; 0 elsewhere, and where
      there are none.
  """

  tokens: Int[np.ndarray, ' T']
  turns: Int[np.ndarray, ' T']
  logprobs: Float[np.ndarray, ' T']
  routes: UInt32[np.ndarray, ' T']

  def __len__(self) -> int:
    return self.tokens.size


def parts(node: Node) -> list[Node]:
  """An episode as one or more, each of which is one sequence."""
  return [dataclasses.replace(node, turns=turns) for turns in segments(node.turns)]


def from_root(node: Node) -> Trajectory:
  """The episode of a root, or one of its `parts`.

  Raises:
    ValueError: a branch, or a turn that was sampled with a hint: its tokens
      were not drawn from the policy at this prompt; or several `parts`.
  """
  if node.parent is not None or any(turn.hinted for turn in node.turns):
    raise ValueError(f'episode {node.id} is a branch or was given a hint')
  if len(segments(node.turns)) > 1:
    raise ValueError(f'prompts of episode {node.id} begin anew: take its parts')
  tokens: list[int] = []
  turns: list[int] = []
  logprobs: list[float] = []
  routes: list[int] = []
  for turn in node.turns:
    prompt = [*turn.prompt_ids, *turn.opener_ids]
    tokens += [*prompt, *turn.response_ids]
    turns += [0] * len(prompt) + [turn.index] * len(turn.response_ids)
    logprobs += [0.0] * len(prompt) + turn.logprobs
    routes += [0] * len(prompt) + (turn.routes or [0] * len(turn.response_ids))
  return Trajectory(
      np.asarray(tokens, np.int32),
      np.asarray(turns, np.int32),
      np.asarray(logprobs, np.float32),
      np.asarray(routes, np.uint32),
  )
