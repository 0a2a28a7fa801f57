"""R2-Mem: frozen weights, experience that is recalled by situation (arXiv 2605.13486).

    r2mem        banks of planning and of reflection; turns of at least 10 points of
                 12 are good experience, of at most 5 bad
    r2mem_turns  the same for worlds without these two modules: one bank, the best and
                 the worst share of turns, recall weighs similarity against utility

Offline, the base plays training tasks once; its turns are judged and written up
(`methods.r2mem_judge`). Nothing is trained. Online, each turn begins with its
situation, which a chat policy is asked to put into words; the experience of similar
ones stands in the prompt of that turn alone. Small word-level policies compare what
they see, word by word.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging

from envs import api
from leafe_jax.config import Experiment
from leafe_jax.endings import RunStopped
from leafe_jax.evaluation.memories import Remembered
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.memory.banks import (
  MOST_POINTS,
  PLANNING,
  REFLECTION,
  TURNS,
  Banks,
)
from leafe_jax.methods import effort, reflector, stepwise
from leafe_jax.methods import r2mem_judge as judging
from leafe_jax.methods.arms import ASK_READS, BASE, PLAY_READS, Arm, Phase
from leafe_jax.methods.collect import journal_path
from leafe_jax.methods.effort import Effort
from leafe_jax.methods.run import Run
from leafe_jax.methods.words import word_vectors
from leafe_jax.progress import Progress
from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.samples import play_groups
from leafe_jax.sampler import Rules
from leafe_jax.text.chat import ChatTranscript

READS = (*PLAY_READS, *ASK_READS, 'env.teacher', 'r2mem')
_BANKS = 'banks.md'
_LESSON = 'Experience from other tasks, which may not fit:\n{lessons}'
_SITUATION = """\
An agent is at work on this task: {task}

What it did and saw so far:
{past}
Now it sees: {now}

Say in one sentence in what situation it is, so that similar situations of other tasks \
can be found: what is known, what is missing, what has been tried. No names, no facts \
of this task. Answer with the sentence alone."""


class Collection:
  """Banks that grow task by task; saved after every step.

  Attributes:
    banks: of experience.
  """

  def __init__(self, run: Run, directory: pathlib.Path, by_module: bool):
    self._run, self._config = run, run.config.r2mem
    self._directory, self._by_module = directory, by_module
    self.banks = Banks(word_vectors())
    self._step = self._judged = 0
    self._ledger = Ledger()
    if (state := stepwise.load(directory)) is not None:
      self._load(state)

  def go_through(self, label: str, tasks: Sequence[api.Task]) -> dict[str, Any]:
    """Meets all tasks, a batch a step; returns figures for the phase."""
    judge = judge_of(self._run)
    size = self._config.tasks_per_step
    batches = [tasks[i : i + size] for i in range(0, len(tasks), size)]
    with Progress(label, len(batches), 'step', self._step) as bar:
      for batch in batches[self._step :]:
        self._step += 1
        self._meet(judge, batch)
        self._save()
        bar.show({'experiences': len(self.banks)})
        bar.advance()
    stepwise.write(self._directory, _BANKS, self.banks.render())
    return {
        'experiences': len(self.banks), 'judged': self._judged,
        'unread': len(self.banks.log), 'budget': self._ledger.as_dict(),
    }  # fmt: skip

  def _meet(self, judge: str, batch: Sequence[api.Task]) -> None:
    run, explore = self._run, self._run.config.explore
    player = run.player_of(BASE)
    stop_ids = run.transcript.stop_ids
    groups = play_groups(
        player, batch, 1, Rules(1.0, explore.max_response_tokens, stop_ids),
        run.config.sampler.max_rows, f'r2mem {self._step}',
        journal=journal_path(self._directory, self._step),
    )
    for group in groups:
      self._ledger.add(group.budget)
    episodes = [
        (task, group.nodes[0]) for task, group in zip(batch, groups, strict=True)
        if group.nodes and group.nodes[0].turns
    ]  # fmt: skip
    court = judging.Court(
        self._judge_player(player), run.world, run.teacher(**api.FAULTLESS)
        if judge == 'script' else None, self._config, self._by_module,
        Rules(explore.reflect_temperature, explore.max_reflection_tokens, stop_ids),
        self.banks, self._step, self._ledger,
    )  # fmt: skip
    judged = judging.JUDGES[judge](court, episodes)
    self._judged += len(judged)
    kept = judging.select(
        judged, self._config, self._by_module, judge == 'reflections'
    )
    judging.learn(court, kept)

  def _judge_player(self, player: Player) -> Player:
    """The policy with other weights where these are named."""
    place = self._config.judge_params
    if not place:
      return player
    return self._run.player(load_params(place, self._run.abstract_params()), 0)

  def _save(self) -> None:
    stepwise.save(self._directory, {
        'step': self._step, 'judged': self._judged, 'ledger': self._ledger.as_dict(),
        'banks': self.banks.to_json(),
    }, self._step)  # fmt: skip

  def _load(self, state: dict[str, Any]) -> None:
    logging.info('r2mem: going on after step %d', state['step'])
    self._step, self._judged = state['step'], state['judged']
    self._ledger = Ledger(**state['ledger'])
    self.banks = Banks.from_json(state['banks'], word_vectors())


def judge_of(run: Run) -> str:
  """Who judges. RunStopped where that judge is not to be had."""
  judge, chats = run.config.r2mem.judge, isinstance(run.transcript, ChatTranscript)
  if judge == 'auto':
    judge = 'self' if chats else 'reflections'
  if judge == 'self' and not chats:
    raise RunStopped(
        'r2mem.judge=self needs a policy with a chat template; take '
        '--config.r2mem.judge=reflections'
    )
  if judge == 'script' and run.teacher() is None:
    raise RunStopped(
        f'r2mem.judge=script: {run.config.env.name} has no scripted teacher; take '
        '--config.r2mem.judge=auto'
    )
  place = run.config.r2mem.judge_params
  if place and (judge != 'self' or run.shape.policy.lora_rank):
    raise RunStopped(
        f'r2mem.judge_params={place} needs r2mem.judge=self and policy.lora_rank=0'
    )
  if place and not pathlib.Path(place).is_dir():
    raise RunStopped(f'r2mem.judge_params={place} is no directory of weights')
  return judge


class Recollection:
  """The banks as an `advisers.Adviser`.

  Attributes:
    rules: of sampling a situation.
  """

  def __init__(self, run: Run, banks: Banks, by_module: bool):
    self._config, self._world = run.config.r2mem, run.world
    self._transcript, self._banks = run.transcript, banks
    self._by_module = by_module
    self.rules = Rules(
        0.0, self._config.max_situation_tokens, run.transcript.stop_ids
    )

  def question(self, task: api.Task, history: api.History) -> list[int]:
    transcript = self._transcript
    wanted = self._config.rewrite and self._config.shown and (
        self._bank(history) in self._banks.banks)
    if not wanted or not isinstance(transcript, ChatTranscript):
      return []
    past = [
        f'{reflector.short(seen)} -> {reflector.short(action)}'
        for seen, action in zip(history.observations, history.actions, strict=False)
    ]
    return transcript.question(_SITUATION.format(
        task=task.instruction, past='\n'.join(past) or '(nothing)',
        now=reflector.short(history.observations[-1]),
    ))  # fmt: skip

  def advise(self, task: api.Task, history: api.History, said: str) -> list[str]:
    del task
    config = self._config
    static = {} if self._by_module else {
        'relevance': config.relevance, 'alpha': config.alpha
    }
    found = self._banks.recall(
        self._bank(history), said or history.observations[-1], config.recalled,
        config.shown, **static,
    )
    texts = [experience.text for experience in found]
    if not texts or not isinstance(self._transcript, ChatTranscript):
      return texts
    return [_LESSON.format(lessons='\n'.join(f'- {text}' for text in texts))]

  def _bank(self, history: api.History) -> str:
    if not self._by_module:
      return TURNS
    return PLANNING if self._world.plans(history) else REFLECTION


def _collect(by_module: bool, run: Run, directory: pathlib.Path) -> dict:
  tasks = run.tasks('train', run.config.r2mem.num_tasks)
  label = _NAMES[by_module].replace('_', ' ')
  return Collection(run, directory, by_module).go_through(label, tasks)


def _adviser(by_module: bool, run: Run) -> Recollection:
  directory = run.directory.phase(_NAMES[by_module]).dir
  return Recollection(run, Collection(run, directory, by_module).banks, by_module)


def _remembered(by_module: bool, run: Run) -> list[Remembered]:
  """The experience of all banks; how clear a case was is what it is worth."""
  directory = run.directory.phase(_NAMES[by_module]).dir
  banks = Collection(run, directory, by_module).banks
  return [
      Remembered(
          e.text, f'{bank}: {e.key()}', e.source,
          f'{"good" if e.good else "bad"}, {e.points} of {MOST_POINTS} points',
          e.utility(),
      )
      for bank, held in banks.banks.items() for e in held
  ]  # fmt: skip


def _effort(config: Experiment) -> Effort:
  """An episode a task, then a verdict and a text a turn, or one reflection."""
  tasks = config.r2mem.num_tasks
  if config.policy.checkpoint:
    asked = effort.asking(2 * tasks * config.env.horizon, config.r2mem.max_write_tokens)
  else:
    asked = effort.asking(tasks, config.explore.max_reflection_tokens, attempts=1)
  return effort.acting(config, tasks) + asked


_NAMES = {True: 'r2mem', False: 'r2mem_turns'}
_PHASES = {
    by_module: Phase(name, READS, functools.partial(_collect, by_module), _effort)
    for by_module, name in _NAMES.items()
}
ARMS = (
    Arm(
        'r2mem', 'judged turns recalled by situation: planning and reflection apart',
        (_PHASES[True],), BASE, ('r2mem',),
        adviser=functools.partial(_adviser, True),
        remembered=functools.partial(_remembered, True),
    ),
    Arm(
        'r2mem_turns', 'the best and the worst turns recalled by situation, any world',
        (_PHASES[False],), BASE, ('r2mem_turns',),
        adviser=functools.partial(_adviser, False),
        remembered=functools.partial(_remembered, False),
    ),
)  # fmt: skip
