"""Which process plays which task of a wave.

All processes of a run (`leafe_jax.hosts`) grow the same trees and ask for the
same samples. Environments are divided, and what turns hold: an episode's session
lives on the process that plays its task, which tells the others what came out and
alone keeps it. The actions
of all rows that come from the sampler together cost one exchange. Sessions of a
world with several places (`envs.remote`) move side by side.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import logging

from envs import api
from leafe_jax import hosts
from leafe_jax.rollout.outcome import Outcome, attempt
from leafe_jax.rollout.timing import Clock

Work = tuple[str, Callable[[Outcome], None]]

PATIENCE = 60.0  # seconds without an answer after which the log says so


class Crew:
  """Runs the environments of a wave, each where its task is played.

  Args:
    tasks: of the wave; the same on all processes.
    clock: times the environments of this process.
    world: of the tasks.
  """

  def __init__(self, tasks: Sequence[api.Task], clock: Clock, world: api.World):
    self._clock = clock
    self._world = world
    self._doing: dict[int, str] = {}  # place in the work to task, while it is done
    self._own = {task.id for task in tasks[hosts.share(len(tasks))]}

  def plays(self, task_id: str) -> bool:
    """Whether this process plays a task of the wave."""
    return task_id in self._own

  def run(self, work: Sequence[Work]) -> list[Outcome]:
    """What came out of every piece of work, in order, on all processes.

    Args:
      work: task ids, and functions that fill in an outcome; only those of own
        tasks are called. What they raise becomes the outcome's error.
    """
    if not work:
      return []
    with self._clock.running(), self._watched():
      own = self._play([
          (place, *entry) for place, entry in enumerate(work) if entry[0] in self._own
      ])
    if hosts.count() == 1:
      return [own[place] for place in range(len(work))]
    told = json.dumps(list(map(_to_json, own.items())), default=_plain)
    heard = [
        _from_json(record)
        for part in hosts.exchange(told.encode())
        for record in json.loads(part)
    ]
    return [outcome for _, outcome in sorted(heard, key=lambda pair: pair[0])]


  def _play(
      self, work: Sequence[tuple[int, str, Callable[[Outcome], None]]]
  ) -> dict[int, Outcome]:
    """What came out, by place; in as many threads as the world has places."""
    waiting, found = collections.deque(work), {}

    def go_on() -> None:
      while True:
        try:
          place, task_id, function = waiting.popleft()
        except IndexError:  # another thread took the last one
          return
        found[place] = self._run(place, task_id, function)

    # Daemons: an interrupted run does not wait for what they wait for.
    others = [
        threading.Thread(target=go_on, daemon=True)
        for _ in range(min(self._world.places, len(work)) - 1)
    ]
    for thread in others:
      thread.start()
    go_on()
    for thread in others:
      thread.join()
    return found

  def _run(
      self, place: int, task_id: str, function: Callable[[Outcome], None]
  ) -> Outcome:
    outcome = Outcome()
    self._doing[place] = task_id
    _, outcome.error = attempt(lambda: function(outcome))
    del self._doing[place]
    return outcome

  @contextlib.contextmanager
  def _watched(self) -> Iterator[None]:
    """Says again and again that the world does not answer, where it does not."""
    done, start = threading.Event(), time.monotonic()

    def watch() -> None:
      while not done.wait(PATIENCE):
        self._complain(time.monotonic() - start)

    threading.Thread(target=watch, daemon=True).start()
    try:
      yield
    finally:
      done.set()

  def _complain(self, seconds: float) -> None:
    tasks = ', '.join(sorted(set(self._doing.copy().values())))
    logging.warning(
        'world %r has not answered for %.0f s, playing %s; env.step_timeout with '
        'env.workers ends such an episode alone', self._world.name, seconds, tasks,
    )


def _to_json(item: tuple[int, Outcome]) -> tuple[int, dict[str, Any]]:
  place, outcome = item
  return place, dataclasses.asdict(outcome)


def _from_json(record: Sequence[Any]) -> tuple[int, Outcome]:
  place, fields = record
  step = fields.pop('step')
  return place, Outcome(**fields, step=None if step is None else api.Step(**step))


def _plain(value: Any) -> Any:
  """Numpy scalars, which environments may put into a step."""
  return value.item()
