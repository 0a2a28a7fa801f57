"""Policies that learn from themselves with more in the prompt.

    leafe_opd  off the trees of LEAFE, see `methods.opd`
    sdpo       its own episodes, each response scored again after the world's
               answer to it (SDPO, arXiv 2601.20802)
    sdar       GRPO, and beside it a gated pull towards the self that sees the
               reflections of the group's failed episodes (SDAR, arXiv 2605.15155)

Episodes are those of GRPO (`methods.online`) and cost what they cost there. The
teacher takes no step and is no second model: it is a second pass over the same
responses, of the base's weights or of the present ones.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from leafe_jax.config import Experiment, Grpo, SelfDistill
from leafe_jax.experience import states
from leafe_jax.experience.states import State
from leafe_jax.learner import self_distillation as losses
from leafe_jax.learner.losses import Loss
from leafe_jax.methods import effort, opd, reflector
from leafe_jax.methods.arms import ASK_READS, Arm, Phase
from leafe_jax.methods.beside import (
  BASE_TEACHES,
  LIVE_TEACHES,
  Arrays,
  Companion,
  Scene,
  Study,
)
from leafe_jax.methods.effort import Effort
from leafe_jax.methods.grpo import GRPO_READS
from leafe_jax.methods.online import OnlineTraining, counts
from leafe_jax.methods.run import Run
from leafe_jax.methods.tuning import tuned
from leafe_jax.planning import jobs
from leafe_jax.rollout.answers import CutOff
from leafe_jax.sampler import Rules
from leafe_jax.text.transcript import ReflectionError, Transcript, UnknownWords
from leafe_jax.tree import Node, Tree

# (task, episode, turn) -> log-probabilities of its response by the teacher
Taught = Mapping[tuple[str, int, int], np.ndarray]


class Feedback:
  """The companion of sdpo: the teacher sees what the world answered to a turn."""

  def __init__(self, transcript: Transcript, config: SelfDistill):
    self._transcript = transcript
    self._config = config
    self.asks_base = config.teacher == BASE_TEACHES

  def loss(self, surrogate: Loss) -> Loss:
    """`weight` parts distillation, the rest policy gradient."""
    weight = self._config.weight
    reverse = functools.partial(losses.reverse, ratio_clip=self._config.ratio_clip)

    def both(outputs, batch):
      one, two = reverse(outputs, batch), surrogate(outputs, batch)
      total = weight * one.total + (1 - weight) * two.total
      return one._replace(total=total, sums={**two.sums, **one.sums})

    return both

  def study(self, scene: Scene) -> Study:
    asked = [
        states.at(tree, node.id, node.turns[: number + 1],
                  self._transcript.feedback(seen))
        for tree in scene.groups for node in tree.nodes if counts(node)
        for number, seen in enumerate(answers(node))
    ]  # fmt: skip
    return teach(scene, asked, self._config.teacher)


def answers(node: Node) -> Iterator[str]:
  """What the world answered to each turn of an episode."""
  for turn in node.turns[1:]:
    yield turn.observation
  yield node.final_observation


class Reflections:
  """The companion of sdar: the teacher sees what failed episodes of the group say.

  A failed episode of the group is asked, as in Stage 1, for the turn tau where it
  went wrong and for e. The teacher sees e at that turn of that episode, and of
  every other one of the group that came there by the same turns. Where several
  speak of the same place, the first counts.
  """

  asks_base = False

  def __init__(self, transcript: Transcript, rules: Rules, config: SelfDistill):
    self._transcript = transcript
    self._rules = rules
    self._config = config

  def loss(self, surrogate: Loss) -> Loss:
    gated = functools.partial(
        losses.gated, sharpness=self._config.gate_sharpness
    )
    return losses.beside(surrogate, gated, self._config.gate_weight, 'gated')

  def study(self, scene: Scene) -> Study:
    hints, unread = self._ask(scene)
    asked = [
        state
        for tree, known in zip(scene.groups, hints, strict=True)
        for state in hinted(tree, known)
    ]
    found = teach(scene, asked, LIVE_TEACHES)
    number = sum(map(len, hints))
    figures = {'reflections': float(number), 'reflections_unread': float(unread)}
    return dataclasses.replace(found, figures={**found.figures, **figures})

  def _ask(self, scene: Scene) -> tuple[list[dict[tuple[int, ...], list[int]]], int]:
    """(per group, hint blocks by the tokens of h_tau; how many could not be read)."""
    found: list[dict[tuple[int, ...], list[int]]] = [{} for _ in scene.groups]
    cases = [
        (number, task, node)
        for number, (task, tree) in enumerate(
            zip(scene.tasks, scene.groups, strict=True))
        for node in reflector.reflectable(tree)
    ]  # fmt: skip
    samples = reflector.reflect_on(
        scene.player, [(task, node) for _, task, node in cases], self._rules,
        scene.ledger,
    )
    unread = 0
    for (number, _, node), sample in zip(cases, samples, strict=True):
      try:
        parsed = reflector.read_reflection(scene.player, node, sample)
        hint = self._transcript.hint(parsed.experience)
      except (ReflectionError, CutOff, UnknownWords):
        unread += 1
        continue
      place = tuple(states.history_of(node.turns[: parsed.tau]))
      found[number].setdefault(place, hint)
    return found, unread


def hinted(
    tree: Tree, hints: Mapping[tuple[int, ...], list[int]]
) -> Iterator[State]:
  """The states of a group's episodes that hints speak of."""
  for node in tree.nodes:
    if not hints or not counts(node):
      continue
    for number in range(1, len(node.turns) + 1):
      turns = node.turns[:number]
      hint = hints.get(tuple(states.history_of(turns)))
      if hint is not None:
        yield states.at(tree, node.id, turns, hint)


def teach(scene: Scene, asked: Sequence[State], teacher: str) -> Study:
  """Scores what was said in the states once more, seeing more.

  What does not fit into a row with that is not taught, and counted.
  """
  kept, sequences = [], []
  for state in asked:
    ids = [*state.extended_ids, *state.said.response_ids]
    if state.said.response_ids and len(ids) <= scene.row_length:
      kept.append(state)
      sequences.append(ids)
  scores = scene.score(teacher, sequences) if sequences else []
  found = {
      (state.task_id, state.node, state.turn): values[-len(state.said.response_ids) :]
      for state, values in zip(kept, scores, strict=True)
  }
  if len(kept) < len(asked):
    logging.warning(
        'step %d: %d of %d turns have no room for what their teacher sees within %d '
        'tokens and are not taught', scene.step, len(asked) - len(kept), len(asked),
        scene.row_length,
    )
  figures = {
      'taught_turns': float(len(kept)), 'untaught': float(len(asked) - len(kept))
  }
  return Study(functools.partial(annotate, found), figures=figures)


def annotate(found: Taught, tree: Tree, node: Node, arrays: Arrays) -> Arrays:
  """Adds what the teacher said of an episode's (part's) responses."""
  taught = np.zeros(arrays['tokens'].size, np.float32)
  logprobs = np.zeros_like(taught)
  end = 0
  for turn in node.turns:
    start = end + len(turn.prompt_ids) + len(turn.opener_ids)
    end = start + len(turn.response_ids)
    values = found.get((tree.task_id, node.id, turn.index))
    if values is not None:
      taught[start:end] = 1.0
      logprobs[start:end] = values
  return {**arrays, 'taught': taught, 'teacher_logprobs': logprobs}


def feedback_of(run: Run) -> Feedback:
  return Feedback(run.transcript, run.config.self_distill)


def reflections_of(run: Run) -> Reflections:
  explore = run.config.explore
  rules = Rules(
      explore.reflect_temperature, explore.max_reflection_tokens,
      run.transcript.stop_ids,
  )
  return Reflections(run.transcript, rules, run.config.self_distill)


def train(
    run: Run, name: str, companion: Callable[[Run], Companion]
) -> dict:
  """GRPO's episodes with a companion."""

  def fit(config: Grpo, place: pathlib.Path) -> dict:
    return OnlineTraining(
        run, name, place, 0.0, config=config, companion=companion(run)
    ).train()

  return tuned(run, name, run.config.grpo, fit)


def sdpo(run: Run, directory: pathlib.Path) -> dict:
  """Distils what the world's answers would have said."""
  del directory  # the phase's, as `tuned` knows
  return train(run, SDPO.name, feedback_of)


def sdar(run: Run, directory: pathlib.Path) -> dict:
  """GRPO with a gated pull towards the hinted self."""
  del directory
  return train(run, SDAR.name, reflections_of)


def _sdpo_effort(config: Experiment) -> Effort:
  job = jobs.group_policy(
      'sdpo', config, asks=config.self_distill.teacher == BASE_TEACHES,
      wrap=lambda surrogate: losses.beside(surrogate, losses.reverse, 1.0, 'distilled'),
      arrays=losses.TAUGHT_ARRAYS,
  )
  return effort.tuned(config, effort.optimising(config, 'sdpo', job=job))


def _sdar_effort(config: Experiment) -> Effort:
  job = jobs.group_policy(
      'sdar', config, arrays=losses.TAUGHT_ARRAYS,
      wrap=lambda surrogate: losses.beside(surrogate, losses.gated, 1.0, 'gated'),
  )
  grpo = config.grpo
  asked = effort.asking(
      grpo.steps * grpo.tasks_per_step * grpo.group_size,
      config.explore.max_reflection_tokens, attempts=1,
  )
  return effort.tuned(config, effort.optimising(config, 'sdar', job=job) + asked)


SDPO = Phase(
    'sdpo',
    (*GRPO_READS,
     *(f'self_distill.{name}' for name in ('teacher', 'weight', 'ratio_clip'))),
    sdpo, _sdpo_effort,
)  # fmt: skip
SDAR = Phase(
    'sdar',
    (*GRPO_READS, *ASK_READS,
     *(f'self_distill.{name}' for name in ('gate_weight', 'gate_sharpness'))),
    sdar, _sdar_effort,
)  # fmt: skip

ARMS = (
    opd.ARM,
    Arm(
        'sdpo', "its own distribution once it has seen the world's answer",
        (SDPO,), SDPO.name, (SDPO.name,),
    ),
    Arm(
        'sdar', 'GRPO and a gated pull to the self that sees the reflections',
        (SDAR,), SDAR.name, (SDAR.name,),
    ),
)
