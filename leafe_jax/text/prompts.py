"""What is said to a chat policy around the world's own words.

A user copies `configs/prompts/default.toml`, edits what should be said
differently, and names the file in policy.prompts; what a file leaves out stays
as it is here. The words are recorded with the run.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import string
import tomllib
from typing import Any

from leafe_jax.files import read_object, write_atomic


class PromptsError(ValueError):
  """A file of prompts that cannot be used; names the file, the text and why."""


def words(
    default: str, *places: str, may: tuple[str, ...] = (), holds: tuple[str, ...] = ()
) -> Any:
  """A text, the places it must and may have, and what else must stand in it."""
  return dataclasses.field(
      default=default, metadata={'places': places, 'may': may, 'holds': holds}
  )


@dataclasses.dataclass(frozen=True)
class Prompts:
  """Texts; {name} is a place that the program fills.

  Attributes:
    system: the system message; empty: the template's own, or none.
    style: how to answer, after the world's rules; empty: as these say.
    first: the message of turn 1. {memory} is empty or filled by `memory`.
    next: the message of every later turn.
    window: that message where policy.history_turns are shown: {taken} turns were
      taken, and of the last {shown} of them {history} tells.
    window_turn: one of these.
    no_action: the {action} of a turn without one.
    memory: lessons that hold for the whole episode.
    hint: e, at the end of the message before the turn to be done better.
    feedback: the world's answer to an earlier action in this place, for the teacher
      who scores that action (self-distillation).
    failed, going: how an attempt stands when a reflection is asked for.
    reflect: asks for a reflection at the end of a message.
    decline: added to it where the attempt is in progress.
    cut_off: before the next message when an answer was cut off.
  """

  system: str = words('')
  style: str = words('')
  first: str = words(
      '{rules}\n\nTask: {instruction}{memory}\n\nStep 1\n{observation}',
      'rules', 'instruction', 'memory', 'observation',
  )
  next: str = words('Step {turn}\n{observation}', 'turn', 'observation')
  window: str = words(
      '{rules}\n\nTask: {instruction}{memory}\n\nSteps taken so far: {taken}. What '
      'you saw and did in the last {shown}:\n\n{history}Step {turn}\n{observation}',
      'rules', 'instruction', 'memory', 'history', 'observation',
      may=('taken', 'shown', 'turn'),
  )
  window_turn: str = words(
      'Step {turn}\n{observation}\nYou did: {action}\n\n', 'action',
      may=('turn', 'observation'),
  )
  no_action: str = words('nothing, for lack of a valid action')
  memory: str = words('\n\nLessons from earlier attempts:\n{memory}', 'memory')
  hint: str = words(
      '\n\nLesson from an earlier attempt at this same task: {experience}\n'
      'Use it now; do not mention it.', 'experience',
  )
  feedback: str = words(
      '\n\nIn an earlier attempt you answered here, and the world then said:\n'
      '{observation}\nDecide anew what to do now; do not mention it.', 'observation',
  )
  failed: str = words('The attempt failed after step {turn}.', 'turn')
  going: str = words('The attempt is in progress after step {turn}.', 'turn')
  reflect: str = words(
      '\n\n{status} Look back over the numbered steps above. Find the earliest step '
      'whose change would have altered the outcome. In at most 80 words say what '
      'went wrong, citing the observation, and what to do at that step. Do not '
      'describe later steps and do not guess hidden facts. Answer exactly in this '
      'form:\n<rollback>STEP</rollback><experience>TEXT</experience>',
      'status', holds=('<rollback>', '<experience>'),
  )
  decline: str = words(
      '\nIf all is well so far, answer <rollback>none</rollback>',
      holds=('<rollback>none</rollback>',),
  )
  cut_off: str = words(
      'Your last answer was longer than {limit} tokens and was cut off before its '
      'end, so nothing was done. Answer more briefly.\n', 'limit',
  )  # fmt: skip

  @property
  def system_message(self) -> str:
    """As it is said; empty for none."""
    return self.system.format()


DEFAULT = Prompts()


def read(path: str | pathlib.Path) -> Prompts:
  """The prompts of a TOML file. Raises PromptsError."""
  try:
    found = tomllib.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:  # of TOML and of UTF-8, too
    raise PromptsError(f'{path}: {error}') from error
  fields = {field.name: field for field in dataclasses.fields(Prompts)}
  for name, text in found.items():
    if name not in fields:
      raise PromptsError(
          f'{path}: there is no text {name!r}; choose from {", ".join(fields)}'
      )
    if reason := _objection(text, fields[name].metadata):
      raise PromptsError(f'{path}: {name} {reason}')
  return Prompts(**found)


def _objection(text: Any, needs: Any) -> str:
  """What is wrong with a text; empty for nothing."""
  if not isinstance(text, str):
    return f'is {text!r}, not a text'
  try:
    parts = list(string.Formatter().parse(text))
  except ValueError as error:
    return f'has a brace that is no place ({error}); write {{{{ or }}}} for a brace'
  places = {name for _, name, form, conversion in parts if name is not None}
  if any(form or conversion for _, _, form, conversion in parts):
    return 'has a place with a format; write just {name}'
  for name in needs['places']:
    if name not in places:
      return f'lacks the place {{{name}}}'
  if unknown := sorted(places - {*needs['places'], *needs['may']}):
    return f'has the place {{{unknown[0]}}}, which nothing fills'
  for part in needs['holds']:
    if part not in text:
      return f'must say {part}: answers are read in that form'
  return ''


def keep(path: pathlib.Path, source: str) -> None:
  """Writes the prompts at a run's first start; compares with them at later ones.

  Args:
    path: in the run's directory.
    source: the file that the config names; empty for the defaults.

  Raises:
    PromptsError: as `read`, or they are not what they were then.
  """
  prompts = read(source) if source else DEFAULT
  if not path.exists():
    text = json.dumps(dataclasses.asdict(prompts), indent=2, ensure_ascii=False)
    write_atomic(path, text + '\n')
  elif kept(path) != prompts:
    raise PromptsError(
        f'{source or "the defaults"}: not the prompts that the run began with '
        f'({path}); put them back, or begin anew in another --workdir'
    )


def kept(path: pathlib.Path) -> Prompts:
  """What `keep` wrote. PromptsError if it is not that any more."""
  try:
    return Prompts(**read_object(path))
  except (ValueError, TypeError) as error:
    raise PromptsError(
        f'{path}: {error}; remove it, and the prompts of the config are kept again'
    ) from error
