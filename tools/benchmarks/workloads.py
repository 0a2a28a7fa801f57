"""What samplers are asked to do, as plain lists: any Python can read them."""

from __future__ import annotations

import dataclasses
import random

Tokens = list[int]


@dataclasses.dataclass(frozen=True)
class Conversation:
  """Rows that take the same number of turns of the same length.

  Attributes:
    observations: [turns][rows] tokens that come before each response.
    new_tokens: of every response; nothing stops one earlier.
  """

  observations: list[list[Tokens]]
  new_tokens: int

  @property
  def num_rows(self) -> int:
    return len(self.observations[0])

  @property
  def num_alive(self) -> int:
    """Transcripts to be kept at a time."""
    return self.num_rows

  @property
  def num_sampled(self) -> int:
    return len(self.observations) * self.num_rows * self.new_tokens

  @property
  def length(self) -> int:
    """Tokens of the longest row at its end."""
    turns = len(self.observations)
    return sum(len(turn[0]) for turn in self.observations) + turns * self.new_tokens


@dataclasses.dataclass(frozen=True)
class Tree:
  """A root episode per task, then branches that leave it and play to its end.

  Attributes:
    roots: the episodes that branches leave.
    parents: the root of each branch.
    turns: the turn (from 1) at which each branch starts anew.
    observations: [branches][turns left] tokens.
  """

  roots: Conversation
  parents: list[int]
  turns: list[int]
  observations: list[list[Tokens]]

  @property
  def num_rows(self) -> int:
    return len(self.parents)

  @property
  def num_alive(self) -> int:
    # Each turn of a root keeps a half-filled page of its own.
    return self.num_rows + 2 * self.roots.num_rows

  @property
  def num_sampled(self) -> int:
    played = sum(len(episode) for episode in self.observations)
    return self.roots.num_sampled + played * self.roots.new_tokens

  @property
  def length(self) -> int:
    return self.roots.length


def conversation(
    rows: int, turns: int, observation: int, new_tokens: int, vocab_size: int
) -> Conversation:
  """Random tokens; ids below 4 are left to padding and the like."""
  rng = random.Random(rows * 1000 + turns)
  observations = [
      [_text(rng, observation, vocab_size) for _ in range(rows)] for _ in range(turns)
  ]
  return Conversation(observations, new_tokens)


def tree(
    tasks: int,
    attempts: int,
    turns: int,
    observation: int,
    new_tokens: int,
    vocab_size: int,
) -> Tree:
  """`attempts` episodes per task, of which all but the first are branches."""
  rng = random.Random(tasks)
  roots = conversation(tasks, turns, observation, new_tokens, vocab_size)
  parents = [task for task in range(tasks) for _ in range(attempts - 1)]
  starts = [rng.randint(1, turns) for _ in parents]
  observations = [
      [_text(rng, observation, vocab_size) for _ in range(start, turns + 1)]
      for start in starts
  ]
  return Tree(roots, parents, starts, observations)


def _text(rng: random.Random, length: int, vocab_size: int) -> Tokens:
  return [rng.randrange(4, vocab_size) for _ in range(length)]
