"""Stage 1 as phases: trees by reflection and rollback, or independent samples.

Both write the trees of each wave of tasks, atomically, one file per process of
the run; the files of a wave are read as one set, by any number of processes. A
wave that was interrupted is explored again, or goes on from its journal
(`rollout.journal`), and comes out the same.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from absl import logging

from envs import api
from leafe_jax import buckets, hosts
from leafe_jax.config import Explore
from leafe_jax.files import DamagedFile, read_records, write_atomic
from leafe_jax.learner.metrics import Writer
from leafe_jax.progress import Progress
from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.explore import explore
from leafe_jax.rollout.grow import Limits
from leafe_jax.rollout.journal import discard, journaled
from leafe_jax.rollout.ledger import total
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
    directory: pathlib.Path, number: int, host: int | None = None
) -> pathlib.Path:
  """A wave's file, or the part of it that process `host` of a run writes."""
  part = '' if host is None else f'.host{host}'
  return directory / f'wave_{number:04d}{part}.jsonl'


def journal_path(directory: pathlib.Path, number: int) -> pathlib.Path:
  """Where the responses of a wave are kept until it is written."""
  return directory / f'journal_{number:04d}.jsonl'


def load_trees(directory: pathlib.Path, wave: str = '*') -> list[Tree]:
  """All trees of a finished phase, or of a wave, in the order of their tasks.

  Raises:
    DamagedFile: names the file and the line.
  """
  return [
      tree
      for path in _files(directory, wave)
      for tree in read_records(path, Tree.from_record)
  ]


def _files(directory: pathlib.Path, wave: str) -> list[pathlib.Path]:
  """Files of trees, by wave and process."""

  def order(path: pathlib.Path) -> tuple[str, int]:
    name, _, host = path.stem.partition('.host')
    return name, int(host or 0)

  found = set(directory.glob(f'wave_{wave}.jsonl'))
  return sorted(found | set(directory.glob(f'wave_{wave}.host*.jsonl')), key=order)


def _is_explored(
    directory: pathlib.Path, number: int, tasks: Sequence[api.Task]
) -> bool:
  """Whether all trees of a wave are there; removes a part of them."""
  try:
    trees = load_trees(directory, f'{number:04d}')
  except DamagedFile as error:
    logging.warning('%s', error)
    trees = []
  if [tree.task_id for tree in trees] == [task.id for task in tasks]:
    discard(journal_path(directory, number))
    return True
  for path in _files(directory, f'{number:04d}'):
    logging.warning('removed %s: not the whole wave, which is explored again', path)
    path.unlink()
  return False


class _Growing:
  """Shows and saves a wave's trees as they grow.

  What is saved is for whoever looks, during a run or after it was killed; a
  resumed run explores the wave again, to the same bits.
  """

  def __init__(self, path: pathlib.Path, progress: Progress):
    self.path = path
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
    if self._rounds % ROUNDS_PER_SAVE == 0 and grown and hosts.is_first():
      save_trees(self.path, trees)
      self._saved_calls = budget.model_calls
    self._rounds += 1


def save_trees(path: pathlib.Path, trees: Sequence[Tree]) -> None:
  """Writes a wave, all of it or nothing."""
  write_atomic(path, ''.join(tree.to_json() + '\n' for tree in trees))


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
  host = hosts.index() if hosts.count() > 1 else None
  save_trees(wave_path(directory, number, host), trees[hosts.share(len(trees))])
  hosts.first(functools.partial(discard, journal_path(directory, number)))


def _figures(trees: Sequence[Tree]) -> dict[str, float]:
  """Scalars of a wave: what was solved, what it cost."""
  budget = total(tree.budget for tree in trees)
  return {
      'solved': sum(tree.solved() for tree in trees) / len(trees),
      'success_rate': sum(n.success for tree in trees for n in tree.nodes)
      / max(1, budget.episodes),
      **{name: float(count) for name, count in budget.as_dict().items()},
  }


def collect(
    name: str,
    directory: pathlib.Path,
    player: Player,
    tasks: Sequence[api.Task],
    config: Explore,
    limits: Callable[[api.Task], Limits],
    rows: int,
    writer: Writer,
) -> list[Tree]:
  """Explores all tasks wave by wave; finished waves are read, not repeated.

  Args:
    name: of the progress bar.
    directory: where the waves are kept.
    player, tasks, config, limits, rows: as for `explore`.
    writer: gets the wave's figures.
  """
  trees: list[Tree] = []
  with Progress(name, len(tasks), 'task') as progress:
    for number, wave in waves(tasks, config.wave_tasks):
      if hosts.first(functools.partial(_is_explored, directory, number, wave)):
        done = load_trees(directory, f'{number:04d}')
        progress.skip(len(wave))
      else:
        growing = _Growing(directory / f'growing_{number:04d}.jsonl', progress)
        own = journaled(player, journal_path(directory, number), wave)
        done = explore(own, wave, config, limits, rows, growing.see)
        _save_wave(directory, number, done)
        growing.path.unlink(missing_ok=True)
        buckets.commit(directory, f'wave {number} of {directory.name}')
        progress.advance(len(wave))
      trees.extend(done)
      writer.write(number, _figures(done))
  return trees
