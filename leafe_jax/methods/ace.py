"""ACE: frozen weights, a playbook in the prompt that learns (arXiv 2510.04618).

    ace         offline: adapts on training tasks, then the playbook stays
    ace_online  predicts each batch of test tasks with the playbook of the
                batches before, then learns from one episode on each

Generator, reflector and curator are the base policy (`methods.ace_roles`); the
merge is deterministic (`memory.playbook`). A small policy trained from scratch
never saw a playbook in its warm start and may well not profit from one.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging

from envs import api
from leafe_jax.config import Ace, Experiment
from leafe_jax.evaluation.memories import Remembered
from leafe_jax.memory.playbook import Playbook
from leafe_jax.methods import ace_roles, effort, stepwise
from leafe_jax.methods.arms import ASK_READS, BASE, PLAY_READS, Arm, Phase
from leafe_jax.methods.collect import journal_path
from leafe_jax.methods.effort import Effort
from leafe_jax.methods.run import Run
from leafe_jax.progress import Progress
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.samples import Memory, play_groups
from leafe_jax.sampler import Rules

READS = (*PLAY_READS, *ASK_READS, 'ace')


class Adaptation:
  """A playbook that goes through tasks in order; saved after every step.

  Attributes:
    book: the playbook.
    shown: task id -> the memory that its prompt had when it was met.
  """

  def __init__(self, run: Run, directory: pathlib.Path):
    self._run = run
    self._config: Ace = run.config.ace
    self._directory = directory
    self.book = Playbook(self._config.duplicate)
    self.shown: dict[str, str] = {}
    self._step = 0
    self._applied = 0
    self._ledger = Ledger()
    if (state := stepwise.load(directory)) is not None:
      self._load(state)

  def go_through(self, label: str, tasks: Sequence[api.Task]) -> dict[str, Any]:
    """Meets all tasks, a batch a step; returns figures for the phase."""
    size = self._config.tasks_per_step
    batches = [tasks[i : i + size] for i in range(0, len(tasks), size)]
    player = self._run.player_of(BASE)
    with Progress(label, len(batches), 'step', self._step) as bar:
      for batch in batches[self._step :]:
        self._meet(player, batch)
        self._save()
        bar.show({'bullets': len(self.book.bullets)})
        bar.advance()
    stepwise.write(self._directory, 'playbook.md', self.book.render())
    return {
        'bullets': len(self.book.bullets), 'deltas': self._applied,
        'budget': self._ledger.as_dict(),
    }  # fmt: skip

  def recall(self) -> str:
    """The playbook as it stands in prompts, one lesson a line."""
    return '\n'.join(bullet.text for bullet in self._best())

  def _best(self) -> list:
    return self.book.best(self._config.max_bullets)

  def _meet(self, player: Any, batch: Sequence[api.Task]) -> None:
    run, explore = self._run, self._run.config.explore
    self._step += 1
    memory = self.recall()
    self.shown.update({task.id: memory for task in batch})
    stop_ids = run.transcript.stop_ids
    groups = play_groups(
        player, batch, 1, Rules(1.0, explore.max_response_tokens, stop_ids),
        run.config.sampler.max_rows, f'ace {self._step}', lambda task: memory,
        journal=journal_path(self._directory, self._step),
    )
    for group in groups:
      self._ledger.add(group.budget)
    asking = Rules(explore.reflect_temperature, explore.max_reflection_tokens, stop_ids)
    self._applied += ace_roles.learn(
        player, batch, groups, self._best(), self.book, self._config, asking,
        self._step, self._ledger,
    )
    self.book.trim(self._config.capacity, self._step)

  def _save(self) -> None:
    state = {
        'step': self._step, 'applied': self._applied, 'shown': self.shown,
        'ledger': self._ledger.as_dict(), 'playbook': self.book.to_json(),
    }  # fmt: skip
    stepwise.save(self._directory, state, self._step)

  def _load(self, state: dict[str, Any]) -> None:
    logging.info('ace: going on after step %d', state['step'])
    self._step, self._applied = state['step'], state['applied']
    self.shown = state['shown']
    self._ledger = Ledger(**state['ledger'])
    self.book = Playbook.from_json(state['playbook'])


def offline(run: Run, directory: pathlib.Path) -> dict:
  """Adapts on training tasks."""
  config = run.config.ace
  tasks = list(run.tasks('train', config.num_tasks)) * config.epochs
  return Adaptation(run, directory).go_through('ace', tasks)


def online(run: Run, directory: pathlib.Path) -> dict:
  """Adapts on the tasks of the evaluation, in their order."""
  evaluate = run.config.evaluate
  tasks = run.tasks(evaluate.split, evaluate.num_tasks)
  return Adaptation(run, directory).go_through('ace online', tasks)


def offline_memory(run: Run) -> Memory:
  """The finished playbook, the same for every task."""
  text = Adaptation(run, run.directory.phase(OFFLINE.name).dir).recall()
  return lambda task: text


def online_memory(run: Run) -> Memory:
  """What the playbook said when the task was met."""
  adaptation = Adaptation(run, run.directory.phase(ONLINE.name).dir)
  return lambda task: adaptation.shown[task.id]


def _remembered(phase: str, run: Run) -> list[Remembered]:
  """The bullets of a playbook; of where they come from it knows the step alone."""
  book = Adaptation(run, run.directory.phase(phase).dir).book
  # A text that was refused is in the log, too, but on no bullet.
  added = {record['text']: f'step {record["step"]}' for record in book.log[::-1]}
  return [
      Remembered(
          bullet.text, bullet.section, added.get(bullet.text, ''),
          f'helpful {bullet.helpful}, harmful {bullet.harmful}',
          bullet.helpful - bullet.harmful,
      )
      for bullet in book.bullets.values()
  ]  # fmt: skip


def _effort(config: Experiment, tasks: int) -> Effort:
  """An episode a task, then reflector and curator."""
  role = config.ace.max_role_tokens if config.policy.checkpoint else (
      config.explore.max_reflection_tokens)
  return effort.acting(config, tasks) + effort.asking(2 * tasks, role)


OFFLINE = Phase(
    'ace', READS, offline,
    lambda config: _effort(config, config.ace.num_tasks * config.ace.epochs),
)
ONLINE = Phase(
    'ace_online', (*READS, 'evaluate.split', 'evaluate.num_tasks'), online,
    lambda config: _effort(config, config.evaluate.num_tasks),
)

ARMS = (
    Arm(
        'ace', 'a playbook in the prompt, adapted on training tasks', (OFFLINE,),
        BASE, (OFFLINE.name,), offline_memory,
        remembered=functools.partial(_remembered, OFFLINE.name),
    ),
    Arm(
        'ace_online', 'a playbook that goes on learning from the test tasks met',
        (ONLINE,), BASE, (ONLINE.name,), online_memory,
        remembered=functools.partial(_remembered, ONLINE.name),
    ),
)
