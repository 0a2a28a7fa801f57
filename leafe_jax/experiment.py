"""A run: its phases in order, each resumed or skipped as the directory says.

    import? -> warm_start -> the arms' own phases -> evaluate/ARM -> report

The own phases of LEAFE are gate -> explore -> distill/leafe; the gate stands
before the first phase that explores, and only there. A phase reads config
sections and earlier phases, writes only into its own directory, and is marked
complete atomically. Running the same command on the
same directory goes on where it stopped and comes out with the same bits, also
when it was to stop after a phase (`--until`).
"""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Mapping, Sequence

from absl import logging

from leafe_jax import heartbeat, hosts, standing, stops
from leafe_jax.config import Experiment
from leafe_jax.endings import EarlyEnd, RunStopped
from leafe_jax.learner.update import NonFiniteLoss
from leafe_jax.methods import outlook, phases
from leafe_jax.methods.arms import TUNED_READS, Phase, phases_needed
from leafe_jax.methods.catalogue import arms_of
from leafe_jax.methods.effort import Effort, total
from leafe_jax.methods.outlook import Outlook
from leafe_jax.methods.reporting import publish, report, write_unfinished
from leafe_jax.methods.run import BASE, IMPORT, Run, is_cold
from leafe_jax.methods.stage1 import EXPLORE
from leafe_jax.methods.study import run_study, seeds_of
from leafe_jax.methods.warm_start import check_sources
from leafe_jax.planning import memory
from leafe_jax.planning.jobs import Job
from leafe_jax.planning.programs import Target
from leafe_jax.policy import lora
from leafe_jax.rundir import SHOWN, RunDirectory
from leafe_jax.sampler import NonFiniteLogits
from leafe_jax.tracking.choice import BOARD, Choice
from leafe_jax.tracking.opening import opened

REPORT = 'report'

# Phases that train on groups of episodes, for which grpo.match_explore counts.
ONLINE = ('grpo', 'gigpo', 'jerp', 'sdpo', 'sdar', 'mel')


def phases_of(config: Experiment) -> list[Phase]:
  """All phases of a run, in order. ValueError for an unknown arm."""
  arms = arms_of(config)
  return [
      *phases.base_phases(config),
      *phases.behind_the_gate(phases_needed(arms)),
      *(
          phase
          for arm in arms
          for phase in phases.evaluations(arm, config.evaluate)
      ),
      Phase(
          REPORT, (standing.WHOLE_RUN,), report, lambda config: Effort(),
          beside=('results.json',),
      ),
  ]


def phase_inputs(config: Experiment) -> standing.Phases:
  """What each phase reads, in the order of the phases.

  ValueError for options that do not go together.
  """
  # A checkpoint's layers are not read yet, see `Run.check`.
  lora.check(config.policy, layers_known=not config.policy.checkpoint)
  wanted = phases_of(config)
  _check_budget_to_match(config, [phase.name for phase in wanted])
  own = {phase.name: _inputs(phase, config) for phase in wanted}
  seeds = seeds_of(config)
  if not seeds:
    return own
  return {
      f'{seed}/{name}': standing.Inputs(
          inputs.options, tuple(f'{seed}/{other}' for other in inputs.phases)
      )
      for seed in seeds for name, inputs in own.items()
  }  # fmt: skip


def _inputs(phase: Phase, config: Experiment) -> standing.Inputs:
  """With what options alone make a phase read."""
  reads, after = phase.reads, phase.after
  if config.tune.factors and 'tune.factors' in reads:
    reads = (*reads, *TUNED_READS)
  if config.grpo.match_explore and phase.name in ONLINE:
    after = (*after, EXPLORE.name)
  if after and config.policy.lora_rank and is_cold(config):
    after = tuple(dict.fromkeys((*after, IMPORT)))  # beneath all adapters
  return standing.Inputs(reads, after)


def _result(phase: Phase, context: Run, directory: pathlib.Path) -> dict:
  """What a phase comes to. RunStopped where numbers are not finite any more."""
  try:
    return phase.body(context, directory)
  except NonFiniteLogits as error:
    dtype = context.shape.policy.dtype
    raise RunStopped(
        f'phase {phase.name}: {error}: its weights hold NaN or too large numbers, or '
        f'overflow policy.dtype={dtype}; check policy.checkpoint and the learning '
        'rate of the phase that trained them'
    ) from error
  except NonFiniteLoss as error:
    raise RunStopped(
        f'phase {phase.name}: {error}; lower its learning_rate or clip_norm, or start '
        'from other weights'
    ) from error


def check_until(config: Experiment, until: str) -> None:
  """ValueError, naming the phases of a run, for a phase that it has not."""
  names = [phase.name for phase in phases_of(config)]
  if until and until not in names:
    raise ValueError(
        f'--until={until}: no phase of this run; choose from {", ".join(names)}'
    )


def _check_budget_to_match(config: Experiment, names: Sequence[str]) -> None:
  first = next((i for i, name in enumerate(names) if name in ONLINE), None)
  if config.grpo.match_explore and first and EXPLORE.name not in names[:first]:
    raise ValueError(
        f'grpo.match_explore: {names[first]} comes before any exploration whose '
        'budget it could match; name an arm that explores before it '
        '(--config.arms=base,leafe,grpo)'
    )


def run(
    config: Experiment,
    workdir: pathlib.Path,
    config_sha256: str,
    until: str = '',
    trackers: Choice = BOARD,
) -> None:
  """Runs or resumes all phases in `workdir`, or a study's runs.

  Args:
    config: of the run.
    workdir: its directory.
    config_sha256: identifies the config.
    until: the phase to stop after, in every run of a study; empty: the last.
    trackers: are told of it.
  """
  if config.study.seeds:
    one = functools.partial(run, until=until, trackers=trackers.within(workdir.name))
    pools = until in ('', REPORT)
    run_study(config, workdir, one, pools=pools)
    if pools:
      with opened(trackers, workdir, config) as tracker:
        hosts.first(functools.partial(publish, tracker, workdir))
    return
  context = Run(config, RunDirectory(workdir), config_sha256)
  wanted = phases_of(config)
  if until:
    wanted = wanted[: [phase.name for phase in wanted].index(until) + 1]
  left = _left(context, wanted)
  if left:  # a run that is done needs no memory
    with heartbeat.beating(context.directory.path):
      heartbeat.tell(phases=[phase.name for phase in wanted])
      _look_ahead(context, left)
      with opened(trackers, workdir, config) as context.tracker:
        _run_all(context, left, outlook.efforts(wanted, config))
  elif not config.policy.checkpoint:
    context.own_tokenizer()  # which no phase opens, so that a damage would stay
  if until and until != REPORT:
    logging.info(
        'stopped after %s, which is in %s; the same command without --until goes on',
        until, context.directory.phase(until).dir,
    )


def _run_all(
    context: Run, left: Sequence[Phase], efforts: Mapping[str, Effort]
) -> None:
  for number, phase in enumerate(left):
    _say_start(context, [phase.name for phase in left[number:]], efforts)
    _run_or_tell(context, phase)
    wall_s = context.directory.phase(phase.name).result()['wall_s']
    place = list(efforts).index(phase.name) + 1  # in the whole run
    context.tracker.scalars('phases', place, {f'{phase.name}/wall_s': wall_s})
  context.tracker.flush('phases')


def _left(context: Run, wanted: Sequence[Phase]) -> list[Phase]:
  """The phases to be done; says which are kept. RunStopped for what none mends."""
  inputs = {phase.name: _inputs(phase, context.config) for phase in wanted}
  directory = context.directory
  names = hosts.first(functools.partial(standing.left, directory, inputs))
  found = [phase for phase in wanted if phase.name in names]
  if len(found) < len(wanted):
    logging.info(
        '%s:\n%s', directory.path,
        standing.describe(standing.at_start(directory, inputs, names)),
    )
  return found


def _look_ahead(context: Run, left: Sequence[Phase]) -> None:
  """Logs what is to come. RunStopped if no device can hold it."""
  efforts = outlook.efforts(left, context.config)
  plan = context.check(*_needs(efforts))
  if any(phase.name == BASE for phase in left):
    check_sources(context)
  logging.info('what it will take:\n%s', Outlook(efforts, plan).phases())


def look_ahead(target: Target, platform: str = '') -> Outlook:
  """What a run would take that has nothing behind it; of a study, one of its runs.

  Args:
    target: the run, whose devices need not be here.
    platform: 'cpu', 'gpu' or 'tpu'; by default that of this process.

  Raises:
    ValueError: an unknown arm.
  """
  efforts = outlook.efforts(phases_of(target.config), target.config)
  jobs, plays = _needs(efforts)
  return Outlook(efforts, memory.plan(target, platform, jobs, plays=plays))


def _needs(efforts: Mapping[str, Effort]) -> tuple[tuple[Job, ...], bool]:
  """What is trained, and whether anything is played beside it."""
  plays = any(effort.plays for effort in efforts.values())
  return total(efforts.values()).jobs, plays


def _say_start(
    context: Run, names: Sequence[str], efforts: Mapping[str, Effort]
) -> None:
  """Logs that the first of the phases that are left starts, and what time is known."""
  seconds = context.directory.whole_times()
  left = outlook.time_left(names, efforts, seconds)
  heartbeat.tell(
      phase=names[0], since=time.time(), most=efforts[names[0]].counts(),
      ahead=outlook.forecast(names, efforts, seconds),
  )
  logging.info('phase %s: starts%s', names[0], f'; left: {left}' if left else '')


def _run_or_tell(context: Run, phase: Phase) -> None:
  """Runs a phase; where the run comes to its end there, its report says so."""
  try:
    _run_phase(context, phase)
  except EarlyEnd as error:
    reason = f'Stopped in phase {phase.name}: {error}'
    page = hosts.first(lambda: str(write_unfinished(context, reason)))
    logging.info('report of what there is: %s', page)
    raise


def _run_phase(context: Run, phase: Phase) -> None:
  stops.check('all finished phases are saved', stops.ask())
  place = context.directory.phase(phase.name)
  resumed = hosts.first(place.begun)
  start, meter = time.monotonic(), context.meter()
  result = _result(phase, context, place.dir)
  result['wall_s'] = round(time.monotonic() - start, 1)
  result['resumed'] = resumed
  result['speed'] = meter.figures()
  shown = f'{SHOWN}/{phase.name}'
  beside = [context.directory.path / name for name in (*phase.beside, shown)]
  hosts.first(functools.partial(place.complete, result, beside))
  logging.info('phase %s: %.1f s', phase.name, time.monotonic() - start)
