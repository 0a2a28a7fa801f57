"""The control that matters most: advice distilled without any interaction.

The base was taught, in its warm start, to follow a script's advice. Here it is
trained on the same script's corrected actions with the advice left out, and on
the script's successful episodes as rehearsal. Nothing is explored: if this
matched LEAFE, exploration would add nothing to what the base was told.
"""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator

from leafe_jax import hosts
from leafe_jax.endings import RunStopped
from leafe_jax.experience import dataset, examples
from leafe_jax.methods.arms import BASE, BETA, TRAIN_READS, WORLD_READS, Arm, Phase
from leafe_jax.methods.demonstrations import Demonstrator, Writer
from leafe_jax.methods.effort import distilling
from leafe_jax.methods.leafe import distill_on
from leafe_jax.methods.run import Run


def distill(run: Run, directory: pathlib.Path) -> dict:
  """From the script's advice to weights; the ledger is not charged."""
  found = list(advice_examples(run))
  hosts.first(lambda: dataset.write(directory / 'data', found))
  weights = {examples.REHEARSAL: run.config.distill.beta}
  metrics = distill_on(run, PHASE.name, directory / 'data', BASE, weights)
  return {'examples_found': len(found), **metrics}


def advice_examples(run: Run) -> Iterator[examples.Example]:
  """One corrected turn per scripted episode, and the episodes that succeed.

  As many episodes as Stage 1 may play, on the same tasks. RunStopped where the
  world has no script.
  """
  config, teacher = run.config, run.teacher()
  if teacher is None:
    raise RunStopped(f'{config.env.name} has no scripted teacher to take advice from')
  rng = random.Random(f'{config.seed}/advice')
  writer = Writer(run.world, run.transcript, teacher, 0, config.warm_start, rng)
  demonstrator = Demonstrator(run.world, teacher, config.env.horizon, rng)
  tasks = run.tasks('train', config.explore.num_tasks)
  for _ in range(config.explore.attempts):
    for task in tasks:
      demo = demonstrator.play(task)
      if demo is None:
        continue
      yield writer.corrected(demo, examples.COUNTERFACTUAL)
      if demo.success:
        yield writer.acted(demo, examples.REHEARSAL)


PHASE = Phase(
    'distill/advice',
    (*TRAIN_READS, BETA, *WORLD_READS, 'env.teacher', 'warm_start', 'explore.num_tasks',
     'explore.attempts'),
    distill, distilling,
)
ADVICE = Arm(
    'advice', "the script's advice with the advice removed, no interaction",
    (PHASE,), PHASE.name,
)
