"""Who is asked before each turn of an episode what to show there.

What is shown stands where a hint does, between the observation and the response,
and is gone afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from envs import api
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.sampler import Rules, Sample
from leafe_jax.text.transcript import Transcript
from leafe_jax.tree import Turn


class Adviser(Protocol):
  """Its answers follow from its arguments alone.

  Attributes:
    rules: of sampling what the policy answers.
  """

  rules: Rules

  def question(self, task: api.Task, history: api.History) -> list[int]:
    """What the policy is asked first, as a prompt of its own; empty: nothing."""
    ...

  def advise(self, task: api.Task, history: api.History, said: str) -> Sequence[str]:
    """Texts to show, given what the policy said; '' where it said nothing usable."""
    ...


class _Decision(Protocol):
  """See `episode.Decision`."""

  @property
  def observation(self) -> str: ...

  @property
  def past(self) -> tuple[Turn, ...]: ...


class Counsel:
  """What an adviser says to one episode.

  Attributes:
    advice: what is shown at the present turn.

  Args:
    adviser: None: nobody says anything.
    transcript: of the policy.
  """

  def __init__(self, adviser: Adviser | None, transcript: Transcript):
    self._adviser, self._transcript = adviser, transcript
    self.renew()

  def renew(self) -> None:
    """A new turn begins."""
    self.advice: tuple[str, ...] = ()
    self._known = self._asking = False

  def ask(self, task: api.Task, decision: _Decision, ledger: Ledger) -> list[int]:
    """What the policy is to answer first, as token ids of a prompt of its own.

    Empty: nothing, `advice` is complete.
    """
    adviser = self._adviser
    if adviser is None or self._known:
      return []
    history = history_of(task, decision)
    ids = adviser.question(task, history)
    self._asking = bool(ids)
    ledger.reflections += bool(ids)
    ledger.reflection_prompt_tokens += len(ids)
    if not ids:
      self._know(adviser.advise(task, history, ''))
    return ids

  def take(
      self, sample: Sample, task: api.Task, decision: _Decision, ledger: Ledger
  ) -> bool:
    """Takes in the answer to `ask`; False: nothing was asked."""
    if self._adviser is None or not self._asking:
      return False
    ledger.reflection_tokens += len(sample.tokens)
    said = ''
    if sample.stopped:  # what was cut off means nothing
      said = self._transcript.answer(self._transcript.text(sample.tokens)).strip()
    self._know(self._adviser.advise(task, history_of(task, decision), said))
    return True

  def _know(self, advice: Sequence[str]) -> None:
    self.advice, self._known, self._asking = tuple(advice), True, False


def history_of(task: api.Task, decision: _Decision) -> api.History:
  """What the agent knows that is about to move."""
  observations = (*(turn.observation for turn in decision.past), decision.observation)
  actions = tuple(turn.action or '' for turn in decision.past)
  return api.History(task.instruction, observations, actions)
