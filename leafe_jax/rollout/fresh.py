"""Fresh responses in states that were lived through before: no world takes a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.keys import row_key
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.play import ask
from leafe_jax.sampler import Request, Rules, Sample


class Asked(Protocol):
  """A state, see `experience.states.State`."""

  @property
  def task_id(self) -> str: ...

  @property
  def node(self) -> int: ...

  @property
  def turn(self) -> int: ...

  @property
  def prompt_ids(self) -> list[int]: ...


def respond(
    player: Player,
    states: Sequence[Asked],
    count: int,
    rules: Rules,
    purpose: str,
    ledger: Ledger,
) -> list[list[Sample]]:
  """`count` responses in each state; those without room in a transcript left out.

  Args:
    player: policy that answers; its version is part of the random keys.
    states: as tokens.
    count: responses per state.
    rules: of sampling.
    purpose: part of the random keys.
    ledger: pays for tokens; no environment step is taken.
  """
  player.sampler.forget()  # the same calls give the same bits, whatever was before
  requests = [_request(player, s, n, purpose) for s in states for n in range(count)]
  samples = ask(player, requests, rules)
  kept = [[s for s in samples[i : i + count] if not s.overlong]
          for i in range(0, len(samples), count)]  # fmt: skip
  for state, answers in zip(states, kept, strict=True):
    ledger.model_calls += len(answers)
    ledger.prompt_tokens += len(state.prompt_ids) * len(answers)
    ledger.sampled_tokens += sum(len(sample.tokens) for sample in answers)
  return kept


def _request(player: Player, state: Asked, number: int, purpose: str) -> Request:
  key = row_key(
      player.seed, player.version, state.task_id, state.node, state.turn, purpose,
      number,
  )
  ids = state.prompt_ids
  return Request(player.sampler.extend(player.sampler.empty(), ids), key)
