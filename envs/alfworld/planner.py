"""Fast Downward's library: translated problems, and states by number.

The library keeps every state it has seen under a number, and can go back to it
(`get_state_id`, `set_state_id`); that is what makes snapshots exact and cheap.
A number is good for as long as the same problem is loaded. Every loaded library
is a copy of its own, 34 MB on disk that are gone when it is closed, so a few are
shared by all games; loading another problem takes a fraction of a millisecond.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import re
import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from envs.alfworld import package
from envs.alfworld.grammar import Atom

_ATOM = re.compile(r'(?P<sign>\w+) (?P<predicate>[\w@-]+)\((?P<arguments>[^)]*)\)')
_TRUE, _NEGATED = ord('A'), 'NegatedAtom'


@dataclasses.dataclass(frozen=True)
class Program:
  """A translated problem.

  Attributes:
    sas: what the library loads, compressed.
    initial: atoms that are true at the start, those that never change among them.
    types: the type of every thing.
    parameters: names and types of every action's placeholders.
  """

  sas: bytes
  initial: tuple[Atom, ...]
  types: Mapping[str, str]
  parameters: Mapping[str, tuple[tuple[str, str], ...]]


@functools.lru_cache(maxsize=1024)
def translate(domain: str, problem: str) -> Program:
  """PDDL to what the library loads; 0.03 to 1 s, by the size of the room. Cached."""
  arguments = sys.argv  # the package overwrites them
  try:
    task, sas = package.planner_package().pddl2sas(domain, problem)
  finally:
    sys.argv = arguments
  # Atoms alone: costs of actions have no predicate.
  initial = [
      (atom.predicate, tuple(atom.args))
      for atom in task.init
      if hasattr(atom, 'predicate') and atom.predicate != '='
  ]
  parameters = {
      action.name: tuple((p.name.strip('?'), p.type_name) for p in action.parameters)
      for action in task.actions
  }
  types = {thing.name: thing.type_name for thing in task.objects}
  return Program(zlib.compress(sas.encode(), 1), tuple(initial), types, parameters)


@dataclasses.dataclass(frozen=True)
class Operator:
  """An action with its arguments; `id` is its number in the problem."""

  id: int
  action: str
  arguments: tuple[str, ...]
  num_effects: int


class Planner:
  """One loaded library. Not thread-safe."""

  def __init__(self) -> None:
    self._package = package.planner_package()
    self._library = self._package.load_lib()
    for name in ('get_state_id', 'get_state_size', 'get_applicable_operators_count'):
      getattr(self._library, name).restype = ctypes.c_int
    self._library.set_state_id.argtypes = [ctypes.c_int]
    self._library.set_state_id.restype = None
    self._atoms: Any = None
    self._names: list[Atom] = []
    self._operators: dict[int, Operator] = {}

  def load(self, program: Program) -> None:
    """Starts a problem; the numbers of states before are void."""
    self._library.load_sas(zlib.decompress(program.sas))
    size = self._library.get_state_size()
    self._atoms = (self._package.Atom * size)()
    self._library.get_state(self._atoms)
    self._names = [_parse(atom.name)[1] for atom in self._atoms]
    self._operators = {}

  def state(self) -> int:
    """The number of the present state."""
    return self._library.get_state_id()

  def go_to(self, state: int) -> None:
    self._library.set_state_id(state)

  def is_won(self) -> bool:
    return bool(self._library.check_goal())

  def changing(self) -> Sequence[Atom]:
    """Atoms of the loaded problem that can change."""
    return self._names

  def true_atoms(self) -> list[Atom]:
    """Atoms that can change and are true now."""
    self._library.get_state(self._atoms)
    size = ctypes.sizeof(self._package.Atom)
    table = np.frombuffer(self._atoms, np.uint8).reshape(-1, size)
    return [self._names[i] for i in np.flatnonzero(table[:, 0] == _TRUE)]

  def operators(self) -> list[Operator]:
    """What can be done now, in the library's order."""
    count = self._library.get_applicable_operators_count()
    found = (self._package.Operator * count)()
    self._library.get_applicable_operators(found)
    return [self._operators.get(op.id) or self._remember(op) for op in found]

  def _remember(self, found: Any) -> Operator:
    action, *arguments = found.name.split()
    operator = Operator(found.id, action, tuple(arguments), found.nb_effect_atoms)
    self._operators[operator.id] = operator
    return operator

  def apply(self, operator: Operator) -> list[tuple[bool, Atom]]:
    """Does it; (whether it is true from now on, atom) of each effect."""
    effects = (self._package.Atom * operator.num_effects)()
    self._library.apply_operator(operator.id, effects)
    return [_parse(effect.name) for effect in effects]

  def close(self) -> None:
    """Frees the library; may be called twice."""
    if self._library is not None:
      self._package.close_lib(self._library)
      self._library = None


def _parse(name: str) -> tuple[bool, Atom]:
  found = _ATOM.fullmatch(name)
  if found is None:
    raise ValueError(f'not an atom: {name!r}')
  arguments: Sequence[str] = found['arguments'].split(', ')
  atom = (found['predicate'], tuple(a for a in arguments if a))
  return found['sign'] != _NEGATED, atom
