"""Programming problems and their tests, as plain data."""

from __future__ import annotations

import dataclasses

# How a program is called: as a whole with stdin and stdout, or through its
# functions by lines of test code.
KINDS = ('stdio', 'function')


@dataclasses.dataclass(frozen=True)
class Test:
  """One test.

  Attributes:
    input: stdin, or test code that raises if the program is wrong.
    output: expected stdout, compared token by token; '' for test code.
  """

  input: str
  output: str = ''


@dataclasses.dataclass(frozen=True)
class Problem:
  """One problem.

  Attributes:
    id: unique in its data set.
    split: one of `envs.api.SPLITS`.
    statement: what the agent reads.
    kind: one of `KINDS`.
    public: tests that feedback may show.
    hidden: tests that nothing may show.
    setup: code that runs between the program and test code.
    time_limit: CPU seconds for each test.
    memory_mb: memory for each test.
    difficulty: the data set's word for it; '' where it has none.
    before: code that runs before the program, in its names: what a prompt
      imports and defines.
    entry: the function that test code calls.
    examples: tests that stand in the statement and may be wrong; see
      `examples.confirm`, which makes public tests of them and leaves none.
    reference: a solution of the data set in Python 3, for that and for scripted
      teachers; '' without.
  """

  id: str
  split: str
  statement: str
  kind: str
  public: tuple[Test, ...]
  hidden: tuple[Test, ...]
  setup: str = ''
  time_limit: int = 2
  memory_mb: int = 256
  difficulty: str = ''
  # Follow from the statement, or are gone before a world is named by its problems.
  before: str = dataclasses.field(default='', repr=False)
  entry: str = dataclasses.field(default='', repr=False)
  examples: tuple[Test, ...] = dataclasses.field(default=(), repr=False)
  reference: str = dataclasses.field(default='', repr=False)

  def __post_init__(self) -> None:
    if self.kind not in KINDS:
      raise ValueError(
          f'problem {self.id}: unknown kind {self.kind!r}; choose from '
          + ', '.join(KINDS)
      )
    if not self.public and not self.hidden:
      raise ValueError(f'problem {self.id} has no tests')
