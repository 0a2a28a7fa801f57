"""How a run's host side grows, without weights and without devices.

    python -m tools.scale --tasks=2000 --attempts=16 --rows=4096 --out=/tmp/scale

Explores as Stage 1 does, with the run's own scheduler, episodes, trees, ledger and
files, but a policy that needs no device (`tools/weightless.py`), and then does what
comes after: trees are read again, as by a resumed run, described as for a report,
and turned into examples. Says what each part takes, per turn where it should grow
with the turns alone: run it at two sizes and compare. Seconds are the process's own,
whatever else the machine does; those of the world and of filling batches are of the
clock, and so no shares of the first line on a busy machine. `device` is what the device
would have taken, were it there: the host is in the way where its own time, without
the world's, comes near.

With --processes=8 it is a run of eight processes on this machine, each with its share
of the worlds, which tell each other what these answered; the figures are process 0's.
"""

from __future__ import annotations

import contextlib
import pathlib
import random
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from absl import flags

from leafe_jax import command_line, hosts
from leafe_jax.config import Env, Experiment, Explore, Policy, Sampler
from leafe_jax.evaluation import specimens, stage1
from leafe_jax.evaluation.report import MAX_TREE_BYTES, MAX_TREES
from leafe_jax.experience import build
from leafe_jax.methods.collect import collect, load_trees
from leafe_jax.policy import runtime
from leafe_jax.rollout.grow import Limits
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.tracking import opening
from leafe_jax.tracking.api import PartWriter
from leafe_jax.tree import Tree
from tools import weightless

T = TypeVar('T')
_JOIN_TIMEOUT_S = 120


def define_flags() -> None:
  flags.DEFINE_integer('tasks', 200, 'Training tasks.', lower_bound=1)
  flags.DEFINE_integer('wave_tasks', 0, 'Tasks of a wave; 0: all.', lower_bound=0)
  flags.DEFINE_integer('attempts', 16, 'Episodes per task.', lower_bound=1)
  flags.DEFINE_integer('rows', 1024, 'Episodes at a time.', lower_bound=1)
  flags.DEFINE_integer('dispatch_rows', 256, 'Rows of a dispatch.', lower_bound=1)
  flags.DEFINE_integer('horizon', 15, 'Turns of an episode.', lower_bound=1)
  flags.DEFINE_integer('response', 48, 'Most tokens of a response.', lower_bound=4)
  flags.DEFINE_integer('max_length', 2048, 'Longest transcript.', lower_bound=64)
  flags.DEFINE_integer('processes', 1, 'Processes of the run.', lower_bound=1)
  flags.DEFINE_integer('process_id', -1, 'Of this one; -1: starts them.')
  flags.DEFINE_string('coordinator', '', 'HOST:PORT of process 0; for those started.')
  command_line.define_path('out', '', 'An empty directory for the trees.')


def make_config(values: flags.FlagValues) -> Experiment:
  """The options of the run that is measured."""
  return Experiment(
      env=Env(horizon=values.horizon),
      policy=Policy(max_length=values.max_length),
      sampler=Sampler(
          num_pages=2 * values.rows * values.max_length // 16,
          max_rows=values.rows, dispatch_rows=values.dispatch_rows,
          prefill_buckets=(64, 128, 256), length_buckets=(512, 1024, 2048),
          decode_chunk=values.response,
      ),
      explore=Explore(
          num_tasks=values.tasks, attempts=values.attempts,
          wave_tasks=values.wave_tasks or values.tasks,
          max_response_tokens=values.response, max_reflection_tokens=values.response,
      ),
  )


class Account:
  """What each part took.

  Attributes:
    lines: one per part, ready to be shown.
    turns: by which times are divided; 0 before they are known.
  """

  def __init__(self) -> None:
    self.lines: list[str] = []
    self.turns = 0

  def take(self, name: str, work: Callable[[], T]) -> T:
    """Does a part and notes its time."""
    start = time.process_time()
    result = work()
    self.note(name, time.process_time() - start)
    return result

  def note(self, name: str, seconds: float) -> None:
    """A time, and its share of a turn."""
    share = f'{seconds / self.turns * 1e6:10.1f} us/turn' if self.turns else ''
    self.lines.append(f'{name:<28}{seconds:10.2f} s {share}')


def peak_gb() -> float:
  """Most memory that this process has held, in 1e9 bytes."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure(config: Experiment, root: pathlib.Path) -> list[str]:
  """Explores into an empty directory, goes on as a run does, and says what it took."""
  explore, account = config.explore, Account()
  player = weightless.make_player(config, explore.num_tasks, weightless.Device())
  tasks = player.world.tasks('train')
  before = peak_gb()

  def grow() -> Ledger:
    limits = Limits(explore.attempts, explore.max_env_steps)
    told = PartWriter(opening.board(root, config), 'explore')
    with contextlib.closing(told) as writer:
      return collect(
          'explore', root, player, tasks, explore, lambda task: limits,
          config.sampler.max_rows, writer,
      )

  start = time.process_time()
  bill = grow()
  seconds = time.process_time() - start
  account.turns = bill.model_calls
  grown = peak_gb()
  account.note('explore', seconds)
  account.note('  of it the world', player.clock.environment)
  account.note('  of it filling batches', player.sampler.stats.host_seconds)
  account.note('  device, were it there', _device_seconds(player))
  files = sum(path.stat().st_size for path in root.glob('*.jsonl'))
  account.take('resume: read the waves', grow)
  trees = account.take('load the trees', lambda: load_trees(root))
  account.take('describe Stage 1', lambda: stage1.describe(trees))
  account.take('trees of the report', lambda: specimens.encode_trees(
      specimens.choose_trees(trees, MAX_TREES), MAX_TREE_BYTES))
  account.take('examples', lambda: _examples(config, trees))
  return [
      f'{len(tasks)} tasks, {sum(len(tree.nodes) for tree in trees)} episodes, '
      f'{account.turns} turns, {player.sampler.stats.dispatches} dispatches, '
      f'{config.sampler.max_rows} rows',
      *account.lines,
      f'{"files":<28}{files / 1e6:10.1f} MB {files / account.turns:10.0f} bytes/turn',
      f'{"memory of trees and states":<28}{(grown - before) * 1e3:10.1f} MB'
      f'{(grown - before) * 1e9 / account.turns:11.0f} bytes/turn',
  ]


def _device_seconds(player) -> float:
  return player.sampler._engine.device_seconds


def _examples(config: Experiment, trees: Sequence[Tree]) -> int:
  rng = random.Random(0)
  found = build.rehearsal(trees, config.experience, rng)
  return len(found) + len(build.counterfactual(trees, config.experience))


def start_all(count: int) -> int:
  """Starts this program as the processes of one run; the first failure's exit code."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  command = [sys.executable, '-m', 'tools.scale', *sys.argv[1:]]
  started = [
      subprocess.Popen(
          [*command, f'--coordinator=localhost:{port}', f'--process_id={number}']
      )
      for number in range(count)
  ]
  return next((code for code in [one.wait() for one in started] if code), 0)


def main(argv: Sequence[str]) -> int:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments {list(argv[1:])}')
  values = flags.FLAGS
  root, started = pathlib.Path(values.out), values.process_id >= 0
  if not values.out or (not started and root.exists() and any(root.iterdir())):
    raise command_line.UsageError(f'--out={values.out}: name an empty directory')
  root.mkdir(parents=True, exist_ok=True)
  if values.processes > 1 and not started:
    return start_all(values.processes)
  count = values.processes if started else 0
  found = hosts.arguments(values.coordinator, count, values.process_id, 'off')
  runtime.collect_rarely()  # as a run: else the collector's share grows with the trees
  with hosts.joined(found, _JOIN_TIMEOUT_S):
    lines = measure(make_config(values), root)
    if hosts.is_first():
      sys.stdout.write('\n'.join(lines) + '\n')
  return 0


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
