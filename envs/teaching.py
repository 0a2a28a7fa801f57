"""What scripted teachers have in common.

A teacher is three players in one: a script (`correct`), a demonstrator that falls
short of it on purpose (`act`), and a critic that compares a history with the
script (`diagnose`, `advise`). A `ScriptedTeacher` errs as a critic now and then;
a `NotesTeacher` reads a history into notes that know what is sensible, and a
`SpokenTeacher` puts what they know into sentences, for language models.
"""

from __future__ import annotations

import abc
import random
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from envs import api

# Before the action that a spoken experience ends with.
BETTER = 'Better:'


def check_chances(**options: float) -> None:
  """ValueError names an option that is not a probability."""
  for name, value in options.items():
    if not 0 <= value <= 1:
      raise ValueError(f'{name} is {value}; it must be between 0 and 1')


class ScriptedTeacher(api.Teacher):
  """A teacher that knows the fault of a history, or makes one up.

  Attributes:
    reflection_quality: chance that a diagnosis is the script's.
  """

  reflection_quality: float

  def diagnose(
      self, history: api.History, failed: bool, rng: random.Random
  ) -> api.Diagnosis | None:
    """See `find_fault`; with the chance of a mistake, `misjudge`."""
    if not history.actions:
      return None
    if rng.random() >= self.reflection_quality:
      return self.misjudge(history, rng)
    return self.find_fault(history, failed)

  @abc.abstractmethod
  def find_fault(self, history: api.History, failed: bool) -> api.Diagnosis | None:
    """The script's own diagnosis of a history of at least one action."""

  @abc.abstractmethod
  def misjudge(self, history: api.History, rng: random.Random) -> api.Diagnosis:
    """A well-formed diagnosis that is most likely wrong."""


class Notes(Protocol):
  """What a careful reader of a history knows, updated turn by turn."""

  def read(self, action: str, observation: str) -> None:
    """Takes in what `action` led to."""

  def choices(self) -> list[str]:
    """Sensible actions, the script's own first; never empty."""
    ...

  def buttons(self) -> list[str]:
    """Everything that could be done here, sensible or not."""
    ...

  def reason(self, action: str) -> str:
    """Words that justify `action` here."""
    ...


N = TypeVar('N', bound=Notes)


class NotesTeacher(ScriptedTeacher, Generic[N]):
  """A teacher whose script and critic read notes; its texts are 'reason action'."""

  @abc.abstractmethod
  def open_notes(self, history: api.History) -> N:
    """Notes of the first observation. ValueError if it is no beginning."""

  def walk(self, history: api.History) -> Iterator[N]:
    """The notes after each observation; one object, updated in place."""
    notes = self.open_notes(history)
    yield notes
    for action, observation in zip(
        history.actions, history.observations[1:], strict=False
    ):
      notes.read(action, observation)
      yield notes

  def read(self, history: api.History) -> N:
    """The notes at the end of a history."""
    *_, notes = self.walk(history)
    return notes

  def correct(self, history: api.History) -> str:
    """What the script does."""
    return self.read(history).choices()[0]

  def advise(self, history: api.History, action: str) -> str:
    """A reason and the action, e.g. 'no blue click back'."""
    return self.advice(self.read(history), action)

  def advice(self, notes: N, action: str) -> str:
    """The same, of notes."""
    return f'{notes.reason(action)} {action}'

  def find_fault(self, history: api.History, failed: bool) -> api.Diagnosis | None:
    """The earliest turn that the script would not have played like that.

    Where a failed history has no such turn, the last one at which there was
    another choice worth a try (`is_open`), else the last turn.
    """
    spare = None
    turns = zip(history.actions, self.walk(history), strict=False)
    for turn, (action, notes) in enumerate(turns, start=1):
      choices = notes.choices()
      if action not in choices:
        return self._diagnosis(turn, notes, choices[0])
      others = [choice for choice in choices if choice != action]
      if others and self.is_open(notes):
        spare = self._diagnosis(turn, notes, others[0])
      elif turn == len(history.actions):
        spare = spare or self._diagnosis(turn, notes, action)
    return spare if failed else None

  def is_open(self, notes: N) -> bool:
    """Whether another choice here may lead to another outcome."""
    del notes
    return True

  def misjudge(self, history: api.History, rng: random.Random) -> api.Diagnosis:
    """Any turn, and anything that could be done there."""
    chosen = rng.randint(1, len(history.actions))
    for turn, notes in enumerate(self.walk(history), start=1):
      if turn == chosen:
        return self._diagnosis(turn, notes, rng.choice(notes.buttons()))
    raise AssertionError('a history has an observation for every action')

  def _diagnosis(self, turn: int, notes: N, action: str) -> api.Diagnosis:
    return api.Diagnosis(turn, self.advice(notes, action))


class SpokenTeacher(NotesTeacher[N]):
  """A teacher in sentences: its notes' reasons are whole ones.

  A response is the reason as a thought, and the action in tags on a line of its
  own; an experience is the reason, `BETTER` and the action, which end it.
  """

  def advice(self, notes: N, action: str) -> str:
    return advise(notes.reason(action), action)

  def say(self, history: api.History, action: str) -> str:
    return respond(self.read(history).reason(action), action)

  def agrees(self, said: str, meant: str) -> bool:
    return advised(said) == advised(meant)


def respond(thought: str, action: str) -> str:
  """A response of a language model."""
  return f'{thought}\n<action>{action}</action>'


def advise(reason: str, action: str) -> str:
  """An experience text of a language model."""
  return f'{reason} {BETTER} {action}'


def advised(experience: str) -> str | None:
  """The action that ends an experience text of `advise`; None if none does."""
  _, mark, action = experience.rpartition(BETTER)
  return action.strip() if mark else None
