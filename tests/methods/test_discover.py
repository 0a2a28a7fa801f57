"""Attempts in sequence: with what the ones before taught, without, and resume."""

from __future__ import annotations

import dataclasses
import json
import types

import pytest

pytest.importorskip('nltk', reason="pip install -e '.[memsearch]'")

from leafe_jax import config as config_lib
from leafe_jax.config import Evaluate, Grpo
from leafe_jax.methods import discover, phases, retro, retro_reflect
from leafe_jax.methods.discover import Discovery
from leafe_jax.methods.hindsight import FILE, Retrospection
from tests.rollout import corridor


def obeys(text, request):
  """Opens cell 1 where a lesson says so; reflects that it should have."""
  if '<reflect>' in text:
    return '<t2> cell 1 go open'
  return 'open' if 'go open <use>' in text and 'cell 1 <act>' in text else 'right'


def course(directory, attempts=3):
  player = corridor.player(obeys, horizon=3)
  explore = dataclasses.replace(config_lib.Explore(), max_reflection_tokens=8)
  config = config_lib.Experiment(
      evaluate=Evaluate(discovery=attempts), explore=explore)
  run = types.SimpleNamespace(
      config=config, world=player.world, transcript=player.transcript)
  pupil = Retrospection(run, Grpo(), False)
  directory.mkdir(exist_ok=True)
  tasks = [task for task in player.world.tasks('test') if task.id in
           ('door-1', 'door-3')]
  return Discovery(run, directory, player, pupil), tasks


def test_what_an_attempt_taught_solves_the_task_in_the_next_one(tmp_path):
  found, tasks = course(tmp_path / 'd')
  result = found.go_through('discover', tasks)
  assert result['solved'] == {'with memory': [0, 1, 1], 'without': [0, 0, 0]}
  # Two tasks, twice; then door 1 is left alone. Without memory both go on.
  assert result['budget']['episodes'] == 2 + 2 + 1 + 3 * 2
  assert result['tasks'] == 2
  lessons = json.loads((tmp_path / 'd' / FILE).read_text())['lessons']['lessons']
  assert {held['text'] for held in lessons} == {'cell 1 go open'}


def test_a_phase_that_dies_goes_on_from_the_last_attempt(tmp_path, monkeypatch):
  whole, tasks = course(tmp_path / 'whole')
  expected = whole.go_through('discover', tasks)
  killed, tasks = course(tmp_path / 'killed')
  ask, calls = retro_reflect.ask, []

  def dying(*arguments):
    calls.append(0)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return ask(*arguments)

  with monkeypatch.context() as patch:
    patch.setattr(retro_reflect, 'ask', dying)
    with pytest.raises(KeyboardInterrupt):
      killed.go_through('discover', tasks)
  again, tasks = course(tmp_path / 'killed')
  assert again.go_through('discover', tasks) == expected
  for name in ('state.json', FILE):
    assert (tmp_path / 'killed' / name).read_bytes() == (
        tmp_path / 'whole' / name).read_bytes()


def test_it_is_a_phase_of_arms_with_such_a_memory_if_wanted():
  arm = retro.ARMS[0]
  names = [phase.name for phase in phases.evaluations(arm, Evaluate(discovery=2))]
  assert names == ['evaluate/retro_in_context', 'discover/retro_in_context']
  assert len(phases.evaluations(arm, Evaluate())) == 1
  bare = dataclasses.replace(arm, pupil=None)
  assert len(phases.evaluations(bare, Evaluate(discovery=2))) == 1
  [_, phase] = phases.evaluations(arm, Evaluate(discovery=2))
  assert 'retro_in_context' in phase.after and 'evaluate.discovery' in phase.reads
  assert 'evaluate.discovery' not in phases.EVALUATE_READS


def test_tasks_are_counted_by_the_attempt_that_solved_them():
  side = discover.Side(4, {'a': 1, 'b': 3, 'c': 3})
  assert side.within(4) == [1, 1, 3, 3]
