"""The directory of a run: what is finished, what is not, and whose it is.

    workdir/
      config.json       the config of the run
      attempts.jsonl    one line per start of the program
      log.txt           its log
    log.host1.txt ... logs of the other processes of a run on several hosts
      PHASE/            all that a phase writes
        DONE.json       its result; there if and only if the phase is complete
        seal.json       sizes and digests of its files
      .lock             held by the process that works here

On several hosts the directory is on storage that all of them share; process 0
holds the lock and marks phases complete (`leafe_jax.hosts.first`).

A file is written under another name, synced and renamed, so a kill leaves the
old file or the new one. Names that end in `.partial` are leftovers and are
removed at the next start. What a complete phase wrote is compared with its seal
before it is read again (`Phase.mend`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from absl import logging

from leafe_jax import buckets, seals
from leafe_jax.endings import RunStopped, WorkdirBusy
from leafe_jax.files import DONE, read_object, remove, remove_partial, write_atomic

SHOWN = 'groups'  # the directory of episodes for readers alone, a part for each phase
TRACKERS = 'trackers'  # the directory of what trackers keep, which makes no run
WEIGHTS = 'params'  # the directory of a phase's weights, which is sealed by itself


class RunDirectory:
  """A run's directory.

  Attributes:
    path: absolute.

  Args:
    path: of the directory.
    make: whether it, and those of its phases, are made when they do not exist.
  """

  def __init__(self, path: str | os.PathLike[str], make: bool = True):
    self.path = pathlib.Path(path).absolute()
    self._make = make
    if make:
      self.path.mkdir(parents=True, exist_ok=True)

  def phase(self, name: str) -> Phase:
    """The phase `name`; its directory `path/name` is made when missing."""
    return Phase(name, self.path / name, self._make)

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Keeps other processes out and removes leftovers.

    The lock goes with the process, however it ends.

    Raises:
      WorkdirBusy: another process holds it.
      RunStopped: nothing can be written there.
    """
    with self._open_lock() as lock:
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().strip() or 'unknown'
        raise WorkdirBusy(
            f'{self.path} is in use by process {holder}; wait for it, stop it, '
            'or give another --workdir'
        ) from error
      lock.truncate(0)
      lock.write(f'{os.getpid()} on {os.uname().nodename}\n')
      lock.flush()
      remove_partial(self.path)
      yield

  def _open_lock(self) -> TextIO:
    try:
      return open(self.path / '.lock', 'a+', encoding='utf-8')
    except OSError as error:
      if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise
      raise RunStopped(
          f'{self.path}: nothing can be written there ({error.strerror}); give another '
          '--workdir, or the right to write'
      ) from error

  def config(self) -> dict[str, Any] | None:
    """The saved config, None before `save_config`."""
    return _read_json(
        self.path / 'config.json', 'remove it: the same command writes it again'
    )

  def save_config(self, config: Mapping[str, Any]) -> None:
    write_atomic(self.path / 'config.json', json.dumps(config, indent=2) + '\n')

  def is_blank(self) -> bool:
    """Whether no phase, nor what phases share, has written anything yet."""
    if not self.path.is_dir():
      return True
    rooms = (
        path for path in self.path.iterdir() if path.is_dir() and path.name != TRACKERS
    )
    return not any(path.is_file() for room in rooms for path in room.rglob('*'))

  def recorded_sha256(self) -> str | None:
    """What identified the config at the last start; None if nothing says it."""
    return self.last_attempt().get('config_sha256') or self._results_sha256()

  def last_attempt(self) -> Mapping[str, Any]:
    """What `record_attempt` noted last; empty where nothing can be read."""
    try:
      lines = (self.path / 'attempts.jsonl').read_text(encoding='utf-8').splitlines()
      found = json.loads(lines[-1])
    except (OSError, ValueError, LookupError):
      return {}
    return found if isinstance(found, dict) else {}

  def _results_sha256(self) -> str | None:
    try:
      return read_object(self.path / 'results.json').get('config_sha256')
    except (OSError, ValueError):
      return None

  def record_attempt(self, attempt: Mapping[str, Any]) -> None:
    """Appends one line to attempts.jsonl."""
    with open(self.path / 'attempts.jsonl', 'a', encoding='utf-8') as file:
      file.write(json.dumps(attempt) + '\n')
      file.flush()
      os.fsync(file.fileno())

  def wall_times(self) -> dict[str, float]:
    """Phase -> seconds, of the complete phases that noted 'wall_s'."""
    return self._noted('wall_s')

  def whole_times(self) -> dict[str, float]:
    """`wall_times` of the phases that one start did from beginning to end."""
    resumed = self._noted('resumed')
    times = self.wall_times().items()
    return {name: seconds for name, seconds in times if resumed.get(name) is False}

  def speeds(self) -> dict[str, dict[str, Any]]:
    """Phase -> where its time went, of the complete phases that noted 'speed'."""
    return {name: speed for name, speed in self._noted('speed').items() if speed}

  def _noted(self, field: str) -> dict[str, Any]:
    results = self._results().items()
    return {name: result[field] for name, result in results if field in result}

  def _result(self, marker: pathlib.Path) -> dict[str, Any]:
    return self.phase(str(marker.parent.relative_to(self.path))).result()

  def _results(self) -> dict[str, dict[str, Any]]:
    markers = [*self.path.glob('*/DONE.json'), *self.path.glob('*/*/DONE.json')]
    markers.sort(key=lambda marker: marker.stat().st_mtime_ns)
    return {
        str(marker.parent.relative_to(self.path)): self._result(marker)
        for marker in markers
    }


class DamagedPhase(RunStopped):
  """A complete phase whose files are not what it wrote; one line."""


class Phase:
  """One part of a run with a directory of its own.

  Attributes:
    name: path below the run's directory, such as 'distill/leafe'.
    dir: that directory.
  """

  def __init__(self, name: str, directory: pathlib.Path, make: bool = True):
    self.name = name
    self.dir = directory
    if make:
      self.dir.mkdir(parents=True, exist_ok=True)

  def begun(self) -> bool:
    """Whether an earlier start left anything here."""
    return self.dir.is_dir() and any(self.dir.iterdir())

  def done(self) -> bool:
    return (self.dir / DONE).exists()

  def complete(
      self, result: Mapping[str, Any], beside: Sequence[pathlib.Path] = ()
  ) -> None:
    """Marks the phase complete and seals what it wrote, which must be on disk.

    Args:
      result: JSON types.
      beside: what it wrote elsewhere.

    Raises:
      DamagedPhase: it was made anew for a damage and did not come out the same.
    """
    text = (json.dumps(dict(result), indent=2) + '\n').encode()
    self._check_repeated()
    seals.write(self.dir, self._seal, beside, {DONE: text})
    write_atomic(self.dir / DONE, text)
    buckets.commit(self.dir, f'phase {self.name} is done')

  def result(self) -> dict[str, Any]:
    """What `complete` was given. RuntimeError before."""
    found = _read_json(self.dir / DONE, f'remove {self.dir / DONE}: it is made again')
    if found is None:
      raise RuntimeError(f'phase {self.name!r} is not complete in {self.dir}')
    return found

  def faults(self, weights: bool = False) -> list[str]:
    """What of a complete phase is not as it was sealed, and `mend` would remove.

    Args:
      weights: whether the files of its weights, too, are read for it, as they are
        whenever they are loaded; else whether they are there, in their sizes.

    Raises:
      DamagedPhase: as `mend`.
    """
    own = [f'{path} {what}' for path, what in self._damage(weights).items()]
    return own + [fault for part in self._tries() for fault in part.faults(weights)]

  def check(self, weights: bool = False) -> None:
    """Raises DamagedPhase for the first of the `faults`."""
    for fault in self.faults(weights):
      raise DamagedPhase(
          f'{fault}; start the run of that directory again, which makes it anew'
      )

  def mend(self, weights: bool = False) -> bool:
    """Makes a complete phase whose files changed one that is to be gone on with.

    What differs is removed, so that the phase makes just that again.

    Args:
      weights: as for `faults`.

    Returns:
      Whether anything was wrong.

    Raises:
      DamagedPhase: the seal says nothing, or there is a file that would be read
        and that the phase did not write.
    """
    damage = self._damage(weights)
    for path, what in damage.items():
      logging.warning('%s %s: it is made again, to the same bits', path, what)
      (self.dir / DONE).unlink(missing_ok=True)  # first: a kill leaves it undone
      remove(path)
    mended = [part.mend(weights) for part in self._tries()]
    if any(mended):
      (self.dir / DONE).unlink(missing_ok=True)
    return bool(damage) or any(mended)

  @property
  def _seal(self) -> pathlib.Path:
    return self.dir / seals.SEAL

  def _damage(self, weights: bool) -> dict[pathlib.Path, str]:
    """Path to remove -> what is wrong with it."""
    found = {}
    for name, what in seals.compare(self.dir, self._sealed()).items():
      path = self.dir / name
      if _is_shown(name):
        _refuse_shown(pathlib.Path(os.path.normpath(path)), what)
        continue
      # A part with a seal of its own is believed whole or not at all.
      nested = path.name == seals.SEAL
      found[path.parent if nested else path] = what
    weighty = self.dir / WEIGHTS
    if weighty.is_dir() and weighty not in found:
      found.update(_whole_damage(weighty, sizes_alone=not weights))
    return found

  def _tries(self) -> list[Phase]:
    """Complete phases below this one, such as the tries of a sweep."""
    places = [path.parent for path in sorted(self.dir.glob(f'*/{DONE}'))]
    return [Phase(f'{self.name}/{place.name}', place) for place in places]

  def _sealed(self) -> seals.Files:
    try:
      sealed = seals.read(self._seal)
    except seals.BrokenSeal as error:
      raise DamagedPhase(
          f'{error}, so nothing says whether phase {self.name} is what was written; '
          f'put it back, remove {self.dir} to have the phase made again, or remove '
          f'{self.dir / DONE} alone to have what lies there believed'
      ) from error
    for name in seals.strangers(self.dir, sealed):
      if name.endswith('.jsonl'):
        raise DamagedPhase(
            f'{self.dir / name} was not written by the run, and would be read as '
            f'part of phase {self.name}; move it out of there'
        )
    return sealed

  def _check_repeated(self) -> None:
    """Compares data with the seal of the time before the phase was made again."""
    try:
      sealed = seals.read(self._seal)
    except seals.BrokenSeal:
      return
    data = {name: entry for name, entry in sealed.items() if _is_data(name)}
    for name, what in seals.compare(self.dir, data).items():
      raise DamagedPhase(
          f'{self.dir / name} {what}: phase {self.name} was made again and came out '
          'otherwise (other releases, another machine?), so what later phases made of '
          f'it no longer belongs to it; remove {self._seal} and the directories of the '
          'phases that read it, or put the file back'
      )


def _is_data(name: str) -> bool:
  """Whether a phase that is made again writes the same bytes of this name."""
  return (
      name.endswith('.jsonl') and not _is_shown(name) or '.array_record-' in name
  )


def _is_shown(name: str) -> bool:
  return SHOWN in pathlib.PurePath(name).parts


def _refuse_shown(path: pathlib.Path, what: str) -> None:
  """DamagedPhase, as training would have to be repeated; not for what was deleted."""
  if path.parent.is_dir():
    raise DamagedPhase(
        f'{path} {what}; it is for readers alone, and is not made again: put it back, '
        f'or delete all of {path.parent}'
    )


def _whole_damage(part: pathlib.Path, sizes_alone: bool) -> dict[pathlib.Path, str]:
  """The part itself, if any of its files is not as sealed."""
  try:
    wrong = seals.differences(buckets.place(part), part / seals.SEAL, sizes_alone)
  except seals.BrokenSeal as error:
    return {part: f'has no seal to believe: {error}'}
  first = next(iter(wrong.items()), None)
  return {part: f'is damaged: {" ".join(first)}'} if first else {}


def _read_json(path: pathlib.Path, remedy: str) -> dict[str, Any] | None:
  """The object of a file; None where there is none. Raises RunStopped."""
  try:
    return read_object(path)
  except FileNotFoundError:
    return None
  except ValueError as error:
    raise RunStopped(f'{path.parent}: {error}; put it back, or {remedy}') from error
