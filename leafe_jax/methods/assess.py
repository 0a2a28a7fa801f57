"""Evaluation as a phase: Pass@k counts of one arm, wave by wave.

Beside a wave's counts lie the transcripts of a few of its episodes, written
before them: where the counts are, the transcripts are, and a wave that was
interrupted writes both again, to the same bits.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator, Sequence

from absl import logging

from envs import api
from leafe_jax import buckets, hosts
from leafe_jax.config import Evaluate
from leafe_jax.files import DamagedFile, read_records, write_atomic
from leafe_jax.methods.collect import journal_path, save_trees, wave_path, waves
from leafe_jax.progress import Progress
from leafe_jax.rollout.episode import Player, no_memory
from leafe_jax.rollout.evaluate import TaskOutcome, evaluate
from leafe_jax.rollout.journal import discard
from leafe_jax.rollout.kept import Kept
from leafe_jax.rollout.play import journaled
from leafe_jax.rollout.samples import Memory
from leafe_jax.sampler import Rules
from leafe_jax.tree import Node, Tree


def load_outcomes(directory: pathlib.Path) -> list[TaskOutcome]:
  """All outcomes of a finished phase, in the order of their tasks.

  Raises:
    DamagedFile: names the file and the line.
  """
  return [
      outcome
      for path in sorted(directory.glob('wave_*.jsonl'))
      for outcome in _load(path)
  ]


def _load(path: pathlib.Path) -> list[TaskOutcome]:
  return read_records(path, lambda record: TaskOutcome(**record))


def load_episodes(directory: pathlib.Path) -> Iterator[Tree]:
  """The episodes that a finished phase kept, a tree of roots per task.

  Their ids are the numbers of their samples. None of an older evaluation.

  Raises:
    DamagedFile: a file is not what was written.
  """
  for path in sorted(directory.glob('episodes_*.jsonl')):
    yield from read_records(path, Tree.from_record)


def rules_of(
    config: Evaluate, max_tokens: int, stop_ids: tuple[int, ...]
) -> Rules:
  """How an evaluation samples."""
  return Rules(
      config.temperature, max_tokens, stop_ids, config.top_k, config.top_p,
      config.min_p, config.stop_strings,
  )


def assess(
    name: str,
    directory: pathlib.Path,
    player: Player,
    tasks: Sequence[api.Task],
    config: Evaluate,
    max_tokens: int,
    rows: int,
    memory: Memory = no_memory,
) -> list[TaskOutcome]:
  """Plays n episodes of every task; finished waves are not repeated."""
  rules = rules_of(config, max_tokens, player.transcript.stop_ids)
  solved: collections.Counter[bool] = collections.Counter()  # of this start
  with Progress(name, len(tasks) * config.num_samples, 'episode') as progress:
    for number, wave in waves(tasks, config.wave_tasks):
      path = wave_path(directory, number)
      journal = journal_path(directory, number)
      if hosts.first(functools.partial(_is_assessed, path, wave, config)):
        hosts.first(functools.partial(discard, journal))
        progress.skip(len(wave) * config.num_samples)
        continue
      kept = Kept(wave, config.keep_episodes)

      def ended(task_id: str, node: Node, kept: Kept = kept) -> None:
        kept.see(task_id, node)
        solved[node.success] += 1
        progress.show({'solved': solved[True], 'played': solved.total()})
        progress.advance()

      own = journaled(player, journal, wave)
      outcomes = evaluate(
          own, wave, config.num_samples, rules, rows, ended, memory
      )
      trees = kept.trees() if config.keep_episodes else None
      hosts.first(functools.partial(_save, path, outcomes, trees))
      hosts.first(functools.partial(discard, journal))
  return load_outcomes(directory)


def _is_assessed(
    path: pathlib.Path, tasks: Sequence[api.Task], config: Evaluate
) -> bool:
  """Whether a wave's counts are whole, and its transcripts there."""
  if not path.exists() or (config.keep_episodes and not _episodes(path).exists()):
    return False
  try:
    found = [(outcome.task_id, len(outcome.successes)) for outcome in _load(path)]
  except DamagedFile as error:
    logging.warning('%s', error)
    found = []
  if found == [(task.id, config.num_samples) for task in tasks]:
    return True
  logging.warning('%s is not the whole wave, which is evaluated again', path)
  return False


def _episodes(path: pathlib.Path) -> pathlib.Path:
  """Where the transcripts of a wave are kept."""
  return path.with_name(path.name.replace('wave', 'episodes'))


def _save(
    path: pathlib.Path, outcomes: Sequence[TaskOutcome], kept: Sequence[Tree] | None
) -> None:
  """Writes a wave; what was kept first, for the counts say that all is there."""
  if kept is not None:
    save_trees(_episodes(path), kept)
  lines = [json.dumps(dataclasses.asdict(outcome)) for outcome in outcomes]
  write_atomic(path, '\n'.join(lines) + '\n')
  buckets.commit(path, f'{path.stem} of {path.parent.name}')
