"""Driving many episodes at once: sample, act, let finished ones leave."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

from leafe_jax.rollout.crew import Crew
from leafe_jax.rollout.episode import Episode, Player
from leafe_jax.rollout.keys import row_key
from leafe_jax.sampler import Request, Rules


def open_episodes(crew: Crew, episodes: Sequence[tuple[str, Episode]]) -> None:
  """Opens episodes, given with their tasks' ids; those that fail are over."""
  outcomes = crew.run([(task_id, episode.open) for task_id, episode in episodes])
  for (_, episode), outcome in zip(episodes, outcomes, strict=True):
    episode.opened(outcome)


def take_turn(
    player: Player,
    crew: Crew,
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
  outcomes = crew.run([
      (task_id, functools.partial(episode.act, sample))
      for (task_id, episode), sample in zip(episodes, samples, strict=True)
  ])
  for (_, episode), sample, outcome in zip(episodes, samples, outcomes, strict=True):
    episode.advance(sample, outcome)


def play(
    player: Player,
    crew: Crew,
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

  def leave() -> list[tuple[str, Episode]]:
    for task_id, episode in active:
      if episode.over:
        on_end(task_id, episode)
    return [entry for entry in active if not entry[1].over]

  while True:
    joining = list(itertools.islice(waiting, rows - len(active)))
    if joining:
      open_episodes(crew, joining)
      active = [*active, *joining]
    elif not active:
      return
    active = leave()
    if active:
      take_turn(player, crew, active, rules, purpose)
      active = leave()
