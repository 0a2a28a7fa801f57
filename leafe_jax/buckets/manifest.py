"""What a bucket holds of a run: one object that names all files and their digests.

    .manifest.json    written last, so it says what is there
    NAME              a file as it was when the manifest first named it, or as it is
    .new/MD5          a file's newer content, until the manifest names that

At any time each entry of the manifest has an object of that content: under its name,
or in `.new`. A file that the manifest does not name yet may be written under its
name at once; one that it names is written to `.new` first and put in its place when
the manifest says so (`Mirror.commit`). So a kill leaves the files of one commit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence

from leafe_jax.buckets.store import BucketError, Entry, Object, Store

NAME = '.manifest.json'
NEW = '.new'
_SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Manifest:
  """A commit of a run.

  Attributes:
    files: name -> what it holds.
    generation: of the manifest's object; 0: nothing was committed yet.
    number: of commits, this one included.
    note: what was done then.
    host: that made it.
    time: when, by that host's clock; for people.
    gone: files of the commit before that are no more; a kill may leave their objects.
  """

  files: Mapping[str, Entry] = dataclasses.field(default_factory=dict)
  generation: int = 0
  number: int = 0
  note: str = ''
  host: str = ''
  time: str = ''
  gone: Sequence[str] = ()

  def after(self, files: Mapping[str, Entry], note: str) -> Manifest:
    """The next one, not written yet."""
    now = time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())
    gone = sorted(set(self.files) - set(files))
    return Manifest(files, 0, self.number + 1, note, os.uname().nodename, now, gone)

  def describe(self) -> str:
    return f'commit {self.number} ({self.note}; {self.time}, by {self.host})'


def read(store: Store) -> Manifest:
  """The last commit; an empty one where there is none.

  Raises:
    BucketError: the object is not what was written.
  """
  found = store.read(NAME)
  if found is None:
    return Manifest()
  content, generation = found
  try:
    record = json.loads(content)
    seal = record.pop('seal')
    files = {name: Entry(*entry) for name, entry in record.pop('files').items()}
    if seal != _seal(files) or record.pop('schema') != _SCHEMA:
      raise ValueError('its seal is another one')
    return Manifest(files, generation, **record)
  except (ValueError, TypeError, LookupError, AttributeError) as error:
    raise BucketError(
        f'{store.url}/{NAME} is not as it was written ({error}); put an earlier '
        'version of the object back, or take another --workdir'
    ) from error


def write(store: Store, found: Manifest, generation: int) -> Manifest:
  """Makes it the last commit.

  Args:
    store: of the run.
    found: from `Manifest.after`.
    generation: of the commit that it follows.

  Raises:
    Conflict: another one followed that.
  """
  record = {
      'schema': _SCHEMA, 'number': found.number, 'note': found.note,
      'host': found.host, 'time': found.time, 'gone': list(found.gone),
      'files': dict(found.files), 'seal': _seal(found.files),
  }  # fmt: skip
  text = json.dumps(record, separators=(',', ':'))
  return dataclasses.replace(
      found, generation=store.write(NAME, text.encode(), generation)
  )


def locate(
    manifest: Manifest, there: Mapping[str, Object]
) -> tuple[dict[str, str], dict[str, str]]:
  """(file -> the object that holds it, file -> what is wrong with its object)."""
  places, wrong = {}, {}
  for name, entry in manifest.files.items():
    waiting = new(entry)
    if name in there and there[name].entry == entry:
      places[name] = name
    elif waiting in there and there[waiting].entry == entry:
      places[name] = waiting
    else:
      wrong[name] = 'differs from what was committed' if name in there else 'is missing'
  return places, wrong


def new(entry: Entry) -> str:
  """Where a newer content waits for its commit."""
  return f'{NEW}/{entry.md5}'


def _seal(files: Mapping[str, Entry]) -> str:
  text = json.dumps(files, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()
