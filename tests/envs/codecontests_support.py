"""What tests of programs share: the sandbox, and where the data lies."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib

import pytest

from envs import api
from envs.codecontests import problems
from envs.codecontests.env import CodeWorld
from envs.codecontests.judge import Judge
from envs.codecontests.problems import Problem
from envs.codecontests.sandbox import Limits, Sandbox, SandboxUnavailable
from envs.codecontests.view import TextView

_ROOT = pathlib.Path(__file__).parents[2]
DATA_DIR = pathlib.Path(
    os.environ.get('LEAFE_DATA_DIR', _ROOT.parent / 'shared' / 'data')
)
CONTESTS = DATA_DIR / 'codecontests_sample' / 'problems_129.jsonl'
LIMITS = Limits()
MBPP = DATA_DIR / 'mbpp' / 'mbpp.jsonl'


@functools.cache
def sandbox() -> Sandbox:
  """The sandbox; skips the test where programs cannot be isolated."""
  try:
    return Sandbox()
  except SandboxUnavailable as error:
    pytest.skip(str(error))


@functools.cache
def judge() -> Judge:
  return Judge(sandbox(), workers=2)


def needs(path: pathlib.Path) -> pytest.MarkDecorator:
  return pytest.mark.skipif(
      not path.exists(),
      reason=f'needs {path.name}; set LEAFE_DATA_DIR to the directory above its own',
  )


def adding() -> Problem:
  """Reads two numbers and prints their sum; two public tests, two hidden."""
  cases = [('1 2\n', '3\n'), ('5 5\n', '10\n'), ('40 2\n', '42\n'), ('-7 7\n', '0\n')]
  tests = tuple(problems.Test(*case) for case in cases)
  return Problem(
      'adding', 'train', 'Print the sum of two numbers.', 'stdio', tests[:2],
      tests[2:], time_limit=1,
  )  # fmt: skip


def world(**options) -> CodeWorld:
  """The adding problem in all splits but for its text, judged for real."""
  found = [
      dataclasses.replace(
          adding(), id=split, split=split, statement=f'{split}: print the sum.'
      )
      for split in api.SPLITS
  ]
  return CodeWorld('codecontests-adding', found, judge(), TextView(), **options)
