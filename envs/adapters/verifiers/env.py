"""Environments of verifiers (MIT, verifiers 0.4) that talk with one player.

  registry.make('verifiers', taskset='textarena', options={'game': 'Wordle-v0'})

The policy is the model that the environment calls: what the environment says is the
observation, what the policy says the model's answer, and an episode's reward is the
environment's. There is nothing to copy, so a session goes back by playing again.
Environments with tools (MCP servers) or several players are refused.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Mapping
from typing import Any

from envs.adapters import adapted
from envs.adapters.verifiers.backstage import Backstage
from envs.adapters.verifiers.game import VerifiersGame

HARNESS = 'leafe-worlds'
_REFUSED = (ImportError, ValueError, TypeError, AttributeError, OSError)


class VerifiersWorld(adapted.AdaptedWorld):
  """Ends what runs behind it when it is closed."""

  def __init__(self, backstage: Backstage, parallel: int, *arguments: Any):
    self._backstage = backstage
    super().__init__(*arguments)
    self.places = parallel

  def close(self) -> None:
    self._backstage.close()


def make(
    taskset: str = '',
    env: str = '',
    options: Mapping[str, Any] | None = None,
    rules: str = '',
    success_reward: float = 1.0,
    max_steps: int = 0,
    timeout: float = 600.0,
    parallel: int = 8,
    train_tasks: int = 100,
    validation_tasks: int = 20,
    test_tasks: int = 20,
) -> VerifiersWorld:
  """The world of a taskset.

  Args:
    taskset: its id, that of an installed package or one of verifiers' own.
    env: id of the environment that plays it; '': the taskset's own.
    options: of the taskset.
    rules: how to play, for language models; '': the system prompt of the first task.
    success_reward: that is a success and a score of 1.
    max_steps: actions per episode, 0 for the environment's own limit.
    timeout: seconds that the environment may take for a turn; 0: any.
    parallel: sessions that may move at a time.
    train_tasks, validation_tasks, test_tasks: per split, in the taskset's order.

  Raises:
    ValueError: names what cannot be, and the choices.
    ModuleNotFoundError: verifiers is not installed.
  """
  if not taskset:
    raise ValueError("name a taskset: taskset='textarena'")
  for name, value in (('success_reward', success_reward), ('parallel', parallel)):
    if value <= 0:
      raise ValueError(f'{name} is {value}; it must be positive')
  counts = {'train': train_tasks, 'validation': validation_tasks, 'test': test_tasks}
  made = _make_env(taskset, env, dict(options or {}))
  tasks = _take_tasks(made.taskset, counts)
  first = next(iter(tasks.values()))
  backstage = Backstage(made, timeout)
  settings = (taskset, env, sorted((options or {}).items()), max_steps, success_reward)
  return VerifiersWorld(
      backstage, parallel, f'verifiers-{taskset}',
      lambda: VerifiersGame(backstage, tasks, success_reward, max_steps), settings,
      counts, 'replay', rules or first.data.system_prompt or '',
  )


def _make_env(taskset: str, env: str, options: Mapping[str, Any]) -> Any:
  """The environment with its one player on our side. ValueError."""
  vf: Any = importlib.import_module('verifiers.v1')
  loaders: Any = importlib.import_module('verifiers.v1.utils.loaders')
  agents: Any = importlib.import_module('verifiers.v1.configs.agent')
  try:
    raw = {'id': env, 'taskset': {**options, 'id': taskset}}
    config = loaders.resolve_env_config(raw)
    roles = list(agents.agent_config_fields(config))
    seat = {'harness': {'id': HARNESS}, 'runtime': {'type': 'subprocess'}}
    made = vf.load_environment(
        loaders.resolve_env_config({**raw, **dict.fromkeys(roles, seat)})
    )
  except _REFUSED as error:
    raise ValueError(f'taskset {taskset!r}: {" ".join(f"{error}".split())}') from error
  if len(roles) != 1:
    raise ValueError(
        f'taskset {taskset!r} has the players {", ".join(roles)}; only one can be '
        'played'
    )
  kind = type(made.taskset).task_type()
  config = made.taskset.config
  tools = made.taskset.toolsets(config) or kind.toolsets(config.task)
  if tools or kind.NEEDS_CONTAINER:
    raise ValueError(f'taskset {taskset!r} needs tools or a container; only words are')
  return made


def _take_tasks(taskset: Any, counts: Mapping[str, int]) -> dict[int, Any]:
  """As many tasks as the splits need, by seed. ValueError if there are too few."""
  wanted = sum(counts.values())
  found = list(itertools.islice(taskset, wanted))
  if len(found) < max(wanted, 1):
    raise ValueError(
        f'the taskset has {len(found)} tasks, and train_tasks, validation_tasks and '
        f'test_tasks ask for {wanted}'
    )
  seeds = [
      adapted.FIRST_SEED[split] + number
      for split, count in counts.items()
      for number in range(count)
  ]
  return dict(zip(seeds, found, strict=True))
