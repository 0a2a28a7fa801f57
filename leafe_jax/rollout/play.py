"""Driving many rows at once: environments step while the device samples.

A row is submitted with what is to happen with its sample. What happens then,
an environment's step and the next submission, is host work on some rows while
the device works on others. Samples come in the order of launches, so the whole
course is a function of what is submitted, never of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from leafe_jax.rollout.episode import Episode, Player
from leafe_jax.rollout.keys import row_key
from leafe_jax.sampler import Request, Rules, Sample, Sampler


class Rows:
  """Rows that are sampled, each with what follows."""

  def __init__(self, sampler: Sampler):
    self._sampler = sampler
    self._then: dict[int, Callable[[Sample], None]] = {}

  def __bool__(self) -> bool:
    return bool(self._then)

  def submit(
      self, request: Request, rules: Rules, then: Callable[[Sample], None]
  ) -> None:
    """Queues a row; `then` gets its sample and may submit more."""
    self._then[self._sampler.submit(request, rules)] = then

  def poll(self) -> None:
    """Takes the samples that come next to where they belong."""
    for ticket, sample in self._sampler.poll().items():
      self._then.pop(ticket)(sample)


def submit_turn(
    player: Player,
    rows: Rows,
    task_id: str,
    episode: Episode,
    rules: Rules,
    purpose: str,
    then: Callable[[], None],
) -> None:
  """Lets an episode of a task take one turn; `then` follows."""
  key = row_key(
      player.seed, player.version, task_id, episode.node.id, episode.turn, purpose
  )

  def advance(sample: Sample) -> None:
    episode.advance(sample)
    then()

  rows.submit(Request(episode.prompt(), key), rules, advance)


def play(
    player: Player,
    waiting: Iterator[tuple[str, Episode]],
    rules: Rules,
    limit: int,
    purpose: str,
    on_end: Callable[[str, Episode], None],
) -> None:
  """Plays all waiting episodes to their ends, `limit` at a time.

  Episodes that end leave at once and the next waiting one joins.
  """
  rows = Rows(player.sampler)

  def join() -> None:
    for task_id, episode in waiting:
      go_on(task_id, episode)
      return

  def go_on(task_id: str, episode: Episode) -> None:
    def then() -> None:
      if episode.over:
        on_end(task_id, episode)
        join()
      else:
        go_on(task_id, episode)

    submit_turn(player, rows, task_id, episode, rules, purpose, then)

  for _ in range(limit):
    join()
  while rows:
    rows.poll()
