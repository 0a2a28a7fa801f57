"""A run: its phases in order, each resumed or skipped as the directory says.

    warm_start -> gate -> explore -> sample -> distill/ARM -> evaluate/ARM -> report

A phase reads config sections and earlier phases, writes only into its own
directory, and is marked complete atomically. Running the same command on the
same directory goes on where it stopped and comes out with the same bits.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping

from absl import logging

from leafe_jax.config import Experiment
from leafe_jax.methods import phases
from leafe_jax.methods.leafe import find_arm
from leafe_jax.methods.run import Run
from leafe_jax.policy import lora
from leafe_jax.rundir import RunDirectory

_BASE_READS = ('seed', 'env', 'policy', 'mesh', 'warm_start', 'explore.reflect_every')
_STAGE1_READS = (*_BASE_READS, 'sampler', 'explore')
_STAGE2_READS = (*_STAGE1_READS, 'experience', 'distill')


@dataclasses.dataclass(frozen=True)
class Phase:
  """One step of a run.

  Attributes:
    name: also its directory.
    reads: config paths that its outcome depends on.
    body: does the work in the phase's directory and returns a JSON result.
  """

  name: str
  reads: tuple[str, ...]
  body: Callable[[Run, pathlib.Path], dict]


def phases_of(config: Experiment) -> list[Phase]:
  """All phases of a run, in order. ValueError for an unknown arm."""
  arms = [find_arm(name) for name in config.arms]
  plan = [
      Phase('warm_start', _BASE_READS, phases.base),
      Phase('gate', (*_STAGE1_READS, 'gate'), phases.gate),
  ]
  sources = {arm.source for arm in arms}
  if sources & {'explore', 'sample'}:
    plan.append(Phase('explore', _STAGE1_READS, phases.explore))
  if 'sample' in sources:  # its budget is what exploring cost
    plan.append(Phase('sample', _STAGE1_READS, phases.sample))
  for arm in arms:
    if arm.source:
      plan.append(
          Phase(f'distill/{arm.name}', _STAGE2_READS, phases.distill(arm))
      )
  for arm in arms:
    plan.append(
        Phase(
            f'evaluate/{arm.name}', (*_STAGE2_READS, 'evaluate'), phases.evaluate(arm)
        )
    )
  plan.append(Phase('report', ('',), phases.report))
  return plan


def phase_inputs(config: Experiment) -> Mapping[str, tuple[str, ...]]:
  """Phase name -> config paths it reads, in the order of the phases.

  ValueError for options that do not go together.
  """
  lora.check(config.policy)
  return {phase.name: phase.reads for phase in phases_of(config)}


def run(config: Experiment, workdir: pathlib.Path, config_sha256: str) -> None:
  """Runs or resumes all phases in `workdir`."""
  context = Run(config, RunDirectory(workdir), config_sha256)
  for phase in phases_of(config):
    place = context.directory.phase(phase.name)
    if place.done():
      logging.info('phase %s: done before', phase.name)
      continue
    logging.info('phase %s: starts', phase.name)
    start = time.monotonic()
    result = phase.body(context, place.dir)
    place.complete({**result, 'wall_s': round(time.monotonic() - start, 1)})
    logging.info('phase %s: %.1f s', phase.name, time.monotonic() - start)
