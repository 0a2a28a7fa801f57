"""A scripted teacher for real programs, in sentences.

Three players in one, as in `envs.codecontests.expert`: a script that submits the
data set's own solution, a demonstrator that submits it with a small mistake
(`mutants`) and does not always mend that after a failed test, and a critic. Unlike
other scripts this one was given something to begin with, the solution. What it says
is of what the agent has read: tests, what came of programs, and their lines.
"""

from __future__ import annotations

import ast
import difflib
import random
import re
from collections.abc import Callable, Mapping, Sequence

from envs import api, teaching
from envs.codecontests.mutants import mutants
from envs.codecontests.syntax import try_parse

_TESTS = re.compile(r'^Public tests:\n\n(?P<tests>.*)', re.DOTALL)
_CALL = re.compile(r'assert\s+\(*(?:\w+\()*?(?P<name>[A-Za-z_]\w*)\(')
_IO = re.compile(
    r'Input:\n(?P<given>.*?)\nExpected:\n(?P<wanted>.*?)'
    r'(?:\nPrinted:\n(?P<printed>.*?))?(?:\nError:\n(?P<error>.*?))?(?:\n\n|$)',
    re.DOTALL,
)
_FAILED = re.compile(r'^Test (?P<number>\d+): (?P<verdict>[\w ]+)\n(?P<rest>.*)',
                     re.DOTALL | re.MULTILINE)  # fmt: skip
_ERROR = re.compile(r'^Error:\n(?P<error>[^\n]*)', re.MULTILINE)
_HIDDEN = re.compile(r'a hidden test failed: (?P<verdict>[\w ]+)\.')
_QUOTED = re.compile(r'`([^`]+)`')
# Longer ones are not quoted in a sentence.
_MAX_QUOTED = 60
# Programs that have less in common with the solution are written anew.
_MIN_ALIKE = 0.5
_MAX_LINES = 2


class Notes:
  """Implements `teaching.Notes`.

  Attributes:
    reference: the solution.
    seen: the last observation.
    program: the last one submitted; empty before.
  """

  def __init__(self, reference: str, first: str):
    self.reference, self.seen, self.program = reference, first, ''

  def read(self, action: str, observation: str) -> None:
    self.program, self.seen = action, observation

  def choices(self) -> list[str]:
    return [self.reference]

  def buttons(self) -> list[str]:
    return [self.reference, *mutants(self.reference)]

  def reason(self, action: str) -> str:
    """What was seen, and what `action` does about it."""
    if not self.program.strip():
      return plan(self.seen)
    old, new = changed(self.program, action)
    if self.program == action:
      return f'{evidence(self.seen)} I submit the same program again.'
    if not _alike(self.program, action) or not (old and new):
      return f'{evidence(self.seen)} I write the program anew.'
    return f'{evidence(self.seen)} I replace `{old[0]}` by `{new[0]}`.'

  def fault(self) -> str:
    """What was seen, and which line is to blame."""
    if not self.program.strip():
      return 'What matters here is one line.'
    old, _ = changed(self.program, self.reference)
    if not old or not _alike(self.program, self.reference):
      return f'{evidence(self.seen)} Another idea is needed.'
    return f'{evidence(self.seen)} The line `{old[0]}` is wrong.'


def plan(first: str) -> str:
  """A thought before the first program, from the public tests."""
  found = _TESTS.match(first)
  tests = found['tests'] if found else ''
  if called := _CALL.search(tests):
    return f'The tests call {called["name"]}, so I define it.'
  if shown := _IO.search(tests):
    given, wanted = shown['given'].split('\n'), shown['wanted'].split('\n')
    return f'{_lines("input", given)} and {_lines("answer", wanted)}.'.capitalize()
  return 'There is no test to look at, so I go by the text.'


def _lines(name: str, lines: Sequence[str]) -> str:
  if len(lines) == 1 and _fits(lines[0]):
    return f'the first {name} is {lines[0].strip()}'
  return f'the first {name} has {len(lines)} line{"s" * (len(lines) > 1)}'


def evidence(answer: str) -> str:
  """A sentence about what a failed program led to."""
  if hidden := _HIDDEN.search(answer):
    return f'The public tests pass, but a hidden one fails ({hidden["verdict"]}).'
  failed = _FAILED.search(answer)
  if failed is None:
    return 'That was no program.'
  name, io = f'Test {failed["number"]}', _IO.search(failed['rest'])
  if failed['verdict'] == 'wrong answer':
    if io and io['printed'] and _fits(io['wanted']) and _fits(io['printed']):
      return f'{name} wants {io["wanted"].strip()}, not {io["printed"].strip()}.'
    return f'{name} gets a wrong answer.'
  error = _ERROR.search(failed['rest'])
  if error and _fits(error['error']):
    return f'{name} ends with {error["error"].strip().rstrip(".")}.'
  return f'{name} ends with the verdict {failed["verdict"]}.'


def _fits(text: str) -> bool:
  """Whether a text can be quoted in a sentence."""
  text = text.strip()
  return 0 < len(text) <= _MAX_QUOTED and text.isprintable() and '`' not in text


def changed(old: str, new: str) -> tuple[list[str], list[str]]:
  """Lines that one program has and another has not, each way, without margins."""
  before, after = _stripped(old), _stripped(new)
  pairs = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
  gone, come = [], []
  for tag, a, b, c, d in pairs:
    if tag != 'equal':
      gone += before[a:b]
      come += after[c:d]
  return [*filter(_fits, gone)], [*filter(_fits, come)]


def _stripped(program: str) -> list[str]:
  return [line.strip() for line in program.splitlines() if line.strip()]


def _alike(old: str, new: str) -> bool:
  matcher = difflib.SequenceMatcher(None, _stripped(old), _stripped(new), False)
  return matcher.ratio() >= _MIN_ALIKE


def decisive(program: str) -> list[str]:
  """The lines of a program in which most mistakes can be made, best first."""
  counts = dict.fromkeys(filter(_fits, _stripped(program)), 0)
  for mutant in mutants(program):
    for line in changed(program, mutant)[0]:
      counts[line] += 1
  heads = ('def ', 'import ', 'from ', 'class ')
  return sorted(counts, key=lambda line: (-counts[line], line.startswith(heads)))


def respond(thought: str, program: str) -> str:
  """A response in the form that the text view asks for."""
  return f'{thought}\n```python\n{program}\n```'


def spelt(
    references: Mapping[str, str], parse: Callable[[str], str]
) -> dict[str, str]:
  """The solutions as they are read from a response; without what is no program.

  Args:
    references: solutions by statement.
    parse: `api.World.parse_response`.
  """
  found = {}
  for statement, program in references.items():
    text = _tidy(program)
    if try_parse(text) is None:
      continue  # of another Python
    read = parse(respond('', text))
    if parse(respond('', read)) == read and try_parse(read):
      found[statement] = read
  return found


def _tidy(program: str) -> str:
  """The program in plain lines; as it was where that would change it."""
  program = program.replace('\r\n', '\n').replace('\r', '\n').strip('\n')
  lines = (line.expandtabs(4).rstrip() for line in program.split('\n'))
  tidy = '\n'.join(lines)
  trees = try_parse(program), try_parse(tidy)
  same = all(trees) and len({ast.dump(tree) for tree in trees if tree}) == 1
  return tidy if same else program


class TextCodeTeacher(teaching.SpokenTeacher[Notes]):
  """See the module's docstring.

  An experience quotes the lines that matter, not the whole program.

  Attributes:
    quality: chance that the demonstrator's first program is the solution, not one
      with a mistake.
    care: chance that it mends its program after a failure, rather than make another
      mistake.
    reflection_quality: chance that a diagnosis is the script's.
  """

  def __init__(
      self,
      references: Mapping[str, str],
      quality: float = 0.2,
      care: float = 0.15,
      reflection_quality: float = 0.9,
  ):
    """ValueError names an option that is not a probability.

    Args:
      references: solutions by what the agent is asked (`api.Task.instruction`).
    """
    teaching.check_chances(
        quality=quality, care=care, reflection_quality=reflection_quality
    )
    self._references = references
    self.quality, self.care = quality, care
    self.reflection_quality = reflection_quality

  def open_notes(self, history: api.History) -> Notes:
    if history.instruction not in self._references:
      raise ValueError(
          'the data has no solution in Python 3 for the problem '
          f'{history.instruction[:80]!r}'
      )
    return Notes(self._references[history.instruction], history.observations[0])

  def act(self, history: api.History, rng: random.Random) -> str:
    """What the demonstrator does."""
    notes = self.read(history)
    # One mistake on top of another: what failed does not come right by chance.
    found = mutants(notes.program or notes.reference)
    others = [text for text in found if text != notes.reference]
    if not others or rng.random() < (self.care if notes.program else self.quality):
      return notes.reference
    return rng.choice(others)

  def say(self, history: api.History, action: str) -> str:
    return respond(self.read(history).reason(action), action)

  def advice(self, notes: Notes, action: str) -> str:
    """What was seen, and the lines of `action` that matter."""
    _, new = changed(notes.program, action) if notes.program.strip() else ([], [])
    if not new or not _alike(notes.program, action):
      new = decisive(action)[:1]
    lines = ' and '.join(f'`{line}`' for line in new[:_MAX_LINES])
    return teaching.advise(notes.fault(), lines or 'the same program')

  def follows(self, experience: str, action: str) -> bool:
    advised = _QUOTED.findall(teaching.advised(experience) or '')
    return bool(advised) and {*advised} <= {*_stripped(action)}

  def find_fault(self, history: api.History, failed: bool) -> api.Diagnosis | None:
    """The first program after a failure that did not mend it, else the last one.

    A first program may be wrong: what is wrong with it shows in the answer.
    """
    if not failed:
      return None
    last = len(history.actions)
    for turn, (action, notes) in enumerate(
        zip(history.actions, self.walk(history), strict=False), start=1
    ):
      wrong = turn > 1 and action not in notes.choices()
      if wrong or turn == last:
        return self._diagnosis(turn, notes, notes.choices()[0])
    raise AssertionError('a history that is diagnosed has an action')
