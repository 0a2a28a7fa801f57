"""Runs side by side: what they are called, in what they differ, how they do."""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from leafe_jax.evaluation.palette import Ink, inks_of
from leafe_jax.watch import reading
from leafe_jax.watch.run import WatchedRun, differences

_EVALUATE = 'evaluate/'


class Runs:
  """Some runs; those of a study's seeds are found as they begin.

  Attributes:
    name: of the page.

  Args:
    places: directories of runs or of studies.
  """

  def __init__(self, places: Sequence[pathlib.Path]):
    self._places = [pathlib.Path(os.path.abspath(place)) for place in places]
    self._runs: dict[pathlib.Path, WatchedRun] = {}
    names = name_apart(self._places)
    self.name = ', '.join(names) if len(names) < 4 else f'{len(names)} runs'

  def _known(self) -> list[WatchedRun]:
    """In their order; a run keeps its number as long as those before it stay."""
    found = list(itertools.chain(*map(runs_in, self._places)))
    for path in found:
      if path not in self._runs:
        self._runs[path] = WatchedRun(path)
    return [self._runs[path] for path in dict.fromkeys(found)]

  def find(self, query: Mapping[str, str]) -> WatchedRun:
    """The run that a query names by its number. LookupError without one."""
    known, number = self._known(), query.get('run', '')
    if not number.isascii() or not number.isdigit() or len(number) > 6:
      raise LookupError('run= is no number')
    if int(number) >= len(known):
      raise LookupError(f'there is no run {number}')
    return known[int(number)]

  def at(self, query: Mapping[str, str]) -> pathlib.Path:
    """As `find`: its directory."""
    return self.find(query).path

  def state(self) -> dict[str, Any]:
    """Everything but trees; JSON types."""
    known = self._known()
    names = name_apart([run.path for run in known])
    inks = inks_of([f'run {name}' for name in names])
    states = [
        {'name': name, 'ink': _pair(ink), **run.state()}
        for name, ink, run in zip(names, inks.values(), known, strict=True)
    ]
    return {
        'name': self.name, 'runs': states, 'arms': _arms(states),
        'differences': differences(known) if len(known) > 1 else [],
    }


def _pair(ink: Ink) -> list[str]:
  return [ink.light, ink.dark]


def _arms(states: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """The evaluated arms of all runs, with colours of their own."""
  found = [
      (source['name'].removeprefix(_EVALUATE), state['name'], source['passk'])
      for state in states for source in state['sources'] if source['passk']
  ]  # fmt: skip
  alone = len(states) == 1
  labels = [arm if alone else f'{run} · {arm}' for arm, run, _ in found]
  inks = inks_of(labels)
  return [
      {
          'name': label, 'ink': _pair(inks[label]), 'band': len(found) < 5,
          'dash': ' '.join(map(str, inks[label].dash)), **figures,
      }
      for label, (_, _, figures) in zip(labels, found, strict=True)
  ]


def runs_in(place: pathlib.Path) -> list[pathlib.Path]:
  """The directory itself, or the runs of a study's seeds in it."""
  seeds = [
      path for path in reading.subdirectories(place)
      if path.name.startswith('seed_') and (path / 'config.json').exists()
  ]  # fmt: skip
  return seeds or [place]


def name_apart(places: Sequence[pathlib.Path]) -> list[str]:
  """The shortest ends of paths that tell them apart."""
  longest = max((len(place.parts) for place in places), default=1)
  for count in range(1, longest + 1):
    names = ['/'.join(place.parts[-count:]) for place in places]
    if len(set(names)) == len(set(places)):
      return names
  return [str(place) for place in places]
