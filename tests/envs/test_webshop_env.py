"""Sessions, worlds, options and the registry."""

from __future__ import annotations

import json

import pytest

from envs import api, registry
from envs.webshop import pages
from envs.webshop.env import WebShopWorld
from envs.webshop.shop import Shop
from tests.envs import small_shop

_PURCHASE = (
    'search[red cotton shirt]', 'click[b000000001]', 'click[red]',
    'click[small]', 'click[buy now]',
)  # fmt: skip


def _started(**options):
  world = small_shop.world(**options)
  session = world.session()
  session.reset(world.tasks('train')[0])
  return world, session


def test_a_full_purchase_ends_in_success_with_details():
  _, session = _started()
  steps = [session.step(action) for action in _PURCHASE]
  assert [step.terminated for step in steps] == [False] * 4 + [True]
  last = steps[-1]
  assert last.success
  assert (last.reward, last.score, last.info['r_type']) == (1.0, 1.0, 1.0)
  json.dumps(last.info)


def test_a_partial_purchase_scores_without_success():
  _, session = _started()
  for action in _PURCHASE[:2]:
    session.step(action)
  last = session.step('click[buy now]')
  assert last.terminated
  assert not last.success
  assert last.score == 0.5


def test_a_limit_truncates_and_ends_the_episode():
  _, session = _started(max_steps=2)
  assert not session.step('nonsense').truncated
  step = session.step('nonsense')
  assert (step.truncated, step.terminated, step.valid) == (True, False, False)
  with pytest.raises(api.EpisodeOver):
    session.step('search[x]')


def test_buying_with_the_last_step_is_not_truncated():
  _, session = _started(max_steps=5)
  last = [session.step(action) for action in _PURCHASE][-1]
  assert last.terminated
  assert not last.truncated


def test_a_snapshot_is_the_state_itself_and_small():
  _, session = _started()
  session.step(_PURCHASE[0])
  snapshot = session.snapshot()
  session.step(_PURCHASE[1])
  session.restore(snapshot)
  assert session.snapshot().state is snapshot.state
  assert snapshot.num_bytes < 2000


@pytest.mark.parametrize(
    ('response', 'action'),
    [
        ('<think>x</think><action> click[a] </action>', 'click[a]'),
        ('I could search[a b] but rather click[buy now].', 'click[buy now]'),
        ('<action>search[a]</action> not click[b]', 'search[a]'),
        ('search[it]', 'search[it]'),
    ],
)
def test_text_responses_are_read_tags_first_then_the_last_action(response, action):
  assert small_shop.world().parse_response(response) == action


@pytest.mark.parametrize('response', ['', 'buy it', '<action> </action>', 'click[]'])
def test_a_response_without_an_action_is_invalid(response):
  with pytest.raises(api.InvalidAction):
    small_shop.world().parse_response(response)


def test_instructions_explain_both_actions():
  text = small_shop.world().instructions()
  assert 'search[' in text
  assert 'click[' in text


def test_text_worlds_have_no_vocabulary():
  world = small_shop.world()
  with pytest.raises(NotImplementedError):
    world.vocabulary()


@pytest.mark.parametrize('view', ['text', 'text_rich'])
def test_each_view_has_a_teacher_of_its_own_words(view):
  """Its `search a b` and `click c` are no actions of the text views."""
  options = {'num_products': 48, 'types': 4, 'train_goals': 4, 'validation_goals': 1,
             'test_goals': 1}  # fmt: skip
  for chosen, opening in ((view, 'search['), ('compact', 'search ')):
    world = registry.make('webshop', view=chosen, **options)
    task = world.tasks('train')[0]
    first = world.session().reset(task).observation
    action = world.teacher().correct(api.History(task.instruction, (first,), ()))
    assert action.startswith(opening)


def test_the_type_of_a_task_is_the_department_of_its_product():
  products = [small_shop.product('B1', 'Lamp', department='garden')]
  goals = {'test': [small_shop.goal(products[0])]}
  world = WebShopWorld('w', 'small', Shop(products), pages.TextView(), goals)
  assert world.task_type(world.tasks('test')[0]) == 'garden'
  plain = small_shop.world()
  assert plain.task_type(plain.tasks('test')[0]) == plain.name


@small_shop.needs_data
def test_the_published_shop_has_five_types_of_task():
  world = registry.make(
      'webshop', catalogue='official', data_dir=str(small_shop.DATA_DIR)
  )
  types = {world.task_type(task) for task in world.tasks('train')}
  assert types == {'beauty', 'electronics', 'fashion', 'garden', 'grocery'}


def test_an_unknown_environment_is_refused_with_the_choices():
  assert 'webshop' in registry.names()
  with pytest.raises(ValueError, match=r"'webshpo'.*webshop"):
    registry.make('webshpo')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'catalogue': 'real'}, r"'real'.*embedded, official"),
        ({'view': 'html'}, r"'html'.*compact, text, text_rich"),
        ({'catalogue': 'official', 'view': 'compact'}, r"'compact'.*text, text_rich"),
        ({'catalogue': 'official', 'num_products': 3}, r"'num_products'.*catalogue"),
        ({'view': 'text', 'num_prodcuts': 3}, r"'num_prodcuts'.*page_size"),
        ({'view': 'text', 'max_steps': -1}, 'max_steps is -1'),
        ({'data_dir': '/data'}, "data_dir='/data' is for catalogue='official'"),
        ({'human_goals': True}, "human_goals=True is for catalogue='official'"),
        ({'goal_seed': 1}, "goal_seed=1 is for catalogue='official'"),
        ({'max_goals_per_product': 5}, 'max_goals_per_product=5 is for'),
        ({'catalogue': 'official'}, 'needs data_dir'),
    ],
)
def test_a_bad_option_is_named_with_the_choices(options, message):
  with pytest.raises(ValueError, match=message):
    registry.make('webshop', **options)


@small_shop.needs_data
def test_worlds_with_other_settings_refuse_each_others_snapshots():
  options = {'catalogue': 'official', 'data_dir': str(small_shop.DATA_DIR)}
  first = registry.make('webshop', **options)
  second = registry.make('webshop', **options, page_size=5)
  session = first.session()
  session.reset(first.tasks('test')[0])
  with pytest.raises(api.SnapshotMismatch):
    second.session().restore(session.snapshot())
  registry.make('webshop', **options).session().restore(session.snapshot())
