"""The playbook's merge, apart from any model."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leafe_jax.memory.playbook import (
  ADD,
  HARMFUL,
  HELPFUL,
  MERGE,
  REMOVE,
  UPDATE,
  Delta,
  DeltaError,
  Playbook,
  parse_deltas,
)


def add(text, section='strategies'):
  return Delta(ADD, section, (), text)


def book_of(*texts):
  book = Playbook()
  book.merge([add(text) for text in texts], 1)
  return book


def test_bullets_get_ids_counters_and_a_readable_line():
  book = book_of('look at the next page', 'check the price first')
  assert list(book.bullets) == ['str-00001', 'str-00002']
  book.tag(['str-00001', 'nobody'], HELPFUL)
  book.tag(['str-00002'], HARMFUL)
  assert book.bullets['str-00001'].line() == (
      '[str-00001] helpful=1 harmful=0 :: look at the next page'
  )
  assert [b.id for b in book.best(1)] == ['str-00001']
  assert '- [str-00002] helpful=0 harmful=1' in book.render()


def test_a_near_duplicate_counts_as_a_vote():
  book = book_of('look at the next page', 'at the next page look')
  assert len(book.bullets) == 1
  assert book.bullets['str-00001'].helpful == 1


def test_merge_adds_counters_and_update_keeps_them():
  book = book_of('buy red', 'prefer size ten')
  book.tag(book.bullets, HELPFUL)
  book.merge([Delta(UPDATE, ids=('str-00001',), text='buy what is red')], 2)
  assert book.bullets['str-00001'].helpful == 1
  book.merge([Delta(MERGE, 'rules', ('str-00001', 'str-00002'), 'match all')], 3)
  (bullet,) = book.bullets.values()
  assert (bullet.id, bullet.helpful, bullet.text) == ('rul-00003', 2, 'match all')


def test_what_cannot_be_applied_changes_nothing_and_is_logged():
  book = book_of('buy red')
  before = book.to_json()['bullets']
  assert book.merge([Delta(REMOVE, ids=('str-00009',))], 2) == 0
  assert book.to_json()['bullets'] == before
  assert 'str-00009' in book.log[-1]['reason']


def test_over_the_capacity_the_least_helpful_go_first():
  book = book_of('one thing', 'quite another', 'something else entirely')
  book.tag(['str-00001'], HELPFUL)
  gone = book.trim(2, 2)
  assert [bullet.id for bullet in gone] == ['str-00002']


@pytest.mark.parametrize('fields, message', [
    ({'op': 'SHOUT'}, 'choose from ADD'),
    ({'op': ADD, 'text': 'x'}, 'section'),
    ({'op': ADD, 'section': 'a', 'ids': ('b',), 'text': 'x'}, 'bullets'),
    ({'op': MERGE, 'section': 'a', 'ids': ('b',), 'text': 'x'}, 'bullets'),
    ({'op': UPDATE, 'ids': ('b',)}, 'needs a text'),
    ({'op': REMOVE, 'ids': ('b',), 'text': 'x'}, 'no text'),
])
def test_deltas_that_are_none_are_refused(fields, message):
  with pytest.raises(DeltaError, match=message):
    Delta(**fields)


def test_a_curators_list_is_read_as_far_as_it_can_be():
  deltas, wrong = parse_deltas([
      {'type': 'add', 'section': 'Strategies', 'content': 'buy red'}, 'nonsense',
      {'op': 'UPDATE', 'id': 'str-00001', 'text': 'buy blue'}, {'op': 'FLY'},
  ])  # fmt: skip
  assert [delta.op for delta in deltas] == [ADD, UPDATE]
  assert len(wrong) == 2


TEXTS = st.text('abc ', min_size=1, max_size=12).filter(str.strip)
IDS = st.sampled_from([f'{s}-{n:05d}' for s in ('one', 'two') for n in range(1, 8)])


@st.composite
def _deltas(draw):
  op = draw(st.sampled_from([ADD, UPDATE, REMOVE, MERGE]))
  section = draw(st.sampled_from(['one', 'two']))
  count = {ADD: 0, MERGE: 2}.get(op, 1)
  ids = tuple(draw(st.lists(IDS, min_size=count, max_size=count, unique=True)))
  return Delta(op, section, ids, '' if op == REMOVE else draw(TEXTS))


@given(st.lists(_deltas(), max_size=30))
def test_any_deltas_leave_a_book_that_can_be_saved(deltas):
  book = Playbook()
  applied = book.merge(deltas, 1)
  assert len(book.log) == len(deltas)
  assert applied == sum(entry['op'] != 'NO-OP' for entry in book.log)
  assert all(key == bullet.id for key, bullet in book.bullets.items())
  # Ids are never given twice, whatever was removed in between.
  assert len({bullet.id for bullet in book.bullets.values()}) == len(book.bullets)
  again = Playbook.from_json(json.loads(json.dumps(book.to_json())))
  assert again.to_json() == book.to_json()
  again.merge([add('something that was not there')], 2)
  book.merge([add('something that was not there')], 2)
  assert again.to_json() == book.to_json()
