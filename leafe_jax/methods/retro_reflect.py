"""Hindsight: what an episode came to, and a lesson, in its policy's own words.

One reflection an episode, z = (phi, c, l): the share of sub-tasks that were completed,
whether it succeeded, a lesson (arXiv 2603.08561). Two families of prompts:

* told: the outcome stands in the prompt, beside an earlier attempt at the task with
  the other outcome; c is no prediction then;
* untold: the policy is to judge for itself, and sees no other attempt.

Chat policies answer with a JSON object. Word-level policies, whose vocabulary has no
such form, are asked as in Stage 1 for (tau, e): told, about failures alone, else as
about an episode in progress, where 'all is well' predicts a success. Their lesson is
e; they know no sub-tasks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from envs import api, plain
from leafe_jax.methods import reflector
from leafe_jax.methods.asking import read_object
from leafe_jax.rollout.answers import CutOff, read_answer
from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.keys import row_key
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.play import ask
from leafe_jax.rollout.reflect import OVERLONG
from leafe_jax.sampler import Request, Rules, Sample
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.text.transcript import ReflectionError
from leafe_jax.tree import Node

COMPLETED = 'completed'
_SHORTEST = 5  # characters; a lesson is longer
_MOST_SUBTASKS = 32
_PARTS = {'action_lesson': 'Action', 'navigation_lesson': 'Navigation'}
_PROMPT = """\
Look back on an attempt at a task, judge it, and draw a lesson for tasks like it.

Task: {task}
{reference}
{status}
{episode}

{subtasks}

Answer with one JSON object and nothing else:
{{"subtasks": [{{"name": "...", "description": "...", "status": "completed"}}], \
"task_success": true, "action_lesson": "...", "navigation_lesson": "..."}}
subtasks: {listed}; the status is completed, incomplete or N/A. task_success: true or \
false. action_lesson: one sentence on what to do or not to do in tasks of this kind. \
navigation_lesson: one sentence on where to look or go first. Leave a lesson empty \
where there is none."""
_REFERENCE = """
For comparison, another attempt at this task, which {outcome}:
{reference}
"""
_TOLD = 'The attempt, which {outcome}:'
_UNTOLD = 'The attempt, of which you are to say whether it succeeded:'
_SUBTASKS = 'Sub-tasks:\n{subtasks}'
_FIXED = 'all of the above, each once and by its name'
_FREE = 'the parts that you would cut this task into'
_OUTCOMES = {True: 'succeeded', False: 'failed'}


@dataclasses.dataclass(frozen=True)
class Case:
  """An episode to look back on.

  Attributes:
    task: that was played.
    node: the episode.
    reference: an attempt at the task with the other outcome, in short; empty: none.
  """

  task: api.Task
  node: Node
  reference: str = ''


@dataclasses.dataclass(frozen=True)
class Judgement:
  """What a reflection says.

  Attributes:
    progress: phi, share of the sub-tasks that are completed; None: it says nothing.
    success: c; None where it could not be read.
    lesson: l; empty: none.
  """

  progress: float | None = None
  success: bool | None = None
  lesson: str = ''


@dataclasses.dataclass(frozen=True)
class Hindsight:
  """A reflection on an episode.

  Attributes:
    case: what it is about.
    prompt_ids, response_ids: the question, and what was sampled.
    logprobs: of the latter when it was sampled.
    judgement: what it says.
    error: why it could not be read; empty where it could.
  """

  case: Case
  prompt_ids: list[int]
  response_ids: list[int]
  logprobs: list[float]
  judgement: Judgement
  error: str = ''

  @property
  def right(self) -> bool:
    """Whether it says how the episode ended."""
    return self.judgement.success is self.case.node.success


def reflect(
    player: Player, cases: Sequence[Case], rules: Rules, told: bool, ledger: Ledger
) -> list[Hindsight]:
  """Asks about episodes, once each; those that cannot be asked about are left out.

  Args:
    player: who acted.
    cases: with distinct episodes.
    rules: of sampling.
    told: which family of prompts, see the module's docstring.
    ledger: pays.
  """
  asked = [case for case in cases if _askable(player, case, told)]
  prompts = [_prompt(player, case, told) for case in asked]
  requests = []
  for case, ids in zip(asked, prompts, strict=True):
    ledger.reflections += 1
    ledger.reflection_prompt_tokens += len(ids)
    key = row_key(player.seed, player.version, case.task.id, case.node.id, 'retro')
    requests.append(Request(player.sampler.extend(player.sampler.empty(), ids), key))
  samples = ask(player, requests, rules)
  ledger.reflection_tokens += sum(len(sample.tokens) for sample in samples)
  return [
      _read(player, case, ids, sample, told)
      for case, ids, sample in zip(asked, prompts, samples, strict=True)
  ]


def history_of(task: api.Task, node: Node) -> api.History:
  """A finished episode, as worlds judge it."""
  observations = [turn.observation for turn in node.turns]
  return api.History(
      task.instruction, (*observations, node.final_observation),
      tuple(turn.action or '' for turn in node.turns),
  )


def question(case: Case, subtasks: Mapping[str, str], told: bool) -> str:
  """What a chat policy is asked."""
  outcome, reference = case.node.success, ''
  if told and case.reference:
    reference = _REFERENCE.format(
        outcome=_OUTCOMES[not outcome], reference=case.reference
    )
  names = '\n'.join(f'- {name}: {what}' for name, what in subtasks.items())
  return _PROMPT.format(
      task=case.task.instruction, reference=reference,
      status=_TOLD.format(outcome=_OUTCOMES[outcome]) if told else _UNTOLD,
      episode=reflector.compact(case.node),
      subtasks=_SUBTASKS.format(subtasks=names) if names else '',
      listed=_FIXED if names else _FREE,
  )  # fmt: skip


def parse(text: str, names: Sequence[str]) -> Judgement:
  """Reads an answer to `question`.

  The share is of the world's sub-tasks, so that leaving some out gains nothing.

  Args:
    text: the answer.
    names: of the world's sub-tasks; none: those that the answer lists.

  Raises:
    ValueError: it is no such JSON object; says why.
  """
  found = read_object(text)
  listed = _statuses(found.get('subtasks'))
  unknown = [name for name in listed if names and name not in names]
  if unknown:
    raise ValueError(f'there is no sub-task {unknown[0]!r}')
  if not isinstance(found.get('task_success'), bool):
    raise ValueError(f'task_success is {plain.show(found.get("task_success"))}')
  completed = sum(status == COMPLETED for status in listed.values())
  return Judgement(
      completed / len(names or listed), found['task_success'], _lesson(found)
  )


def _statuses(listed: Any) -> dict[str, str]:
  """Status by sub-task, in lower case. ValueError where that is not what it is."""
  if not isinstance(listed, list) or not 0 < len(listed) <= _MOST_SUBTASKS:
    raise ValueError('subtasks is no list, or empty, or too long')
  found: dict[str, str] = {}
  for entry in listed:
    if not isinstance(entry, dict):
      raise ValueError(f'a sub-task is {plain.show(entry)}')
    name = plain.text('the name of a sub-task', entry.get('name')).strip()
    if name in found:
      raise ValueError(f'sub-task {name!r} is listed twice')
    found[name] = plain.text('a status', entry.get('status')).strip().lower()
  return found


def _lesson(found: Mapping[str, Any]) -> str:
  """Both parts of a lesson in one line, as far as they say something."""
  parts = []
  for name, label in _PARTS.items():
    said = found.get(name) or ''
    said = reflector.short(plain.text(name, said))
    if len(said) > _SHORTEST:
      parts.append(f'{label}: {said}')
  return ' '.join(parts)


def _askable(player: Player, case: Case, told: bool) -> bool:
  if not case.node.turns or case.node.ended_by in ('error', 'overlong'):
    return False
  chats = isinstance(player.transcript, ChatTranscript)
  return chats or not told or not case.node.success


def _prompt(player: Player, case: Case, told: bool) -> list[int]:
  transcript = player.transcript
  if not isinstance(transcript, ChatTranscript):
    return reflector.reflection_prompt(player, case.task, case.node, told)
  return transcript.question(question(case, player.world.subtasks(), told))


def _read(
    player: Player, case: Case, prompt_ids: list[int], sample: Sample, told: bool
) -> Hindsight:
  judgement, error = Judgement(), ''
  try:
    judgement = _judgement(player, case, sample, told)
  except (ReflectionError, CutOff, ValueError) as raised:
    error = f'{type(raised).__name__}: {raised}'
  return Hindsight(
      case, prompt_ids, list(sample.tokens), list(sample.logprobs), judgement, error
  )


def _judgement(player: Player, case: Case, sample: Sample, told: bool) -> Judgement:
  """What was said. Raises ValueError, ReflectionError or CutOff."""
  if isinstance(player.transcript, ChatTranscript):
    if sample.overlong:
      raise ReflectionError(OVERLONG)
    said = read_answer(player.transcript, sample)
    return parse(said, [*player.world.subtasks()])
  parsed = reflector.read_reflection(player, case.node, sample, told)
  lesson = ' '.join(parsed.experience.split())
  return Judgement(None, not told and parsed.tau is None, lesson)
