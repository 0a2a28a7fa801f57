"""Programs run as their graders run them, and every end has its word."""

from __future__ import annotations

import dataclasses

import pytest

from envs.codecontests import cgroups, completion, problems, sandbox
from envs.codecontests.judge import Verdict
from tests.envs import codecontests_support as support

DOUBLE = problems.Problem(
    'double', 'train', 'Write double(x).', 'function',
    (problems.Test('assert double(2) == 4'),), (), time_limit=1, entry='double',
)  # fmt: skip
GOOD = 'def double(x):\n  return 2 * x\n'
BAD = GOOD.replace('2 * x', '0')


def outcome(program, test='', problem=DOUBLE, **changes):
  problem = dataclasses.replace(problem, **changes)
  given = problems.Test(test) if test else problem.public[0]
  return support.judge().run(problem, program, given)


def whole(program, given='', wanted='3', **limits):
  """The verdict on a program that reads and prints."""
  problem = dataclasses.replace(support.adding(), **limits)
  return support.judge().run(problem, program, problems.Test(given, wanted)).verdict


@pytest.mark.parametrize(
    'program',
    [
        'print(3)\nexit()',
        'print(3)\nquit(0)',
        'import sys\nprint(3)\nsys.exit()',
        'print(len(str(10 ** 9999)) - 9997)',
        'print(int("9" * 5000) % 10 - 6)',
        '\ufeffprint(3)',
        '# -*- coding: latin-1 -*-\nprint(3)',
        'if __name__ == "__main__":\n  print(3)',
        'import __main__\nx = 3\nprint(__main__.x)',
        'import sys\nassert len(sys.argv) == 1 and __file__ == sys.argv[0]\nprint(3)',
        'import dataclasses\n@dataclasses.dataclass\nclass A:\n  x: int\nprint(A(3).x)',
        'import pickle\nclass A: pass\npickle.loads(pickle.dumps(A()))\nprint(3)',
        'import threading\nt = threading.Thread(target=print, args=(3,))\nt.start()',
        'from __future__ import annotations\nprint(3)',
        'import sys\nsys.stderr.write("MemoryError: none")\nprint(3)',
        'import sys\nsys.stderr.write("x" * 3_000_000)\nprint(3)',
    ],
)
def test_whole_programs_run_as_by_their_graders(program):
  assert whole(program) is Verdict.OK


@pytest.mark.parametrize(
    'program, expected',
    [
        ('import mmap\nmmap.mmap(-1, 1 << 40)', Verdict.MEMORY_LIMIT),
        ('x = bytearray(b"x") * (1 << 29)', Verdict.MEMORY_LIMIT),
        (
            'import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n'
            'while True: pass', Verdict.TIME_LIMIT,
        ),
        (
            'import signal, sys\n'
            'signal.signal(signal.SIGXCPU, lambda *a: sys.exit(1))\n'
            'while True: pass', Verdict.TIME_LIMIT,
        ),
        ('import sys\nsys.stderr.write("MemoryError")\n1 / 0', Verdict.RUNTIME_ERROR),
        ('assert False, "one\\ntwo"', Verdict.RUNTIME_ERROR),
        ('raise ValueError("MemoryError\\nMemoryError")', Verdict.RUNTIME_ERROR),
        ('exec("def")', Verdict.RUNTIME_ERROR),
        ('x = "\x00"', Verdict.COMPILE_ERROR),
        ('(' * 5000, Verdict.COMPILE_ERROR),
        ('exit(1)', Verdict.RUNTIME_ERROR),
        ('import os\nos.close(1)', Verdict.WRONG_ANSWER),
    ],
)  # fmt: skip
def test_every_end_of_a_whole_program_has_its_word(program, expected):
  # Half a gigabyte is not touched in a second everywhere.
  limit = 1 if expected is Verdict.TIME_LIMIT else 10
  assert whole(program, time_limit=limit) is expected


@pytest.mark.parametrize(
    'program, wanted, wrong',
    [
        ('print("yes")', 'YES', 'no'),
        ('print(1 / 3)', '0.333333', '1 / 2.999'),
        ('print(*[2.0, 1e-9])', '2 0.000000001', '3'),
        ('print(10 ** 30)', '1e30', '10 ** 29'),
    ],
)
def test_special_outputs_are_compared_as_by_the_official_checker(
    program, wanted, wrong
):
  assert whole(program, wanted=wanted) is Verdict.OK
  assert whole(f'print({wrong!r})', wanted=wanted) is Verdict.WRONG_ANSWER


def test_output_as_long_as_expected_is_no_output_limit():
  wanted = 'x ' * 650_000
  assert whole('print("x " * 650_000)', wanted=wanted) is Verdict.OK
  assert whole('print("y " * 650_000)', wanted=wanted) is Verdict.WRONG_ANSWER
  assert whole('while True: print("x " * 9999)', wanted=wanted) is Verdict.OUTPUT_LIMIT


def test_addresses_are_not_memory():
  stacks = (
      'import threading\nthreading.stack_size(256 << 20)\n'
      't = threading.Thread(target=print, args=(3,))\nt.start()\nt.join()'
  )
  threads = (
      'import threading, time\n'
      'ts = [threading.Thread(target=time.sleep, args=(.1,)) for _ in range(16)]\n'
      'for t in ts: t.start()\nfor t in ts: t.join()\nprint(3)'
  )
  for program in (stacks, threads):
    assert whole(program, memory_mb=244) is Verdict.OK
  assert whole('x = bytearray(b"x") * (400 << 20)', memory_mb=244) is (
      Verdict.MEMORY_LIMIT
  )


def test_without_control_groups_memory_is_watched(monkeypatch):
  monkeypatch.setattr(cgroups, 'create', lambda *limits: cgroups.Group(()))
  program = 'import time\nx = bytearray(b"x") * (300 << 20)\ntime.sleep(20)\nprint(3)'
  assert whole(program, memory_mb=128) is Verdict.MEMORY_LIMIT
  assert whole('x = bytearray(b"x") * (50 << 20)\nprint(3)', memory_mb=128) is (
      Verdict.OK
  )


def test_a_sandbox_that_starts_nothing_is_not_the_programs_fault(monkeypatch):
  support.sandbox()
  monkeypatch.setattr(sandbox, '_PYTHON', '/usr/bin/no-python')
  with pytest.raises(sandbox.SandboxFailed, match='no-python'):
    whole('print(3)')
  with pytest.raises(sandbox.SandboxFailed, match='no-python'):
    outcome(GOOD)


@pytest.mark.parametrize(
    'program',
    [
        GOOD + 'if __name__ == "__main__":\n  import sys\n  sys.exit(int(input()))',
        GOOD + 'print = None',
        GOOD + 'import sys\nsys.stdout.close()',
        GOOD + 'import os\nos.close(1)\nos.close(2)',
        GOOD + 'import threading\nthreading.Timer(.2, lambda: print("late")).start()',
        GOOD + 'import atexit, os\natexit.register(os._exit, 3)',
        GOOD + 'print("x" * 3_000_000)',
        '\ufeff' + GOOD,
        GOOD + 'int("9" * 5000)',
        'double = lambda x: 2 * x',
        'def double(x):\n  try: exit()\n  except SystemExit: return 2 * x',
        'class double:\n  def __new__(cls, x): return 2 * x',
        'import sys\nsys.setrecursionlimit(9999)\n' + GOOD,
    ],
)
def test_functions_run_as_by_their_graders(program):
  assert outcome(program).verdict is Verdict.OK, outcome(program)


FORGERIES = [
    'print("passed")\nraise SystemExit(0)',
    'import os\nos._exit(0)',
    'import sys\nsys.exit(0)',
    'exit = quit = None\nimport builtins\nbuiltins.AssertionError = ValueError',
    'class Same:\n  def __eq__(self, other): return True\n'
    '  def __sub__(self, other): return 0\n  __rsub__ = __sub__\n'
    'def double(x): return Same()',
    # To every descriptor, its own and those of others.
    'import os\nfor pid in filter(str.isdigit, os.listdir("/proc")):\n'
    '  for fd in range(20):\n'
    '    for word in (b"passed 0 ", b"  passed 0 "):\n'
    '      try: os.write(os.open(f"/proc/{pid}/fd/{fd}", os.O_WRONLY), word)\n'
    '      except OSError: pass\n',
    'import os\nos.kill(os.getppid(), 9)',
    'import os, signal\nos.kill(os.getppid(), signal.SIGINT)',
    'import sys\nsys._getframe().f_back.f_globals.clear()',
    'import gc\nfor x in gc.get_objects():\n'
    '  if type(x).__name__ == "Reporter": x.end("passed")',
    'import os\nif os.fork(): os._exit(0)',
]


@pytest.mark.parametrize('forgery', FORGERIES)
def test_a_program_cannot_say_that_it_passed(forgery):
  assert outcome(BAD + forgery).verdict is not Verdict.OK
  late = BAD.replace('return 0', f'exec({forgery!r})')
  assert outcome(late).verdict is not Verdict.OK


def test_a_program_cannot_read_what_is_expected():
  program = (
      'import gc, os\nfound = []\n'
      'for path in ("/code/main.py", "/code", "/proc/1/fd/0", "/proc/self/fd/0",\n'
      '             f"/proc/{os.getppid()}/fd/0", f"/proc/{os.getppid()}/mem",\n'
      '             f"/proc/{os.getppid()}/environ", "/proc/self/cmdline"):\n'
      '  try: found.append(open(path).read())\n'
      '  except OSError: pass\n'
      'for fd in range(64):\n'
      '  try: found.append(os.pread(fd, 99999, 0).decode("latin-1"))\n'
      '  except OSError: pass\n'
      'found += [str(x) for x in gc.get_objects()]\n'
      'def secret(): return any("48" + "151623" in x for x in found)\n'
      'def double(x): return secret()'
  )
  assert outcome(program, 'assert double(2) is False, 48151623').verdict is Verdict.OK


@pytest.mark.parametrize(
    'program, expected',
    [
        (BAD, Verdict.WRONG_ANSWER),
        ('', Verdict.RUNTIME_ERROR),
        ('def double(x): assert False, "one\\ntwo"', Verdict.RUNTIME_ERROR),
        ('def double(x): return [0] * (1 << 40)', Verdict.MEMORY_LIMIT),
        ('def double(x):\n  while True: pass', Verdict.TIME_LIMIT),
        (
            'import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n'
            'def double(x):\n  while True: pass', Verdict.TIME_LIMIT,
        ),
        ('def double(x): return double(x)', Verdict.RUNTIME_ERROR),
        ('def double(x): exit(1)', Verdict.RUNTIME_ERROR),
        ('import os\nos.kill(os.getpid(), 11)', Verdict.RUNTIME_ERROR),
        ('import os\ndef double(x): os._exit(24)', Verdict.RUNTIME_ERROR),
        ('x = "\x00"', Verdict.COMPILE_ERROR),
        ('def double(x): return input()', Verdict.RUNTIME_ERROR),
        ('def double(x): return object()', Verdict.WRONG_ANSWER),
        ('def double(x): return None', Verdict.WRONG_ANSWER),
    ],
)  # fmt: skip
def test_every_end_of_a_function_has_its_word(program, expected):
  assert outcome(program).verdict is expected


def test_errors_say_what_and_where_in_the_program():
  told = outcome('def double(x):\n  y = 1\n  return x.y')
  assert told.error == "AttributeError: 'int' object has no attribute 'y' (line 3)"
  crash = 'import os\nos.kill(os.getpid(), 11)'
  assert outcome(crash).error == 'killed by SIGSEGV'
  told = support.judge().run(support.adding(), crash, problems.Test('', '3'))
  assert told.error == 'killed by SIGSEGV'
  told = outcome('def double(x): raise ValueError("a\\u2028\\rb")')
  assert (told.verdict, told.error) == (Verdict.RUNTIME_ERROR, 'ValueError: a (line 1)')
  told = outcome(BAD, 'assert double(2) == 4, """one\ntwo"""')
  assert (told.verdict, told.error) == (Verdict.WRONG_ANSWER, 'AssertionError: one')


@pytest.mark.parametrize(
    'program, test',
    [
        # Arguments change as in one process; what is no plain value stays itself.
        ('def f(x): x.append(3)', 'x = [1]\nf(x)\nassert x == [1, 3]'),
        ('def f(x): x["a"] = 1', 'x = {}\nf(x)\nassert x == {"a": 1}'),
        (
            'class Node:\n  def __init__(self, x): self.x, self.next = x, None\n'
            'def f(node): return node.x + node.next.x',
            'a = Node(1)\na.next = Node(2)\nassert f(a) == 3 and a.next.x == 2',
        ),
        ('def f(n):\n  for i in range(n): yield i', 'assert list(f(3)) == [0, 1, 2]'),
        ('def f(n): return map(str, range(n))', 'assert set(f(2)) == {"0", "1"}'),
        ('def f(g): return [g(1), g(2)]', 'assert f(lambda x: -x) == [-1, -2]'),
        ('def f(x, kind): return isinstance(x, kind)', 'assert f(1, int)'),
        ('import re\ndef f(x): return re.match("a", x)',
         'assert f("ab") and not f("b")'),
        ('from collections import *\ndef f(x): return Counter(x)',
         'assert f("aab") == {"a": 2, "b": 1}\n'
         'assert f("aab").most_common(1) == [("a", 2)]'),
        ('from collections import *\nP = namedtuple("P", "x")\n'
         'def f(x): return deque(x), P(1)',
         'from collections import deque\nassert f([1]) == (deque([1]), (1,))'),
        ('from decimal import *\ndef f(x): return Decimal(x)',
         'from decimal import Decimal\nassert f("1.5") == Decimal("1.5")'),
        ('from datetime import *\ndef f(): return date(2020, 1, 2)',
         'from datetime import date\nassert f() == date(2020, 1, 2)'),
        ('def f(x): return x', 'x = (1, {2}, b"3", 4j, None)\nassert f(x) == x'),
        ('def f(x): return x', 'assert f(True) is True and f(range(3)) == range(3)'),
        ('def f(x): raise KeyError(x)',
         'try: f(1)\nexcept KeyError: pass\nelse: assert False'),
        ('LIMIT = 7\ndef f(): pass', 'assert LIMIT == 7'),
        ('class P:\n  def __init__(s, x): s.x = x\n'
         '  def __eq__(s, o): return s.x == o.x\n'
         'def f(x): return P(x)', 'assert f(1) == P(1) and f(1) != P(2)'),
    ],
)  # fmt: skip
def test_values_of_every_kind_reach_the_tests(program, test):
  told = outcome(program, test, entry='f')
  assert told.verdict is Verdict.OK, told
  assert outcome(program, f'{test}\nassert f is None').verdict is Verdict.WRONG_ANSWER


def test_a_function_may_be_called_like_a_built_in_one():
  told = outcome('def sum(a, b): return a + b', 'assert sum(1, 2) == 3', entry='sum')
  assert told.verdict is Verdict.OK
  # But nothing else that the tests use is the program's to redefine.
  told = outcome(BAD + 'def abs(x): return 0', 'assert abs(double(2) - 4) < 1')
  assert told.verdict is Verdict.WRONG_ANSWER


PROMPT = '''from typing import List
import math

def helper(x):
  return math.floor(x)

def twice(xs: List[int]) -> List[int]:
  """Doubles.
  >>> twice([1])
  [2]
  """
'''


@pytest.mark.parametrize(
    'answer',
    [
        # What completes the prompt, as the official harness takes it.
        '    return [2 * helper(x) for x in xs]',
        '  ys = []\n  for x in xs:\n    ys.append(2 * x)\n  return ys',
        'return [2 * helper(x) for x in xs]',
        'ys = [2 * helper(x)\n      for x in xs]\nreturn ys',
        # The function alone, without imports and helpers; and with them.
        'def twice(xs: List[int]) -> List[int]:\n  return [2 * helper(x) for x in xs]',
        PROMPT + '  return [2 * x for x in xs]',
        'from __future__ import annotations\ndef twice(xs): return [2 * x for x in xs]',
        'twice = lambda xs: [2 * x for x in xs]',
    ],
)
def test_completions_run_after_their_prompt(answer):
  problem = dataclasses.replace(
      DOUBLE, before=PROMPT, entry='twice', public=(),
      hidden=(problems.Test('assert twice([1, 2]) == [2, 4]'),),
  )  # fmt: skip
  report = support.judge().grade(problem, answer)
  assert report.solved, report
  wrong = answer.replace('2 *', '3 *').replace('2 * x)', '3 * x)')
  assert support.judge().grade(problem, wrong).hidden is Verdict.WRONG_ANSWER


def test_an_error_in_a_whole_function_has_the_answers_line():
  problem = dataclasses.replace(DOUBLE, before=PROMPT, entry='twice')
  program = completion.complete(problem, 'def twice(xs):\n  return xs.y')
  told = outcome(program, 'assert twice([1]) == [2]', problem)
  assert told.error.endswith('(line 2)')


