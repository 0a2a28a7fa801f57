"""A run's directory on this machine that stands for the one in a bucket.

The run works on the copy as on any directory. `commit` makes what is there last:
changed files go to the bucket, then the manifest that names them (`manifest`). It is
called where a run on a disk makes something last: a phase is done, a wave, a
checkpoint is sealed, the journal comes to a point to go on from.

Whoever resumes gets the files of the last commit; on the machine that made it the
copy is newer, and is gone on with like a directory on a disk. With several
processes each has a copy: it uploads what it wrote, process 0 commits that with its
own, and the others fetch the rest (`leafe_jax.hosts.first`).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from absl import logging

from leafe_jax import buckets
from leafe_jax.buckets import manifest as manifest_lib
from leafe_jax.buckets.manifest import Manifest
from leafe_jax.buckets.store import BucketError, Conflict, Entry, Store, measure
from leafe_jax.files import DONE, PARTIAL, write_atomic

STATE = '.mirror.json'
_KEPT_HERE = ('.lock', STATE)
_TELLING = ('log', 'growing_')  # files that alone are no reason for a commit
_WORKERS = 8
_ATTEMPTS = 5
_PAUSE_S = 0.3  # longer each time


class Mirror:
  """The copy of a run.

  Attributes:
    root: directory of the copy.
    url: of the run.
    store: the objects below it.

  Args:
    store: the objects of the run.
    root: directory of the copy.
    writes: whether this process commits (process 0 of a run, and no reader).
  """

  def __init__(self, store: Store, root: pathlib.Path, writes: bool = True):
    self.root, self.url, self.store = root, store.url, store
    self.writes = writes
    self._base = Manifest()
    self._generations: dict[str, int] = {}
    self._measured: dict[str, tuple[tuple[int, int, int], Entry]] = {}
    self._offered: dict[str, Entry] = {}
    self._sent: dict[str, Entry] = {}

  # What the bucket has comes here.

  def restore(self) -> None:
    """Makes the copy that of the last commit, or finds that it goes on from it.

    Raises:
      BucketError: the bucket cannot be read.
    """
    for _ in range(_ATTEMPTS):
      base = manifest_lib.read(self.store)
      there = self.store.list()
      self._generations = {name: found.generation for name, found in there.items()}
      places, wrong = manifest_lib.locate(base, there)
      if self.writes and not base.generation:
        self._check_free(there)
      if base.generation and self._is_descendant(base):
        logging.info(
            '%s: goes on with the copy on this machine, after %s', self.url,
            base.describe(),
        )
      else:
        if wrong and not self.writes and self._is_overtaken(base):
          continue
        self._say_lost(base, wrong)
        try:
          self._fetch(base, places)
        except Conflict as error:  # a reader, while the run commits
          if self.writes:
            raise BucketError(str(error)) from error
          continue
      sound = {n: each for n, each in base.files.items() if n not in wrong}
      self._settled(dataclasses.replace(base, files=sound))
      if self.writes:
        self._tidy(places)
      return
    raise BucketError(f'{self.url}: the run commits faster than it can be read; again')

  def _is_overtaken(self, base: Manifest) -> bool:
    return manifest_lib.read(self.store).generation != base.generation

  def _check_free(self, there: Iterable[str]) -> None:
    """BucketError where somebody put a run here, which a start would write over."""
    done = sorted(name for name in there if name.endswith(f'/{DONE}'))
    if done:
      raise BucketError(
          f'{self.url} holds phases of a run ({done[0]}) and no {manifest_lib.NAME}: '
          'no start made it here. Copy it to a disk; --fork_from=DIRECTORY with '
          'another --workdir goes on from it'
      )

  def _is_descendant(self, base: Manifest) -> bool:
    """Whether the copy is that commit, and what this machine did after it."""
    try:
      state = json.loads((self.root / STATE).read_text('utf-8'))
    except (OSError, ValueError):
      return False
    return state == {'url': self.url, 'generation': base.generation}

  def _say_lost(self, base: Manifest, wrong: Mapping[str, str]) -> None:
    for name, what in sorted(wrong.items()):
      logging.warning('%s/%s %s: it is made again', self.url, name, what)
    if base.generation and self.writes:  # said before there is a log
      logging.warning(
          '%s: restored from %s; what was done after it is done again', self.url,
          base.describe(),
      )
    late = sorted(name for name in self._scan() if name not in base.files)
    if late and self.writes:
      logging.warning(
          '%s: %d files on this machine are no part of that commit and are removed '
          '(%s)', self.url, len(late), ', '.join(late[:4] + ['...'] * (len(late) > 4)),
      )

  def _fetch(self, base: Manifest, places: Mapping[str, str]) -> None:
    """Makes the copy that commit; what it has already stays."""
    (self.root / STATE).unlink(missing_ok=True)
    here = self._scan()
    for name in here:
      if name not in places:
        (self.root / name).unlink()
    self._each(
        lambda name: self.store.download(
            places[name], self.root / name, base.files[name]
        ),
        [name for name in places if here.get(name) != base.files[name]],
    )

  def _tidy(self, places: Mapping[str, str]) -> None:
    """Does what a commit was killed before: newer contents go to their places."""
    moved = {name: place for name, place in places.items() if place != name}
    self._each(lambda name: self._settle(name, self._base.files[name]), moved)
    left = [n for n in self._generations if n.startswith(f'{manifest_lib.NEW}/')]
    gone = [n for n in self._base.gone if n in self._generations]
    self._each(self._remove, [*left, *gone])

  def _follow(self, generation: int) -> None:
    """Gets what process 0 committed, which may commit more meanwhile."""
    if generation == self._base.generation:
      return
    seen, again = None, 0
    while again < _ATTEMPTS:  # the same trouble with the same commit is a damage
      time.sleep(_PAUSE_S * again)
      base = manifest_lib.read(self.store)
      places, wrong = manifest_lib.locate(base, self.store.list())
      found = next((f'{self.url}/{n} {what}' for n, what in wrong.items()), '')
      if not found:
        try:
          self._take_over(base, places)
          return
        except Conflict as error:
          found = str(error)
      again = again + 1 if seen == (found, base.generation) else 1
      seen = found, base.generation
    raise BucketError(f'{seen[0] if seen else ""}; start all processes again')

  def _take_over(self, base: Manifest, places: Mapping[str, str]) -> None:
    """Makes the copy what process 0 committed, and what this process wrote."""
    here = self._scan()
    # At first, what an earlier start left; later, what process 0 removed.
    known = self._base.files if self._base.generation else here
    for name in known:
      if name not in base.files and not _only_tells(name):
        (self.root / name).unlink(missing_ok=True)
    self._each(
        lambda name: self.store.download(
            places[name], self.root / name, base.files[name]
        ),
        [
            name for name, entry in base.files.items()
            if here.get(name) != entry and name not in self._offered
            and not (_only_tells(name) and name in here)  # maybe open: its own log
        ],
    )
    self._base = base

  # What is here goes to the bucket.

  def commit(self, note: str) -> None:
    """Makes what is here last; nothing to do where only logs have grown.

    Args:
      note: what is done.

    Raises:
      BucketError: the bucket cannot be written, or another process did.
    """
    if not self.writes:
      return
    found = self._scan()
    changed = _differing(found, self._base.files)
    removed = [name for name in self._base.files if name not in found]
    if not removed and all(map(_only_tells, changed)):
      return
    try:
      self._each(lambda name: self._upload(name, changed[name]), changed)
      before = self._base
      base = manifest_lib.write(
          self.store, before.after(found, note), before.generation
      )
      self._settled(base)
      moved = [name for name in changed if name in before.files]
      self._each(lambda name: self._settle(name, changed[name]), moved)
      # Afterwards: files of one content share the object.
      waiting = {manifest_lib.new(changed[name]) for name in moved}
      self._each(self._remove, [*waiting, *removed])
    except Conflict as error:
      raise BucketError(
          f'{error}, which must have taken the run over; what was committed before '
          'stands. Start the same command again when it has ended'
      ) from error

  def offer(self) -> bytes:
    """Uploads what this process wrote; what process 0 is to know of it.

    Raises:
      BucketError: the bucket cannot be written.
    """
    # Process 0 commits instead; at first, what lies here is of an earlier start.
    if self.writes or not self._base.generation:
      return b''
    changed = _differing(self._scan(), {**self._base.files, **self._offered})
    if all(map(_only_tells, changed)):
      return b''
    try:
      self._each(lambda name: self._upload(name, changed[name]), changed)
    except Conflict as error:
      raise BucketError(str(error)) from error
    self._offered.update(changed)
    return json.dumps(changed).encode()

  def share(self, work: Callable[[], Any], offers: Iterable[bytes]) -> list[Any]:
    """Does process 0's work over what all wrote, and commits both.

    Args:
      work: of process 0 alone.
      offers: of all processes.

    Returns:
      For `receive` on all processes.
    """
    self._take(offers)
    result = work()
    self.commit('what the processes came to')
    return [result, self._base.generation]

  def receive(self, answer: list[Any]) -> Any:
    """What process 0's work came to; its files are here then."""
    result, generation = answer
    if not self.writes:
      self._follow(generation)
    return result

  def _take(self, offers: Iterable[bytes]) -> None:
    for offer in filter(None, offers):
      for name, entry in json.loads(offer).items():
        entry = Entry(*entry)
        place = manifest_lib.new(entry) if name in self._base.files else name
        self.store.download(place, self.root / name, entry)
        if place == name and (found := self.store.find(name)):
          self._generations[name] = found.generation
          self._sent[name] = entry

  @property
  def generation(self) -> int:
    """Of the last commit that this process knows."""
    return self._base.generation

  def _upload(self, name: str, entry: Entry) -> None:
    if name not in self._base.files and self._sent.get(name) == entry:
      return  # by the process that wrote it
    place = manifest_lib.new(entry) if name in self._base.files else name
    # Process 0 has seen what lies under the names when it began.
    look = place != name or not self.writes
    found = self.store.find(place) if look else None
    if found is not None and found.entry == entry:
      self._generations[place] = found.generation
      return
    generation = self._generations.get(place, 0) if found is None else found.generation
    self._generations[place] = self.store.upload(
        place, self.root / name, entry, generation
    )

  def _settle(self, name: str, entry: Entry) -> None:
    """Puts a newer content in its place, which the manifest names by now."""
    waiting = manifest_lib.new(entry)
    self._generations[name] = self.store.copy(
        name, self.store, waiting, entry, self._generations.get(name, 0)
    )

  def _remove(self, name: str) -> None:
    self.store.delete(name, self._generations.pop(name, None))

  def _settled(self, base: Manifest) -> None:
    """Notes that the copy is that commit, or goes on from it."""
    self._base = base
    if self.writes and base.generation:
      state = {'url': self.url, 'generation': base.generation}
      write_atomic(self.root / STATE, json.dumps(state))

  def _scan(self) -> dict[str, Entry]:
    """Name -> content of every file here; what did not change is not read again."""
    found = {}
    for place, _, names in os.walk(self.root):
      for path in (pathlib.Path(place, name) for name in names):
        name = path.relative_to(self.root).as_posix()
        half = any(part.endswith(PARTIAL) for part in name.split('/'))
        if name not in _KEPT_HERE and not half:
          found[name] = self._measure(name, path)
    return found

  def _measure(self, name: str, path: pathlib.Path) -> Entry:
    stat = path.stat()
    state = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
    known = self._measured.get(name)
    if known is None or known[0] != state:
      known = self._measured[name] = state, measure(path, stat.st_size)
    return known[1]

  def _each(self, work: Callable[[str], Any], names: Iterable[str]) -> None:
    """Does the work for all names, a few at a time. The first error is raised."""
    with concurrent.futures.ThreadPoolExecutor(_WORKERS) as pool:
      for done in [pool.submit(work, name) for name in names]:
        done.result()


def _differing(
    found: Mapping[str, Entry], known: Mapping[str, Entry]
) -> dict[str, Entry]:
  return {name: entry for name, entry in found.items() if known.get(name) != entry}


def _only_tells(name: str) -> bool:
  """Whether a file is for people who look, and nothing goes on from it."""
  first, last = name.split('/')[0], name.split('/')[-1]
  return first == 'tensorboard' or last.startswith(_TELLING)


def look(url: str) -> pathlib.Path:
  """A copy of what a run in a bucket has committed, to be read.

  Raises:
    BucketError: there is no run, or it cannot be read.
  """
  store = Store(url)
  mirror = Mirror(store, buckets.cache('views', store.url), writes=False)
  mirror.root.mkdir(parents=True, exist_ok=True)
  mirror.restore()
  if not mirror.generation:
    raise BucketError(f'{store.url} holds no run (no {manifest_lib.NAME})')
  buckets.register(mirror)
  return mirror.root
