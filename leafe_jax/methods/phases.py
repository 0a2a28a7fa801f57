"""The phases that every run has: its base, the gate, the evaluation of an arm."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from absl import logging

from envs import api
from leafe_jax.config import Evaluate, Experiment
from leafe_jax.methods import effort
from leafe_jax.methods.arms import (
  ALL_READ,
  BASE,
  PLAY_READS,
  SAMPLING_READS,
  STAGE1_READS,
  WORLD_READS,
  Arm,
  Phase,
)
from leafe_jax.methods.assess import assess
from leafe_jax.methods.discover import Discovery
from leafe_jax.methods.effort import Effort
from leafe_jax.methods.gate import probe, run_gate
from leafe_jax.methods.run import IMPORT, Run, is_cold
from leafe_jax.methods.warm_start import cold_start, import_checkpoint, warm_start
from leafe_jax.planning import jobs
from leafe_jax.rollout.episode import no_memory
from leafe_jax.rollout.ledger import total

# What is not of a single evaluation: the report reads it.
_REPORTED = ('bootstrap', 'more_temperatures', 'discovery')
EVALUATE_READS = {
    f'evaluate.{field.name}'
    for field in dataclasses.fields(Evaluate)
    if field.name not in _REPORTED
}
_TEMPERATURE = 'evaluate.temperature'
_IMPORT_READS = ('policy', 'mesh')


def base(run: Run, directory: pathlib.Path) -> dict:
  """The policy that everything starts from."""
  if is_cold(run.config):
    return cold_start(run, directory)
  if run.config.policy.checkpoint:
    return import_checkpoint(run, directory)
  return warm_start(run, directory)


def gate(run: Run, directory: pathlib.Path) -> dict:
  """Refuses to explore with a base that cannot reflect."""
  config = run.config
  tasks = run.tasks('validation', config.gate.num_tasks)
  teacher = run.teacher(**api.FAULTLESS)
  result = run_gate(run.base_player(), tasks, teacher, config, directory)
  logging.info('gate: %s', result)
  return dataclasses.asdict(result)


def evaluations(arm: Arm, config: Evaluate) -> list[Phase]:
  """n samples per task of the arm's policy, at each temperature; Discovery@k."""
  found = [_evaluation(arm, t) for t in (None, *config.more_temperatures)]
  return [*found, *([_discovery(arm)] if arm.pupil and config.discovery else [])]


def discover_name(arm: str) -> str:
  """The phase that makes attempts in sequence."""
  return f'discover/{arm}'


def _discovery(arm: Arm) -> Phase:
  """Attempts in sequence of an arm with a memory that goes on learning."""
  name, pupil = discover_name(arm.name), arm.pupil
  assert pupil is not None

  def body(run: Run, directory: pathlib.Path) -> dict:
    evaluate = run.config.evaluate
    player = run.player(run.trained(arm.weights), arm.version)
    course = Discovery(run, directory, player, pupil(run))
    return course.go_through(
        name.replace('/', ' '), run.tasks(evaluate.split, evaluate.num_tasks))

  def most(config: Experiment) -> Effort:
    episodes = config.evaluate.discovery * config.evaluate.num_tasks
    size = max(config.explore.max_reflection_tokens,
               config.retro.max_tokens if config.policy.checkpoint else 0)
    return effort.acting(config, 2 * episodes) + effort.asking(episodes, size, 1)

  reads = ('split', 'num_tasks', 'discovery')
  return Phase(
      name, (*PLAY_READS, *SAMPLING_READS, *(f'evaluate.{read}' for read in reads)),
      body, most, after=(arm.weights, *(phase.name for phase in arm.phases)),
  )


def evaluate_name(arm: str, temperature: float | None = None) -> str:
  """The phase that evaluates an arm, at the configured or another temperature."""
  return f'evaluate/{arm}' + ('' if temperature is None else f'@{temperature:g}')


def _evaluation(arm: Arm, temperature: float | None) -> Phase:
  name = evaluate_name(arm.name, temperature)

  def body(run: Run, directory: pathlib.Path) -> dict:
    config = run.config
    params = run.trained(arm.weights)
    evaluate = config.evaluate
    if temperature is not None:
      evaluate = dataclasses.replace(evaluate, temperature=temperature)
    player = run.player(params, arm.version)
    if arm.adviser:
      player = dataclasses.replace(player, adviser=arm.adviser(run))
    outcomes = assess(
        name.replace('/', ' '), directory, player,
        run.tasks(evaluate.split, evaluate.num_tasks), evaluate,
        config.explore.max_response_tokens, config.sampler.max_rows,
        arm.memory(run) if arm.memory else no_memory,
    )
    return {'budget': total(outcome.budget for outcome in outcomes).as_dict()}

  def most(config: Experiment) -> Effort:
    episodes = config.evaluate.num_tasks * config.evaluate.num_samples
    asked = episodes * config.env.horizon if arm.adviser else 0
    situations = effort.asking(asked, config.r2mem.max_situation_tokens, attempts=1)
    return effort.acting(config, episodes) + situations

  own = EVALUATE_READS if temperature is None else EVALUATE_READS - {_TEMPERATURE}
  reads = (*PLAY_READS, *sorted(own))
  remembers = arm.memory or arm.adviser
  remembered = [phase.name for phase in arm.phases] if remembers else []
  return Phase(name, reads, body, most, after=(arm.weights, *remembered))


def _base_effort(config: Experiment) -> Effort:
  adapters = False
  if config.policy.checkpoint:
    if not is_cold(config):
      return Effort()
    adapters = bool(config.policy.lora_rank)
  name = 'cold start' if is_cold(config) else 'warm start'
  job = jobs.supervised(name, config.warm_start, whole=not adapters)
  return effort.training(job, config.warm_start)


def _gate_effort(config: Experiment) -> Effort:
  return effort.exploring(config, probe(config), config.gate.num_tasks)


def base_phases(config: Experiment) -> list[Phase]:
  """The first phases, which make the base.

  A checkpoint is imported; if it is taught, by a phase before the one that teaches
  it, whose options no seed is among.
  """
  taught = (*WORLD_READS, 'env.teacher', 'warm_start', 'explore.reflect_every')
  if is_cold(config):
    scripts = config.warm_start.num_demonstrations
    reads = (*_IMPORT_READS, *(taught if scripts else ('warm_start',)))
    return [
        Phase(
            IMPORT, _IMPORT_READS, import_checkpoint, lambda config: Effort(), after=()
        ),
        Phase(BASE, reads, base, _base_effort, after=(IMPORT,)),
    ]
  # Whether it is taught is read too: the phase of that name is another one then.
  reads = (*_IMPORT_READS, 'warm_start.steps') if config.policy.checkpoint else (
      *ALL_READ, *taught)
  return [Phase(BASE, reads, base, _base_effort, after=())]


GATE = Phase('gate', (*STAGE1_READS, 'env.teacher', 'gate'), gate, _gate_effort)


def behind_the_gate(needed: Sequence[Phase]) -> list[Phase]:
  """The phases with the gate before the first that explores, if any does."""
  first = next((i for i, phase in enumerate(needed) if phase.explores), None)
  if first is None:
    return list(needed)
  return [*needed[:first], GATE, *needed[first:]]
