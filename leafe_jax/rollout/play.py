"""Driving many episodes at once: sample, act, let finished ones leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from leafe_jax.rollout.episode import Episode, Player
from leafe_jax.rollout.keys import row_key
from leafe_jax.sampler import Request, Rules


def take_turn(
    player: Player,
    episodes: Sequence[tuple[str, Episode]],
    rules: Rules,
    purpose: str,
) -> None:
  """Every episode, given with its task's id, takes one turn."""
  requests = [
      Request(
          episode.prompt(),
          row_key(
              player.seed, player.version, task_id, episode.node.id,
              episode.turn, purpose,
          ),
      )
      for task_id, episode in episodes
  ]
  samples = player.sampler.sample(requests, rules)
  for (_, episode), sample in zip(episodes, samples, strict=True):
    episode.advance(sample)


def play(
    player: Player,
    waiting: Iterator[tuple[str, Episode]],
    rules: Rules,
    rows: int,
    purpose: str,
    on_end: Callable[[str, Episode], None],
) -> None:
  """Plays all waiting episodes to their ends, `rows` at a time.

  Rows that end leave at once and the next waiting episode joins.
  """
  active: list[tuple[str, Episode]] = []
  exhausted = False
  while True:
    while not exhausted and len(active) < rows:
      joining = next(waiting, None)
      if joining is None:
        exhausted = True
      else:
        active.append(joining)
    if not active:
      return
    take_turn(player, active, rules, purpose)
    for task_id, episode in active:
      if episode.over:
        on_end(task_id, episode)
    active = [entry for entry in active if not entry[1].over]
