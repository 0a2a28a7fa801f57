"""The trees and episodes of a run as they grow: short entries, whole on demand."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

from leafe_jax.evaluation.specimens import kind_of
from leafe_jax.tree import Node, Tree
from leafe_jax.watch import reading
from leafe_jax.watch.reading import LinesFile

_TREES = re.compile(r'(wave|growing|episodes)_(\d+)(?:\.host\d+)?\.jsonl')
_RECENT = 14
_LONGEST_TITLE = 160


@dataclasses.dataclass(frozen=True)
class Entry:
  """A tree in short.

  Attributes:
    title, task_id, kind, episodes, branches, solved: of the tree.
    counts: what its turns and reflections add to the figures of their source.
    ended: the episodes that have come to an end.
  """

  title: str
  task_id: str
  kind: str
  episodes: int
  branches: int
  solved: int
  counts: collections.Counter[str]
  ended: tuple[dict[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Counts:
  """A line of an evaluation's counts: what became of all samples of a task."""

  task_id: str
  successes: tuple[int, ...]


def read_line(record: Any) -> Entry | Counts:
  """A tree, or the outcomes of an evaluated task. Raises for anything else."""
  if 'schema' not in record:
    return Counts(str(record['task_id']), tuple(map(int, record['successes'])))
  tree = Tree.from_record(record)
  branches = sum(node.parent is not None for node in tree.nodes)
  return Entry(
      (tree.instruction or tree.task_id)[:_LONGEST_TITLE], tree.task_id, kind_of(tree),
      len(tree.nodes), branches, sum(node.success for node in tree.nodes),
      _count(tree), tuple(_ended(node) for node in tree.nodes if node.ended_by),
  )


def _count(tree: Tree) -> collections.Counter[str]:
  turns = [turn for node in tree.nodes for turn in node.turns]
  asked = [reflection for node in tree.nodes for reflection in node.reflections]
  return collections.Counter({
      'tasks': 1,
      'solved': int(tree.solved()),
      'ended': sum(bool(node.ended_by) for node in tree.nodes),
      'successes': sum(node.success for node in tree.nodes),
      'branches': sum(node.parent is not None for node in tree.nodes),
      'turns': len(turns),
      'acted': sum(turn.action is not None for turn in turns),
      'valid': sum(turn.valid and turn.action is not None for turn in turns),
      'cut_off': sum(turn.cut_off for turn in turns),
      'sampled_tokens': sum(len(turn.response_ids) for turn in turns),
      'reflections': len(asked),
      'usable': sum(reflection.error is None for reflection in asked),
      'requested': sum(reflection.requested for reflection in asked),
  })


def _ended(node: Node) -> dict[str, Any]:
  return {
      'node': node.id, 'branch': node.parent is not None, 'success': node.success,
      'score': round(node.score, 4), 'turns': node.last_turn,
      'ended_by': node.ended_by, 'tau': node.tau,
  }


class Source:
  """The files of trees of one phase, and of the counts of an evaluation.

  Attributes:
    name: of the phase.
  """

  def __init__(self, name: str, directory: pathlib.Path):
    self.name = name
    self._directory = directory
    self._files: dict[str, LinesFile[Entry | Counts]] = {}

  def refresh(self, until: float = float('inf')) -> None:
    """Looks for files that are new, changed or gone.

    Args:
      until: when to leave the rest for the next look, by the monotonic clock.
    """
    names = _current(entry.name for entry in reading.entries(self._directory))
    self._files = {
        name: self._files.get(name)
        or LinesFile[Entry | Counts](self._directory / name, read_line)
        for name in names
    }
    for file in self._files.values():
      if time.monotonic() < until:
        file.refresh()

  @property
  def unread(self) -> int:
    """Files that nobody has had time for yet."""
    return sum(not file.version for file in self._files.values())

  def __bool__(self) -> bool:
    return bool(self._files)

  @property
  def troubles(self) -> list[str]:
    return [
        f'{self.name}/{file.trouble}' for file in self._files.values() if file.trouble
    ]

  def trees(self) -> Iterator[tuple[str, int, Entry]]:
    """(file, line, entry) of each tree."""
    for name, file in self._files.items():
      for place, line in enumerate(file.lines):
        if isinstance(line.value, Entry):
          yield name, place, line.value

  def counts(self) -> list[Counts]:
    """Outcomes of an evaluation, of the waves that are complete."""
    return [
        line.value
        for file in self._files.values() for line in file.lines
        if isinstance(line.value, Counts)
    ]  # fmt: skip

  def figures(self) -> dict[str, int]:
    """Sums over all trees; empty without any."""
    total: collections.Counter[str] = collections.Counter()
    for _, _, entry in self.trees():
      total.update(entry.counts)
    return dict(total)

  def versions(self) -> dict[str, str]:
    """File that was read -> its version."""
    return {name: f.version for name, f in self._files.items() if f.version}

  def written(self, name: str) -> float:
    """When a file of trees was written, in seconds of its clock."""
    return self._files[name].written

  def tree(self, name: str, place: int) -> Tree:
    """A whole tree. LookupError where there is none (any more)."""
    if name not in self._files:  # names come from outside: only known ones count
      raise LookupError(f'phase {self.name} has no file {name!r}')
    try:
      return Tree.from_record(self._files[name].value_at(place))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
      raise LookupError(f'{self.name}/{name}: no tree in line {place}') from error


def _current(names: Iterator[str]) -> list[str]:
  """Those to be read: of a wave that is complete not what it grew from."""
  found = {name: match for name in names if (match := _TREES.fullmatch(name))}
  complete = {match[2] for match in found.values() if match[1] == 'wave'}
  return [
      name for name, match in found.items()
      if match[1] != 'growing' or match[2] not in complete
  ]  # fmt: skip


class Recent:
  """The last episodes that came to an end, by when their files first told of it."""

  def __init__(self) -> None:
    self._seen: set[tuple[str, str, str, int]] = set()
    self._last: list[dict[str, Any]] = []

  def see(self, source: Source) -> None:
    """Takes in what is new in a source after its refresh."""
    for name, place, entry in source.trees():
      number = name.split('.')[0].rpartition('_')[2]  # of the wave, whole or growing
      for episode in entry.ended:
        key = (source.name, number, entry.task_id, episode['node'])
        if key not in self._seen:
          self._seen.add(key)
          self._last.append({
              **episode, 'source': source.name, 'file': name, 'line': place,
              'title': entry.title, 'task': entry.task_id,
              'seen': source.written(name),
          })
    self._last.sort(key=lambda episode: episode['seen'])
    del self._last[:-_RECENT]

  def last(self) -> list[dict[str, Any]]:
    """The latest first."""
    return self._last[::-1]
