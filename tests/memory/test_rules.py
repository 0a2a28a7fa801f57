"""Pools keep their promises whatever edits come; books read back what they wrote."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leafe_jax.memory import book as book_lib
from leafe_jax.memory.book import RuleBook
from leafe_jax.memory.rules import (
  ADD,
  DOWNVOTE,
  EDIT,
  MERGE,
  NO_OP,
  OPERATIONS,
  PRUNE,
  UPVOTE,
  Edit,
  EditError,
  Limits,
  Pool,
  parse_edit,
)

LIMITS = Limits(capacity=4, initial_score=2.0, vote_step=1.0, prune_at=0.0)


def pool_of(*texts, limits=LIMITS):
  pool = Pool(limits)
  for text in texts:
    pool.apply(Edit(ADD, (), text), 1, [f'from {text}'])
  return pool


@pytest.mark.parametrize(
    ('line', 'edit'),
    [
        ('ADD | | turn the page', Edit(ADD, (), 'turn the page')),
        ('EDIT|3|a  better\ttext', Edit(EDIT, (3,), 'a better text')),
        (' UPVOTE | 12 | ', Edit(UPVOTE, (12,))),
        ('DOWNVOTE | 1 |', Edit(DOWNVOTE, (1,))),
        ('MERGE | 1, 2,3 | either | or', Edit(MERGE, (1, 2, 3), 'either | or')),
    ],
)
def test_lines_of_the_grammar_are_read(line, edit):
  assert parse_edit(line) == edit
  assert parse_edit(edit.line()) == edit


@pytest.mark.parametrize(
    ('line', 'reason'),
    [
        ('', 'not of the form'),
        ('ADD: a rule', 'not of the form'),
        ('add | | a rule', "unknown operation 'add'"),
        ('DROP | 1 | x', 'choose from ADD, EDIT, UPVOTE, DOWNVOTE, MERGE'),
        ('ADD | 1 | a rule', 'ADD takes 0 ids'),
        ('ADD | | ', 'needs a text'),
        ('EDIT | | a rule', 'EDIT takes 1 id'),
        ('EDIT | one | a rule', "not 'one'"),
        ('UPVOTE | 1 | because', 'takes no text'),
        ('UPVOTE | 1, 2 |', 'UPVOTE takes 1 id'),
        ('MERGE | 1 | a rule', '2 or more ids'),
        ('MERGE | 1, 1 | a rule', '2 or more ids'),
        ('MERGE | 1, 2, 1 | a rule', '2 or more ids'),
    ],
)
def test_other_lines_are_refused_with_the_reason(line, reason):
  with pytest.raises(EditError, match=reason):
    parse_edit(line)


@given(
    st.one_of(
        st.text(max_size=40),
        st.tuples(
            st.sampled_from(OPERATIONS), st.sampled_from(['', '1', '1, 2', '٣']),
            st.text(max_size=9),
        ).map(' | '.join),
    )
)
def test_any_line_is_an_edit_or_an_error(line):
  try:
    edit = parse_edit(line)
  except EditError:  # nothing else may be raised
    return
  assert parse_edit(edit.line()) == edit


def test_votes_move_the_utility_and_the_order():
  pool = pool_of('a', 'b', 'c')
  assert [rule.text for rule in pool.best(2)] == ['a', 'b']
  pool.apply(Edit(UPVOTE, (3,)), 2)
  pool.apply(Edit(DOWNVOTE, (1,)), 2)
  assert [(rule.text, rule.score) for rule in pool.best(3)] == [
      ('c', 3.0), ('b', 2.0), ('a', 1.0)
  ]


def test_saying_a_rule_again_is_a_vote_for_it():
  pool = pool_of('a', 'a')
  assert [(rule.text, rule.score) for rule in pool.best(9)] == [('a', 3.0)]
  assert [record['op'] for record in pool.log] == [ADD, UPVOTE]


def test_merging_keeps_the_best_utility_all_use_and_all_sources():
  pool = pool_of('a', 'b', 'c')
  pool.apply(Edit(UPVOTE, (2,)), 1)
  pool.note_use([1, 2], 4)
  assert pool.apply(Edit(MERGE, (1, 2), 'a or b'), 5, ['late'])
  merged = pool.rules[4]
  assert list(pool.rules) == [3, 4]
  assert (merged.score, merged.n_used, merged.last_used) == (3.0, 2, 4)
  assert merged.provenance == ['from a', 'from b', 'late']


@pytest.mark.parametrize(
    'edit', [Edit(UPVOTE, (9,)), Edit(MERGE, (1, 9), 'x'), Edit(EDIT, (1,), 'b')]
)
def test_edits_that_do_not_fit_the_pool_change_nothing_and_are_logged(edit):
  pool = pool_of('a', 'b')
  before = pool.to_json()
  assert not pool.apply(edit, 3)
  after = pool.to_json()
  assert after['log'].pop()['op'] == NO_OP
  assert after == before


def test_a_pool_sheds_the_useless_first_then_the_oldest_of_the_least():
  pool = pool_of('a', 'b', 'c', 'd', 'e', 'f')
  pool.apply(Edit(DOWNVOTE, (2,)), 2)
  pool.apply(Edit(DOWNVOTE, (2,)), 2)
  assert [rule.text for rule in pool.prune(2)] == ['b', 'a']
  assert [record['op'] for record in pool.log[-2:]] == [PRUNE, PRUNE]


edits = st.builds(
    Edit, st.sampled_from(OPERATIONS),
    st.lists(st.integers(1, 8), max_size=3).map(tuple), st.sampled_from('abcdef'),
)


@given(st.lists(st.one_of(edits, st.none()), max_size=40))
def test_promises_hold_after_any_edits(changes):
  """None stands for the end of a step, where the pool is pruned."""
  pool, seen = Pool(LIMITS), set()
  for change in [*changes, None]:
    version = pool.version
    if change is None:
      pool.prune(1)
      assert len(pool.rules) <= LIMITS.capacity
      assert all(rule.score > LIMITS.prune_at for rule in pool.rules.values())
    else:
      made = set(pool.rules)
      assert pool.apply(change, 1) == (pool.version > version)
      new = set(pool.rules) - made
      assert not new & seen  # an id is never given twice
      seen |= new
    texts = [rule.text for rule in pool.rules.values()]
    assert len(set(texts)) == len(texts)
    assert all(i == rule.id for i, rule in pool.rules.items())
  assert _facts(_replay(pool.log)) == _facts(pool)
  assert Pool.from_json(json.loads(json.dumps(pool.to_json())), LIMITS).to_json() == (
      pool.to_json()
  )


def _replay(log):
  """The pool that a log alone leads to."""
  pool = Pool(LIMITS)
  for record in log:
    if record['op'] == PRUNE:
      [gone] = record['ids']
      del pool.rules[gone]
    elif record['op'] != NO_OP:
      assert pool.apply(Edit(record['op'], tuple(record['ids']), record['text']), 1)
  return pool


def _facts(pool):
  return [(rule.id, rule.text, rule.score) for rule in pool.rules.values()]


def test_a_book_reads_back_what_it_wrote(tmp_path):
  book = RuleBook(LIMITS)
  book.pool('shop').apply(Edit(ADD, (), 'turn the page'), 3, ['step 3 t episode 1'])
  book.remember('shop', 'won', 2)
  book.step = 3
  book.write(tmp_path)
  assert '"text": "turn the page"' in (tmp_path / book_lib.FILE).read_text()
  assert book_lib.read_book(tmp_path, LIMITS).to_json() == book.to_json()
  with pytest.raises(ValueError, match='schema 7'):
    RuleBook.from_json({**book.to_json(), 'schema': 7}, LIMITS)


def test_a_book_knows_only_its_keys_and_the_newest_successes():
  book = RuleBook(LIMITS)
  assert book.top('never seen', 3) == []
  assert book.pools == {}
  for name in ('a', 'b', 'a', 'c'):
    book.remember('shop', name, 2)
  assert book.references['shop'] == ['a', 'c']
  book.remember('shop', 'd', 0)
  assert book.references['shop'] == []


def test_random_rules_come_from_all_pools():
  book = RuleBook(LIMITS)
  for key in 'xyz':
    book.pool(key).apply(Edit(ADD, (), key), 1)
  assert {rule.text for rule in book.at_random(9, random.Random(0))} == set('xyz')
