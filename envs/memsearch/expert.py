"""A scripted teacher for the generated conversations.

Three players in one: a script (`correct`) that looks for both words of a thing, of
the right person, before it answers; a demonstrator (`act`) that mostly answers from
the first thing it finds; and a critic that compares a history with the script. They
see nothing but the history's texts, through the view.
"""

from __future__ import annotations

import dataclasses
import random

from envs import api, teaching
from envs.memsearch.embedded import FIRST, FRIEND, TOPICS, Fact
from envs.memsearch.scoring import UNKNOWN
from envs.memsearch.view import ANSWER, KEYWORD, SEARCHES, Asked, Command, View

# Why to do something; experience texts are a reason and an action.
LOOK, OTHER, WHO, LATEST, EARLIEST, ABSENT = (
    'look for it', 'other word', 'who is it', 'said last', 'said first', 'never said',
)  # fmt: skip
WORDS = tuple(' '.join((LOOK, OTHER, WHO, LATEST, EARLIEST, ABSENT)).split())
_SENTENCES = {
    LOOK: 'I look for what was said about it.',
    OTHER: 'It may have been said with another word.',
    WHO: 'I must first find out who that is.',
    LATEST: 'This is what was said last.',
    EARLIEST: 'This is what was said first.',
    ABSENT: 'Nothing was found with either word, so it was never said.',
}


@dataclasses.dataclass
class Notes:
  """What a careful reader of a history knows, updated turn by turn.

  Attributes:
    view: reads and writes texts.
    asked: what is wanted.
    left: searches to come.
    facts: all that was seen.
    tried: queries so far, as sets of words.
  """

  view: View
  asked: Asked
  left: int
  facts: set[Fact] = dataclasses.field(default_factory=set)
  tried: list[frozenset[str]] = dataclasses.field(default_factory=list)

  def read(self, action: str, observation: str) -> None:
    """Takes in what `action` led to."""
    command = self.view.read(action) or Command('', '')
    if command.verb in SEARCHES and self.left:
      self.left -= 1
      self.tried.append(frozenset(command.text.lower().split()))
      self.facts.update(self.view.facts(observation))

  def words(self) -> tuple[str, str]:
    return self.asked.topic, TOPICS[self.asked.topic][0]

  def subject(self) -> str:
    """Whose thing is wanted; '' while it is not known."""
    if self.asked.kind != FRIEND:
      return self.asked.name
    return next((fact.value for fact in self.facts
                 if (fact.name, fact.word) == (self.asked.name, FRIEND)), '')

  def matches(self) -> list[Fact]:
    """What is known of the wanted thing, in the order in which it was said."""
    wanted = self.subject()
    known = [f for f in self.facts if f.name == wanted and f.word in self.words()]
    return sorted(known, key=lambda fact: fact.session)

  def queries(self) -> list[tuple[str, str]]:
    """(whose, what) is still to be looked for."""
    subject = self.subject()
    if not subject:
      pairs = [(self.asked.name, FRIEND)]
    else:
      pairs = [(subject, word) for word in self.words()]
    return [
        pair for pair in pairs if not any(set(pair) <= tried for tried in self.tried)
    ]

  def answer(self) -> str:
    """The best answer to what is known."""
    found = self.matches()
    if not found:
      return UNKNOWN
    return found[0 if self.asked.kind == FIRST else -1].value

  def choices(self) -> list[str]:
    """Sensible actions, the script's own first; never empty."""
    if self.left and (queries := self.queries()):
      return [self.view.write(KEYWORD, ' '.join(query)) for query in queries]
    return [self.view.write(ANSWER, self.answer())]

  def buttons(self) -> list[str]:
    """Everything that could be done here, sensible or not."""
    values = sorted({fact.value for fact in self.facts})
    answers = [self.view.write(ANSWER, value) for value in (*values, UNKNOWN)]
    if not self.left:
      return answers
    names = sorted({self.asked.name, *(fact.name for fact in self.facts)})
    words = (*self.words(), FRIEND)
    return [*answers, *(
        self.view.write(KEYWORD, f'{name} {word}') for name in names for word in words
    )]

  def reason(self, action: str) -> str:
    """Words that justify `action` here."""
    command = self.view.read(action) or Command('', '')
    if command.verb == ANSWER:
      if command.text == UNKNOWN:
        return ABSENT
      return EARLIEST if self.asked.kind == FIRST else LATEST
    if FRIEND in command.text.split():
      return WHO
    return OTHER if self.words()[1] in command.text.split() else LOOK


class MemoryTeacher(teaching.NotesTeacher[Notes]):
  """See the module's docstring.

  Attributes:
    care: chance that the demonstrator looks for a thing once more, with the other
      word, before it answers.
    quality: chance that it does not do any of the things that could be done.
    reflection_quality: chance that a diagnosis is the script's.
  """

  def __init__(
      self, view: View, budget: int, care: float = 0.15, quality: float = 0.95,
      reflection_quality: float = 0.9,
  ):  # fmt: skip
    """ValueError names an option that is not a probability.

    Args:
      view: reads the observations.
      budget: searches of an episode.
      care, quality, reflection_quality: see the class.
    """
    teaching.check_chances(
        care=care, quality=quality, reflection_quality=reflection_quality
    )
    self._view, self._budget = view, budget
    self.care, self.quality = care, quality
    self.reflection_quality = reflection_quality

  def open_notes(self, history: api.History) -> Notes:
    return Notes(self._view, self._view.asked(history.observations[0]), self._budget)

  def is_open(self, notes: Notes) -> bool:
    """What is already known leaves no other answer."""
    return bool(notes.left and notes.queries())

  def act(self, history: api.History, rng: random.Random) -> str:
    """What the demonstrator does."""
    notes = self.read(history)
    if rng.random() >= self.quality:
      return rng.choice(notes.buttons())
    choices = notes.choices()
    looked = any(word in tried for tried in notes.tried for word in notes.words())
    if looked and notes.left and notes.queries() and rng.random() >= self.care:
      return self._view.write(ANSWER, notes.answer())
    return rng.choice(choices)


class SpokenMemoryTeacher(MemoryTeacher, teaching.SpokenTeacher[Notes]):
  """The same in sentences, for the text view."""

  def open_notes(self, history: api.History) -> Notes:
    asked = self._view.asked(history.observations[0])
    return _SpokenNotes(self._view, asked, self._budget)


class _SpokenNotes(Notes):

  def reason(self, action: str) -> str:
    return _SENTENCES[super().reason(action)]


