"""The scripted teacher, on the real shop: the script finds what is wanted, the
demonstrator rarely does, and the critic's advice closes the gap."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import strategies as st

from envs import api
from envs.webshop import compact, embedded, expert
from envs.webshop.catalogue import Goal, PageState
from envs.webshop.shop import Shop

HORIZON = 15
VIEW = compact.CompactView()
EXACT = expert.ShopTeacher(reflection_quality=1.0)

WANT = 'cotton shirt blue m under 30'
SEARCH = 'search cotton shirt'
PAGE = 'page 1 wool 20 a cotton 40 b silk 30 c'
FITTING = 'page 1 wool 20 a cotton 30 b cotton 10 c'
GOOD, BAD = 'blue red pink s m l', 'red pink green s m l'


@functools.cache
def default() -> tuple[Shop, embedded.Embedded]:
  built = embedded.build()
  return Shop(built.products, page_size=3), built


class Game:
  """An episode that can go back to an earlier turn."""

  def __init__(self, goal: Goal):
    self.states = [PageState(goal=goal)]
    self.observations = [VIEW.render(default()[0], self.states[0], None, True)]
    self.actions: list[str] = []

  @property
  def history(self) -> api.History:
    return api.History(
        self.states[0].goal.instruction,
        tuple(self.observations),
        tuple(self.actions),
    )

  @property
  def success(self) -> bool:
    return self.states[-1].reward == 1.0

  def act(self, action: str) -> None:
    shop, before = default()[0], self.states[-1]
    after, valid = shop.transition(before, VIEW.to_action(shop, before, action))
    self.states.append(after)
    self.observations.append(VIEW.render(shop, after, before, valid))
    self.actions.append(action)

  def play(self, choose: Callable[[api.History], str]) -> Game:
    while len(self.actions) < HORIZON and self.states[-1].page != 'done':
      self.act(choose(self.history))
    return self

  def back_to(self, turn: int) -> None:
    del self.states[turn:], self.observations[turn:], self.actions[turn - 1 :]


def history(*texts: str) -> api.History:
  """Observations and actions in turn, after the request."""
  return api.History(WANT, (WANT, *texts[1::2]), texts[::2])


def fix_of(diagnosis: api.Diagnosis) -> str:
  words = diagnosis.experience.split()
  verb = max(i for i, word in enumerate(words) if word in ('click', 'search'))
  return ' '.join(words[verb:])


@pytest.mark.parametrize(
    'texts, action, reason',
    [
        ((), SEARCH, 'first'),
        ((SEARCH, PAGE), 'click next', 'no fit'),
        ((SEARCH, FITTING), 'click b', 'fit'),
        ((SEARCH, FITTING, 'click b', BAD), 'click back', 'no blue'),
        ((SEARCH, FITTING, 'click b', BAD, 'click back', FITTING), 'click c', 'fit'),
        ((SEARCH, FITTING, 'click a', GOOD), 'click back', 'no fit'),
        ((SEARCH, FITTING, 'click b', GOOD), 'click blue', 'want blue'),
        (
            (SEARCH, FITTING, 'click b', GOOD, 'click red', 'chose red'),
            'click blue', 'want blue',
        ),
        (
            (SEARCH, FITTING, 'click b', GOOD, 'click blue', 'chose blue'),
            'click m', 'want m',
        ),
        (
            (SEARCH, FITTING, 'click b', GOOD, 'click m', 'chose m',
             'click blue', 'chose m blue'),
            'click buy', 'all chosen',
        ),
        ((SEARCH, FITTING, 'click z', compact.REFUSED), 'click b', 'fit'),
        ((SEARCH, 'page 4 empty'), SEARCH, 'no fit'),
    ],
)  # fmt: skip
def test_script_and_its_reasons(texts, action, reason):
  seen = history(*texts)
  assert EXACT.correct(seen) == action
  assert EXACT.advise(seen, action) == f'{reason} {action}'


def test_script_returns_to_a_fitting_row_that_was_passed_over():
  seen = (SEARCH, FITTING, 'click next', 'page 2 empty')
  assert EXACT.correct(history(*seen)) == SEARCH
  assert EXACT.correct(history(*seen, SEARCH, FITTING)) == 'click b'


def test_script_settles_for_the_best_when_nothing_satisfies():
  end = (SEARCH, FITTING, 'click b', BAD, 'click back', FITTING, 'click c', BAD,
         'click back', FITTING, 'click next', 'page 2 empty',
         SEARCH, FITTING)  # fmt: skip
  assert EXACT.correct(history(*end)) == 'click b'
  assert EXACT.correct(history(*end, 'click b', BAD)) == 'click m'
  chosen = history(*end, 'click b', BAD, 'click m', 'chose m')
  assert EXACT.correct(chosen) == 'click buy'


@pytest.mark.parametrize(
    'texts, turn, fix',
    [
        ((SEARCH, PAGE, 'click b', GOOD, 'click buy', 'score 1'), 2, 'click next'),
        ((SEARCH, FITTING, 'click a', GOOD, 'click buy', 'score 1'), 2, 'click b'),
        ((SEARCH, FITTING, 'click c', BAD, 'click m', 'chose m'), 3, 'click back'),
        ((SEARCH, FITTING, 'click c', GOOD, 'click buy', 'score 2'), 3, 'click blue'),
        (
            (SEARCH, FITTING, 'click c', GOOD, 'click blue', 'chose blue',
             'click l', 'chose blue l'),
            4, 'click m',
        ),
        (('click buy', compact.REFUSED), 1, SEARCH),
        # Nothing wrong but out of time: the other fitting row, else the end.
        ((SEARCH, FITTING, 'click b', GOOD), 2, 'click c'),
        ((SEARCH, PAGE, 'click next', PAGE), 2, 'click next'),
    ],
)  # fmt: skip
def test_diagnosis_names_the_earliest_fault(texts, turn, fix):
  diagnosis = EXACT.diagnose(history(*texts), True, random.Random(0))
  assert diagnosis is not None
  assert (diagnosis.turn, fix_of(diagnosis)) == (turn, fix)


def test_nothing_to_say_while_all_is_well():
  seen = history(SEARCH, FITTING, 'click c', GOOD, 'click blue', 'chose blue')
  assert EXACT.diagnose(seen, False, random.Random(0)) is None
  assert EXACT.diagnose(history(), False, random.Random(0)) is None


def test_reflection_quality_is_the_share_of_right_diagnoses():
  seen = history(SEARCH, FITTING, 'click a', GOOD, 'click buy', 'score 1')
  teacher = expert.ShopTeacher(reflection_quality=0.5)
  rng = random.Random(0)
  right = EXACT.diagnose(seen, True, rng)
  share = sum(teacher.diagnose(seen, True, rng) == right for _ in range(400)) / 400
  # A wrong draw hits the right diagnosis now and then: 1/3 * 1/4.
  assert share == pytest.approx(0.5 + 0.5 / 12, abs=0.08)


@pytest.mark.parametrize('name', ['quality', 'back', 'next', 'reflection_quality'])
def test_option_that_is_no_probability_is_refused_by_name(name):
  with pytest.raises(ValueError, match=f'{name} is 1.5'):
    expert.ShopTeacher(**{name: 1.5})


def test_script_solves_nearly_every_test_goal_within_the_horizon():
  games = [Game(goal).play(EXACT.correct) for goal in default()[1].goals['test']]
  assert sum(game.success for game in games) >= 0.9 * len(games)
  assert sum('click next' in game.actions for game in games) > 0.4 * len(games)
  assert sum('click back' in game.actions for game in games) > 0.2 * len(games)


def test_script_never_contradicts_itself():
  for goal in default()[1].goals['test'][:50]:
    game = Game(goal).play(EXACT.correct)
    if game.success:
      assert EXACT.diagnose(game.history, False, random.Random(0)) is None


def test_demonstrator_succeeds_sometimes_and_hardly_ever_turns_pages():
  rng = random.Random(0)
  goals = default()[1].goals['test'][:100]

  def act(seen):
    return EXACT.act(seen, rng)

  games = [Game(goal).play(act) for goal in goals for _ in range(4)]
  actions = [action for game in games for action in game.actions]
  assert 0.12 < sum(game.success for game in games) / len(games) < 0.32
  assert 0 < actions.count('click next') < 0.03 * len(actions)
  assert 0 < actions.count('click back') < 0.05 * len(actions)


def test_advised_branches_solve_more_than_independent_attempts():
  rng = random.Random(0)
  goals = default()[1].goals['train'][:60]

  def act(seen):
    return EXACT.act(seen, rng)

  alone = sum(any(Game(goal).play(act).success for _ in range(8)) for goal in goals)
  solved, kinds = 0, set()
  for goal in goals:
    game = Game(goal).play(act)
    for _ in range(7):
      if game.success:
        break
      diagnosis = EXACT.diagnose(game.history, True, rng)
      assert diagnosis is not None
      game.back_to(diagnosis.turn)
      game.act(fix_of(diagnosis))
      game.play(act)
    solved += game.success
    kinds.update(game.actions if game.success else ())
  assert solved > 1.3 * alone
  assert {'click next', 'click back'} <= kinds


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(st.integers(0, 10**6))
def test_teacher_texts_stay_in_the_vocabulary_and_are_short(seed):
  rng = random.Random(seed)
  shop, built = default()
  known = set(VIEW.vocabulary(shop))
  sloppy = expert.ShopTeacher(
      quality=0.3, back=0.3, next=0.3, reflection_quality=0.5
  )
  game = Game(rng.choice(built.goals['train']))
  while len(game.actions) < HORIZON and game.states[-1].page != 'done':
    advice = sloppy.advise(game.history, sloppy.correct(game.history))
    action = sloppy.act(game.history, rng)
    assert set((advice + ' ' + action).split()) <= known
    assert len(advice.split()) <= 6
    game.act(action)
    diagnosis = sloppy.diagnose(game.history, True, rng)
    assert diagnosis is not None
    assert set(diagnosis.experience.split()) <= known
    assert 1 <= diagnosis.turn <= len(game.actions)
