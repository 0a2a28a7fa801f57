"""What a scripted teacher sees, and what it says; all of it through `envs.api`."""

from __future__ import annotations

import abc
import dataclasses
import random


@dataclasses.dataclass(frozen=True)
class History:
  """What the agent has seen and done: all that a teacher may look at.

  Attributes:
    instruction: the task's instruction.
    observations: o_1 .. o_t.
    actions: a_1 .. a_{t-1} while the agent is to move, a_1 .. a_t when the
      last observation is the answer to the last action of a finished episode
      (then there is one more observation than the agent had turns).
  """

  instruction: str
  observations: tuple[str, ...]
  actions: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Diagnosis:
  """A reflection: the turn to go back to (from 1) and what to do there."""

  turn: int
  experience: str


class Teacher(abc.ABC):
  """Scripted demonstrations for policies that start from scratch.

  A teacher sees a `History`, never the task's payload or the world's hidden
  data, so that whatever it teaches could be known by the agent itself. Where no
  script can solve a task from that (ScienceWorld, real programs), it has a solution
  of the data's own besides, and speaks of what the agent has seen.
  """

  @abc.abstractmethod
  def act(self, history: History, rng: random.Random) -> str:
    """An action of the demonstrator, whose quality is limited on purpose."""

  @abc.abstractmethod
  def correct(self, history: History) -> str:
    """The action the script would take, given what it has seen."""

  @abc.abstractmethod
  def advise(self, history: History, action: str) -> str:
    """An experience text that tells the agent to do `action` now, and why."""

  @abc.abstractmethod
  def diagnose(
      self, history: History, failed: bool, rng: random.Random
  ) -> Diagnosis | None:
    """Where the history went wrong first; None for 'carry on' (not failed).

    `rng` draws the teacher's own mistakes (its `reflection_quality` option).
    """

  def say(self, history: History, action: str) -> str:
    """The response that takes `action` now; here the action and no more."""
    del history
    return action

  def agrees(self, said: str, meant: str) -> bool:
    """Whether an experience text advises what another one, of its own, does."""
    return said == meant

  def follows(self, experience: str, action: str) -> bool:
    """Whether an action is what an experience text advises; it ends with it here."""
    return experience.endswith(action)
