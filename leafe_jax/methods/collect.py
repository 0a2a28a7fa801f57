"""Stage 1 as phases: trees by reflection and rollback, or independent samples.

Both write the trees of each wave of tasks, atomically, one file per process of
the run; the files of a wave are read as one set, by any number of processes. A
wave that was interrupted is explored again, or goes on from its journal
(`rollout.journal`), and comes out the same.

No more trees are in memory than those of the present wave, and of what their turns
hold a process has that of the tasks which it plays: what comes later reads the files.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from absl import logging

from envs import api
from leafe_jax import buckets, hosts
from leafe_jax.config import Explore
from leafe_jax.files import DamagedFile, stream_records, write_pieces
from leafe_jax.learner.metrics import Writer
from leafe_jax.progress import Progress
from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.explore import explore
from leafe_jax.rollout.grow import Limits
from leafe_jax.rollout.journal import discard
from leafe_jax.rollout.ledger import Ledger, total
from leafe_jax.rollout.play import journaled
from leafe_jax.rundir import SHOWN
from leafe_jax.tree import Tree

T = TypeVar('T')

ROUNDS_PER_SAVE = 16
# By how much trees grow between two saves, so that all saves of a wave together
# write a few times the wave and not its square.
_GROWTH = 1.25


def waves(
    tasks: Sequence[T], size: int
) -> Iterator[tuple[int, Sequence[T]]]:
  """(number, members) of each wave."""
  for start in range(0, len(tasks), size):
    yield start // size, tasks[start : start + size]


def wave_path(
    directory: pathlib.Path, number: int, host: int | None = None, kind: str = 'wave'
) -> pathlib.Path:
  """A wave's file, or the part of it that process `host` of a run writes.

  `kind` is 'growing' for what it has before it is whole.
  """
  part = '' if host is None else f'.host{host}'
  return directory / f'{kind}_{number:04d}{part}.jsonl'


def _host() -> int | None:
  """This process's number, where there are several."""
  return hosts.index() if hosts.count() > 1 else None


def journal_path(directory: pathlib.Path, number: int) -> pathlib.Path:
  """Where the responses of a wave are kept until it is written."""
  return directory / f'journal_{number:04d}.jsonl'


def discard_before(directory: pathlib.Path, number: int) -> None:
  """Removes the journals of the waves, or steps, before one."""
  for path in directory.glob('journal_*.jsonl'):
    if int(path.stem.partition('_')[2]) < number:
      discard(path)


def load_trees(directory: pathlib.Path, wave: str = '*') -> list[Tree]:
  """All trees of a finished phase, or of a wave, in the order of their tasks.

  Raises:
    DamagedFile: names the file and the line.
  """
  return list(stream_trees(directory, wave))


def stream_trees(directory: pathlib.Path, wave: str = '*') -> Iterator[Tree]:
  """As `load_trees`, one by one."""
  for path in _files(directory, wave):
    yield from stream_records(path, Tree.from_record)


def _files(directory: pathlib.Path, wave: str) -> list[pathlib.Path]:
  """Files of trees, by wave and process."""

  def order(path: pathlib.Path) -> tuple[str, int]:
    name, _, host = path.stem.partition('.host')
    return name, int(host or 0)

  found = set(directory.glob(f'wave_{wave}.jsonl'))
  return sorted(found | set(directory.glob(f'wave_{wave}.host*.jsonl')), key=order)


@dataclasses.dataclass
class _Yield:
  """What the trees of a wave came to.

  Attributes:
    task_ids: of the trees.
    solved: how many are.
    successes: episodes that solved their tasks.
    budget: what all cost.
  """

  task_ids: list[str] = dataclasses.field(default_factory=list)
  solved: int = 0
  successes: int = 0
  budget: dict[str, int] = dataclasses.field(default_factory=dict)

  @classmethod
  def of(cls, trees: Iterable[Tree]) -> _Yield:
    found, bill = cls(), Ledger()
    for tree in trees:
      found.task_ids.append(tree.task_id)
      found.solved += tree.solved()
      found.successes += sum(node.success for node in tree.nodes)
      bill.add(tree.budget)
    found.budget = bill.as_dict()
    return found

  def figures(self) -> dict[str, float]:
    """Scalars for the writer."""
    return {
        'solved': self.solved / len(self.task_ids),
        'success_rate': self.successes / max(1, self.budget['episodes']),
        **{name: float(count) for name, count in self.budget.items()},
    }


def _explored(
    directory: pathlib.Path, number: int, tasks: Sequence[api.Task]
) -> dict[str, Any] | None:
  """The `_Yield` of a wave whose trees are all there; removes a part of them."""
  try:
    found = _Yield.of(stream_trees(directory, f'{number:04d}'))
  except DamagedFile as error:
    logging.warning('%s', error)
    found = _Yield()
  if found.task_ids == [task.id for task in tasks]:
    discard(journal_path(directory, number))
    return vars(found)
  for path in _files(directory, f'{number:04d}'):
    logging.warning('removed %s: not the whole wave, which is explored again', path)
    path.unlink()
  return None


class _Growing:
  """Shows and saves a wave's trees as they grow.

  What is saved is for whoever looks, during a run or after it was killed; a
  resumed run explores the wave again, to the same bits.
  """

  def __init__(self, directory: pathlib.Path, number: int, progress: Progress):
    self._path = wave_path(directory, number, _host(), 'growing')
    self._progress = progress
    self._rounds = 0
    self._saved_calls = 0

  def see(self, trees: Sequence[Tree]) -> None:
    budget = total(tree.budget for tree in trees)
    solved = sum(tree.solved() for tree in trees)
    self._progress.show({
        'episodes': budget.episodes, 'env_steps': budget.env_steps, 'solved': solved
    })
    grown = budget.model_calls >= _GROWTH * self._saved_calls
    if self._rounds % ROUNDS_PER_SAVE == 0 and grown:
      save_trees(self._path, trees[hosts.share(len(trees))])
      self._saved_calls = budget.model_calls
    self._rounds += 1


def save_trees(path: pathlib.Path, trees: Sequence[Tree]) -> None:
  """Writes a wave, all of it or nothing."""
  write_pieces(path, (f'{tree.to_json()}\n'.encode() for tree in trees))


def show_group(
    root: pathlib.Path, name: str, step: int, groups: Sequence[Tree]
) -> None:
  """Writes one group of a step of online training, for whoever looks.

  The first whose episodes came out differently, or the first. It is sealed with its
  phase, but nothing of a run reads it, and a run that goes on keeps what is there.

  Args:
    root: of the run.
    name: of the arm.
    step: from 1.
    groups: of the step, a tree of roots each.
  """
  telling = (g for g in groups if len({node.score for node in g.nodes}) > 1)
  shown = next(telling, groups[0] if groups else None)
  if shown is not None and hosts.is_first():
    place = root / SHOWN / name
    place.mkdir(parents=True, exist_ok=True)
    save_trees(place / f'episodes_{step:04d}.jsonl', [shown])


def _save_wave(directory: pathlib.Path, number: int, trees: Sequence[Tree]) -> None:
  """Every process writes the trees of the tasks that it played."""
  path = wave_path(directory, number, _host())
  save_trees(path, trees[hosts.share(len(trees))])
  wave_path(directory, number, _host(), 'growing').unlink(missing_ok=True)
  hosts.first(functools.partial(_tidy, directory, number))


def _tidy(directory: pathlib.Path, number: int) -> None:
  """Removes what a wave that is written needs no more, also of other processes."""
  discard(journal_path(directory, number))
  for path in directory.glob(f'growing_{number:04d}*.jsonl'):
    path.unlink()


def collect(
    name: str,
    directory: pathlib.Path,
    player: Player,
    tasks: Sequence[api.Task],
    config: Explore,
    limits: Callable[[api.Task], Limits],
    rows: int,
    writer: Writer,
) -> Ledger:
  """Explores all tasks wave by wave; finished waves are not repeated.

  Args:
    name: of the progress bar.
    directory: where the waves are kept.
    player, tasks, config, limits, rows: as for `explore`.
    writer: gets the wave's figures.

  Returns:
    What all trees cost; they themselves are in the files (`load_trees`).
  """
  bill = Ledger()
  with Progress(name, len(tasks), 'task') as progress:
    for number, wave in waves(tasks, config.wave_tasks):
      found = hosts.first(functools.partial(_explored, directory, number, wave))
      if found is not None:
        done = _Yield(**found)
        progress.skip(len(wave))
      else:
        growing = _Growing(directory, number, progress)
        own = journaled(player, journal_path(directory, number), wave)
        trees = explore(own, wave, config, limits, rows, growing.see)
        _save_wave(directory, number, trees)
        done = _Yield.of(trees)
        del trees  # before the next ones grow
        buckets.commit(directory, f'wave {number} of {directory.name}')
        progress.advance(len(wave))
      bill.add(done.budget)
      writer.write(number, done.figures())
  return bill
