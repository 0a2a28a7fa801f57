"""The adversarial arm of StepAgent: rewards for steps that look like the expert's.

A discriminator learns to tell the agent's answers in expert states from the
expert's; -log D is the reward of a step, whitened over the round, and the policy
takes clipped updates with a KL to the weights that it began with (GAIL's game,
arXiv 2411.03817). A step is a bandit here: no value network, gamma = 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from leafe_jax import stops
from leafe_jax.config import Experiment, Grpo
from leafe_jax.endings import EarlyEnd
from leafe_jax.experience import pipeline, states
from leafe_jax.experience.states import State
from leafe_jax.learner import discriminator as discriminator_lib
from leafe_jax.learner.checkpoints import Checkpoints, save_params
from leafe_jax.learner.discriminator import Discriminator, Head, Pooler
from leafe_jax.learner.policy_update import PolicyUpdate
from leafe_jax.learner.update import TrainState
from leafe_jax.methods import effort
from leafe_jax.methods.arms import BASE, PLAY_READS, Phase
from leafe_jax.methods.effort import Effort
from leafe_jax.methods.run import Run
from leafe_jax.methods.step_experts import (
  EXPERTS,
  SFT,
  most_states,
  nothing,
  rules_of,
  states_of,
)
from leafe_jax.methods.tuning import tuned
from leafe_jax.planning import jobs
from leafe_jax.progress import Progress
from leafe_jax.rollout.alternatives import proposed_action
from leafe_jax.rollout.fresh import respond
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.sampler import Sample


class Game(NamedTuple):
  """What both sides have learnt."""

  policy: TrainState
  head: Head


def imitate_by_reward(run: Run, directory: pathlib.Path) -> dict[str, Any]:
  """Rounds of answers, discriminator and policy, from the weights of step_sft."""
  del directory
  options = run.config.step_agent
  config = dataclasses.replace(
      run.config.grpo, kl=options.kl, entropy=options.entropy, steps=options.rounds
  )

  def fit(config: Grpo, place: pathlib.Path) -> dict[str, Any]:
    return Inverse(run, place, config).train()

  return tuned(run, INVERSE.name, config, fit)


class Inverse:
  """The adversarial game over expert states.

  Args:
    run: the run.
    directory: where checkpoints and weights go.
    config: of the policy's updates.
  """

  def __init__(self, run: Run, directory: pathlib.Path, config: Grpo):
    self._run, self._directory, self._config = run, directory, config
    self._options = options = run.config.step_agent
    self._row_length = config.row_length or run.shape.policy.max_length
    self._reference = run.start(SFT.name)
    frozen = run.frozen_beneath(self._reference)
    self._update = PolicyUpdate(
        run.shape.policy, config, run.mesh, run.config.seed, directory, frozen
    )
    self._pooler = Pooler(run.shape.policy, run.mesh, frozen)
    self._discriminator = Discriminator(
        run.shape.policy.embed_dim, options.discriminator_rate, options.smoothing
    )
    self._asked = states_of(run, self._row_length, 'grpo.row_length')
    self._expert = self._features(
        [(state, state.said.response_ids) for state in self._asked]
    )

  def train(self) -> dict[str, Any]:
    """Trains from the start or the last checkpoint; saves the phase's weights.

    Raises:
      NonFiniteLoss: an update is not finite.
      Stopped: the run was asked to stop; the last checkpoint is complete.
    """
    checkpoints = Checkpoints(self._directory / 'checkpoints')
    try:
      game, ledger = self._rounds(checkpoints)
    finally:
      checkpoints.close()
    save_params(self._directory / 'params', game.policy.params)
    return {'updates': int(game.policy.step), 'budget': ledger.as_dict()}

  def _rounds(self, checkpoints: Checkpoints) -> tuple[Game, Ledger]:
    run, rounds = self._run, self._options.rounds
    game = Game(
        self._update.init_state(run.start(SFT.name)), self._discriminator.init()
    )
    ledger, done = Ledger(), 0
    restored = checkpoints.restore(game)
    if restored is not None:
      game, done = restored.state, restored.step
      ledger = Ledger(**restored.metadata['asked'])
      logging.info('%s: going on after round %d', INVERSE.name, done)
    with (
        contextlib.closing(run.writer('step_inverse')) as writer,
        Progress('step_inverse', rounds, 'round', done) as bar,
    ):
      for number in range(done + 1, rounds + 1):
        stops.check('step_inverse: the last checkpoint is complete')
        game, figures = self._round(game, number, ledger)
        writer.write(number, figures)
        bar.show({'like_expert': f'{figures["like_expert"]:.3f}'})
        bar.advance()
        if number % self._config.checkpoint_every == 0 or number == rounds:
          checkpoints.save(number, game, metadata={'asked': ledger.as_dict()})
    return game, ledger

  def _round(
      self, game: Game, number: int, ledger: Ledger
  ) -> tuple[Game, dict[str, float]]:
    places = self._drawn(number)
    asked = [self._asked[place] for place in places]
    player = self._run.player(game.policy.params, number)
    answers = respond(player, asked, 1, rules_of(self._run), 'step_inverse', ledger)
    said = [
        (state, sample) for state, samples in zip(asked, answers, strict=True)
        for sample in samples if sample.tokens
    ]
    if not said:
      raise EarlyEnd(nothing(self._run))
    agent = self._features([(state, sample.tokens) for state, sample in said])
    head, figures = game.head, {}
    for _ in range(self._options.discriminator_updates):
      head, figures = self._discriminator.learn(head, agent, self._expert[places])
    rewards = discriminator_lib.rewards(head, agent, self._options.reward_clip)
    rows = pipeline.pack_rows(
        sequences(said, discriminator_lib.whiten(rewards)), self._row_length
    )
    policy, found = self._update(game.policy, rows, self._reference, number)
    same = [proposed_action(player, s) == state.said.action for state, s in said]
    return Game(policy, head), {
        **found, **figures, 'step_reward': float(np.mean(rewards)),
        'like_expert': float(np.mean(same)),
    }

  def _drawn(self, number: int) -> list[int]:
    """Places of the states that a round asks."""
    places = range(len(self._asked))
    count = min(self._options.states_per_round or len(places), len(places))
    rng = random.Random(f'{self._run.config.seed}/step_inverse/{number}')
    return rng.sample(places, count)

  def _features(
      self, said: Sequence[tuple[State, Sequence[int]]]
  ) -> np.ndarray:
    pairs = [(state.prompt_ids, ids) for state, ids in said]
    rows = self._config.tasks_per_step
    return self._pooler(self._reference, pairs, self._row_length, rows)


def sequences(
    said: Sequence[tuple[State, Sample]], advantages: np.ndarray
) -> list[dict[str, np.ndarray]]:
  """Each response after its state; all of its tokens have the step's advantage."""
  return [
      states.sequence(
          state, sample.tokens,
          advantages=np.full(len(sample.tokens), value, np.float32),
          logprobs=np.asarray(sample.logprobs, np.float32),
      )
      for (state, sample), value in zip(said, advantages, strict=True)
  ]


def _inverse_effort(config: Experiment) -> Effort:
  options = config.step_agent
  count = options.states_per_round or most_states(config)
  grpo = dataclasses.replace(  # as many sequences as if they were episodes
      config.grpo, kl=options.kl, entropy=options.entropy, steps=options.rounds,
      tasks_per_step=-(-count // config.grpo.group_size),
  )
  job = jobs.group_policy('step_inverse', dataclasses.replace(config, grpo=grpo))
  answers = options.rounds * count
  trained = answers * grpo.epochs * job.length
  return effort.tuned(config, Effort(
      sampled=answers * config.explore.max_response_tokens,
      updates=jobs.updates(grpo), trained=trained, jobs=(job,),
  ))  # fmt: skip


INVERSE = Phase(
    'distill/step_inverse',
    (*PLAY_READS, 'explore.temperature', 'grpo', 'tune.factors',
     *(f'step_agent.{name}' for name in (
         'rounds', 'states_per_round', 'reward_clip', 'kl', 'entropy',
         'discriminator_rate', 'discriminator_updates', 'smoothing'))),
    imitate_by_reward, _inverse_effort, after=(BASE, EXPERTS.name, SFT.name),
)  # fmt: skip
