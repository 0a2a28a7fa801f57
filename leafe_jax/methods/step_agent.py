"""StepAgent: learning an expert's choices state by state (arXiv 2411.03817).

    step_sft       imitation of the experts' episodes, where both begin
    step_implicit  the expert's action before the agent's own, as preferences (DPO)
    step_inverse   a discriminator's step rewards, by policy gradients (PPO's clipped
                   surrogate with a KL to the reference)

Every expert state is inspected offline: the agent answers it, the world takes no
step. So only states that experts came to are ever trained on; what the agent meets
after a mistake of its own is not (covariate shift). Where both took one action there
is nothing to prefer: such pairs are skipped and counted. The experts are those of
Early Experience. The paper gives no numbers; a step is a bandit here (no value
network, gamma = 0), since what follows a step is the expert's doing.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from absl import logging

from leafe_jax import hosts
from leafe_jax.config import Dpo, Experiment
from leafe_jax.experience import dataset, examples
from leafe_jax.experience import preferences as preferences_lib
from leafe_jax.experience.states import State
from leafe_jax.learner.checkpoints import save_params
from leafe_jax.methods import dpo, effort
from leafe_jax.methods.arms import BASE, PLAY_READS, Arm, Phase
from leafe_jax.methods.effort import Effort
from leafe_jax.methods.run import Run
from leafe_jax.methods.step_experts import (
  EXPERTS,
  SFT,
  most_states,
  rules_of,
  states_of,
)
from leafe_jax.methods.step_inverse import INVERSE
from leafe_jax.methods.tuning import tuned
from leafe_jax.planning import jobs
from leafe_jax.rollout.alternatives import proposed_action
from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.fresh import respond
from leafe_jax.rollout.ledger import Ledger, total
from leafe_jax.sampler import Sample


def prefer(run: Run, directory: pathlib.Path) -> dict[str, Any]:
  """Cycles of inspection and preference, from the weights of step_sft."""
  del directory  # the phase's, as `tuned` knows
  config = dpo.settings(run.config)
  asked = states_of(run, config.row_length // 2, 'half of dpo.row_length')

  def fit(config: Dpo, place: pathlib.Path) -> dict[str, Any]:
    name = place.relative_to(run.directory.path).as_posix()
    found = [
        _cycle(run, name, number, asked, config)
        for number in range(run.config.step_agent.cycles)
    ]
    last = run.start(_cycle_name(name, run.config.step_agent.cycles - 1))
    save_params(place / 'params', last)
    return {
        'updates': sum(cycle.get('updates', 0) for cycle in found), 'cycles': found,
        'budget': total(cycle['asked'] for cycle in found).as_dict(),
        **({'frozen': found[-1]['frozen']} if 'frozen' in found[-1] else {}),
    }

  return tuned(run, IMPLICIT.name, config, fit)


def _cycle_name(phase: str, number: int) -> str:
  return f'{phase}/cycle_{number + 1}'


def _cycle(
    run: Run, name: str, number: int, asked: Sequence[State], config: Dpo
) -> dict[str, Any]:
  """One cycle, done once: a phase within the phase."""
  place = run.directory.phase(_cycle_name(name, number))
  if hosts.first(place.done):
    return place.result()
  start = _cycle_name(name, number - 1) if number else SFT.name
  options = run.config.step_agent
  ledger = Ledger()
  player = run.player(run.trained(start), number)
  answers = respond(player, asked, 1, rules_of(run), 'step_implicit', ledger)
  pairs, dropped = pair_up(player, asked, answers)
  result = {'pairs': len(pairs), 'dropped': dict(dropped), 'asked': ledger.as_dict()}
  both = [half for pair in pairs for half in (pair.chosen, pair.rejected)]
  if both:
    hosts.first(lambda: dataset.write(place.dir / 'data', both))
  share = max(1, round(config.steps / options.cycles))
  beta = options.later_beta if number else options.beta
  config = dataclasses.replace(config, steps=share, beta=beta)
  fitting = preferences_lib.fit(pairs, config.row_length)
  if fitting:
    references = dpo.references_of(run, SFT.name, fitting, config)
    result |= dpo.train_on_pairs(
        run, f'step_implicit cycle {number + 1}', place.dir, start, fitting,
        references, config,
    )
  else:  # the agent does as the expert does
    logging.warning('cycle %d has no pair: %s', number + 1, dict(dropped))
    save_params(place.dir / 'params', run.start(start))
  hosts.first(lambda: place.complete(result))
  return result


def pair_up(
    player: Player, asked: Sequence[State], answers: Sequence[Sequence[Sample]]
) -> tuple[list[preferences_lib.Pair], Counter[str]]:
  """The expert's response before the agent's, and why there are no more pairs."""
  found, dropped = [], Counter()
  for state, samples in zip(asked, answers, strict=True):
    for sample in samples:
      action = proposed_action(player, sample)
      if action is None:
        dropped['no action in the response'] += 1
      elif action == state.said.action:
        dropped["the expert's action"] += 1
      else:
        found.append(preferences_lib.Pair(
            _half(state, state.said.response_ids, examples.DEMONSTRATION),
            _half(state, sample.tokens, examples.REJECTED),
        ))
    if not samples:
      dropped['no room for a response'] += 1
  return found, dropped


def _half(state: State, response_ids: Sequence[int], kind: str) -> examples.Example:
  return examples.make(
      [(state.prompt_ids, 0.0), (response_ids, 1.0)], kind, state.task_id, state.node,
      state.turn,
  )


def _implicit_effort(config: Experiment) -> Effort:
  found = dpo.settings(config)
  answers = config.step_agent.cycles * most_states(config)
  asked = Effort(sampled=answers * config.explore.max_response_tokens)
  job = jobs.preference(found, config.step_agent.beta)
  return effort.tuned(config, effort.training(job, found) + asked)


IMPLICIT = Phase(
    'distill/step_implicit',
    (*PLAY_READS, 'explore.temperature', *dpo.DPO_READS,
     'step_agent.cycles', 'step_agent.beta', 'step_agent.later_beta'),
    prefer, _implicit_effort, after=(BASE, EXPERTS.name, SFT.name),
)  # fmt: skip
ARMS = (
    Arm('step_sft', "an expert's actions, without alternatives", (EXPERTS, SFT),
        SFT.name),
    Arm('step_implicit', "StepAgent: the expert's action before the agent's own",
        (EXPERTS, SFT, IMPLICIT), IMPLICIT.name, (IMPLICIT.name,)),
    Arm('step_inverse', "StepAgent: a discriminator's rewards at expert states",
        (EXPERTS, SFT, INVERSE), INVERSE.name, (INVERSE.name,)),
)  # fmt: skip
