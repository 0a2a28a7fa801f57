"""LEAFE: trees of Stage 1, distilled by L_cf + beta * L_reh.

(arXiv 2603.16843, sections 3 and 4.) A `Recipe` is what its arms differ in:
where the trees come from and which terms are on. All of them take the same
number of updates.
"""

from __future__ import annotations

import dataclasses
import pathlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from leafe_jax import hosts
from leafe_jax.config import Distill, Experience
from leafe_jax.endings import EarlyEnd
from leafe_jax.experience import build, dataset
from leafe_jax.experience.examples import Example
from leafe_jax.methods import lengths, stage1
from leafe_jax.methods.arms import BASE, BETA, TRAIN_READS, Arm, Phase
from leafe_jax.methods.collect import load_trees
from leafe_jax.methods.effort import distilling
from leafe_jax.methods.run import Run
from leafe_jax.methods.training import train_on
from leafe_jax.methods.tuning import tuned
from leafe_jax.tree import Tree


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a policy is distilled.

  Attributes:
    name: of the arm.
    source: the Stage-1 phase whose trees it learns from.
    counterfactual: whether L_cf is on.
    rehearsal: whether L_reh is on.
    beta: weight of L_reh; None: the config's.
    experience: changed options of the config's section.
    volume_of: take as many D_reh examples as this phase's trees give; None: all.
    start: the arm whose weights are distilled; None: the base.
    beside: the phase of other examples that join the trees' own; None: no others.
    others: reads those examples.
  """

  name: str
  source: Phase = stage1.EXPLORE
  counterfactual: bool = True
  rehearsal: bool = True
  beta: float | None = None
  experience: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  volume_of: Phase | None = None
  start: Arm | None = None
  beside: Phase | None = None
  others: Callable[[Run], list[Example]] | None = None

  @property
  def phase(self) -> Phase:
    """Stage 2 of the arm."""
    mixes = self.counterfactual and self.rehearsal and self.beta is None
    others = [phase.name for phase in (self.volume_of, self.beside) if phase]
    start = self.start.weights if self.start else BASE
    return Phase(
        f'distill/{self.name}',
        (*TRAIN_READS, 'experience', *((BETA,) if mixes else ())),
        self.distill, distilling, after=(start, self.source.name, *others),
    )

  def arm(self, doc: str) -> Arm:
    """The arm, after its Stage 1 and what that one needs."""
    start = self.start or Arm('base', '')
    budget = (self.source.budget_of,) if self.source.budget_of else ()
    sources = (self.source, self.beside) if self.beside else (self.source,)
    phases = (*start.phases, *budget, *sources, self.phase)
    costs = (*start.costs, *(source.name for source in sources))
    return Arm(self.name, doc, phases, self.phase.name, costs)

  def distill(self, run: Run, directory: pathlib.Path) -> dict:
    """Stage 2: from trees to weights."""
    found, summary = self._find_examples(run)
    if not found:
      trees = load_trees(run.directory.phase(self.source.name).dir)
      raise EarlyEnd(
          f'arm {self.name!r} has nothing to learn from: no tree of phase '
          f'{self.source.name!r} holds a success. Explore more tasks '
          '(--config.explore.num_tasks) or start from a better base.'
          + lengths.trouble(trees, run.config)
      )
    if self.others:
      others = self.others(run)
      found, summary = found + others, {**summary, 'others': len(others)}
    hosts.first(lambda: dataset.write(directory / 'data', found))
    metrics = distill_on(
        run, self.phase.name, directory / 'data',
        self.start.weights if self.start else BASE, self._weights(run),
    )
    return {'experience': summary, **metrics}

  def _weights(self, run: Run) -> dict[str, float]:
    """Loss weight per kind; L_reh alone has weight 1."""
    if not self.counterfactual:
      return {'reh': 1.0}
    return {'reh': run.config.distill.beta if self.beta is None else self.beta}

  def _find_examples(self, run: Run) -> tuple[list[Example], dict]:
    config = dataclasses.replace(run.config.experience, **self.experience)
    volume = None
    if self.volume_of is not None:
      other = load_trees(run.directory.phase(self.volume_of.name).dir)
      volume = len(build.rehearsal(other, config, random.Random(0)))
    trees = load_trees(run.directory.phase(self.source.name).dir)
    return self.examples(trees, config, run.config.seed, volume)

  def examples(
      self, trees: Sequence[Tree], config: Experience, seed: int,
      volume: int | None = None,
  ) -> tuple[list[Example], dict]:
    """(training examples, counts of how they were chosen)."""
    rng = random.Random(f'{seed}/{self.name}/examples')
    summary = build.Summary(tasks=len(trees))
    found = []
    if self.rehearsal:
      found = build.rehearsal(trees, config, rng, summary)
      if volume is not None and volume < len(found):
        found = rng.sample(found, volume)
    if self.counterfactual:
      found += build.counterfactual(trees, config, summary)
    return found, summary.as_dict()


def distill_on(
    run: Run,
    phase: str,
    data: pathlib.Path,
    start: str,
    kind_weights: Mapping[str, float],
    steps: int | None = None,
) -> dict[str, Any]:
  """Supervised training of `start`'s weights on a dataset, as `phase`.

  For as many updates as `distill.steps`, if not for `steps`.
  """
  config = run.config.distill
  if steps is not None:
    config = dataclasses.replace(config, steps=steps)

  def fit(config: Distill, directory: pathlib.Path) -> dict[str, Any]:
    label = phase.replace('/', ' ')
    return train_on(
        run, label, directory, run.start(start), dataset.read(data), config,
        kind_weights,
    )

  return tuned(run, phase, config, fit)


def again(name: str, start: Arm, number: int) -> Arm:
  """Another round of Stage 1 and Stage 2, from the weights of an arm."""
  source = stage1.exploration(f'explore_{number}', start.weights)
  return Recipe(name, source, start=start).arm(f'{number} rounds of LEAFE')


LEAFE = Recipe('leafe').arm('L_cf + beta * L_reh on the same trees')
LEAFE_2 = again('leafe_2', LEAFE, 2)
LEAFE_3 = again('leafe_3', LEAFE_2, 3)

ARMS = (
    Arm('base', 'the policy before any training'),
    Recipe('rft', stage1.SAMPLE, counterfactual=False).arm(
        'L_reh on independent samples at the budget of Stage 1'
    ),
    Recipe('leafe_reh', counterfactual=False).arm(
        'L_reh on the trees of Stage 1 (the ablation of table 4)'
    ),
    LEAFE,
    LEAFE_2,
    LEAFE_3,
)
