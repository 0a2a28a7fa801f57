"""Opens the trackers of a run that were asked for by name."""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import uuid
from collections.abc import Callable, Iterator, Mapping

from leafe_jax import hosts, redaction, settings
from leafe_jax.config import Experiment
from leafe_jax.endings import RunStopped
from leafe_jax.files import read_object, write_atomic
from leafe_jax.rundir import TRACKERS
from leafe_jax.tracking.apart import Apart
from leafe_jax.tracking.api import Everybody, Nobody, Subject, Tracker
from leafe_jax.tracking.choice import LONGEST, TENSORBOARD, Choice

_ID = 'id.json'
_FAILED = 1


@contextlib.contextmanager
def opened(
    choice: Choice, directory: pathlib.Path, config: Experiment
) -> Iterator[Tracker]:
  """The trackers of a run, on process 0; they are told how it ends.

  Args:
    choice: which.
    directory: of the run, which remembers its id.
    config: of the run.
  """
  if not hosts.is_first():
    yield Nobody()
    return
  subject = _subject(directory, config, choice.group, choice.project)
  trackers = [_open(name, directory, subject) for name in choice.names]
  for each in trackers:
    if isinstance(each, Apart):
      each.begin()
  tracker = Everybody(trackers)
  code = _FAILED
  try:
    yield tracker
    code = 0
  except RunStopped as error:
    code = error.exit_code
    raise
  finally:
    tracker.close(code)


def board(directory: pathlib.Path, config: Experiment) -> Tracker:
  """TensorBoard alone, for a run that nobody opened trackers for."""
  if not hosts.is_first():
    return Nobody()
  return _board(directory)(_subject(directory, config, '', ''))


def _subject(
    directory: pathlib.Path, config: Experiment, group: str, project: str
) -> Subject:
  known = _known_id(directory / TRACKERS / _ID)
  group = _fitting(group)
  name = _fitting('-'.join(part for part in (group, directory.name, known) if part))
  shown = redaction.hide(settings.to_dict(config))
  return Subject(known, name, group, project, directory / TRACKERS, shown)


def _fitting(name: str) -> str:
  """A name that trackers take, with its end, which tells runs apart."""
  room = LONGEST // 2 - 1
  return name if len(name) <= LONGEST else f'{name[:room]}..{name[-room:]}'


def _known_id(path: pathlib.Path) -> str:
  """That of earlier starts, or a new one. It names no random number of the run."""
  try:
    found = read_object(path).get('id')
  except (OSError, ValueError):
    found = None
  if isinstance(found, str) and found:
    return found
  new = uuid.uuid4().hex[:8]
  path.parent.mkdir(parents=True, exist_ok=True)
  write_atomic(path, json.dumps({'id': new}) + '\n')
  return new


def _open(name: str, directory: pathlib.Path, subject: Subject) -> Tracker:
  load = _LOADERS[name]
  return Apart(name, lambda: functools.partial(load(directory), subject))


def _board(directory: pathlib.Path) -> Callable[[Subject], Tracker]:
  from leafe_jax.tracking.tensorboard import TensorBoard

  return lambda subject: TensorBoard(subject, directory / TENSORBOARD)


def _weights_and_biases(_: pathlib.Path) -> Callable[[Subject], Tracker]:
  from leafe_jax.tracking.weights_and_biases import WeightsAndBiases

  return WeightsAndBiases


def _trackio(_: pathlib.Path) -> Callable[[Subject], Tracker]:
  from leafe_jax.tracking.trackio_runs import Trackio

  return Trackio


# Imported when asked for.
_LOADERS: Mapping[str, Callable[[pathlib.Path], Callable[[Subject], Tracker]]] = {
    TENSORBOARD: _board, 'wandb': _weights_and_biases, 'trackio': _trackio,
}
