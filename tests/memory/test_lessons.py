"""Lessons: what is recalled by SimUtil-UCB, what outcomes do to it, what is kept."""

import json
import math

import numpy as np
import pytest

pytest.importorskip('nltk', reason="pip install -e '.[memsearch]'")

from envs.vectors import WordVectors
from leafe_jax.memory.lessons import Lesson, Lessons, Weights

WEIGHTS = Weights(
    relevance=0.4, alpha=0.3, kappa=1.0, decay=0.05, initial=0.5, duplicate=0.85
)


class Table:
  """Stands in for an embedding: cosines with the one query there is."""

  cosines = {'near': 0.9, 'between': 0.5, 'far': 0.3}

  def __init__(self, texts):
    self._texts = texts

  def scores(self, query):
    return np.array([self.cosines[text] for text in self._texts])


def held(*rows, vectors=Table):
  """Lessons of (task, text, utility, uses)."""
  lessons = [
      {'id': i, 'task': task, 'text': text, 'utility': utility, 'uses': uses,
       'success': True, 'source': f'{task} episode 0', 'step': 1}
      for i, (task, text, utility, uses) in enumerate(rows, 1)
  ]
  record = {'schema': 1, 'next_id': len(rows) + 1, 'lessons': lessons}
  return Lessons.from_json(record, vectors, WEIGHTS)


def texts(found):
  return [lesson.text for lesson in found]


def test_similarity_utility_and_curiosity_are_weighed_by_hand():
  """N = 16: S(a) = .27 + .7 (.5 + .833) = 1.203, S(b) = .15 + .7 (.6 + 1.665)."""
  memory = held(('near', 'a', 0.5, 4), ('between', 'b', 0.6, 1), ('far', 'c', 1.0, 11))
  curiosity = math.sqrt(math.log(16))
  a, b, _ = memory.lessons.values()
  assert memory._score(a, 0.9, curiosity) == pytest.approx(1.202788, abs=1e-6)
  assert memory._score(b, 0.5, curiosity) == pytest.approx(1.735576, abs=1e-6)
  assert texts(memory.recall('q', 3)) == ['b', 'a']  # c is not relevant enough
  assert texts(memory.recall('q', 3, greedy=True)) == ['a', 'b']  # .62 and .57
  assert texts(memory.recall('q', 1)) == ['b'] and memory.recall('q', 0) == []


def test_no_text_is_recalled_twice():
  memory = held(('near', 'a', 0.5, 1), ('near', 'a', 0.9, 1), ('near', 'b', 0.1, 1))
  found = memory.recall('q', 3)
  assert texts(found) == ['a', 'b'] and found[0].utility == 0.9


def test_utility_follows_the_outcomes_of_those_who_were_shown_a_text():
  memory = held(('near', 'a', 0.5, 1), ('far', 'a', 0.2, 1), ('near', 'b', 0.5, 1))
  memory.note('a', True)
  memory.note('a', False)
  first, second, other = memory.lessons.values()
  assert first.utility == pytest.approx(0.95 * (0.95 * 0.5 + 0.05))
  assert second.utility == pytest.approx(0.95 * (0.95 * 0.2 + 0.05))
  assert (first.uses, second.uses, other.uses) == (3, 3, 1)


def test_a_lesson_of_a_like_task_is_said_again_and_not_kept_twice():
  memory = Lessons(WordVectors, WEIGHTS)
  for task in ('buy a red cotton shirt', 'buy a red cotton shirt', 'mow the lawn'):
    memory.add(task, 'look twice', True, 'somewhere', 1)
  memory.add('buy a red cotton shirt', 'look once', False, 'elsewhere', 2)
  assert [(lesson.task, lesson.text, lesson.uses) for lesson in
          memory.lessons.values()] == [
      ('buy a red cotton shirt', 'look twice', 2), ('mow the lawn', 'look twice', 1),
      ('buy a red cotton shirt', 'look once', 1),
  ]
  assert texts(memory.recall('sell a cotton shirt', 3)) == ['look once', 'look twice']
  assert memory.recall('paint a fence', 3) == []


def test_forgetting_keeps_the_best_three_of_each_task():
  rows = [('near', name, utility, 9) for name, utility in
          zip('abcd', (0.1, 0.4, 0.4, 0.8), strict=True)]
  memory = held(*rows, ('far', 'e', 0.2, 9))
  memory.forget()
  assert [(lesson.text, round(lesson.utility, 3), lesson.uses) for lesson in
          memory.lessons.values()] == [
      ('b', 0.36, 1), ('c', 0.36, 1), ('d', 0.72, 1), ('e', 0.18, 1),
  ]


def test_a_memory_reads_back_what_it_wrote():
  memory = held(('near', 'a', 0.5, 4), ('between', 'b\u00e4', 0.6, 1))
  record = json.loads(json.dumps(memory.to_json()))
  again = Lessons.from_json(record, Table, WEIGHTS)
  assert again.lessons == memory.lessons
  assert again.add('near', 'c', True, 'x', 2) == Lesson(
      3, 'near', 'c', 0.5, 1, True, 'x', 2)
  with pytest.raises(ValueError, match='lessons schema 0'):
    Lessons.from_json({**record, 'schema': 0}, Table, WEIGHTS)


def test_a_memory_that_goes_on_recalls_what_the_undisturbed_one_does():
  """What is kept between two recalls follows from the lessons alone."""
  memory = Lessons(WordVectors, WEIGHTS)
  for number, task in enumerate(('a red shirt', 'a blue shirt', 'a green hose')):
    for copy in range(4):
      memory.add(task, f'lesson {number} {copy}', True, 'x', 1)
    memory.recall('a red hose', 3)
  memory.forget()
  again = Lessons.from_json(memory.to_json(), WordVectors, WEIGHTS)
  assert memory.similar('a red hose') == again.similar('a red hose')
