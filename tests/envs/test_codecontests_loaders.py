"""Every published form of the data becomes the same problems."""

from __future__ import annotations

import json

import pytest

from envs.codecontests import loaders
from tests.envs import codecontests_support as support

LISTS = {'input': ['1 2\n', '3 4\n'], 'output': ['3\n', '7\n']}
RECORDS = [{'input': '1 2\n', 'output': '3\n'}, {'input': '3 4\n', 'output': '7\n'}]
ROW = {
    'name': '1_A. Sum', 'description': 'Add.', 'public_tests': LISTS,
    'private_tests': {'input': ['5 5\n'], 'output': ['10\n']},
    'generated_tests': {'input': [], 'output': []},
    'time_limit': {'seconds': 1, 'nanos': 500_000_000},
    'memory_limit_bytes': 512 << 20, 'input_file': '', 'output_file': '',
}  # fmt: skip


def load(tmp_path, rows, source='codecontests', name='rows.jsonl', **options):
  path = tmp_path / name
  path.write_text('\n'.join(json.dumps(row) for row in rows))
  return loaders.load(source, str(path), **options)


def test_both_forms_of_tests_read_alike(tmp_path):
  first = load(tmp_path, [ROW])
  second = load(tmp_path, [{**ROW, 'public_tests': RECORDS}])
  assert first == second
  (problem,) = first
  assert [test.output for test in problem.public] == ['3\n', '7\n']
  assert [test.output for test in problem.hidden] == ['10\n']
  assert (problem.time_limit, problem.memory_mb) == (2, 512)


def test_parquet_reads_like_json(tmp_path):
  reason = 'Parquet needs pyarrow'
  pa = pytest.importorskip('pyarrow', reason=reason)
  pq = pytest.importorskip('pyarrow.parquet', reason=reason)
  row = {**ROW, 'generated_tests': LISTS}
  pq.write_table(pa.Table.from_pylist([row]), tmp_path / 'rows.parquet')
  expected = load(tmp_path, [row])
  assert loaders.load('codecontests', str(tmp_path / 'rows.parquet')) == expected


def test_tests_of_one_list_are_public_first(tmp_path):
  row = {'id': 'a', 'description': 'Add.', 'tests': RECORDS}
  (problem,) = load(tmp_path, [row], public_tests=1)
  assert (len(problem.public), len(problem.hidden)) == (1, 1)
  assert problem.time_limit == 2


def test_hidden_tests_can_be_capped(tmp_path):
  (problem,) = load(tmp_path, [{**ROW, 'private_tests': LISTS}], max_tests=1)
  assert len(problem.hidden) == 1


def test_files_name_their_split(tmp_path):
  for name, split in (
      ('code_contests_train-0.jsonl', 'train'),
      ('valid.jsonl', 'validation'),
      ('test.jsonl', 'test'),
  ):
    (problem,) = load(tmp_path, [ROW], name=name)
    assert problem.split == split


def test_a_repeated_statement_and_programs_that_read_files_are_left_out(tmp_path):
  rows = [ROW, {**ROW, 'name': 'twin'}, {**ROW, 'description': 'x', 'input_file': 'f'}]
  assert len(load(tmp_path, rows)) == 1


def test_humaneval_shows_its_examples_and_hides_its_check(tmp_path):
  row = {
      'task_id': 'HumanEval/0', 'entry_point': 'twice',
      'prompt': 'def twice(x):\n  """Doubles.\n  >>> twice(2)\n  4\n  >>> a(\n  """\n',
      'canonical_solution': '  return 2 * x\n',
      'test': 'def check(candidate):\n  assert candidate(21) == 42\n',
  }  # fmt: skip
  (problem,) = load(tmp_path, [row], 'humaneval')
  assert problem.split == 'test'
  assert '42' not in problem.statement
  judge = support.judge()
  good = judge.grade(problem, row['prompt'] + row['canonical_solution'])
  assert good.solved
  assert not judge.grade(problem, 'def twice(x): return 4').solved


def test_a_row_of_another_form_is_named(tmp_path):
  with pytest.raises(ValueError, match='rows.jsonl, row 2.*codecontests'):
    load(tmp_path, [ROW, {'prompt': 'x'}])
  with pytest.raises(ValueError, match='leetcode.*mbpp'):
    load(tmp_path, [ROW], 'leetcode')


@support.needs(support.MBPP)
def test_mbpp_has_its_published_splits():
  found = loaders.load('mbpp', str(support.MBPP))
  assert 490 <= sum(problem.split == 'test' for problem in found) <= 500
  assert all(problem.public and problem.hidden for problem in found)


@support.needs(support.CONTESTS)
def test_the_contest_sample_is_dealt_to_every_split():
  found = loaders.load('codecontests', str(support.CONTESTS))
  assert len(found) > 100
  assert {problem.split for problem in found} == {'train', 'validation', 'test'}
  texts = [problem.statement for problem in found]
  assert len(set(texts)) == len(texts)
