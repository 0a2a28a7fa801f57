"""The responses of a wave, kept as they come, so that it goes on after a stop.

    poll, poll, ..., poll | all rows in, written down, pages forgotten | poll, ...

A wave that starts again takes its first responses from the journal instead of
the policy: its worlds are stepped once more, and everything comes to where it
was, but for the KV pages. Pages that are read anew have other last bits than
those that grew; so at every point from which a wave may go on (`Player.keep_every`)
a wave that is not stopped forgets its pages, too. That is the price of such a
point: its rows wait for the last of them, and what they said is read once more.

    <checksum> {"schema": 1, "tasks": [...], ...}
    <checksum> [[ticket, "<digest of the prompt>", tokens, logprobs, ...], ...]
    <checksum> "kept"

A line's checksum is over the line and the checksum before it. What follows the
last "kept" is dropped: it was torn, or no point to go on from.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from leafe_jax import buckets, hosts
from leafe_jax.files import DamagedFile, sync, write_atomic
from leafe_jax.sampler import Request, Rules, Sample, Sampler

SCHEMA = 1
_KEPT = 'kept'


class Journal:
  """Takes the sampler's place: `submit` and `poll`.

  Attributes:
    kept: responses from which a stopped wave goes on.

  Args:
    sampler: of the policy.
    path: of the file.
    title: what the wave is; a journal of another one is not used.
    every: responses between two points to go on from.

  Raises:
    DamagedFile: the file is not what process 0 sees.
  """

  def __init__(
      self, sampler: Sampler, path: pathlib.Path, title: Mapping[str, Any], every: int
  ):
    self._sampler = sampler
    self._every = every
    self._file = _File(path, title)
    self._past = self._file.polls() if self._file.lines > 1 else None
    self._open: dict[int, tuple[Request, Rules, str]] = {}
    self._tickets: dict[int, int] = {}  # the sampler's to ours
    self._next = 0
    self._new: list[Any] = []  # polls since the last point
    self._pending = 0  # responses in them
    self.kept = 0

  def submit(self, request: Request, rules: Rules) -> int:
    """As `Sampler.submit`."""
    ticket, self._next = self._next, self._next + 1
    self._open[ticket] = request, rules, _digest(request)
    if self._past is None:
      self._hand_over(ticket)
    return ticket

  def poll(self) -> dict[int, Sample]:
    """As `Sampler.poll`; all that is open comes at once where the wave is kept."""
    if self._past is not None:
      found = self._recall(next(self._past, None))
      if found:
        return found
    return self._live()

  # What was said before.

  def _recall(self, entries: list[Any] | None) -> dict[int, Sample]:
    """A poll of the journal; none where it ends, and the policy takes over."""
    if entries is not None and all(map(self._fits, entries)):
      self.kept += len(entries)
      return {entry[0]: self._replayed(*entry) for entry in entries}
    if entries is not None:
      logging.warning(
          '%s: the world did not do again what it did before (%d responses on); the '
          'wave goes on from there as it is now', self._file.path, self.kept,
      )
      self._file.cut()
    logging.info('%s: goes on after %d responses', self._file.path, self.kept)
    self._past = None
    self._sampler.forget()
    for ticket in self._open:
      self._hand_over(ticket)
    return {}

  def _fits(self, entry: Sequence[Any]) -> bool:
    """Whether this was said to a prompt that is open."""
    ticket, digest, *_ = entry
    return ticket in self._open and self._open[ticket][-1] == digest

  def _replayed(
      self, ticket: int, digest: str, tokens: list[int], logprobs: list[float],
      stopped: bool, overlong: bool, routes: Sequence[int] = (),
  ) -> Sample:  # fmt: skip
    del digest
    request, *_ = self._open.pop(ticket)
    state = self._sampler.extend(request.state, tokens)
    return Sample(state, tokens, logprobs, stopped, overlong, list(routes))

  # What is said now.

  def _hand_over(self, ticket: int) -> None:
    request, rules, _ = self._open[ticket]
    self._tickets[self._sampler.submit(request, rules)] = ticket

  def _live(self) -> dict[int, Sample]:
    found = self._sampled()
    if self._pending >= self._every:
      while self._open:
        found.update(self._sampled())
      self._keep()
    return found

  def _sampled(self) -> dict[int, Sample]:
    polled = self._sampler.poll().items()
    found = {self._tickets.pop(ticket): sample for ticket, sample in polled}
    if found:
      self._new.append([self._entry(*pair) for pair in found.items()])
      self._pending += len(found)
    return found

  def _entry(self, ticket: int, sample: Sample) -> list[Any]:
    *_, digest = self._open.pop(ticket)
    found = [
        ticket, digest, sample.tokens, sample.logprobs, sample.stopped, sample.overlong
    ]
    return [*found, sample.routes] if sample.routes else found

  def _keep(self) -> None:
    """Writes down what came since the last point; from here on nothing is known."""
    self._file.append([*self._new, _KEPT])
    self.kept += self._pending
    self._new, self._pending = [], 0
    self._sampler.forget()


def _digest(request: Request) -> str:
  tokens = np.asarray(request.state.tokens, np.uint32)
  key = np.asarray(request.key, np.uint32)
  data = tokens.tobytes() + key.tobytes()
  return hashlib.blake2b(data, digest_size=8).hexdigest()


class _File:
  """Lines that are sealed one by one, written by process 0 and read by all.

  Attributes:
    path: of it.
    lines: how many there are up to the last point to go on from.
  """

  def __init__(self, path: pathlib.Path, title: Mapping[str, Any]):
    self.path = path
    self._title = json.loads(json.dumps(title))
    self.lines, self._seal = hosts.first(self._mend)
    self._read_seal = ''

  def _mend(self) -> tuple[int, str]:
    """(lines, last checksum) of what can be gone on from; drops the rest."""
    lines, end, seal, count, offset = 0, 0, '', 0, 0
    for text, found, size in _sealed_lines(self.path):
      count, offset = count + 1, offset + size
      content = json.loads(text)
      if count == 1 and content != self._title:
        logging.warning('%s is of another wave, and removed', self.path)
        break
      if count == 1 or content == _KEPT:
        lines, end, seal = count, offset, found
    if not lines:
      lines, seal = 1, _seal('', json.dumps(self._title))
      write_atomic(self.path, f'{seal} {json.dumps(self._title)}\n')
    elif end < self.path.stat().st_size:
      os.truncate(self.path, end)
    return lines, seal

  def polls(self) -> Iterator[list[Any]]:
    """The entries of each poll. Raises DamagedFile."""
    for text, seal, _ in _sealed_lines(self.path):
      content = json.loads(text)
      if isinstance(content, list):
        yield content
      self._read_seal = seal
      if seal == self._seal:
        return
    raise DamagedFile(f'{self.path} is not as the first process sees it: start again')

  def append(self, contents: Sequence[Any]) -> None:
    """Adds lines at the end, which last when this returns."""
    hosts.first(functools.partial(self._append, contents))

  def _append(self, contents: Sequence[Any]) -> None:
    with open(self.path, 'a', encoding='utf-8') as file:
      for content in contents:
        text = json.dumps(content, separators=(',', ':'))
        self._seal = _seal(self._seal, text)
        file.write(f'{self._seal} {text}\n')
      file.flush()
      os.fsync(file.fileno())
    buckets.commit(self.path, f'a point of {self.path.parent.name}/{self.path.stem}')

  def cut(self) -> None:
    """Ends it after what was read, as a point to go on from."""
    hosts.first(self._cut)

  def _cut(self) -> None:
    kept, end = self._read_seal, 0
    for _, seal, size in _sealed_lines(self.path):
      end += size
      if seal == kept:
        break
    os.truncate(self.path, end)
    self._seal = kept
    self._append([_KEPT])


def discard(path: pathlib.Path) -> None:
  """Removes the journal of a wave that is written, if there is one."""
  if path.exists():
    path.unlink()
    sync(path.parent)


def _seal(before: str, text: str) -> str:
  return hashlib.blake2b(f'{before} {text}'.encode(), digest_size=16).hexdigest()


def _sealed_lines(path: pathlib.Path) -> Iterator[tuple[str, str, int]]:
  """(content, checksum, bytes) of each line, up to the first that is not whole."""
  seal = ''
  if not path.exists():
    return
  with open(path, 'rb') as file:
    for line in file:
      found, _, text = line[:-1].decode('utf-8', 'replace').partition(' ')
      seal = _seal(seal, text)
      if found != seal or not line.endswith(b'\n'):
        return
      yield text, seal, len(line)
