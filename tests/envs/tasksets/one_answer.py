"""As one writes a taskset of questions for verifiers: one answer, one reward."""

from __future__ import annotations

import importlib
from typing import Any

vf: Any = importlib.import_module('verifiers.v1')


class QuestionData(vf.TaskData):
  answer: str


class QuestionTask(vf.Task[QuestionData]):

  @vf.reward
  async def right(self, task, trace):
    return float(self.data.answer in trace.last_reply)


class Questions(vf.Taskset[QuestionTask, vf.TasksetConfig]):

  def load(self):
    for number in range(6):
      yield QuestionTask(
          QuestionData(prompt=f'{number} + {number}?', answer=str(2 * number)),
          self.config.task,
      )


__all__ = ['Questions']
