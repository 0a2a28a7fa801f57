"""Which phases of a run stand, and which are to be done (again).

A phase depends on the options that it reads and on the phases that it reads
from, on nothing else: not on its place in the order, nor on what else is run.
"""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from leafe_jax import buckets
from leafe_jax.files import PARTIAL, replace
from leafe_jax.rundir import DamagedPhase, Phase, RunDirectory

WHOLE_RUN = ''  # read by a phase that tells of the run itself


class Inputs(NamedTuple):
  """What the outcome of a phase depends on.

  Attributes:
    options: paths of options and of sections; `WHOLE_RUN`: everything.
    phases: names of the phases that it reads from; those that a run has not are
      not read.
  """

  options: tuple[str, ...]
  phases: tuple[str, ...] = ()


Phases = Mapping[str, Inputs]  # in the order of a run


class Standing(NamedTuple):
  """One phase of a run before it starts.

  Attributes:
    name: of the phase.
    kept: whether it is not done again.
    why: the reason, for the user.
  """

  name: str
  kept: bool
  why: str


def affected(changed: Iterable[str], phases: Phases) -> dict[str, str]:
  """Phase -> why a change of options touches it, for those that it touches."""
  changed, found = list(changed), {}
  for name, inputs in phases.items():
    options = [p for p in changed if any(_covers(read, p) for read in inputs.options)]
    others = [other for other in inputs.phases if other in found]
    if WHOLE_RUN in inputs.options:
      found[name] = 'tells of the whole run'
    elif options:
      found[name] = f'reads {options[0]}'
    elif others:
      found[name] = f'reads phase {others[0]}'
  return found


def _covers(section: str, path: str) -> bool:
  """Whether one of two option paths contains the other."""
  return f'{path}.'.startswith(f'{section}.') or section.startswith(f'{path}.')


def after_fork(
    source: RunDirectory, target: RunDirectory, changed: Iterable[str], phases: Phases
) -> list[Standing]:
  """What a fork takes over and what it does again, in the order of the phases."""
  touched = affected(changed, phases)
  return [_forked(source, target, name, touched) for name in phases]


def _forked(
    source: RunDirectory, target: RunDirectory, name: str, touched: Mapping[str, str]
) -> Standing:
  if target.phase(name).done():
    return Standing(name, True, 'done here')
  if name in touched:
    return Standing(name, False, touched[name])
  origin = source.phase(name)
  if not origin.done():
    return Standing(name, False, f'not finished in {source.path}')
  try:
    faults = origin.faults(weights=True)
  except DamagedPhase as error:
    faults = [str(error)]
  if faults:
    return Standing(name, False, faults[0])
  return Standing(name, True, f'taken over from {source.path}')


def fork(
    source: RunDirectory, target: RunDirectory, changed: Iterable[str], phases: Phases
) -> list[Standing]:
  """Copies the phases that a changed config leaves as they are.

  Args:
    source: the run to start from; is only read.
    target: gets copies; a phase that is complete there is left alone.
    changed: options that differ, such as 'distill.beta'.
    phases: of the run, in order.

  Returns:
    Every phase, and whether it stands now.
  """
  found = after_fork(source, target, changed, phases)
  for phase in found:
    if phase.kept and not target.phase(phase.name).done():
      _copy_directory(source.path / phase.name, target.path / phase.name)
  return found


def share(source: RunDirectory, target: RunDirectory, names: Iterable[str]) -> None:
  """Copies phases that are the same in both runs, where the target has not begun.

  A phase that is damaged in the source is left for the target to do.
  """
  for name in names:
    there, here = source.phase(name), target.phase(name)
    if here.done() or here.begun() or not there.done() or there.faults(weights=True):
      continue
    _copy_directory(source.path / name, target.path / name)


def at_start(
    directory: RunDirectory, phases: Phases, todo: Iterable[str] | None = None
) -> list[Standing]:
  """What a start finds done, begun or not begun.

  Args:
    directory: of the run; is only read.
    phases: of the run.
    todo: the phases that are to be done; if not given, those that are not done,
      or not as they were sealed.

  Raises:
    DamagedPhase: a damage that no phase can make good.
  """
  return [_found(directory.phase(name), todo) for name in phases]


def _found(phase: Phase, todo: Iterable[str] | None) -> Standing:
  if not phase.done():
    state = 'goes on from what is there' if phase.begun() else 'is to be done'
    return Standing(phase.name, False, state)
  if todo is None:
    for fault in phase.faults():
      return Standing(phase.name, False, fault)
  return Standing(phase.name, True, 'was done before')


def describe(found: Iterable[Standing]) -> str:
  """A line for each phase."""
  found = list(found)
  width = max((len(phase.name) for phase in found), default=0)
  return '\n'.join(
      f'  {phase.name:{width}}  {"keep" if phase.kept else "do  "}  {phase.why}'
      for phase in found
  )


def left(directory: RunDirectory, phases: Phases) -> list[str]:
  """The phases that are to be done, those with damaged files among them.

  Every complete phase is compared with its seal, its weights in their sizes; they are
  read for it only where a phase that is left reads them.

  Raises:
    DamagedPhase: a damage that no phase can make good.
  """
  for name in phases:
    if directory.phase(name).done():
      directory.phase(name).mend()
  checked: set[str] = set()
  while True:
    found = [name for name in phases if not directory.phase(name).done()]
    read = {other for name in found for other in phases[name].phases if other in phases}
    read -= checked
    if not read:
      return found
    for name in read:
      if directory.phase(name).done():
        directory.phase(name).mend(weights=True)
    checked |= read


def _copy_directory(source: pathlib.Path, target: pathlib.Path) -> None:
  partial = target.with_name(f'{target.name}{PARTIAL}')
  partial.parent.mkdir(parents=True, exist_ok=True)
  shutil.rmtree(partial, ignore_errors=True)
  shutil.copytree(source, partial, ignore=shutil.ignore_patterns(f'*{PARTIAL}'))
  shutil.rmtree(target, ignore_errors=True)
  buckets.copy_arrays(source, target, partial)
  replace(partial, target)
