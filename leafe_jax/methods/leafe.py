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
import random
from collections.abc import Sequence

from leafe_jax.config import Experience
from leafe_jax.experience import build
from leafe_jax.experience.examples import Example
from leafe_jax.tree import Tree


@dataclasses.dataclass(frozen=True)
class Arm:
  """One policy of the comparison.

  Attributes:
    name: of the arm.
    source: the phase whose trees it learns from; '' for none.
    counterfactual: whether L_cf is on.
    version: number of the policy, distinct per arm.
  """

  name: str
  source: str
  counterfactual: bool
  version: int


ARMS = {
    arm.name: arm
    for arm in (
        Arm('base', '', False, 0),
        Arm('rft', 'sample', False, 1),
        Arm('leafe_reh', 'explore', False, 2),
        Arm('leafe', 'explore', True, 3),
    )
}


def find_arm(name: str) -> Arm:
  """The arm of that name. ValueError with the choices for another name."""
  if name not in ARMS:
    raise ValueError(f'unknown arm {name!r}; choose from {", ".join(ARMS)}')
  return ARMS[name]


def examples_of(
    arm: Arm, trees: Sequence[Tree], config: Experience, seed: int
) -> tuple[list[Example], dict]:
  """(training examples of an arm, counts of how they were chosen)."""
  rng = random.Random(f'{seed}/{arm.name}/examples')
  summary = build.Summary(tasks=len(trees))
  examples = build.rehearsal(trees, config, rng, summary)
  if arm.counterfactual:
    examples += build.counterfactual(trees, config, summary)
  # A Counter does not survive dataclasses.asdict.
  counts = dataclasses.asdict(dataclasses.replace(summary, dropped=None))
  return examples, {**counts, 'dropped': dict(summary.dropped)}
