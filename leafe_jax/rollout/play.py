"""Driving many episodes at once: environments step while the device samples.

Rows are with the sampler, each with a note of what it is for. What a poll gives
back is acted on and submitted again; meanwhile the device works on the other
rows. Samples come in the order of launches, so the whole course is a function
of what is submitted, never of time: all processes of a run take the same one.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from envs import api
from leafe_jax import stops
from leafe_jax.rollout.crew import Crew
from leafe_jax.rollout.episode import Episode, Player
from leafe_jax.rollout.journal import SCHEMA, Journal
from leafe_jax.rollout.keys import row_key
from leafe_jax.sampler import Request, Rules, Sample

T = TypeVar('T')


class Rows(Generic[T]):
  """Rows that are with the sampler, each with a note."""

  def __init__(self, player: Player):
    self._journal = player.journal
    self._sampler = player.journal or player.sampler
    self._notes: dict[int, T] = {}

  def __len__(self) -> int:
    return len(self._notes)

  def submit(self, note: T, request: Request, rules: Rules) -> None:
    """Queues a row."""
    self._notes[self._sampler.submit(request, rules)] = note

  def poll(self) -> list[tuple[T, Sample]]:
    """The samples that come next; none while no row has come to its end.

    Raises:
      Stopped: the run was asked to stop. What the player's journal does not keep
        of the episodes in progress is played again, with the same random keys.
    """
    stops.check(self._saved())
    samples = self._sampler.poll().items()
    return [(self._notes.pop(ticket), sample) for ticket, sample in samples]

  def _saved(self) -> str:
    if self._journal is None:
      return 'finished waves of episodes are saved, the present one is not'
    return (
        'finished waves of episodes are saved, and the first '
        f'{self._journal.kept:,} responses of the present one'
    )


def ask(player: Player, requests: Sequence[Request], rules: Rules) -> list[Sample]:
  """One response per request, as `Sampler.sample`. Stopped: as `Rows.poll`."""
  return player.sampler.sample(requests, rules, _check_between)


def _check_between() -> None:
  stops.check('what was finished before is saved', stops.ask())


def open_episodes(crew: Crew, episodes: Sequence[tuple[str, Episode]]) -> None:
  """Opens episodes, given with their tasks' ids; those that fail are over."""
  outcomes = crew.run([(task_id, episode.open) for task_id, episode in episodes])
  for (_, episode), outcome in zip(episodes, outcomes, strict=True):
    episode.opened(outcome)


def turn_request(
    player: Player, task_id: str, episode: Episode, purpose: str
) -> Request:
  """Asks for the next response of a task's episode."""
  key = row_key(
      player.seed, player.version, task_id, episode.node.id, episode.turn, purpose
  )
  return Request(episode.prompt(), key)


def advice_request(
    player: Player, task_id: str, episode: Episode, purpose: str, ids: Sequence[int]
) -> Request:
  """Asks what the player's adviser wants to know before a turn."""
  key = row_key(
      player.seed, player.version, task_id, episode.node.id, episode.turn, purpose,
      'situation',
  )
  return Request(player.sampler.extend(player.sampler.empty(), ids), key)


def take_actions(crew: Crew, acting: Sequence[tuple[str, Episode, Sample]]) -> None:
  """Every episode, given with its task's id, acts as sampled and moves on."""
  outcomes = crew.run([
      (task_id, functools.partial(episode.act, sample))
      for task_id, episode, sample in acting
  ])
  for (_, episode, sample), outcome in zip(acting, outcomes, strict=True):
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

  Episodes that end leave at once and the next waiting ones join.
  """
  running: Rows[tuple[str, Episode]] = Rows(player)

  def go_on(entries: Sequence[tuple[str, Episode]]) -> None:
    for task_id, episode in entries:
      if episode.over:
        on_end(task_id, episode)
      elif ids := episode.consult():
        assert player.adviser is not None
        question = advice_request(player, task_id, episode, purpose, ids)
        running.submit((task_id, episode), question, player.adviser.rules)
      else:
        request = turn_request(player, task_id, episode, purpose)
        running.submit((task_id, episode), request, rules)

  while True:
    joining = list(itertools.islice(waiting, rows - len(running)))
    open_episodes(crew, joining)
    go_on(joining)
    if not joining and not running:
      return
    polled = running.poll()
    acting = [
        (*entry, sample) for entry, sample in polled if not entry[1].take_advice(sample)
    ]
    take_actions(crew, acting)
    go_on([entry for entry, _ in polled])


def journaled(player: Player, path: pathlib.Path, tasks: Sequence[api.Task]) -> Player:
  """The player for a wave, whose responses are kept if the player says so.

  Args:
    player: of the run.
    path: of the journal; one of the same wave is gone on from.
    tasks: of the wave.
  """
  if not player.keep_every:
    return player
  title = {
      'schema': SCHEMA, 'tasks': [task.id for task in tasks], 'seed': player.seed,
      'version': player.version, 'keep_every': player.keep_every,
  }  # fmt: skip
  journal = Journal(player.sampler, path, title, player.keep_every)
  return dataclasses.replace(player, journal=journal)
