"""Which process plays which task of a wave.

All processes of a run (`leafe_jax.hosts`) keep the same trees and ask for the
same samples. Only environments are divided: an episode's session lives on the
process that plays its task, which tells the others what came out. The actions
of all rows that come from the sampler together cost one exchange.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from envs import api
from leafe_jax import hosts
from leafe_jax.rollout.episode import Outcome, attempt
from leafe_jax.rollout.timing import Clock

Work = tuple[str, Callable[[Outcome], None]]


class Crew:
  """Runs the environments of a wave, each where its task is played.

  Args:
    tasks: of the wave; the same on all processes.
    clock: times the environments of this process.
  """

  def __init__(self, tasks: Sequence[api.Task], clock: Clock):
    self._clock = clock
    self._own = {task.id for task in tasks[hosts.share(len(tasks))]}

  def run(self, work: Sequence[Work]) -> list[Outcome]:
    """What came out of every piece of work, in order, on all processes.

    Args:
      work: task ids, and functions that fill in an outcome; only those of own
        tasks are called. What they raise becomes the outcome's error.
    """
    if not work:
      return []
    with self._clock.running():
      own = {
          place: _run(function)
          for place, (task_id, function) in enumerate(work)
          if task_id in self._own
      }
    if hosts.count() == 1:
      return [own[place] for place in range(len(work))]
    told = json.dumps(list(map(_to_json, own.items())), default=_plain)
    heard = [
        _from_json(record)
        for part in hosts.exchange(told.encode())
        for record in json.loads(part)
    ]
    return [outcome for _, outcome in sorted(heard, key=lambda pair: pair[0])]


def _run(function: Callable[[Outcome], None]) -> Outcome:
  outcome = Outcome()
  _, outcome.error = attempt(lambda: function(outcome))
  return outcome


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
