"""What a compiled program moves, read from its HLO text.

XLA's own cost analysis counts the body of a loop once. Here a body counts as
often as its loop runs, which the loop's condition tells; a loop whose end
depends on data (decoding) counts as often as the caller says.

Traffic is that of main memory: operands and results of everything that is not
inside a fusion. What lives in on-chip memory, S(1) in TPU layouts, is left
out; of an operand that is only sliced just the slices are counted, of one that
is updated in place just the updates, and of a pool of pages those in the table
of the kernel that reads it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Iterator

from leafe_jax.sampler import ragged

_BYTES = {
    'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2, 's32': 4,
    'u32': 4, 'f32': 4, 's64': 8, 'u64': 8, 'f64': 8,
}  # fmt: skip
_ARRAY = re.compile(r'\b([a-z]+\d*)\[([\d,]*)\](\{[^{}]*\})?')
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^(ROOT )?%([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$')
_NAME = re.compile(r'%([\w.-]+)')
_CALLED = re.compile(
    r'(?:calls|body|to_apply|branch_computations)=\{?(%[\w.-]+(?:, %[\w.-]+)*)'
)
_GROUPS = re.compile(r'replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]+)\})')
_ALIAS = re.compile(r'\{\d*\}: \((\d+),')
_MESH_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
COLLECTIVES = (
    'all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute',
)  # fmt: skip
# Names for values that are elsewhere, or bookkeeping.
_FREE = (
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while',
    'conditional', 'call', 'after-all', 'partition-id', 'replica-id', 'iota',
    'copy-done', 'slice-done', 'async-done', 'all-gather-done', 'all-reduce-done',
    'collective-permute-done', 'opt-barrier',
)  # fmt: skip
_UPDATES = ('dynamic-update-slice', 'scatter')  # in place
_SLICES = ('dynamic-slice', 'slice', 'gather', 'slice-start')


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  Attributes:
    name: without '%'.
    shape: text of the result's type.
    opcode: 'fusion', 'all-gather', ...
    operands: their names.
    attributes: the text after the opening bracket.
    is_root: whether it is the computation's result.
  """

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  attributes: str
  is_root: bool

  @functools.cached_property
  def called(self) -> tuple[str, ...]:
    return tuple(
        name for found in _CALLED.findall(self.attributes)
        for name in _NAME.findall(found)
    )


@dataclasses.dataclass(frozen=True)
class Collective:
  """Collectives of one kind and group size.

  Attributes:
    kind: 'all-gather', ...
    devices: that take part in each.
    count: executions per call of the program.
    bytes: results of all of them, per device.
  """

  kind: str
  devices: int
  count: int
  bytes: float

  @property
  def sent(self) -> float:
    """Bytes that a device sends, by ring algorithms."""
    share = (self.devices - 1) / self.devices
    if self.kind == 'all-reduce':
      return 2 * share * self.bytes
    if self.kind == 'reduce-scatter':
      return (self.devices - 1) * self.bytes
    return share * self.bytes if self.kind != 'collective-permute' else self.bytes


@dataclasses.dataclass(frozen=True)
class Traffic:
  """What a device moves in one call of a program.

  Attributes:
    memory: bytes read from and written to main memory.
    collectives: by kind and group size.
  """

  memory: float
  collectives: tuple[Collective, ...]

  @property
  def sent(self) -> float:
    return sum(collective.sent for collective in self.collectives)


class Module:
  """A compiled module; `text` is that of `jax.stages.Compiled.as_text()`."""

  def __init__(self, text: str):
    self.entry = ''
    self.computations: dict[str, dict[str, Instruction]] = {}
    self._parse(text)

  def traffic(self, *, open_loop: int = 1) -> Traffic:
    """Of one call; loops that end by data run `open_loop` times."""
    memory = 0.0
    found: dict[tuple[str, int], tuple[int, float]] = {}
    for name, runs in self._runs(open_loop):
      for instruction in self.computations[name].values():
        memory += runs * self._moved(name, instruction)
        for inner in self._collectives(instruction):
          key = (_kind(inner), _group_size(inner.attributes))
          count, size = found.get(key, (0, 0.0))
          found[key] = (count + runs, size + runs * _result_bytes(inner))
    collectives = (Collective(*key, *sums) for key, sums in sorted(found.items()))
    return Traffic(memory, tuple(collectives))

  def _parse(self, text: str) -> None:
    current: dict[str, Instruction] = {}
    for line in text.splitlines():
      if head := _COMPUTATION.match(line):
        current = self.computations.setdefault(head[2], {})
        self.entry = head[2] if head[1] else self.entry
      elif found := _INSTRUCTION.match(line.strip()):
        inside = found[5].partition(')')[0]
        current[found[2]] = Instruction(
            found[2], found[3], found[4], tuple(_NAME.findall(inside)),
            found[5], bool(found[1]),
        )

  def _runs(self, open_loop: int) -> Iterator[tuple[str, int]]:
    """Computations outside of fusions, with how often each runs."""
    waiting = [(self.entry, 1)]
    while waiting:
      name, runs = waiting.pop()
      yield name, runs
      for instruction in self.computations[name].values():
        if instruction.opcode in ('while', 'call', 'conditional'):
          times = self._trips(instruction, open_loop)
          waiting += [(inner, runs * times) for inner in instruction.called]

  def _trips(self, instruction: Instruction, open_loop: int) -> int:
    if instruction.opcode != 'while':
      return 1
    found = re.search(r'condition=%([\w.-]+)', instruction.attributes)
    assert found is not None  # every while has one
    condition = self.computations[found[1]]
    root = next(i for i in condition.values() if i.is_root)
    if root.opcode != 'compare' or 'direction=LT' not in root.attributes:
      return open_loop
    limit = condition.get(root.operands[-1])
    if limit is None or limit.opcode != 'constant':
      return open_loop
    return int(limit.attributes.partition(')')[0])

  def _collectives(self, instruction: Instruction) -> Iterator[Instruction]:
    """The collective that an instruction starts, also inside a fusion."""
    if _kind(instruction):
      yield instruction
    elif instruction.opcode == 'fusion' and 'done' not in instruction.name:
      for inner in self._inside(instruction):
        # A fusion that only carries a collective on takes part in it again.
        if _kind(inner) and 'async_collective_fusion' not in instruction.called[0]:
          yield inner

  def _inside(self, instruction: Instruction) -> Iterable[Instruction]:
    for name in instruction.called:
      yield from self.computations.get(name, {}).values()

  def _moved(self, computation: str, instruction: Instruction) -> float:
    if instruction.opcode in _FREE or _kind(instruction):
      return 0.0
    known = self.computations[computation]
    sources = [known[name].shape for name in instruction.operands if name in known]
    result = _main_memory_bytes(instruction.shape)
    if instruction.opcode in ('copy-start', 'slice-start'):
      return min(result, sum(map(_main_memory_bytes, sources[:1])))
    if instruction.opcode in _SLICES:
      return 2 * result
    if instruction.opcode in _UPDATES:
      return 2 * _main_memory_bytes(sources[_place_of_update(instruction)])
    if instruction.opcode == 'fusion':
      return self._moved_by_fusion(instruction, sources, result)
    read = sum(map(_main_memory_bytes, sources))
    if instruction.name.startswith('ragged_paged_attention'):
      read += _pages_read(sources) - _main_memory_bytes(sources[-1])
    return result + read

  def _moved_by_fusion(
      self, instruction: Instruction, sources: list[str], result: float
  ) -> float:
    inside = list(self._inside(instruction))
    shapes = {inner.name: inner.shape for inner in inside}
    moved = result
    for update in inside:
      if update.opcode in _UPDATES:  # in place: only what is written moves
        moved -= _main_memory_bytes(update.shape)
        moved += _all_bytes(shapes.get(update.operands[_place_of_update(update)], ''))
    carried = _carried(instruction)
    moved = max(moved - sum(_main_memory_bytes(sources[i]) for i in carried), 0.0)
    for index, source in enumerate(sources):
      if index not in carried:
        moved += self._read_by_fusion(instruction, index, _main_memory_bytes(source))
    return moved

  def _read_by_fusion(
      self, instruction: Instruction, index: int, whole: float
  ) -> float:
    """Bytes of an operand that a fusion, or one within it, reads."""
    inside = list(self._inside(instruction))
    parameter = f'{index})'
    found = sum(
        self._read_of(inner.name, inside, whole)
        for inner in inside
        if inner.opcode == 'parameter' and inner.attributes.startswith(parameter)
    )
    return min(whole, found)

  def _read_of(self, name: str, inside: list[Instruction], whole: float) -> float:
    total = 0.0
    for user in inside:
      for index in (i for i, operand in enumerate(user.operands) if operand == name):
        if user.opcode in _SLICES:
          total += _all_bytes(user.shape)
        elif user.opcode == 'bitcast':
          total += self._read_of(user.name, inside, whole)
        elif user.opcode == 'fusion':
          total += self._read_by_fusion(user, index, whole)
        elif user.opcode not in _UPDATES or index:
          return whole
    return total


def _carried(instruction: Instruction) -> set[int]:
  """Operands that a fusion only hands on: a collective under way."""
  if not instruction.called[0].startswith('async_collective_fusion'):
    return set()
  aliases = instruction.attributes.partition('output_to_operand_aliasing={')[2]
  return {int(i) for i in _ALIAS.findall(aliases.partition('}}')[0] + '}')}


def _place_of_update(instruction: Instruction) -> int:
  """Among operands: (array, update, place...) or (array, indices, updates)."""
  return 1 if instruction.opcode == 'dynamic-update-slice' else 2


def _pages_read(sources: list[str]) -> float:
  """By ragged paged attention: all pages of a row for every block of queries.

  Args:
    sources: types of (lengths, table [B, p], ..., queries [B * T, N, H], pool).
  """
  table, queries, pool = (_sizes(sources[place]) for place in (1, -2, -1))
  page = _all_bytes(sources[-1]) / pool[0]
  length = queries[0] // table[0]
  blocks = -(-length // ragged.block_queries(length, queries[1]))
  return page * table[0] * table[1] * blocks


def _sizes(shape: str) -> list[int]:
  """Of the first array of a type."""
  return [int(size) for size in _ARRAY.findall(shape)[0][1].split(',')]


def _kind(instruction: Instruction) -> str:
  name = instruction.opcode.removesuffix('-start')
  return name if name in COLLECTIVES else ''


def _group_size(attributes: str) -> int:
  if found := _MESH_GROUPS.search(attributes):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", found[2]))
  if found := _GROUPS.search(attributes):
    return int(found[1]) if found[1] else found[2].count(',') + 1
  return 2  # a permutation names pairs


def _result_bytes(instruction: Instruction) -> float:
  """Of a collective; a '-start' also returns its operand, which is smaller."""
  sizes = [size for size, _ in _arrays(instruction.shape)]
  if instruction.opcode.endswith('-start'):
    return max(sizes, default=0.0)
  return sum(sizes)


def _arrays(shape: str) -> Iterator[tuple[float, bool]]:
  """Bytes of each array of a type, and whether it lies in main memory."""
  for kind, sizes, layout in _ARRAY.findall(shape):
    if kind in _BYTES:
      count = math.prod(int(size) for size in sizes.split(',') if size)
      yield float(count * _BYTES[kind]), 'S(' not in layout


def _all_bytes(shape: str) -> float:
  return sum(size for size, _ in _arrays(shape))


def _main_memory_bytes(shape: str) -> float:
  return sum(size for size, main in _arrays(shape) if main)
