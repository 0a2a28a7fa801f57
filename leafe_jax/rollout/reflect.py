"""Reflection: the policy names the turn to go back to and writes e.

`(tau, e) ~ pi(. | h_t, p_refl)` (arXiv 2603.16843, section 3.1): asked on a
fork of the episode's state, which is dropped afterwards, or on the whole episode
read anew where prompts show the last turns alone. An unusable answer is
asked for once more, then recorded as a typed failure; a question for which the
transcript has no room is recorded at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from leafe_jax.rollout.episode import Episode, Player
from leafe_jax.rollout.keys import row_key
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.play import ask
from leafe_jax.sampler import Request, Rules, Sample
from leafe_jax.text.transcript import ReflectionError
from leafe_jax.tree import Reflection

MAX_ATTEMPTS = 2
OVERLONG = 'Overlong: no room for the question and its answer in policy.max_length'


@dataclasses.dataclass
class Question:
  """A reflection to be made on an episode that has just taken a turn."""

  episode: Episode
  task_id: str
  terminal: bool
  ledger: Ledger
  answer: Reflection

  @classmethod
  def ask(
      cls, episode: Episode, task_id: str, terminal: bool, ledger: Ledger
  ) -> Question:
    turn = episode.node.last_turn
    answer = Reflection(turn=turn, terminal=terminal, raw='', attempts=0)
    episode.node.reflections.append(answer)
    return cls(episode, task_id, terminal, ledger, answer)


def reflect(player: Player, questions: Sequence[Question], rules: Rules) -> None:
  """Fills in `question.answer` of every question, with one retry each."""
  open_questions = list(questions)
  while open_questions:
    requests = [question_request(player, question) for question in open_questions]
    samples = ask(player, requests, rules)
    open_questions = [
        question
        for question, sample in zip(open_questions, samples, strict=True)
        if not read_answer(player, question, sample)
    ]


def question_request(player: Player, question: Question) -> Request:
  """Asks a question, once more if its answer could not be read."""
  answer = question.answer
  state, ids = question.episode.retold()
  ids = [*ids, *player.transcript.reflection(answer.turn, question.terminal)]
  question.ledger.reflections += 1
  question.ledger.reflection_prompt_tokens += len(ids)
  answer.attempts += 1
  key = row_key(
      player.seed, player.version, question.task_id, question.episode.node.id,
      answer.turn, 'reflect', answer.attempts,
  )
  return Request(player.sampler.extend(state, ids), key)


def read_answer(player: Player, question: Question, sample: Sample) -> bool:
  """Fills in `question.answer`; False: it cannot be read and is to be asked again."""
  _read(player, question, sample)
  answer = question.answer
  return answer.error in (None, OVERLONG) or answer.attempts >= MAX_ATTEMPTS


def _read(player: Player, question: Question, sample: Sample) -> None:
  answer = question.answer
  question.ledger.reflection_tokens += len(sample.tokens)
  answer.raw = player.transcript.text(sample.tokens)
  answer.error = None
  if sample.overlong:
    answer.error = OVERLONG
    return
  if not sample.stopped:
    answer.error = f'CutOff: no end within {len(sample.tokens)} tokens'
    return
  try:
    parsed = player.transcript.parse_reflection(
        player.transcript.answer(answer.raw), answer.turn, question.terminal
    )
  except ReflectionError as error:
    answer.error = f'ReflectionError: {error}'
    return
  answer.tau = parsed.tau
  answer.experience = parsed.experience or None
