"""Lists the tasks of a split: ids, types and a digest.

  python -m tools.tasks --config=configs/webshop.py [--split=test] [--limit=N] [--json]

A line per task, its id and its type, then the number of each type and a digest:
whoever has the same one has the same tasks, in the same words and order, with the
same data. A run evaluates the first `evaluate.num_tasks` of `evaluate.split`; their
digest is `tasks.sha256` of its results.json, and is printed as well where they are
not all. --json prints what results.json holds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from absl import flags

from envs import api, registry
from leafe_jax import command_line
from leafe_jax.config import Experiment
from leafe_jax.evaluation import tasksets
from leafe_jax.evaluation.tasksets import TaskSet
from tools import targets


def define_flags() -> None:
  command_line.define_config()
  flags.DEFINE_enum(
      'split', None, api.SPLITS, "Which split; by default the config's evaluate.split."
  )
  flags.DEFINE_integer('limit', 0, 'The first so many; 0 for all.', lower_bound=0)
  flags.DEFINE_bool('json', False, 'Print JSON.')


def read_tasks(config: Experiment, split: str) -> TaskSet:
  """All tasks of a split of the config's world. ValueError, or what it raises."""
  world = registry.make(config.env.name, **config.env.options)
  try:
    found = tasksets.of_tasks(split, world.tasks(split), world)
  finally:
    world.close()
  if not found.ids:
    raise ValueError(f'{config.env.name} has no tasks in the {split} split')
  return found


def write_list(found: TaskSet, num_evaluated: int) -> str:
  """The tasks as text.

  Args:
    found: the tasks.
    num_evaluated: how many of them a run evaluates, 0 for none of this split.
  """
  width = max(map(len, found.ids))
  lines = [f'{id:{width}}  {type}' for id, type in zip(found.ids, found.types)]
  lines += ['', f'{len(found.ids)} tasks of the {found.split} split']
  lines += [f'{number:7}  {type}' for type, number in found.counts.items()]
  lines.append(f'sha256 {found.sha256}')
  if 0 < num_evaluated < len(found.ids):
    digest = found.first(num_evaluated).sha256
    lines.append(f'a run evaluates the first {num_evaluated}: sha256 {digest}')
  return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments {list(argv[1:])}')
  values = flags.FLAGS
  try:
    config = targets.read_config(values.config)
    evaluate = config.evaluate
    split = values.split or evaluate.split
    found = read_tasks(config, split)
  except (ValueError, TypeError, OSError, ImportError, api.EnvError) as error:
    raise command_line.UsageError(str(error)) from error
  if values.limit > len(found.ids):
    raise command_line.UsageError(
        f'--limit={values.limit}: the split has {len(found.ids)} tasks'
    )
  found = found.first(values.limit or len(found.ids))
  if values.json:
    print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
  else:
    text = write_list(found, evaluate.num_tasks if split == evaluate.split else 0)
    print(command_line.printable(text))


if __name__ == '__main__':
  define_flags()
  command_line.run(main, config=True)
