"""All rule pools of a run, by key, with the successes that rules refer to.

The file is meant to be read: indented JSON, rules first, each with its utility
and where it came from, then the log of all edits.
"""

from __future__ import annotations

import json
import pathlib
import random
from collections.abc import Mapping
from typing import Any

from leafe_jax.files import read_object, write_atomic
from leafe_jax.memory.rules import Limits, Pool, Rule

SCHEMA_VERSION = 1
FILE = 'rules.json'


class RuleBook:
  """Pools by key; a missing one is empty.

  Attributes:
    pools: key -> pool.
    references: key -> compact transcripts of successes, newest last.
    step: training step that it was last changed in.
  """

  def __init__(self, limits: Limits):
    self.pools: dict[str, Pool] = {}
    self.references: dict[str, list[str]] = {}
    self.step = 0
    self._limits = limits

  def pool(self, key: str) -> Pool:
    """The pool of that key, made when first asked for."""
    return self.pools.setdefault(key, Pool(self._limits))

  def top(self, key: str, count: int) -> list[Rule]:
    """The best rules of a key; none for a key that was never seen."""
    return self.pools[key].best(count) if key in self.pools else []

  def at_random(self, count: int, rng: random.Random) -> list[Rule]:
    """Rules of all pools without regard to key or utility."""
    everything = [rule for pool in self.pools.values() for rule in pool.rules.values()]
    return rng.sample(everything, min(count, len(everything)))

  def remember(self, key: str, transcript: str, most: int) -> None:
    """Keeps the newest successes of a key, each once."""
    kept = [text for text in self.references.get(key, []) if text != transcript]
    self.references[key] = [*kept, transcript][-most:] if most else []

  def num_rules(self) -> int:
    return sum(len(pool.rules) for pool in self.pools.values())

  def to_json(self) -> dict[str, Any]:
    return {
        'schema': SCHEMA_VERSION,
        'step': self.step,
        'references': {key: list(texts) for key, texts in self.references.items()},
        'pools': {key: pool.to_json() for key, pool in self.pools.items()},
    }

  @classmethod
  def from_json(cls, record: Mapping[str, Any], limits: Limits) -> RuleBook:
    """Inverse of `to_json`. ValueError on another schema version."""
    if record.get('schema') != SCHEMA_VERSION:
      raise ValueError(
          f'rule book schema {record.get("schema")!r}; this code reads '
          f'{SCHEMA_VERSION}'
      )
    book = cls(limits)
    book.step = record['step']
    book.references = {key: list(texts) for key, texts in record['references'].items()}
    book.pools = {
        key: Pool.from_json(pool, limits) for key, pool in record['pools'].items()
    }
    return book

  def write(self, directory: pathlib.Path) -> None:
    """Writes `FILE` whole or not at all."""
    text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
    write_atomic(directory / FILE, text + '\n')


def read_book(directory: pathlib.Path, limits: Limits) -> RuleBook:
  """The book of a directory. FileNotFoundError where there is none."""
  return RuleBook.from_json(read_object(directory / FILE), limits)
