"""LEAFE and its arms: which trees each arm is distilled from, and how.

    leafe      L_cf + beta * L_reh on the trees of Stage 1
    leafe_reh  L_reh alone on the same trees (the ablation of table 4)
    rft        L_reh alone on independent samples at the same budget
    base       no training

(arXiv 2603.16843, sections 3 and 4.) All trained arms start from the base and
take the same number of updates.
"""

from __future__ import annotations

import dataclasses
import pathlib
import random
from collections.abc import Sequence

from leafe_jax.config import Experience
from leafe_jax.experience import build, dataset
from leafe_jax.experience.examples import Example
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.methods import stage1
from leafe_jax.methods.arms import BASE, STAGE2_READS, Arm, Phase
from leafe_jax.methods.collect import load_trees
from leafe_jax.methods.run import Run
from leafe_jax.methods.training import train_on
from leafe_jax.rundir import RunStopped
from leafe_jax.tree import Tree


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a policy is distilled.

  Attributes:
    name: of the arm.
    source: the Stage-1 phase whose trees it learns from.
    counterfactual: whether L_cf is on.
    start: the phase whose weights are distilled; None: the base.
  """

  name: str
  source: Phase
  counterfactual: bool
  start: Phase | None = None

  def arm(self, doc: str, *before: Phase) -> Arm:
    """The arm, after its Stage 1 and what that one needs."""
    starts = (self.start,) if self.start else ()
    reads = dict.fromkeys((*STAGE2_READS, *self.source.reads))
    phase = Phase(f'distill/{self.name}', tuple(reads), self.distill)
    return Arm(
        self.name, doc, (*before, *starts, self.source, phase), phase.name,
        (*(start.name for start in starts), self.source.name),
    )

  def distill(self, run: Run, directory: pathlib.Path) -> dict:
    """Stage 2: from trees to weights."""
    config = run.config
    trees = load_trees(run.directory.phase(self.source.name).dir)
    found, summary = self.examples(trees, config.experience, config.seed)
    if not found:
      raise RunStopped(
          f'arm {self.name!r} has nothing to learn from: no tree of phase '
          f'{self.source.name!r} holds a success. Explore more tasks '
          '(--config.explore.num_tasks) or start from a better base.'
      )
    dataset.write(directory / 'data', found)
    metrics = train_on(
        run, f'distill {self.name}', directory,
        load_params(
            run.params_path(self.start.name if self.start else BASE),
            run.abstract_params(),
        ),
        dataset.read(directory / 'data'), config.distill,
        {'reh': config.distill.beta if self.counterfactual else 1.0},
    )
    return {'experience': summary, **metrics}

  def examples(
      self, trees: Sequence[Tree], config: Experience, seed: int
  ) -> tuple[list[Example], dict]:
    """(training examples, counts of how they were chosen)."""
    rng = random.Random(f'{seed}/{self.name}/examples')
    summary = build.Summary(tasks=len(trees))
    found = build.rehearsal(trees, config, rng, summary)
    if self.counterfactual:
      found += build.counterfactual(trees, config, summary)
    # A Counter does not survive dataclasses.asdict.
    counts = dataclasses.asdict(dataclasses.replace(summary, dropped=None))
    return found, {**counts, 'dropped': dict(summary.dropped)}


ARMS = (
    Arm('base', 'the policy before any training'),
    # Its budget, task by task, is what exploring cost.
    Recipe('rft', stage1.SAMPLE, False).arm(
        'L_reh on independent samples at the budget of Stage 1', stage1.EXPLORE
    ),
    Recipe('leafe_reh', stage1.EXPLORE, False).arm('L_reh on the trees of Stage 1'),
    Recipe('leafe', stage1.EXPLORE, True).arm('L_cf + beta * L_reh on the same trees'),
)
