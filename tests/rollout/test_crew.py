"""Environments divided between processes; threads stand in for these."""

import concurrent.futures
import dataclasses
import threading

import numpy as np
import pytest

from envs import api
from leafe_jax import hosts
from leafe_jax.config import Explore
from leafe_jax.evaluation import tasksets
from leafe_jax.rollout.crew import Crew
from leafe_jax.rollout.evaluate import evaluate
from leafe_jax.rollout.explore import explore
from leafe_jax.rollout.grow import Limits
from leafe_jax.rollout.timing import Clock
from leafe_jax.sampler import Rules
from leafe_jax.tree import ELSEWHERE, Node, Tree, segments
from tests.rollout import corridor

CONFIG = dataclasses.replace(Explore(), num_roots=2, reflect_every=2, max_depth=3)


@pytest.fixture
def together(monkeypatch):
  """Runs a function in `places` threads that pass for processes."""

  def run(function, places=2):
    local, meeting, told = threading.local(), threading.Barrier(places, timeout=60), {}

    def exchange(payload):
      told[local.index] = payload
      meeting.wait()
      heard = [told[i] for i in range(places)]
      meeting.wait()
      return heard

    def one(index):
      local.index = index
      return function()

    monkeypatch.setattr(hosts, 'count', lambda: places)
    monkeypatch.setattr(hosts, 'index', lambda: local.index)
    monkeypatch.setattr(hosts, 'exchange', exchange)
    with concurrent.futures.ThreadPoolExecutor(places) as pool:
      found = list(pool.map(one, range(places)))
    monkeypatch.undo()
    return found

  return run


def answer(text, request):
  """A mixed bag: crashes, nonsense, reflections, success under hints."""
  if '<reflect>' in text or '<failed>' in text:
    return '<t1> go open' if request.key[0] % 3 else '<t2> go right'
  words = ('right', 'left', 'open', 'crash', 'right', 'go')
  return words[request.key[0] % len(words)]


def watched(player):
  """The player, whose world notes which tasks are opened."""
  opened = set()

  class Watched(corridor.Corridor):

    def reset(self, task, seed=0):
      opened.add(task.id)
      return super().reset(task, seed)

  player.world.session = Watched
  return player, opened


def grow(play=None):
  player, opened = watched(corridor.player(answer))
  if play:
    player.world.session = play
  tasks = player.world.tasks('train')
  return explore(player, tasks, CONFIG, lambda task: Limits(9, 0), 5), opened


def check_part(trees, alone, place, places):
  """A process has its own tasks' trees; of all others all but what turns hold."""
  own = hosts.part(len(alone), place, places)
  assert trees[own] == alone[own]
  for tree, whole in zip(trees, alone, strict=True):
    assert [vars(n) | {'turns': len(n.turns)} for n in tree.nodes] == [
        vars(n) | {'turns': len(n.turns)} for n in whole.nodes
    ]
    assert tree.budget == whole.budget
  others = [tree for tree in trees if tree not in trees[own]]
  turns = [turn for tree in others for node in tree.nodes for turn in node.turns]
  assert turns and all(turn is ELSEWHERE for turn in turns)


def test_half_a_tree_is_not_taken_for_a_whole_one():
  tree = Tree('t', '', 'train', [Node(0, None, 1, None, 0, [ELSEWHERE])])
  with pytest.raises(TypeError, match='Elsewhere'):
    tree.to_json()
  with pytest.raises(AttributeError):
    segments(tree.path(tree.nodes[0]))


def test_prompts_that_are_made_of_earlier_turns_keep_them_everywhere(together):

  def play():
    player, _ = watched(corridor.player(answer))
    player = dataclasses.replace(
        player, window=lambda rules, goal, memory, past, seen: [
            token for turn in past for token in turn.response_ids
        ] + player.transcript.next(len(past) + 1, seen)
    )
    tasks = player.world.tasks('train')
    config = dataclasses.replace(CONFIG, reflect_every=0, max_depth=0)
    return explore(player, tasks, config, lambda task: Limits(3, 0), 5)

  alone = play()
  assert any(turn.fresh for tree in alone for n in tree.nodes for turn in n.turns)
  assert all(trees == alone for trees in together(play))


@pytest.mark.parametrize('places', [2, 3])
def test_all_processes_grow_the_trees_of_one_and_play_their_own_tasks(
    together, places
):
  alone, opened = grow()
  found = together(grow, places)
  assert {node.ended_by for tree in alone for node in tree.nodes} > {'error'}
  for place, (trees, _) in enumerate(found):
    check_part(trees, alone, place, places)
  assert set.union(*(own for _, own in found)) == opened
  assert sum(len(own) for _, own in found) == len(opened)


def test_a_state_that_cannot_be_restored_is_known_to_all(together):

  class Drift(corridor.Corridor):

    def restore(self, snapshot):
      self.replayed_steps = 1
      raise api.ReplayDiverged(2, 'aa', 'bb')

  alone, _ = grow(Drift)
  broken = [n for tree in alone for n in tree.nodes if 'Diverged' in (n.error or '')]
  assert broken
  assert any(tree.budget['replayed_steps'] for tree in alone)
  for place, (trees, _) in enumerate(together(lambda: grow(Drift))):
    check_part(trees, alone, place, 2)


def test_what_closing_raises_is_known_to_all(together):

  class Stuck(corridor.Corridor):

    def close(self):
      raise OSError('stuck')

  alone, _ = grow(Stuck)
  errors = [node.error or '' for tree in alone for node in tree.nodes]
  assert 'CloseError: OSError: stuck' in errors
  for place, (trees, _) in enumerate(together(lambda: grow(Stuck))):
    check_part(trees, alone, place, 2)


def test_evaluation_is_the_same_for_all(together):
  def play():
    player = corridor.player(answer)
    tasks = player.world.tasks('test')
    return evaluate(player, tasks, 7, Rules(), 5)

  alone = play()
  assert any(sum(outcome.successes) for outcome in alone)
  world = corridor.player(answer).world
  assert tasksets.of_outcomes('test', alone) == tasksets.of_tasks(
      'test', world.tasks('test'), world
  )
  assert together(play) == [alone, alone]


def test_numbers_survive_the_exchange_to_the_bit(together):
  step = api.Step('ö "x"\n', 0.1 + 0.2, info={'score': np.float32(0.1), 'valid': True})

  def play():
    def fill(outcome):
      outcome.step = step

    tasks = [api.Task(str(i), 'test', '') for i in range(3)]
    crew = Crew(tasks, Clock(), corridor.CorridorWorld())
    return crew.run([(task.id, fill) for task in tasks])

  for outcomes in together(play):
    for outcome in outcomes:
      assert outcome.step.observation == step.observation
      assert outcome.step.reward == step.reward
      assert outcome.step.score == step.score and outcome.step.valid
