"""Memory search: scores by hand, searches, the budget, the script, the generator."""

from __future__ import annotations

import functools
import random
import types

import pytest

pytest.importorskip('nltk', reason="pip install -e '.[memsearch]'")

from envs import api, registry, vectors
from envs.memsearch import scoring
from envs.memsearch import view as view_lib
from leafe_jax.methods.demonstrations import demonstrate
from tests.envs import memory_files

FEW = {'train_questions': 120, 'validation_questions': 24, 'test_questions': 24}


@functools.cache
def world_of(view='compact', **options):
  return registry.make('memsearch', view=view, **FEW, **options)


@pytest.mark.parametrize(
    ('given', 'right', 'rule', 'score'),
    [
        ('The Eiffel Tower!', 'eiffel tower', 'squad', 1.0),
        ('in Paris', 'Paris', 'squad', 2 / 3),
        ('', 'Paris', 'squad', 0.0),
        ('a', 'the', 'squad', 0.0),  # articles alone leave nothing to share
        ('rock and roll', 'rock roll', 'squad', 0.8),
        ('yes it is', 'yes', 'squad', 0.5),
        ('yes it is', 'yes', 'hotpot', 0.0),
        ('no', 'no one', 'hotpot', 0.0),
        ('Yes.', 'yes', 'hotpot', 1.0),
        ('noanswer', 'no answer', 'hotpot', 0.0),
        ('rock and roll', 'rock roll', 'locomo', 1.0),
        ('painted sunsets', 'paint sunset', 'locomo', 1.0),
        ('7 May, 2023', '7 may 2023', 'locomo', 1.0),
        ('kites', 'rowing, kites', 'parts', 0.5),
        ('kite, row', 'rowing, kites', 'parts', 1.0),
    ],
)
def test_scores_by_hand(given, right, rule, score):
  assert scoring.score(given, (right,), rule) == pytest.approx(score)


def test_what_is_not_known_is_right_only_where_nothing_is():
  assert scoring.score('Not mentioned in the talk', (), 'locomo') == 1.0
  assert scoring.score('Rex', (), 'locomo') == 0.0
  assert scoring.score('no information available', ('Rex',), 'locomo') == 0.0
  assert scoring.score('rome', ('paris', 'Rome'), 'squad') == 1.0


def test_cosine_of_words_by_hand():
  found = vectors.WordVectors(['red dog', 'red', 'blue'])
  assert found.scores('red')[1] == pytest.approx(1.0)
  assert found.scores('red')[0] == pytest.approx(0.6053, abs=1e-4)
  assert found.top('red dog', 5) == [0, 1]
  assert found.top('green', 5) == [] and vectors.WordVectors([]).top('red', 1) == []


@pytest.mark.parametrize('view', ['compact', 'text'])
def test_the_script_finds_everything_and_the_demonstrator_half(view):
  world = world_of(view)
  teacher, rng = world.teacher(), random.Random(0)
  for act, least, most in (
      (lambda history, rng: teacher.correct(history), 0.99, 1.0),
      (teacher.act, 0.3, 0.8),
  ):
    player = types.SimpleNamespace(act=act)
    tasks = world.tasks('train')
    demos = [demonstrate(world, task, player, 8, rng) for task in tasks]
    assert least <= sum(demo.success for demo in demos) / len(demos) <= most
    for demo in demos[:20]:
      said = demo.responses(teacher)
      assert tuple(map(world.parse_response, said)) == demo.history.actions


def test_the_critic_blames_the_answer_from_one_word_alone():
  world = world_of()
  teacher = world.teacher(reflection_quality=1.0)
  task = next(t for t in world.tasks('train') if t.payload['kind'] == 'now')
  _, _, name, topic = task.instruction.split()
  session = world.session()
  seen = [session.reset(task).observation]
  seen.append(session.step(f'keyword {name} {topic}').observation)
  history = api.History(task.instruction, (*seen, 'score 0'), (
      f'keyword {name} {topic}', 'answer rome'))  # fmt: skip
  found = teacher.diagnose(history, True, random.Random(0))
  assert found.turn == 2
  assert found.experience.startswith(f'other word keyword {name} ')


def test_searches_are_counted_and_plans_and_refusals_are_not():
  world = world_of()
  task = world.tasks('train')[0]
  session = world.session()
  session.reset(task)
  for action, valid in (
      ('plan look', True), ('page 99', False), ('keyword', False), ('dance', False),
      ('page 1', True), ('vector ann', True), ('keyword ann', True),
      ('keyword bob', False),
  ):  # fmt: skip
    step = session.step(action)
    assert step.valid == valid, action
  assert step.observation == 'no search left'
  end = session.step('answer unknown')
  assert end.terminated and end.info['searches'] == 3


def test_nothing_in_the_texts_is_outside_the_vocabulary():
  world, rng = world_of(), random.Random(0)
  words = set(world.vocabulary())
  teacher = world.teacher(quality=0.5)
  for task in world.tasks('train')[:60]:
    demo = demonstrate(world, task, teacher, 8, rng)
    texts = [*demo.history.observations, *demo.history.actions]
    texts.append(teacher.advise(demo.before(1), demo.history.actions[0]))
    assert set(' '.join(texts).split()) <= words


@pytest.mark.parametrize('view', ['compact', 'text'])
def test_pages_are_listed_as_they_are_asked_for(view):
  world = world_of(view)
  session = world.session()
  session.reset(world.tasks('train')[0])
  start = session.snapshot()
  pages = [action for action in session.admissible() if '<words>' not in action]
  assert pages
  for page in pages:
    session.restore(start)
    assert session.step(page).info['valid'], page
    assert view == 'text' or set(page.split()) <= set(world.vocabulary())


def test_other_seeds_give_other_conversations_and_splits_share_none():
  first, other = world_of(), world_of(seed=1)
  assert [t.id for t in first.tasks('test')] != [t.id for t in other.tasks('test')]
  memories = [{t.payload['memory'] for t in first.tasks(s)} for s in api.SPLITS]
  assert not memories[0] & memories[1] and not memories[1] & memories[2]


def test_a_long_page_says_where_it_goes_on():
  world = world_of('text', max_page_chars=200)
  task = world.tasks('train')[0]
  session = world.session()
  session.reset(task)
  page = session.step('page[d1]').observation
  assert 'It goes on: page[D1:' in page
  more = page.rpartition('page[')[2].partition(']')[0]
  assert f'[{more}]' in session.step(f'page[{more}]').observation


def test_a_response_is_read_in_tags_or_bare_and_else_refused():
  view = view_lib.TextView()
  assert view.parse_response('I think.\n<action>page[D2]</action>') == 'page[D2]'
  assert view.parse_response('keyword[a] or rather vector[b c]') == 'vector[b c]'
  with pytest.raises(api.InvalidAction, match='no action found'):
    view.parse_response('I do not know')
  assert view.read('Answer[a]b]') == ('answer', 'a]b')


def test_a_judge_knows_what_is_right_and_planning_ends_with_a_search(tmp_path):
  world = registry.make(
      'memsearch', source='locomo', data_path=memory_files.locomo(tmp_path)
  )
  told = [world.reference(task) for task in world.tasks('train')]
  assert told == ['Rex 0', '2022', 'rowing, kites', 'Likely no', scoring.UNKNOWN]
  for actions, plans in (
      ((), True), (('plan[x]', 'nonsense'), True), (('plan[x]', 'page[D1]'), False)
  ):
    assert world.plans(api.History('q', ('o',) * (len(actions) + 1), actions)) == plans
  with pytest.raises(NotImplementedError, match='no scripted teacher'):
    world.teacher()
