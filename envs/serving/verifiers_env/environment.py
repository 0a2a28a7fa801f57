"""One task becomes one episode: the model's turns, the world's answers, its score."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
from typing import Any

from envs import api
from envs.serving.verifiers_env.taskset import WorldTasksetConfig

vf: Any = importlib.import_module('verifiers.v1')


class WorldEnvConfig(vf.EnvConfig):
  """A player, with the loop of this package unless told, on this machine."""

  player: vf.AgentConfig = vf.AgentConfig(  # pyright: ignore
      runtime={'type': 'subprocess'}
  )


class WorldEnv(vf.Env[WorldEnvConfig]):
  """See the module."""

  @functools.cached_property
  def _places(self) -> asyncio.Semaphore:
    return asyncio.Semaphore(self.taskset.world.places)

  async def run(self, task: Any, agents: Any) -> None:
    """Plays until the world ends the episode, the model does, or the turns are over."""
    world, known = self.taskset.world, self.taskset.tasks[task.data.id]
    with contextlib.closing(world.session()) as session:
      step = await self._move(known, session.reset, known)
      said = f'{task.data.instruction}\n\n{step.observation}'
      moves: list[api.Step] = []
      async with agents.player.interaction(task) as interaction:
        while len(moves) < self.taskset.config.horizon and not _over(step):
          segment = await interaction.turn(said)
          if segment.terminated:
            break
          step = await self._answer(known, session, segment.last_reply)
          moves.append(step)
          said = step.observation
    _record(interaction.trace, moves)

  async def _answer(
      self, task: api.Task, session: api.TextEnv, reply: str
  ) -> api.Step:
    try:
      action = self.taskset.world.parse_response(reply)
    except api.InvalidAction as refusal:
      return api.Step(str(refusal), info={'valid': False})
    return await self._move(task, session.step, action)

  async def _move(self, task: api.Task, work: Any, *arguments: Any) -> api.Step:
    """In a thread: a world may take its time, and verifiers has one loop for all."""
    async with self._places:
      step = await asyncio.to_thread(work, *arguments)
    return api.checked(step, self.taskset.world, task)

  async def stop(self) -> None:
    self.taskset.world.close()


def _over(step: api.Step) -> bool:
  return step.terminated or step.truncated


def _record(trace: Any, moves: list[api.Step]) -> None:
  last = moves[-1] if moves else api.Step('')
  trace.record_reward('score', last.score)
  trace.record_metrics({
      'success': last.success,
      'return': sum(step.reward for step in moves),
      'turns': len(moves),
      'valid': sum(step.valid for step in moves) / max(len(moves), 1),
  })


def load_environment(
    world: str = 'webshop', split: str = 'train', horizon: int = 15, **options: Any
) -> Any:
  """The environment, for Python.

  Args:
    world: a name, or package.module:function of your own.
    split: of the tasks.
    horizon: turns of an episode.
    **options: of the world.
  """
  taskset = WorldTasksetConfig(
      id='leafe-worlds', world=world, split=split, horizon=horizon, options=options
  )
  return vf.load_environment(WorldEnvConfig(taskset=taskset))
