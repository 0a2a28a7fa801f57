"""Banks of experience: recall by situation, provenance, what stands out."""

import json

import pytest

pytest.importorskip('nltk', reason="pip install -e '.[memsearch]'")

from envs.vectors import WordVectors
from leafe_jax.memory.banks import Banks, extremes


def made(*rows):
  banks = Banks(WordVectors)
  for bank, good, points, situation, text in rows:
    banks.add(bank, good, points, situation, '', text, f'task {text} turn 1', 1)
  return banks


def texts(found):
  return [experience.text for experience in found]


def test_the_situation_decides_and_its_bank_and_no_text_comes_twice():
  banks = made(
      ('planning', True, 12, 'nothing found yet for a name', 'search the name'),
      ('planning', False, 0, 'a date is asked for', 'do not guess'),
      ('planning', True, 11, 'nothing found for a name', 'search the name'),
      ('reflection', True, 12, 'nothing found yet for a name', 'answer'),
  )
  assert texts(banks.recall('planning', 'nothing was found for the name', 10, 3)) == [
      'search the name'
  ]
  assert texts(banks.recall('planning', 'name and date', 10, 3)) == [
      'do not guess', 'search the name'
  ]
  assert banks.recall('nowhere', 'a date', 10, 3) == []
  assert banks.recall('planning', 'wholly other words', 10, 3) == []


def test_of_those_recalled_only_so_many_are_shown():
  banks = made(*(
      ('turns', True, 12, ' '.join(['door', *['wall'] * n]), f'text {n}')
      for n in range(5)
  ))  # fmt: skip
  assert texts(banks.recall('turns', 'door', 3, 2)) == ['text 0', 'text 1']
  assert len(banks.recall('turns', 'door', 1, 2)) == 1


def test_similarity_is_weighed_against_utility_by_hand():
  """Cosines 1 and 1/sqrt(2) with equal weights; utilities .5 and 1."""
  banks = made(('turns', True, 6, 'door', 'near'), ('turns', False, 0, 'wall', 'far'))
  assert texts(banks.recall('turns', 'door door wall wall', 9, 9, alpha=0.0)) == [
      'far', 'near'
  ]
  # .7 * 1 + .3 * .5 = .85 against .7 * 0 + .3 * 1: wall is not recalled at all.
  assert texts(banks.recall('turns', 'door', 9, 9, alpha=0.7)) == ['near']
  assert banks.recall('turns', 'door wall', 9, 9, relevance=0.8) == []
  assert len(banks.recall('turns', 'door wall', 9, 9, relevance=0.7)) == 2


def test_banks_survive_being_written_and_say_where_all_comes_from():
  banks = made(('planning', False, 3, 'a  new\nline', 'two\nlines'))
  banks.reject('nonsense', 'no JSON', 1)
  again = Banks.from_json(json.loads(json.dumps(banks.to_json())), WordVectors)
  assert again.banks == banks.banks and again.log == banks.log
  page = again.render()
  assert '**bad**, 3 of 12 points: two lines' in page
  assert 'a new line' in page and 'from task two' in page
  with pytest.raises(ValueError, match='banks schema 7'):
    Banks.from_json({'schema': 7}, WordVectors)


@pytest.mark.parametrize(
    ('points', 'high', 'low'),
    [
        ([12, 0, 5, 6], [0], [1]),
        ([4, 4, 4, 4], [], []),
        ([1, 0, 2], [], []),  # a quarter of three is none
        ([0, 0, 9, 9, 9, 1, 2, 8], [3, 4], [0, 1]),
    ],
)
def test_a_share_at_both_ends_stands_out(points, high, low):
  assert extremes(points, 0.25) == (high, low)
