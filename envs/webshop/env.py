"""WebShop as a world of `envs.api`: a shared shop, light sessions."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from envs import api
from envs.webshop import goals as goal_lib
from envs.webshop import official, pages, subtasks
from envs.webshop.catalogue import Goal, PageState, Product
from envs.webshop.shop import Shop
from envs.webshop.view import View

CATALOGUES = ('embedded', 'official')
VIEWS = ('compact', 'text', 'text_rich')
_DEFAULT_VIEWS = {'embedded': 'compact', 'official': 'text'}
_PAGE_SIZES = {'embedded': 3, 'official': 10}
_OFFICIAL = ('data_dir', 'goal_seed', 'human_goals', 'max_goals_per_product')
_BARE = re.compile(r'(?:search|click)\[[^\[\]\n]+\]')


class WebShopSession(api.TextEnv):
  """One customer; its whole state is a `PageState`."""

  def __init__(self, world: WebShopWorld):
    self._world = world
    self._state: PageState | None = None

  def reset(self, task: api.Task, seed: int = 0) -> api.Step:
    """Starts on the search page. Nothing is random, so `seed` is unused."""
    del seed
    self._state = PageState(goal=goal_lib.goal_from_json(task.payload))
    observation = self._world.view.render(
        self._world.shop, self._state, None, True
    )
    return api.Step(observation, info={'valid': True})

  def step(self, action: str) -> api.Step:
    """Takes a response in the view's own grammar."""
    before = self._state
    if before is None:
      raise api.EpisodeOver('step before the first reset')
    if self._world.is_over(before):
      raise api.EpisodeOver('step after the end of the episode')
    shop, view = self._world.shop, self._world.view
    official_action = view.to_action(shop, before, action)
    state, valid = shop.transition(before, official_action)
    self._state = state
    observation = view.render(shop, state, before, valid)
    return self._world.judge(state, observation, valid)

  def admissible(self) -> tuple[str, ...]:
    if self._state is None or self._world.is_over(self._state):
      return ()
    return self._world.view.admissible(self._world.shop, self._state)

  def snapshot(self) -> api.Snapshot:
    if self._state is None:
      raise api.EpisodeOver('snapshot before the first reset')
    return api.Snapshot(self._world.name, self._state, state_bytes(self._state))

  def restore(self, snapshot: api.Snapshot) -> None:
    snapshot.check(self._world.name, PageState)
    self._state = snapshot.state


def state_bytes(state: PageState) -> int:
  """Size of what a state does not share with its task, in bytes."""
  return (
      sys.getsizeof(state)
      + sys.getsizeof(state.visited)
      + sum(map(sys.getsizeof, state.keywords))
      + sum(map(sys.getsizeof, state.options))
  )


class WebShopWorld(api.World):
  """The shared part: products, index, view and goals.

  Attributes:
    name: identifies catalogue, view and settings; snapshots carry it.
    shop, view: see `Shop` and `View`.
  """

  def __init__(
      self,
      name: str,
      catalogue: str,
      shop: Shop,
      view: View,
      goals: Mapping[str, Sequence[Goal]],
      max_steps: int = 0,
  ):
    self.name = name
    self.shop = shop
    self.view = view
    self._catalogue = catalogue
    self._max_steps = max_steps
    self._tasks = {
        split: tuple(self._task(split, goal) for goal in goals.get(split, ()))
        for split in api.SPLITS
    }

  def tasks(self, split: str) -> Sequence[api.Task]:
    api.check_split(split)
    return self._tasks[split]

  def _task(self, split: str, goal: Goal) -> api.Task:
    # The text alone names a task: splits share none and repeat none.
    digest = api.observation_hash(f'{goal.asin} {goal.instruction}')
    return api.Task(
        id=f'webshop-{self._catalogue}-{digest}',
        split=split,
        instruction=goal.instruction,
        payload=goal_lib.goal_to_json(goal),
    )

  def session(self) -> WebShopSession:
    return WebShopSession(self)

  def is_over(self, state: PageState) -> bool:
    return state.page == 'done' or 0 < self._max_steps <= state.steps

  def judge(self, state: PageState, observation: str, valid: bool) -> api.Step:
    """The step that led to `state`. Success is a full score of 1.0."""
    bought = state.page == 'done'
    info: dict[str, Any] = {'valid': valid}
    if bought:
      info |= {'success': state.reward == 1.0, 'score': state.reward}
      info |= self.shop.reward(state).as_info()
    return api.Step(
        observation,
        reward=state.reward if bought else 0.0,
        terminated=bought,
        truncated=not bought and self.is_over(state),
        info=info,
    )

  def instructions(self) -> str:
    return self.view.instructions()

  def parse_response(self, response: str) -> str:
    """The action in a response. Raises InvalidAction where there is none.

    Text views read <action>...</action>, else the last search[...] or
    click[...]; the compact view takes the response as it is.
    """
    if not isinstance(self.view, pages.TextView):
      return super().parse_response(response)
    tagged = api.find_tagged(response)
    found = [tagged] if tagged is not None else _BARE.findall(response)
    action = found[-1].strip() if found else ''
    if not action:
      raise api.InvalidAction(
          'no action found; write <action>search[words]</action> or '
          '<action>click[text]</action>'
      )
    return action

  def vocabulary(self) -> Sequence[str]:
    """Every word of the compact view; other views are open-ended."""
    return self.view.vocabulary(self.shop)

  def task_type(self, task: api.Task) -> str:
    """The department of the product that the goal was made from."""
    return self.shop.by_asin[task.payload['asin']].department or self.name

  def subtasks(self) -> Mapping[str, str]:
    return subtasks.SUBTASKS

  def completed(self, task: api.Task, history: api.History) -> Sequence[str]:
    start = PageState(goal=goal_lib.goal_from_json(task.payload))
    return subtasks.completed(self.shop, self.view, start, history.actions)

  def teacher(self, **options: Any) -> api.Teacher:
    """In a view's own words: a few of the compact one, sentences of the others."""
    if isinstance(self.view, pages.TextView):
      from envs.webshop import text_expert

      return text_expert.TextShopTeacher(**options)
    from envs.webshop import expert

    return expert.ShopTeacher(**options)


def make(
    catalogue: str = 'embedded',
    data_dir: str = '',
    view: str = '',
    page_size: int = 0,
    max_hits: int = 50,
    show_attributes: bool = False,
    max_steps: int = 0,
    goal_seed: int = 42,
    human_goals: bool = False,
    max_goals_per_product: int = 20,
    **embedded: Any,
) -> WebShopWorld:
  """The world of a catalogue.

  Args:
    catalogue: 'embedded' (generated, needs no data) or 'official'.
    data_dir: the directory with the files, see `official`; official only.
    view: 'compact' (embedded catalogue only), 'text' or 'text_rich'; empty
      for 'compact' with the embedded and 'text' with the official catalogue.
    page_size: products per results page; 0 for 3 with the embedded and the
      original's 10 with the official catalogue.
    max_hits: products per search.
    show_attributes: whether item pages have an 'Attributes' button.
    max_steps: the environment's own limit, 0 for none.
    goal_seed, human_goals: see `official.load`; official only.
    max_goals_per_product: see `goals.split_goals`; official only.
    **embedded: options of `embedded.build`; embedded only.

  Raises:
    ValueError: names the bad option and the choices.
    FileNotFoundError: a file of the official catalogue is missing.
  """
  _check_choice('catalogue', catalogue, CATALOGUES)
  view = view or _DEFAULT_VIEWS[catalogue]
  made_view = _make_view(view, catalogue)
  if max_steps < 0:
    raise ValueError(f'max_steps is {max_steps}; 0 means no limit')
  if catalogue == 'official':
    _check_names(embedded)
    if not data_dir:
      raise ValueError('the official catalogue needs data_dir, where its files are')
    data = official.load(data_dir, goal_seed, human_goals)
    products = data.products
    goals = goal_lib.split_goals(data.goals, max_goals_per_product)
  else:
    _refuse_official(locals())
    products, goals = _build_embedded(embedded)
  page_size = page_size or _PAGE_SIZES[catalogue]
  shop = Shop(products, page_size, max_hits, show_attributes)
  name = f'webshop-{catalogue}-{_fingerprint(shop, view, max_steps)}'
  return WebShopWorld(name, catalogue, shop, made_view, goals, max_steps)


def _refuse_official(given: Mapping[str, Any]) -> None:
  """ValueError for an option that the embedded catalogue would not look at."""
  for name in _OFFICIAL:
    if given[name] != inspect.signature(make).parameters[name].default:
      raise ValueError(
          f"{name}={given[name]!r} is for catalogue='official'; the embedded "
          'catalogue does not use it: give that catalogue too, or leave it out'
      )


def _build_embedded(
    options: Mapping[str, Any],
) -> tuple[Sequence[Product], Mapping[str, Sequence[Goal]]]:
  from envs.webshop import embedded

  _check_names(options, *inspect.signature(embedded.build).parameters)
  built = embedded.build(**options)
  return built.products, built.goals


def _make_view(view: str, catalogue: str) -> View:
  choices = VIEWS if catalogue == 'embedded' else VIEWS[1:]
  _check_choice(f'view of the {catalogue} catalogue', view, choices)
  if view == 'compact':
    from envs.webshop import compact

    return compact.CompactView()
  return pages.TextView(rich=view == 'text_rich')


def _fingerprint(shop: Shop, view: str, max_steps: int) -> str:
  """Eight hex digits; worlds share them only if their states are exchangeable."""
  asins = ' '.join(shop.by_asin)
  settings = (shop.page_size, shop.max_hits, shop.show_attributes, view, max_steps)
  return api.observation_hash(f'{settings} {asins}')[:8]


def _check_choice(what: str, value: str, choices: Sequence[str]) -> None:
  if value not in choices:
    raise ValueError(f'unknown {what} {value!r}; choose from {", ".join(choices)}')


def _check_names(options: Mapping[str, Any], *extra: str) -> None:
  """Refuses options that neither `make` nor the catalogue has."""
  known = [*inspect.signature(make).parameters][:-1] + list(extra)
  for name in options:
    if name not in extra:
      raise ValueError(f'unknown option {name!r}; choose from {", ".join(known)}')
