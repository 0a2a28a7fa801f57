"""Where a run is, by its progress.json and the phases that it has finished."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from leafe_jax import heartbeat
from leafe_jax.files import DONE
from leafe_jax.watch import reading

REPORT = 'report'
_SILENT_S = 45.0
_SETTLED_S = 20.0  # how long a bar must have been looked at before its rate counts
# Directories of a run that are no phases.
_NO_PHASES = ('tensorboard', 'tokenizer')


class Beat:
  """The run's progress.json, and how long ago it was last seen to change.

  Clocks of two machines may differ, so that only changes are believed; before the
  first one, the file's time.
  """

  def __init__(self, directory: pathlib.Path):
    self._path = directory / heartbeat.FILE
    self._changed: float | None = None
    self.facts: dict[str, Any] = {}
    self.trouble = ''

  def refresh(self) -> None:
    """Keeps what was read last where there is nothing to be read now."""
    found, self.trouble = reading.read_object(self._path)
    if found and found != self.facts:
      self._changed = time.monotonic() if self.facts else None
      self.facts = found

  @property
  def age(self) -> float:
    """Seconds without a sign of life."""
    if self._changed is not None:
      return time.monotonic() - self._changed
    try:
      return max(0.0, time.time() - self._path.stat().st_mtime)
    except OSError:
      return 0.0

  @property
  def lost(self) -> bool:
    """Whether the process, on this machine, is certainly gone."""
    here = self.facts.get('host') == os.uname().nodename
    pid = self.facts.get('pid')
    if not here or not isinstance(pid, int) or pid < 1 or self.age < _SETTLED_S / 2:
      return False
    return not pathlib.Path(f'/proc/{pid}').exists()


def status_of(
    directory: pathlib.Path, beat: Beat, done: Mapping[str, Any], stopped: str
) -> dict[str, str]:
  """What is to be said first: `word` for a badge and `text`, a sentence.

  Args:
    directory: of the run.
    beat: refreshed.
    done: phases that are finished.
    stopped: why results.json says that the run ended early, if it does.
  """
  if not directory.is_dir():
    return _say('missing', 'There is no such directory now.')
  if stopped:
    return _say('ended early', stopped)
  ended = beat.facts.get('ended')
  if REPORT in done and ended in (None, heartbeat.FINISHED):
    return _say('finished', 'All phases are done.')
  if ended == heartbeat.FINISHED:
    return _say('paused', 'It came as far as it was told to; the same command goes on.')
  if ended:
    return _say('stopped', str(ended))
  if beat.lost:
    return _say('stopped', 'Its process is gone; the same command goes on.')
  if not beat.facts:
    return _unknown(directory, done)
  if beat.age > _SILENT_S:
    return _say('silent', '')  # the page says for how long
  return _say('running', '')


def _say(word: str, text: str) -> dict[str, str]:
  return {'word': word, 'text': text}


def _unknown(directory: pathlib.Path, done: Mapping[str, Any]) -> dict[str, str]:
  if not done and not (directory / 'config.json').exists():
    return _say('waiting', 'Nothing of a run is here yet.')
  return _say(
      'unfinished', f'No {heartbeat.FILE}, so whether it is under way is not known.'
  )


class Done:
  """Results of finished phases, read once each."""

  def __init__(self, root: pathlib.Path):
    self._root = root
    self._known: dict[str, tuple[int, dict[str, Any]]] = {}

  def refresh(self) -> dict[str, dict[str, Any]]:
    """Phase -> its DONE.json, in the order in which they ended."""
    found = {}
    for place in places(self._root):
      name = place.relative_to(self._root).as_posix()
      try:
        changed = (place / DONE).stat().st_mtime_ns
      except OSError:
        continue
      if self._known.get(name, (0,))[0] != changed:
        self._known[name] = changed, reading.read_object(place / DONE)[0]
      found[name] = self._known[name]
    order = sorted(found, key=lambda name: found[name][0])
    return {name: found[name][1] for name in order}


def places(root: pathlib.Path) -> list[pathlib.Path]:
  """Directories that are phases, or may hold them, parents first."""
  first = [p for p in reading.subdirectories(root) if p.name not in _NO_PHASES]
  return first + [below for place in first for below in reading.subdirectories(place)]


def phases_of(
    beat: Mapping[str, Any], done: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
  """Each phase: `name`, `state` (done, now, todo), `wall_s` or what is expected."""
  told = beat.get('phases')
  named = [str(name) for name in told] if isinstance(told, list) else []
  names = list(dict.fromkeys([*named, *(name for name in done if _whole(name))]))
  ahead = beat.get('ahead')
  likes = ahead if isinstance(ahead, dict) else {}
  return [_phase(name, beat, done, likes.get(name)) for name in names]


def _whole(name: str) -> bool:
  """Whether it is a phase of its own, and no try of a sweep."""
  return '/' not in name or name.split('/')[0] in ('distill', 'evaluate')


def _phase(
    name: str, beat: Mapping[str, Any], done: Mapping[str, Mapping[str, Any]],
    like: Any,
) -> dict[str, Any]:
  if name in done:
    result = done[name]
    return {
        'name': name, 'state': 'done', 'wall_s': _number(result.get('wall_s')),
        'resumed': bool(result.get('resumed')),
    }
  if name == beat.get('phase') and not beat.get('ended'):
    return {'name': name, 'state': 'now', 'since': _number(beat.get('since'))}
  expected = _number(done.get(str(like), {}).get('wall_s'))
  return {'name': name, 'state': 'todo', 'expected_s': expected, 'like': like}


def bar_of(beat: Mapping[str, Any]) -> dict[str, Any] | None:
  """What the progress bar shows, with its rate and what is left, once known."""
  bar = beat.get('bar')
  if not isinstance(bar, dict) or beat.get('ended'):
    return None
  total, done, fresh, first, last, now = (
      _number(value) for value in (
          bar.get('total'), bar.get('done'), bar.get('fresh'), bar.get('first'),
          bar.get('last'), beat.get('time'),
      )
  )
  found: dict[str, Any] = {
      'name': str(bar.get('name')), 'unit': str(bar.get('unit')), 'total': total,
      'done': done, 'figures': _texts(bar.get('figures')), 'rate': None, 'left_s': None,
  }
  if fresh and first and last and now and last > first and now - first > _SETTLED_S:
    # The unit that is under way may take longer than those before it did.
    rate = min(fresh / (last - first), (fresh + 1) / (now - first))
    left = ((total or 0) - (done or 0)) / rate
    found |= {'rate': rate, 'left_s': max(0.0, left - (now - last))}
  return found


def left_of(
    phases: Sequence[Mapping[str, Any]], bar: Mapping[str, Any] | None
) -> dict[str, Any]:
  """Time that is left as far as it is known, and the phases of which it is not."""
  known, unknown = 0.0, []
  for phase in phases:
    seconds = phase.get('expected_s')
    if phase['state'] == 'now':
      seconds = bar['left_s'] if bar else None
    elif phase['state'] == 'done' or phase['name'] == REPORT:
      continue
    if seconds is None:
      unknown.append(phase['name'])
    known += seconds or 0.0
  return {'known_s': known, 'unknown': unknown}


def _number(value: Any) -> float | None:
  ok = isinstance(value, (int, float)) and abs(value) < float('inf')
  return float(value) if ok else None


def _texts(values: Any) -> dict[str, str]:
  found = values.items() if isinstance(values, dict) else ()
  return {str(name): str(value)[:40] for name, value in found}
