"""What a run takes, phase by phase: the most of it beforehand, time on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from leafe_jax.config import Experiment
from leafe_jax.methods.arms import Phase
from leafe_jax.methods.effort import Effort
from leafe_jax.planning.memory import SAMPLING, Plan
from leafe_jax.progress import duration

_COLUMNS = ('episodes', 'sampled', 'updates', 'trained', 'GB')


@dataclasses.dataclass(frozen=True)
class Outlook:
  """What is to come.

  Attributes:
    efforts: of each phase, in their order.
    plan: memory of a device.
  """

  efforts: Mapping[str, Effort]
  plan: Plan

  def phases(self) -> str:
    """One line a phase: episodes, tokens, updates, the most memory of a device."""
    width = max(map(len, self.efforts), default=0) + 2
    head = ''.join(f'{name:>12}' for name in _COLUMNS)
    lines = [f'{"at most":<{width}}{head}']
    for name, effort in self.efforts.items():
      cells = (*map(_count, effort.counts()), _gigabytes(effort, self.plan))
      lines.append(f'{name:<{width}}{"".join(f"{cell:>12}" for cell in cells)}')
    lines.append(
        'sampled, trained: tokens. Phases that match the environment steps of '
        'another one are shown with its episodes.'
    )
    return '\n'.join(lines)


def efforts(phases: Sequence[Phase], config: Experiment) -> dict[str, Effort]:
  """Phase -> what it may take at most."""
  return {phase.name: phase.effort(config) for phase in phases}


def time_left(
    names: Sequence[str], efforts: Mapping[str, Effort], seconds: Mapping[str, float]
) -> str:
  """How long phases will take, as far as phases that are done can tell.

  A phase is held to be like the last one of its kind ('evaluate/...') that was to
  play and train as much; of others nothing is known. Nothing is said of phases
  that neither play nor train.

  Args:
    names: of the phases that are left.
    efforts: of all phases.
    seconds: that phases took, in the order in which they ended.
  """
  found = forecast(names, efforts, seconds)
  whole = sum(seconds[like] for like in found.values() if like)
  known = [
      f'{name} {duration(seconds[like])} (as {like})'
      for name, like in found.items() if like
  ]
  unknown = [name for name, like in found.items() if not like]
  parts = [f'about {duration(whole)}: {", ".join(known)}'] if known else []
  if unknown:
    parts.append(f'not known yet: {", ".join(unknown)}')
  return '; '.join(parts)


def forecast(
    names: Sequence[str], efforts: Mapping[str, Effort], seconds: Mapping[str, float]
) -> dict[str, str | None]:
  """Phase that plays or trains -> the one whose time it is held to take, if known.

  Arguments as for `time_left`.
  """
  return {
      name: _alike(name, efforts, seconds)
      for name in names
      if any(efforts[name].counts())
  }


def _alike(
    name: str, efforts: Mapping[str, Effort], seconds: Mapping[str, float]
) -> str | None:
  kind, counts = name.partition('/')[0], efforts[name].counts()
  found = [
      done for done in seconds
      if done.partition('/')[0] == kind and done in efforts
      and efforts[done].counts() == counts
  ]
  return found[-1] if found else None


def _count(number: int) -> str:
  if number < 1e6:
    return f'{number:,}' if number else '-'
  scale, letter = (1e9, 'G') if number >= 1e9 else (1e6, 'M')
  return f'{number / scale:.1f} {letter}'


def _gigabytes(effort: Effort, plan: Plan) -> str:
  """Of the moments of a phase."""
  names = {SAMPLING} if effort.plays else set()
  names |= {name for job in effort.jobs for name in (job.name, f'{job.name} rollouts')}
  sizes = [moment.total() for moment in plan.moments if moment.name in names]
  return f'{max(sizes) / 1e9:.2f}' if sizes else '-'
