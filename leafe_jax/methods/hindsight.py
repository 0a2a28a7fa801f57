"""What hindsight earns and what is kept of it, beside GRPO's loop (2603.08561).

The notebook and the companion of RetroAgent's arms (`methods.retro`) in one.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from envs import api
from leafe_jax import hosts
from leafe_jax.config import Grpo, Retro
from leafe_jax.endings import RunStopped
from leafe_jax.files import write_atomic
from leafe_jax.learner import policy_gradient
from leafe_jax.learner.losses import Loss
from leafe_jax.memory.lessons import Lesson, Lessons, Weights
from leafe_jax.methods import reflector, retro_reflect
from leafe_jax.methods.beside import Arrays, Scene, Study
from leafe_jax.methods.online import bare_episodes, counts, outcome_of
from leafe_jax.methods.retro_reflect import Case, Hindsight
from leafe_jax.methods.run import Run
from leafe_jax.methods.words import vectors_of
from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.sampler import Rules
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.tree import Node, Tree

FILE = 'lessons.json'
CAVEAT = '(They are from other attempts and may be outdated or not fit.)'
_PARTS = 4  # of a training, after each of which but the last lessons are forgotten

# (task id, episode) -> of that episode
OfEpisode = dict[tuple[str, int], float]


class Retrospection:
  """The notebook and the companion of both arms.

  What a step comes to is worked out by `study`, and kept by `learn`: a stop between
  the two, or in the first, leaves everything as it was.

  Attributes:
    lessons: the memory.
    best: Phi, by task id.

  Args:
    run: the run.
    grpo: options of the training.
    trained: whether hindsight is untold and trained.
  """

  asks_base = False

  def __init__(self, run: Run, grpo: Grpo, trained: bool):
    self._config, self._grpo, self._trained = run.config.retro, grpo, trained
    self._chats = isinstance(run.transcript, ChatTranscript)
    self._world = run.world
    self._judges = judge_of(run)
    self.bare_share = self._config.bare_share
    size = self._config.max_tokens if self._chats else (
        run.config.explore.max_reflection_tokens)
    self._rules = Rules(self._config.temperature, size, run.transcript.stop_ids)
    self._vectors = vectors_of(self._config.encoder)
    self.lessons = Lessons(self._vectors, weights_of(self._config))
    self.best: dict[str, float] = {}
    # (task id, success) -> the last such episode, in short
    self._references: dict[tuple[str, bool], str] = {}
    self._hindsight: list[Hindsight] = []

  def loss(self, surrogate: Loss) -> Loss:
    return surrogate

  # --- lessons in the prompt

  def recall(self, task: api.Task) -> str:
    return self._shown(self._recalled(task))

  def recall_at_test(self, task: api.Task) -> str:
    """The memory of an evaluated task."""
    found = self.lessons.recall(task.instruction, self._config.shown_at_test, True)
    return self._shown(found)

  def _recalled(self, task: api.Task) -> list[Lesson]:
    return self.lessons.recall(task.instruction, self._config.shown)

  def _shown(self, lessons: Sequence[Lesson]) -> str:
    texts = [lesson.text for lesson in lessons]
    if not texts or not self._chats:
      return '\n'.join(texts)
    return '\n'.join([CAVEAT, *(f'- {text}' for text in texts)])

  # --- hindsight

  def study(self, scene: Scene) -> Study:
    cases = self._cases(scene.tasks, scene.groups)
    self._hindsight = found = retro_reflect.reflect(
        scene.player, cases, self._rules, not self._trained, scene.ledger
    )
    progress = self._progress(cases, found)
    gained = {
        (task_id, node): max(0.0, phi - self.best.get(task_id, 0.0))
        for (task_id, node), phi in progress.items()
    }
    rows, too_long = [], 0
    if self._trained:
      rows, too_long = self._rows(found, gained, scene.row_length)
    return Study(
        lambda tree, part, arrays: arrays,
        advantages=functools.partial(self._advantages, gained), afterwards=rows,
        figures={
            'progress': _mean(progress.values()), 'intrinsic': _mean(gained.values()),
            'reflections': float(len(found)),
            'reflections_unread': float(sum(bool(h.error) for h in found)),
            'reflections_right': _mean(float(h.right) for h in found),
            'reflections_too_long': float(too_long),
        },
    )  # fmt: skip

  def _cases(
      self, tasks: Sequence[api.Task], groups: Sequence[Tree]
  ) -> list[Case]:
    return [
        Case(task, node, self._reference(task, tree, node))
        for task, tree in zip(tasks, groups, strict=True)
        for node in tree.nodes if counts(node)
    ]

  def _reference(self, task: api.Task, tree: Tree, node: Node) -> str:
    """An attempt with the other outcome: of this group, else the last one before."""
    if not self._config.pairwise or not self._chats:
      return ''
    for other in tree.nodes:
      if counts(other) and other.success != node.success:
        return reflector.compact(other)
    return self._references.get((task.id, not node.success), '')

  def _progress(
      self, cases: Sequence[Case], hindsight: Sequence[Hindsight]
  ) -> OfEpisode:
    """phi of every episode: 1 where it succeeded, 0 where nobody can say."""
    said = {(h.case.task.id, h.case.node.id): h.judgement.progress for h in hindsight}
    found = {}
    for case in cases:
      key = case.task.id, case.node.id
      if case.node.success:
        found[key] = 1.0
      elif self._judges == 'self':
        found[key] = said.get(key) or 0.0
      else:
        found[key] = world_progress(self._world, case.task, case.node)
    return found

  def _advantages(
      self, gained: OfEpisode, tree: Tree, nodes: Sequence[Node]
  ) -> list[np.ndarray]:
    outcomes = []
    for node in nodes:
      outcome = outcome_of(node, self._grpo)
      if self._config.parity == 'paper':
        reward = outcome.reward + gained[tree.task_id, node.id]
        outcome = dataclasses.replace(outcome, reward=reward)
      outcomes.append(outcome)
    if self._config.credit == 'turn':
      return policy_gradient.return_advantages(outcomes, self._grpo)
    return policy_gradient.advantages(outcomes, self._grpo, 0.0)

  def _rows(
      self, hindsight: Sequence[Hindsight], gained: OfEpisode, row_length: int
  ) -> tuple[list[Arrays], int]:
    """(reflections to train on, how many are too long for a row)."""
    sampled = [h for h in hindsight if h.response_ids]
    if not sampled:
      return [], 0
    if self._config.parity == 'paper':
      rewards = [self._grpo.reward_scale * float(h.case.node.success and h.right)
                 for h in sampled]
      values = np.array(rewards)
    else:
      rewards = [gained[h.case.task.id, h.case.node.id] for h in sampled]
      values = policy_gradient.normalise(np.array(rewards), self._grpo.std)
    found = [
        sequence(h, self._config.reflect_weight * value)
        for h, value in zip(sampled, values, strict=True)
    ]
    kept = [arrays for arrays in found if arrays['tokens'].size <= row_length]
    return kept, len(found) - len(kept)

  # --- what is kept

  def learn(
      self, step: int, tasks: Sequence[api.Task], groups: Sequence[Tree],
      player: Player, ledger: Ledger,
  ) -> dict[str, float]:
    """Rates what was shown, raises Phi, writes what hindsight found."""
    del player, ledger  # asked in `study`
    figures = self._rate(tasks, groups)
    self._keep(tasks, groups, self._hindsight, step)
    if self._config.forget and step in _forgetting(self._grpo.steps):
      self.lessons.forget()
    held = self.lessons.lessons.values()
    return {
        **figures, 'lessons': float(len(held)),
        'lesson_utility': _mean(lesson.utility for lesson in held),
        'best_success': _mean(self.best.values()),
    }  # fmt: skip

  def _keep(
      self, tasks: Sequence[api.Task], groups: Sequence[Tree],
      hindsight: Sequence[Hindsight], step: int,
  ) -> None:  # fmt: skip
    """Raises Phi, remembers the last attempts, writes what hindsight found."""
    for task, tree in zip(tasks, groups, strict=True):
      played = [node for node in tree.nodes if counts(node)]
      if played:
        rate = float(np.mean([node.success for node in played]))
        self.best[task.id] = max(self.best.get(task.id, 0.0), rate)
      for node in played:
        self._references[task.id, node.success] = reflector.compact(node)
    for h in hindsight:
      if h.right and h.judgement.lesson:
        task, node = h.case.task, h.case.node
        self.lessons.add(
            task.instruction, h.judgement.lesson, node.success,
            f'{task.id} episode {node.id}', step,
        )

  def attempt(
      self, player: Player, tasks: Sequence[api.Task], groups: Sequence[Tree],
      step: int, ledger: Ledger,
  ) -> None:
    """Learns from an attempt at evaluated tasks, see `discover.Pupil`."""
    found = retro_reflect.reflect(
        player, self._cases(tasks, groups), self._rules, not self._trained, ledger
    )
    shown = {
        task.id: self.lessons.recall(
            task.instruction, self._config.shown_at_test, True)
        for task in tasks
    }
    for tree in groups:
      for node in filter(counts, tree.nodes):
        for lesson in shown[tree.task_id]:
          self.lessons.note(lesson.text, node.success)
    self._keep(tasks, groups, found, step)

  def _rate(
      self, tasks: Sequence[api.Task], groups: Sequence[Tree]
  ) -> dict[str, float]:
    """Utilities follow the outcomes of the episodes that were shown lessons."""
    first = bare_episodes(self.bare_share, self._grpo)
    shown = {task.id: [lesson.text for lesson in self._recalled(task)]
             for task in tasks}
    outcomes: dict[bool, list[float]] = {True: [], False: []}
    for task, tree in zip(tasks, groups, strict=True):
      for node in filter(counts, tree.nodes):
        texts = shown[task.id] if node.id >= first else []
        outcomes[bool(texts)].append(float(node.success))
        for text in texts:
          self.lessons.note(text, node.success)
    return {
        'success_with_lessons': _mean(outcomes[True]),
        'success_bare': _mean(outcomes[False]),
        'with_lessons': float(len(outcomes[True])),
    }

  def save(self, directory: pathlib.Path) -> dict[str, Any]:
    state = {
        'lessons': self.lessons.to_json(), 'best': dict(self.best),
        'references': [
            {'task': task, 'success': success, 'text': text}
            for (task, success), text in self._references.items()
        ],
    }
    text = json.dumps(state, indent=1, ensure_ascii=False) + '\n'
    hosts.first(lambda: write_atomic(directory / FILE, text))
    return state

  def load(self, state: Mapping[str, Any]) -> None:
    self.lessons = Lessons.from_json(
        state['lessons'], self._vectors, weights_of(self._config)
    )
    self.best = dict(state['best'])
    self._references = {
        (held['task'], held['success']): held['text'] for held in state['references']
    }


def weights_of(config: Retro) -> Weights:
  return Weights(
      config.relevance, config.alpha, config.kappa, config.decay,
      config.initial_utility, config.duplicate,
  )


def judge_of(run: Run) -> str:
  """Who says how far a failed episode came. RunStopped where that cannot be."""
  judge, chats = run.config.retro.judge, isinstance(run.transcript, ChatTranscript)
  if judge == 'self' and not chats:
    raise RunStopped(
        'retro.judge=self needs a policy with a chat template; take '
        '--config.retro.judge=world'
    )
  return ('self' if chats else 'world') if judge == 'auto' else judge


def world_progress(world: api.World, task: api.Task, node: Node) -> float:
  """Share of the sub-tasks that the world saw completed; its score if it has none."""
  subtasks = world.subtasks()
  if not subtasks:
    return node.score
  done = set(world.completed(task, retro_reflect.history_of(task, node)))
  return len(done & subtasks.keys()) / len(subtasks)


def sequence(hindsight: Hindsight, advantage: float) -> Arrays:
  """A reflection as `online.sequence` has an episode."""
  prompt, size = len(hindsight.prompt_ids), len(hindsight.response_ids)
  none = np.zeros(prompt + size, np.float32)
  weights, logprobs = none.copy(), none.copy()
  weights[prompt:], logprobs[prompt:] = 1.0, hindsight.logprobs
  return {
      'tokens': np.asarray(
          [*hindsight.prompt_ids, *hindsight.response_ids], np.int32),
      'weights': weights, 'advantages': np.float32(advantage) * weights,
      'logprobs': logprobs, 'routes': none.astype(np.uint32),
  }  # fmt: skip


def _mean(values: Any) -> float:
  return float(np.mean([*values] or [0.0]))


def _forgetting(steps: int) -> set[int]:
  """After which steps lessons are forgotten."""
  return {steps * part // _PARTS for part in range(1, _PARTS)}
