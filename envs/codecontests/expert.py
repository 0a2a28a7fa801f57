"""A scripted teacher for the tiny language.

Three players in one: a careful script (`correct`) that changes what a failed
test has shown to be wrong and nothing else, a demonstrator (`act`) that rather
changes a word at random, and a critic (`diagnose`, `advise`) that compares a
history with the script. All of them read nothing but the history's texts.

The script may begin with any program: to deduce the right one from an example
takes arithmetic that a small policy does not have. (Its own first program does
agree with the example.)
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from envs import api, teaching
from envs.codecontests import compact


@dataclasses.dataclass(frozen=True)
class Notes:
  """What a careful reader of a history knows.

  Attributes:
    families: one per clause.
    examples: seen so far, the statement's first.
    tried: programs submitted so far, in order; all of them failed.
    ruled_out: (clause, word) pairs that a failed test has shown to be wrong.
    wrong: family that the last failed test named, '' if it named none.
  """

  families: tuple[str, ...]
  examples: tuple[compact.Example, ...]
  tried: tuple[compact.Program, ...]
  ruled_out: frozenset[tuple[int, str]]
  wrong: str

  def choices(self) -> list[compact.Program]:
    """Sensible programs, the script's own first; never empty."""
    rivals = compact.rivals(self.families)
    open_ = [
        program
        for program in rivals
        if program not in self.tried
        and self.ruled_out.isdisjoint(enumerate(program))
    ]
    # A session at odds with its own examples leaves nothing to try.
    programs = sorted(open_ or rivals, key=lambda program: not self.agrees(program))
    if not self.tried:
      return programs
    changes = [_count_changes(self.tried[-1], program) for program in programs]
    return [
        program
        for program, count in zip(programs, changes, strict=True)
        if count == min(changes)
    ]

  def agrees(self, program: compact.Program) -> bool:
    return all(
        compact.run(program, example.input) == example.output
        for example in self.examples
    )

  def members(self, clause: int) -> list[str]:
    """Words for a clause that agree with every example."""
    return [
        word
        for word in compact.FAMILIES[self.families[clause]]
        if all(
            compact.run((word,), example.input) == (example.output[clause],)
            for example in self.examples
        )
    ]

  def reason(self) -> str:
    """Words that justify the script's program."""
    return f'{compact.WRONG} {self.wrong}' if self.wrong else compact.FITS


def _count_changes(first: compact.Program, second: compact.Program) -> int:
  return sum(a != b for a, b in zip(first, second, strict=True))


def read(history: api.History) -> Notes:
  """The notes at the end of a history."""
  families = compact.parse_statement(history.instruction).families
  examples: list[compact.Example] = []
  tried: list[compact.Program] = []
  ruled_out: set[tuple[int, str]] = set()
  wrong = ''
  # No action led to the first observation.
  for action, text in zip(('', *history.actions), history.observations, strict=False):
    page = compact.parse_page(text)
    if page.example is not None:
      examples.append(page.example)
    program = compact.parse_program(action)
    # A program of another length says nothing about a clause.
    if program is None or len(program) != len(families):
      continue
    tried.append(program)
    wrong = page.wrong
    if wrong:
      clause = families.index(wrong)
      ruled_out.add((clause, program[clause]))
  unique = tuple(dict.fromkeys(examples))
  return Notes(families, unique, tuple(tried), frozenset(ruled_out), wrong)


class CodeTeacher(teaching.ScriptedTeacher):
  """See the module's docstring.

  Attributes:
    quality: chance, clause by clause, that the demonstrator's first program
      agrees with the example.
    care: chance that it does what the script would do after a failure, rather
      than change a word of its last program at random.
    reflection_quality: chance that a diagnosis is the script's.
  """

  def __init__(
      self, quality: float = 0.2, care: float = 0.15, reflection_quality: float = 0.9
  ):
    """ValueError names an option that is not a probability."""
    teaching.check_chances(
        quality=quality, care=care, reflection_quality=reflection_quality
    )
    self.quality, self.care = quality, care
    self.reflection_quality = reflection_quality

  def act(self, history: api.History, rng: random.Random) -> str:
    """What the demonstrator does."""
    notes = read(history)
    if not notes.tried:
      return compact.write_program(self._write(notes, rng))
    if rng.random() < self.care:
      return compact.write_program(rng.choice(notes.choices()))
    last = notes.tried[-1]
    clause = rng.randrange(len(last))
    members = compact.FAMILIES[notes.families[clause]]
    word = rng.choice([word for word in members if word != last[clause]])
    return compact.write_program((*last[:clause], word, *last[clause + 1 :]))

  def _write(self, notes: Notes, rng: random.Random) -> compact.Program:
    words = []
    for clause, family in enumerate(notes.families):
      members: Sequence[str] = compact.FAMILIES[family]
      if rng.random() < self.quality:
        members = notes.members(clause) or members
      words.append(rng.choice(members))
    return tuple(words)

  def correct(self, history: api.History) -> str:
    """What the script does."""
    return compact.write_program(read(history).choices()[0])

  def advise(self, history: api.History, action: str) -> str:
    """A reason and the action, e.g. 'wrong edge print last evens'."""
    return f'{read(history).reason()} {action}'

  def find_fault(self, history: api.History, failed: bool) -> api.Diagnosis | None:
    """The earliest turn that the script would not have played like that.

    Where a failed history has no such turn, its last turn with what the script
    would do next.
    """
    for turn, action in enumerate(history.actions, start=1):
      notes = read(_before(history, turn))
      if compact.parse_program(action) not in notes.choices():
        return _diagnosis(turn, notes, notes.choices()[0])
    if not failed:
      return None
    notes = read(history)
    return _diagnosis(len(history.actions), notes, notes.choices()[0])

  def misjudge(self, history: api.History, rng: random.Random) -> api.Diagnosis:
    """Any turn, and any program."""
    turn = rng.randint(1, len(history.actions))
    notes = read(_before(history, turn))
    return _diagnosis(turn, notes, rng.choice(compact.rivals(notes.families)))


def _before(history: api.History, turn: int) -> api.History:
  """What was known before action `turn` (from 1)."""
  return api.History(
      history.instruction, history.observations[:turn], history.actions[: turn - 1]
  )


def _diagnosis(turn: int, notes: Notes, program: compact.Program) -> api.Diagnosis:
  return api.Diagnosis(turn, f'{notes.reason()} {compact.write_program(program)}')
