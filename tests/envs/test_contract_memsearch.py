"""The environment contract on memory search: both views, and files of both forms."""

from __future__ import annotations

import functools

import pytest

pytest.importorskip('nltk', reason="pip install -e '.[memsearch]'")

from envs import registry
from envs.contract import EnvironmentContract
from tests.envs import memory_files

_FEW = {'train_questions': 16, 'validation_questions': 8, 'test_questions': 8}


@functools.cache
def embedded(view: str, max_steps: int = 0):
  return registry.make('memsearch', view=view, max_steps=max_steps, **_FEW)


class TestCompact(EnvironmentContract):

  texts_differ = False  # another conversation gives the same question another answer
  num_strange = 3000

  def world(self):
    return embedded('compact')

  def actions(self, task):
    _, _, name, topic = task.instruction.split()
    return (f'plan {name}', f'keyword {name} {topic}', f'vector {name}', 'page 2',
            'keyword ann', 'answer rome')  # fmt: skip


class TestTextWithALimit(EnvironmentContract):

  texts_differ = False
  num_strange = 1000

  def world(self):
    return embedded('text', 4)

  def actions(self, task):
    return ('keyword[town]', 'page[D2:2]', 'page[D99]', 'plan[give up]', 'answer[Rome]')


class _File(EnvironmentContract):
  num_strange = 1000

  @pytest.fixture(autouse=True)
  def _made(self, tmp_path_factory):
    self.directory = tmp_path_factory.getbasetemp()

  def actions(self, task):
    return ('keyword[dog]', 'vector[what is the dog called]', 'answer[Rex]')


class TestLocomo(_File):

  def world(self):
    return registry.make(
        'memsearch', source='locomo', data_path=memory_files.locomo(self.directory)
    )


class TestHotpot(_File):

  def world(self):
    return registry.make(
        'memsearch', source='hotpot', data_path=memory_files.hotpot(self.directory),
        train_memories=1, validation_memories=1,
    )  # fmt: skip
