"""Generated tasks in the tiny language of `compact`: need no data.

A task is a choice of one member of each of its families, seen through examples.
Its first example shows in the statement, another one only once it fails, and
hidden tests tell every two choices apart. Splits share neither a text nor a
choice. The tasks have their own seed and are the same in every run.
"""

from __future__ import annotations

import itertools
import random

from envs.api import SPLITS, observation_hash
from envs.codecontests import compact
from envs.codecontests.problems import Problem, Test

# Choices are dealt to splits in blocks.
_DEAL = ('train',) * 7 + ('validation',) + ('test',) * 2
_MAX_MISSES = 500


def build(
    clauses: int = 4,
    public_tests: int = 2,
    hidden_tests: int = 8,
    train_tasks: int = 2400,
    validation_tasks: int = 150,
    test_tasks: int = 200,
    seed: int = 0,
) -> tuple[Problem, ...]:
  """Generates problems; the same options give the same ones.

  Args:
    clauses: numbers that a program prints, 1 to 4; more is harder.
    public_tests: examples that feedback may show, the statement's included.
    hidden_tests: further examples.
    train_tasks, validation_tasks, test_tasks: sizes of the splits.
    seed: of the tasks, independent of a run's seed.

  Raises:
    ValueError: an option is out of range, or there are too few different
      tasks; names the option.
  """
  counts = (train_tasks, validation_tasks, test_tasks)
  _check('clauses', clauses, 1, min(compact.MAX_CLAUSES, len(compact.FAMILIES)))
  _check('public_tests', public_tests, 1, 8)
  _check('hidden_tests', hidden_tests, 4, 64)
  for split, count in zip(SPLITS, counts, strict=True):
    _check(f'{split}_tasks', count, 0, 100_000)
  rng = random.Random(seed)
  choices = _deal_choices(clauses, rng)
  problems: list[Problem] = []
  texts: set[str] = set()
  for split, count in zip(SPLITS, counts, strict=True):
    found = misses = 0
    for draw in itertools.count():
      if found == count:
        break
      if misses == _MAX_MISSES or not choices[split]:
        raise ValueError(
            f'{split}_tasks is {count}; there are hardly more than {found} '
            'different ones: raise clauses or lower it'
        )
      families, program = choices[split][draw % len(choices[split])]
      problem = _draw(split, families, program, public_tests, hidden_tests, rng)
      if problem is not None and problem.statement not in texts:
        texts.add(problem.statement)
        problems.append(problem)
        found, misses = found + 1, 0
      else:
        misses += 1
  return tuple(problems)


def _check(name: str, value: int, least: int, most: int) -> None:
  if not least <= value <= most:
    raise ValueError(f'{name} is {value}; it must be between {least} and {most}')


def _deal_choices(
    clauses: int, rng: random.Random
) -> dict[str, list[tuple[tuple[str, ...], compact.Program]]]:
  """(families, program) by split, in random order."""
  every = [
      (families, program)
      for families in itertools.permutations(compact.FAMILIES, clauses)
      for program in compact.rivals(families)
  ]
  rng.shuffle(every)
  dealt: dict[str, list[tuple[tuple[str, ...], compact.Program]]] = {
      split: [] for split in SPLITS
  }
  cards: list[str] = []
  for choice in every:
    cards = cards or rng.sample(_DEAL, len(_DEAL))
    dealt[cards.pop()].append(choice)
  return dealt


def _draw(
    split: str,
    families: tuple[str, ...],
    program: compact.Program,
    num_public: int,
    num_hidden: int,
    rng: random.Random,
) -> Problem | None:
  """A problem; None if its hidden tests would accept another program."""
  inputs = [
      tuple(rng.choices(compact.DIGITS, k=compact.NUM_DIGITS))
      for _ in range(num_public + num_hidden)
  ]
  examples = [
      compact.Example(digits, compact.run(program, digits)) for digits in inputs
  ]
  hidden = examples[num_public:]
  for rival in compact.rivals(families):
    if rival != program and all(
        compact.run(rival, example.input) == example.output for example in hidden
    ):
      return None
  statement = compact.write_statement(families, examples[0])
  tests = [
      Test(compact.write_numbers(example.input), compact.write_numbers(example.output))
      for example in examples
  ]
  words = f'{statement} {" ".join(program)}'
  return Problem(
      id=observation_hash(words),
      split=split,
      statement=statement,
      kind='stdio',
      public=tuple(tests[:num_public]),
      hidden=tuple(tests[num_public:]),
  )
