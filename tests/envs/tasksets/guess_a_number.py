"""As one writes an environment of several turns for verifiers: a number from 0 to 9."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

vf: Any = importlib.import_module('verifiers.v1')


class GuessConfig(vf.TasksetConfig):
  size: int = 12
  way: str = ''  # how it breaks when it is asked to


class GuessData(vf.TaskData):
  secret: int


class GuessTask(vf.Task[GuessData]):
  pass


class GuessTaskset(vf.Taskset[GuessTask, GuessConfig]):

  def load(self):
    for number in range(self.config.size):
      data = GuessData(
          name=f'guess-{number}', secret=number * 7 % 10,
          prompt='Which number from 0 to 9?', system_prompt='Say a number, no words.',
      )
      yield GuessTask(data, self.config.task)


class GuessEnvConfig(vf.EnvConfig):
  player: vf.AgentConfig = vf.AgentConfig()


class GuessEnv(vf.Env[GuessEnvConfig]):

  async def run(self, task, agents):
    async with agents.player.interaction(task) as interaction:
      segment, tries = await interaction.turn(), 1
      while not segment.terminated and segment.last_reply != str(task.data.secret):
        if segment.last_reply == 'crash':
          await self.crash()
        tries += 1
        low = segment.last_reply < str(task.data.secret)
        segment = await interaction.turn('higher' if low else 'lower')
    interaction.trace.record_reward('speed', 1 / tries)

  async def crash(self):
    if self.taskset.config.way == 'hang':
      await asyncio.sleep(1000)
    if self.taskset.config.way == 'raise':
      raise OSError('the oracle is out')


__all__ = ['GuessEnv', 'GuessTaskset']
