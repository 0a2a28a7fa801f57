"""Gymnasium environments (MIT) whose observations and actions are, or become, text.

  registry.make('gymnasium', env_id='FrozenLake-v1', observe='render',
                kwargs={'render_mode': 'ansi'},
                action_names=('left', 'down', 'right', 'up'))

A task is a seed of `reset`. Observations are the environment's own if they are
strings, what `render` returns with observe='render', or what a function of yours
makes of them; actions are texts, names of a discrete space's actions, or what
another function of yours reads in a text. A text that is no action is answered
without a step of the environment.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from envs import api, registry
from envs.adapters import adapted

_RESET_COLOUR = re.compile(r'\x1b\[0?m')
_COLOUR = re.compile(r'\x1b\[[\d;]+m')


class GymnasiumGame(adapted.Game):
  """`state` is (environment, sum of rewards)."""

  def __init__(
      self,
      env: Any,
      observe: Callable[[Any, Any], str],
      act: Callable[[str], Any],
      success_return: float,
      max_steps: int,
  ):
    super().__init__(max_steps)
    self.state = (env, 0.0)
    self._observe, self._read = observe, act
    self._success_return = success_return

  def _start(self, seed: int) -> str:
    env, _ = self.state
    observation, _ = env.reset(seed=seed)
    self.state = (env, 0.0)
    return self._observe(env, observation)

  def _act(self, action: str) -> api.Step:
    try:
      read = self._read(action)
    except ValueError as error:
      return api.Step(f'No action: {error}', info={'valid': False})
    env, total = self.state
    observation, reward, terminated, truncated, info = env.step(read)
    reward = float(reward)
    total += reward
    self.state = (env, total)
    return api.Step(
        self._observe(env, observation), reward, bool(terminated), bool(truncated),
        self._judge(info, total, bool(terminated)),
    )  # fmt: skip

  def _judge(
      self, info: Mapping[str, Any], total: float, terminated: bool
  ) -> dict[str, Any]:
    """What the environment says of success and score, else what its rewards do."""
    reached = terminated and total >= self._success_return
    success = info.get('success', info.get('is_success', reached))
    score = float(info.get('score', total / self._success_return))
    return {
        'valid': True, 'success': bool(success), 'score': min(max(score, 0.0), 1.0)
    }  # fmt: skip

  def close(self) -> None:
    self.state[0].close()


def _observe_text(env: Any, observation: Any) -> str:
  del env
  if not isinstance(observation, str):
    raise TypeError(
        f'the observation is {type(observation).__name__}, not text; name a function '
        "in the option 'observe', or use observe='render'"
    )
  return observation


def _observe_rendered(env: Any, observation: Any) -> str:
  """What the terminal would show; what is in colour there is in [] here."""
  del observation
  rendered = env.render()
  if not isinstance(rendered, str):
    raise TypeError(
        f'render returns {type(rendered).__name__}, not text; try '
        "kwargs={'render_mode': 'ansi'}"
    )
  return _COLOUR.sub('[', _RESET_COLOUR.sub(']', rendered)).strip('\n')


def choose_observe(observe: str) -> Callable[[Any, Any], str]:
  """See the option of `make`."""
  if not observe:
    return _observe_text
  if observe == 'render':
    return _observe_rendered
  function = registry.find_function(observe)
  return lambda env, observation: function(observation)


def choose_act(act: str, space: Any, names: Sequence[str]) -> Callable[[str], Any]:
  """See the option of `make`. ValueError for a space that has no texts."""
  from gymnasium import spaces

  if act:
    return registry.find_function(act)
  if isinstance(space, spaces.Text):
    return lambda text: _check_text(space, text)
  if not isinstance(space, spaces.Discrete):
    raise ValueError(
        f"actions are {space}; name a function that reads them in the option 'act'"
    )
  count, first = int(space.n), int(space.start)
  if names and len(names) != count:
    raise ValueError(f'{len(names)} action_names for {count} actions')
  known = {
      name: first + i for i, name in enumerate(names or map(str, range(count)))
  }

  def read(text: str) -> int:
    if text.strip() not in known:
      raise ValueError(f'choose from {", ".join(known)}')
    return known[text.strip()]

  return read


def _check_text(space: Any, text: str) -> str:
  if not space.contains(text):
    raise ValueError(f'it must be one of {space}')
  return text


def make(
    env_id: str = '',
    kwargs: Mapping[str, Any] | None = None,
    observe: str = '',
    act: str = '',
    action_names: Sequence[str] = (),
    rules: str = '',
    success_return: float = 1.0,
    snapshots: str = 'copy',
    max_steps: int = 0,
    train_tasks: int = 1000,
    validation_tasks: int = 100,
    test_tasks: int = 100,
) -> adapted.AdaptedWorld:
  """The world of a registered environment.

  Args:
    env_id: as for `gymnasium.make`; 'module:ID' imports the module first.
    kwargs: further arguments of `gymnasium.make`, of JSON types.
    observe: '' where observations are strings, 'render', or the path
      'package.module:function' of a function from observations to text.
    act: '' for a text or a discrete space, or the path of a function from a text
      to an action; it raises ValueError for a text that is none.
    action_names: of a discrete space's actions; numbers without.
    rules: how to play, for language models.
    success_return: sum of rewards that is a success and a score of 1, where
      `info` does not hold 'success' (or 'is_success') and 'score'.
    snapshots: 'copy' (pickles the environment) or 'replay'.
    max_steps: actions per episode, 0 for the environment's own limit.
    train_tasks, validation_tasks, test_tasks: seeds per split.

  Raises:
    ValueError: names the bad option and the choices.
    ModuleNotFoundError: gymnasium is not installed.
  """
  import gymnasium

  if success_return <= 0:
    raise ValueError(f'success_return is {success_return}; it must be positive')
  names, made_with = tuple(action_names), dict(kwargs or {})
  make_game = functools.partial(
      _make_game, env_id, made_with, choose_observe(observe), act, names,
      success_return, max_steps,
  )
  counts = {'train': train_tasks, 'validation': validation_tasks, 'test': test_tasks}
  settings = (sorted(made_with.items()), observe, act, names, max_steps)
  try:
    name = f'gymnasium-{env_id}'
    return adapted.AdaptedWorld(name, make_game, settings, counts, snapshots, rules)
  except gymnasium.error.Error as error:
    raise ValueError(f'env_id {env_id!r}: {error}') from error


def _make_game(
    env_id: str,
    kwargs: Mapping[str, Any],
    observe: Callable[[Any, Any], str],
    act: str,
    names: Sequence[str],
    success_return: float,
    max_steps: int,
) -> GymnasiumGame:
  import gymnasium

  env = gymnasium.make(env_id, disable_env_checker=True, **kwargs)
  read = choose_act(act, env.action_space, names)
  return GymnasiumGame(env, observe, read, success_return, max_steps)
