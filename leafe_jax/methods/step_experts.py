"""The experts of StepAgent: their episodes, their states, and imitation of both.

    step_sft   imitation of the experts' episodes, where both arms begin

The experts are those of Early Experience; their steps are given.
"""

from __future__ import annotations

import pathlib
from typing import Any

from absl import logging

from leafe_jax import hosts
from leafe_jax.config import Experiment
from leafe_jax.endings import EarlyEnd
from leafe_jax.experience import dataset, foresight, states
from leafe_jax.experience.states import State
from leafe_jax.methods import early_experience, effort, lengths, stage1
from leafe_jax.methods.arms import BASE, PLAY_READS, TRAIN_READS, Phase
from leafe_jax.methods.collect import load_trees
from leafe_jax.methods.effort import Effort
from leafe_jax.methods.leafe import distill_on
from leafe_jax.methods.run import Run
from leafe_jax.rollout.alternatives import propose
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.sampler import Rules
from leafe_jax.tree import Tree


def retrace(run: Run, directory: pathlib.Path) -> dict[str, Any]:
  """The experts' episodes in tokens, without alternatives; nothing is charged."""
  rules = rules_of(run)
  early_experience.retrace(
      run, directory, 'experts', lambda player, wave: propose(player, wave, 0, rules)
  )
  return {'experts': len(load_trees(directory)), 'budget': Ledger().as_dict()}


def imitate(run: Run, directory: pathlib.Path) -> dict[str, Any]:
  """Supervised training on the experts' actions."""
  found = foresight.imitation(trees_of(run))
  if not found:
    raise EarlyEnd(nothing(run))
  hosts.first(lambda: dataset.write(directory / 'data', found))
  return distill_on(run, SFT.name, directory / 'data', BASE, {})


def trees_of(run: Run) -> list[Tree]:
  """One tree per expert, its episode the root."""
  return load_trees(run.directory.phase(EXPERTS.name).dir)


def nothing(run: Run) -> str:
  """What is said where there is no expert state."""
  return (
      'StepAgent has nothing to learn from: no expert could be retraced; raise '
      'policy.max_length or explore.num_tasks.'
      + lengths.trouble(trees_of(run), run.config)
  )


def rules_of(run: Run) -> Rules:
  """How the agent answers in an expert's state."""
  explore = run.config.explore
  return Rules(
      explore.temperature, explore.max_response_tokens, run.transcript.stop_ids
  )


def states_of(run: Run, room: int, option: str) -> list[State]:
  """The expert states that fit with any response into `room` tokens.

  Args:
    run: the run.
    room: tokens.
    option: where they come from.

  Raises:
    EarlyEnd: none does.
  """
  found = states.of_episodes(trees_of(run))
  longest = room - run.config.explore.max_response_tokens
  kept = [
      state for state in found
      if len(state.prompt_ids) <= longest
      and len(state.prompt_ids) + len(state.said.response_ids) <= room
  ]
  if len(kept) < len(found):
    logging.warning(
        '%d of %d expert states are longer than %s=%d and are left out',
        len(found) - len(kept), len(found), option, room,
    )
  if not kept:
    raise EarlyEnd(nothing(run))
  return kept


def most_states(config: Experiment) -> int:
  """Upper bound of the number of expert states."""
  return config.explore.num_tasks * config.env.horizon


EXPERTS = Phase(
    'experts',
    (*PLAY_READS, 'env.teacher', 'explore.num_tasks', 'explore.wave_tasks',
     'early_experience.expert_attempts'),
    retrace, lambda config: Effort(episodes=config.explore.num_tasks),
    after=(BASE, stage1.SAMPLE.name),
)  # fmt: skip
SFT = Phase(
    'distill/step_sft', TRAIN_READS, imitate, effort.distilling,
    after=(BASE, EXPERTS.name),
)
