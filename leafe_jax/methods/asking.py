"""Questions to a chat policy, outside of any episode, whose answers can be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from leafe_jax.rollout.answers import CutOff, read_answer
from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.keys import row_key
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.play import ask
from leafe_jax.rollout.reflect import MAX_ATTEMPTS, OVERLONG
from leafe_jax.sampler import Request, Rules
from leafe_jax.text.chat import ChatTranscript

T = TypeVar('T')


def ask_all(
    player: Player, role: str, rules: Rules, prompts: Sequence[tuple[str, str]],
    read: Callable[[str], T], reject: Callable[[str, str], None], step: int,
    ledger: Ledger,
) -> list[T | None]:  # fmt: skip
  """One readable answer per prompt; None where there was none.

  Args:
    player: with a chat template.
    role: who answers; part of the random keys and of what is rejected.
    rules: of sampling.
    prompts: (what is asked about, the question); the first are distinct.
    read: makes something of an answer. ValueError where it cannot; it is asked for
      once more then.
    reject: is told of each (answer, reason) that could not be read.
    step: part of the random keys.
    ledger: pays.
  """
  transcript = player.transcript
  assert isinstance(transcript, ChatTranscript)
  answers: dict[int, T] = {}
  overlong: set[int] = set()
  for attempt in range(MAX_ATTEMPTS):
    closed = answers.keys() | overlong
    open_ones = [i for i in range(len(prompts)) if i not in closed]
    requests = []
    for i in open_ones:
      ids = transcript.question(prompts[i][1])
      ledger.reflections += 1
      ledger.reflection_prompt_tokens += len(ids)
      key = row_key(player.seed, step, prompts[i][0], role, attempt)
      requests.append(Request(player.sampler.extend(player.sampler.empty(), ids), key))
    samples = ask(player, requests, rules)
    for i, sample in zip(open_ones, samples, strict=True):
      ledger.reflection_tokens += len(sample.tokens)
      if sample.overlong:
        reject('', f'{role}: {OVERLONG}')
        overlong.add(i)
        continue
      try:
        answers[i] = read(read_answer(transcript, sample))
      except (ValueError, CutOff) as error:  # of JSON, too
        reject(transcript.text(sample.tokens), f'{role}: {error}')
  return [answers.get(i) for i in range(len(prompts))]


def read_object(text: str) -> dict[str, Any]:
  """The JSON object in a text. ValueError where there is none."""
  try:
    found = json.loads(text[text.index('{') : text.rindex('}') + 1])
  except RecursionError as error:
    raise ValueError('JSON that is nested too deeply') from error
  if not isinstance(found, dict):
    raise ValueError('no JSON object')
  return found
