"""Training a policy on its own episodes, step by step.

    tasks of the step -> groups of episodes -> advantages -> updates -> new weights

Everything that a step draws is named by the step's number, so a run that goes
on after a kill makes the same steps. The sampler uses the weights that train;
each step's weights are a policy version of their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import pathlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from envs import api
from leafe_jax import hosts, stops
from leafe_jax.config import Grpo
from leafe_jax.endings import EarlyEnd, RunStopped
from leafe_jax.experience import pipeline, trajectories
from leafe_jax.learner import policy_gradient
from leafe_jax.learner.checkpoints import Checkpoints, save_params
from leafe_jax.learner.policy_gradient import Outcome
from leafe_jax.learner.policy_update import PolicyUpdate
from leafe_jax.learner.update import TrainState
from leafe_jax.methods.arms import BASE
from leafe_jax.methods.beside import (
  BASE_TEACHES,
  Alone,
  Arrays,
  Blank,
  Companion,
  Notebook,
  Scene,
  Study,
)
from leafe_jax.methods.collect import discard_before, journal_path, show_group
from leafe_jax.methods.run import Run
from leafe_jax.progress import Progress
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.samples import play_groups
from leafe_jax.sampler import Rules
from leafe_jax.tree import Node, Tree


@dataclasses.dataclass
class _Progress:
  """What a run has behind it, kept with every checkpoint.

  Attributes:
    ledger: what the rollouts cost.
    curve: success rate of each step.
  """

  ledger: Ledger
  curve: list[float]

  def copy(self) -> _Progress:
    return _Progress(dataclasses.replace(self.ledger), [*self.curve])


class OnlineTraining:
  """One arm's training.

  Args:
    run: the run; `run.config.grpo` holds the options.
    name: of the arm; part of the random keys.
    directory: of the phase.
    step_weight: omega of GiGPO; 0 is GRPO.
    notebook: what is learnt beside the policy.
    config: options; the run's if not given.
    companion: what is minimised beside the surrogate.
  """

  def __init__(
      self,
      run: Run,
      name: str,
      directory: pathlib.Path,
      step_weight: float,
      notebook: Notebook | None = None,
      config: Grpo | None = None,
      companion: Companion | None = None,
  ):
    self._run = run
    self._name = name
    self._directory = directory
    self._step_weight = step_weight
    self._config = config = config or run.config.grpo
    self._notebook = notebook or Blank()
    self._companion = companion or Alone()
    # Without a KL term and without anybody to ask, the base need not be kept.
    asks = self._notebook.asks_base or self._companion.asks_base
    self._keeps_base = bool(config.kl) or asks
    self._rules = Rules(
        1.0, run.config.explore.max_response_tokens, run.transcript.stop_ids
    )
    self._tasks = run.tasks('train', config.num_tasks or None)
    self._update = PolicyUpdate(
        run.shape.policy, config, run.mesh, run.config.seed, directory,
        run.frozen if run.shape.policy.lora_rank else None, self._companion.loss,
    )

  def train(self) -> dict[str, Any]:
    """Trains from the base or the last checkpoint; saves the phase's weights.

    Returns:
      budget, env_step_limit (0: none), updates, and the success rate of every
      step.

    A step whose episodes were all too long for a transcript has no update.

    Raises:
      EarlyEnd: every episode was too long to learn from.
      RunStopped: no turn to learn from, or an exploration to match is missing.
      NonFiniteLoss: an update is not finite.
      Stopped: the run was asked to stop; what the steps before came to is saved.
    """
    limit = _env_step_limit(self._run)
    reference = self._base() if self._keeps_base else {}
    checkpoints = Checkpoints(self._directory / 'checkpoints')
    state, step, past = self._start(checkpoints)
    with (
        contextlib.closing(self._run.writer(self._name)) as writer,
        Progress(self._name, self._config.steps, 'step', step) as bar,
    ):
      while step < self._config.steps and _affordable(past.ledger, limit):
        step += 1
        try:
          state, past, figures = self._step(state, step, reference, past)
        except stops.Stopped as stopped:
          self._keep_before(checkpoints, step, state, past)
          raise self._at(step, stopped.number) from stopped
        writer.write(step, figures)
        shown = [name for name in ('success', 'kl') if name in figures]
        bar.show({name: f'{figures[name]:.3f}' for name in shown})
        bar.advance()
        checkpoints.poll()
        if step % self._config.checkpoint_every == 0:
          self._save(checkpoints, step, state, past)
    checkpoints.close()
    hosts.first(functools.partial(discard_before, self._directory, step + 1))
    if step and not int(state.step):
      raise EarlyEnd(
          f'{self._name}: all episodes of {step} steps were too long to learn from; '
          f'raise policy.max_length={self._run.shape.policy.max_length} or '
          f'grpo.row_length={self._config.row_length}'
      )
    self._notebook.save(self._directory)
    save_params(self._directory / 'params', state.params)
    return {
        'budget': past.ledger.as_dict(), 'env_step_limit': limit,
        'updates': int(state.step), 'success': past.curve,
    }

  def _base(self) -> dict[str, Any]:
    run = self._run
    return run.start(BASE)

  def _start(self, checkpoints: Checkpoints) -> tuple[TrainState, int, _Progress]:
    state = self._update.init_state(self._base())
    restored = checkpoints.restore(state)
    if restored is None:
      return state, 0, _Progress(Ledger(), [])
    logging.info('%s: going on after step %d', self._name, restored.step)
    found = restored.metadata
    self._notebook.load(found['notebook'])
    past = _Progress(Ledger(**found['budget']), list(found['success']))
    return restored.state, restored.step, past

  def _save(
      self, checkpoints: Checkpoints, step: int, state: TrainState, past: _Progress
  ) -> None:
    checkpoints.save(step, state, metadata={
        'budget': past.ledger.as_dict(),
        'success': past.curve,
        'notebook': self._notebook.save(self._directory),
    })
    hosts.first(functools.partial(discard_before, self._directory, step + 1))

  def _keep_before(
      self, checkpoints: Checkpoints, step: int, state: TrainState, past: _Progress
  ) -> None:
    """Saves what stood before a step that was left before its update."""
    if (step - 1) % self._config.checkpoint_every:
      self._save(checkpoints, step - 1, state, past)
    checkpoints.close()

  def _at(self, step: int, number: int) -> stops.Stopped:
    """What is raised in the middle of a step."""
    return stops.Stopped(
        number, f'{self._name} saved after step {step - 1} of {self._config.steps}'
    )

  def _step(
      self, state: TrainState, step: int, reference: dict[str, Any], past: _Progress
  ) -> tuple[TrainState, _Progress, dict[str, float]]:
    run, config, past = self._run, self._config, past.copy()
    tasks = tasks_of_step(
        self._tasks, config.tasks_per_step, step, f'{run.config.seed}/{self._name}'
    )
    player = run.player(state.params, step)
    bare = bare_episodes(self._notebook.bare_share, config)
    groups = play_groups(
        player, tasks, config.group_size, self._rules, run.config.sampler.max_rows,
        self._name, self._notebook.recall, bare, journal_path(self._directory, step),
    )
    show_group(run.directory.path, self._name, step, groups)
    for tree in groups:
      past.ledger.add(tree.budget)
    figures = describe(groups, config)
    past.curve.append(round(figures['success'], 6))
    study = self._companion.study(Scene(
        step, tasks, groups, player, past.ledger,
        functools.partial(self._scores, state.params, reference), self._row_length,
    ))  # fmt: skip
    sequences, left_out = self._fitting(groups, step, study)
    metrics = {'left_out': float(left_out), **study.figures}
    # Before the update: there is no way back from it.
    asked = run.player(reference, -step) if self._notebook.asks_base else player
    metrics |= self._notebook.learn(step, tasks, groups, asked, past.ledger)
    if sequences:
      rows = pipeline.pack_rows(sequences, self._row_length)
      state, found = self._update(state, rows, reference, step)
      metrics.update(found)
    if study.afterwards:
      rows = pipeline.pack_rows(study.afterwards, self._row_length)
      state, found = self._update(state, rows, reference, step, again=True)
      metrics |= {f'again_{name}': value for name, value in found.items()}
    return state, past, {
        **figures, **metrics, 'env_steps': float(past.ledger.env_steps)
    }

  def _scores(
      self, live: dict[str, Any], base: dict[str, Any], whose: str,
      sequences: Sequence[Sequence[int]],
  ) -> list[np.ndarray]:
    params = base if whose == BASE_TEACHES else live
    return self._update.score(params, sequences, self._row_length)

  @property
  def _row_length(self) -> int:
    return self._config.row_length or self._run.shape.policy.max_length

  def _fitting(
      self, groups: Sequence[Tree], step: int, study: Study
  ) -> tuple[list[Arrays], int]:
    """Sequences to train on, and how many are left out for being too long.

    Half an episode would be conditioned on something else than what it was
    sampled after.
    """
    found = [s for tree in groups for s in self._sequences(tree, study)]
    ends = {node.ended_by for tree in groups for node in tree.nodes}
    if not found and ends != {'overlong'}:
      raise RunStopped(
          f'{self._name}, step {step}: no episode of {len(groups)} tasks took a '
          'turn; see the warnings above for what broke'
      )
    kept = [s for s in found if s['tokens'].size <= self._row_length]
    dropped = len(found) - len(kept)
    if len(kept) < len(found):
      logging.warning(
          '%s, step %d: %d of %d sequences are longer than grpo.row_length=%d and are '
          'not trained on', self._name, step, dropped, len(found), self._row_length,
      )
    if kept:
      kept += study.further(float(sum(s['weights'].sum() for s in kept)))
    # Neighbours in a row share a minibatch: let them not be of one group.
    random.Random(f'{self._run.config.seed}/rows/{step}').shuffle(kept)
    return kept, dropped

  def _sequences(self, tree: Tree, study: Study) -> list[Arrays]:
    nodes = [node for node in tree.nodes if counts(node)]
    if not nodes:
      return []
    if study.advantages is not None:
      found = study.advantages(tree, nodes)
    else:
      outcomes = [outcome_of(node, self._config) for node in nodes]
      found = policy_gradient.advantages(outcomes, self._config, self._step_weight)
    return [
        study.annotate(tree, part, sequence(part, values))
        for node, values in zip(nodes, found, strict=True)
        for part in trajectories.parts(node)
    ]


def bare_episodes(share: float, config: Grpo) -> int:
  """How many episodes of a group play without memory: its first ones."""
  return math.ceil(share * config.group_size)


def counts(node: Node) -> bool:
  """Whether an episode is part of its group: it acted and nothing broke."""
  return bool(node.turns) and node.ended_by != 'error'


def outcome_of(node: Node, config: Grpo) -> Outcome:
  """Reward, validity and anchor states of an episode."""
  earned = node.score if config.reward == 'score' else float(node.success)
  return Outcome(
      reward=config.reward_scale * earned,
      valid=np.array([turn.valid and turn.action is not None for turn in node.turns]),
      anchors=tuple(api.observation_hash(turn.observation) for turn in node.turns),
  )


def sequence(node: Node, advantages: np.ndarray) -> Arrays:
  """Arrays [T] of an episode or a part; response tokens have their turn's advantage.

  Args:
    node: see `trajectories.from_root`.
    advantages: of all turns of the episode, from turn 1.
  """
  trajectory = trajectories.from_root(node)
  of_turn = np.concatenate([[0.0], advantages]).astype(np.float32)
  return {
      'tokens': trajectory.tokens,
      'weights': (trajectory.turns > 0).astype(np.float32),
      'advantages': of_turn[trajectory.turns],
      'logprobs': trajectory.logprobs,
      'routes': trajectory.routes,
  }


def describe(groups: Sequence[Tree], config: Grpo) -> dict[str, float]:
  """Figures of the episodes of a step; a degenerate group teaches nothing."""
  nodes = [node for tree in groups for node in tree.nodes]
  turns = [turn for node in nodes for turn in node.turns]
  return {
      'success': float(np.mean([node.success for node in nodes])),
      'score': float(np.mean([node.score for node in nodes])),
      'turns': len(turns) / len(nodes),
      'invalid': float(np.mean([not turn.valid for turn in turns] or [0.0])),
      'broken': float(np.mean([not counts(node) for node in nodes])),
      'overlong': float(np.mean([node.ended_by == 'overlong' for node in nodes])),
      'degenerate_groups': float(np.mean([_degenerate(t, config) for t in groups])),
  }


def _degenerate(tree: Tree, config: Grpo) -> bool:
  group = [outcome_of(node, config) for node in tree.nodes if counts(node)]
  scores = policy_gradient.episode_scores(group, config.invalid_penalty)
  return len(set(scores.tolist())) < 2


def tasks_of_step(
    tasks: Sequence[api.Task], count: int, step: int, seed: str
) -> list[api.Task]:
  """`count` distinct tasks: shuffled passes over all, cut into steps.

  A last, short piece of a pass is left out, so that no group meets its task
  twice in a step. All tasks, where there are fewer than `count`.
  """
  count = min(count, len(tasks))
  steps_per_pass = len(tasks) // count
  number, place = divmod(step - 1, steps_per_pass)
  order = list(range(len(tasks)))
  random.Random(f'{seed}/tasks/{number}').shuffle(order)
  return [tasks[i] for i in order[place * count : (place + 1) * count]]


def _env_step_limit(run: Run) -> int:
  config = run.config.grpo
  if not config.match_explore:
    return config.max_env_steps
  explored = run.directory.phase('explore')
  if not explored.done():
    raise RunStopped(
        'grpo.match_explore: no exploration to match; name an arm that explores '
        'before this one (--config.arms=base,leafe,grpo)'
    )
  return explored.result()['budget']['env_steps']


def _affordable(ledger: Ledger, limit: int) -> bool:
  return not limit or ledger.env_steps < limit
