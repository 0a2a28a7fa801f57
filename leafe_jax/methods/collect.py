"""Stage 1 as phases: trees by reflection and rollback, or independent samples.

Both write one file of trees per wave of tasks, atomically; a wave that was
interrupted is explored again and comes out the same.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from envs import api
from leafe_jax.config import Explore
from leafe_jax.files import write_atomic
from leafe_jax.learner.metrics import Writer
from leafe_jax.progress import Progress
from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.explore import explore
from leafe_jax.rollout.grow import Limits
from leafe_jax.rollout.ledger import total
from leafe_jax.tree import Tree, read_trees

T = TypeVar('T')

ROUNDS_PER_SAVE = 16


def waves(
    tasks: Sequence[T], size: int
) -> Iterator[tuple[int, Sequence[T]]]:
  """(number, members) of each wave."""
  for start in range(0, len(tasks), size):
    yield start // size, tasks[start : start + size]


def wave_path(directory: pathlib.Path, number: int) -> pathlib.Path:
  return directory / f'wave_{number:04d}.jsonl'


def load_trees(directory: pathlib.Path) -> list[Tree]:
  """All trees of a finished phase, in the order of their tasks."""
  return [
      tree
      for path in sorted(directory.glob('wave_*.jsonl'))
      for tree in read_trees(path.read_text().splitlines())
  ]


class _Growing:
  """Shows and saves a wave's trees as they grow.

  What is saved is for whoever looks, during a run or after it was killed; a
  resumed run explores the wave again, to the same bits.
  """

  def __init__(self, path: pathlib.Path, progress: Progress):
    self.path = path
    self._progress = progress
    self._rounds = 0

  def see(self, trees: Sequence[Tree]) -> None:
    budget = total(tree.budget for tree in trees)
    solved = sum(tree.solved() for tree in trees)
    self._progress.show({
        'episodes': budget.episodes, 'env_steps': budget.env_steps, 'solved': solved
    })
    if self._rounds % ROUNDS_PER_SAVE == 0:
      save_trees(self.path, trees)
    self._rounds += 1


def save_trees(path: pathlib.Path, trees: Sequence[Tree]) -> None:
  """Writes a wave, all of it or nothing."""
  write_atomic(path, ''.join(tree.to_json() + '\n' for tree in trees))


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
      path = wave_path(directory, number)
      if path.exists():
        done = list(read_trees(path.read_text().splitlines()))
      else:
        growing = _Growing(directory / f'growing_{number:04d}.jsonl', progress)
        done = explore(player, wave, config, limits, rows, growing.see)
        save_trees(path, done)
        growing.path.unlink(missing_ok=True)
      trees.extend(done)
      writer.write(number, _figures(done))
      progress.advance(len(wave))
  return trees
