"""Phases and arms: the parts that a run is put together from.

A phase reads config sections and earlier phases, and writes only into its own
directory. An arm is one policy of a comparison: the phases that make it, where
its weights are, what its experience cost. Each method's module offers its
arms; a run takes those of its method, or those that `config.arms` names, and
does every phase they need once.
"""

from __future__ import annotations

import dataclasses
import pathlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from leafe_jax.config import Distill, Experiment
from leafe_jax.evaluation.memories import Remembered
from leafe_jax.methods.discover import Pupil
from leafe_jax.methods.effort import Effort
from leafe_jax.methods.run import BASE, Run
from leafe_jax.rollout.advisers import Adviser
from leafe_jax.rollout.samples import Memory

Body = Callable[[Run, pathlib.Path], dict]

# Config paths that the outcome of a phase depends on, beside those of the phases
# that it reads from. Where sessions live is none of them: a run that hung can be
# forked with workers and keeps its finished phases.
ALL_READ = ('seed', 'policy', 'mesh')
WORLD_READS = ('env.name', 'env.options', 'env.horizon')
PLAY_READS = (*ALL_READ, *WORLD_READS, 'sampler', 'explore.max_response_tokens')
ASK_READS = ('explore.reflect_temperature', 'explore.max_reflection_tokens')
STAGE1_READS = (*PLAY_READS, 'explore')
# Of Stage 2, whose weight of L_reh is read by those who have both terms.
BETA = 'distill.beta'
TRAIN_READS = (
    *ALL_READ, 'tune.factors',
    *(f'distill.{field.name}' for field in dataclasses.fields(Distill)
      if f'distill.{field.name}' != BETA),
)  # fmt: skip
# What a sweep's tries are judged by.
SAMPLING_READS = tuple(
    f'evaluate.{name}' for name in (
        'temperature', 'top_k', 'top_p', 'min_p', 'stop_strings', 'wave_tasks',
    )
)  # fmt: skip
TUNED_READS = (*PLAY_READS, *SAMPLING_READS, 'tune')


@dataclasses.dataclass(frozen=True)
class Phase:
  """One step of a run.

  Attributes:
    name: also its directory.
    reads: config paths that its outcome depends on, beside those of `after`.
    body: does the work in the phase's directory and returns a JSON result; a
      phase that plays episodes puts what they cost under 'budget'.
    effort: what it may take at most.
    budget_of: the phase whose budget it spends; None: it has its own.
    explores: whether it lives on reflections and stands behind the gate.
    after: names of the phases that it reads from, where the run has them.
    beside: what it writes outside of its directory, by paths from the run's.
  """

  name: str
  reads: tuple[str, ...]
  body: Body
  effort: Callable[[Experiment], Effort]
  budget_of: Phase | None = None
  explores: bool = False
  after: tuple[str, ...] = (BASE,)
  beside: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Arm:
  """One policy of the comparison.

  Attributes:
    name: of the arm.
    doc: what it is, in one line.
    phases: what must be done before it can be evaluated, in order.
    weights: the phase that holds its weights.
    costs: the phases that its experience comes from; their budgets add up.
    memory: what stands in its prompts when it is evaluated; None: nothing.
    adviser: what is shown at each of its turns then; None: nothing.
    remembered: what it learnt in words, for the report; None: nothing.
    pupil: its memory, as far as that goes on learning from attempts at evaluated
      tasks; None: it does not.
  """

  name: str
  doc: str
  phases: tuple[Phase, ...] = ()
  weights: str = BASE
  costs: tuple[str, ...] = ()
  memory: Callable[[Run], Memory] | None = None
  adviser: Callable[[Run], Adviser] | None = None
  remembered: Callable[[Run], Sequence[Remembered]] | None = None
  pupil: Callable[[Run], Pupil] | None = None

  @property
  def version(self) -> int:
    """Number of its policy when it is evaluated.

    It follows from the name alone, so that runs with other arms beside it sample
    the same episodes and can be merged.
    """
    return zlib.crc32(self.name.encode())


def phases_needed(arms: Iterable[Arm]) -> list[Phase]:
  """The phases of all arms, each once, in the order in which they are met."""
  found: dict[str, Phase] = {}
  for arm in arms:
    for phase in arm.phases:
      found.setdefault(phase.name, phase)
  return list(found.values())


def table(*groups: Iterable[Arm]) -> Mapping[str, Arm]:
  """Arms by name. ValueError if two share one."""
  found: dict[str, Arm] = {}
  for arm in (arm for group in groups for arm in group):
    if arm.name in found:
      raise ValueError(f'two arms are called {arm.name!r}')
    found[arm.name] = arm
  return found
