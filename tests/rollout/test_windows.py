"""Prompts that begin anew at every turn and show the last turns alone."""

from __future__ import annotations

import dataclasses
import functools
import random
import types

import numpy as np
import pytest

from leafe_jax.config import Experience, Explore, Grpo
from leafe_jax.experience import build, foresight, preferences
from leafe_jax.methods import beside, online, reflector
from leafe_jax.rollout.alternatives import Expert, propose
from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.explore import explore
from leafe_jax.rollout.grow import Limits
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.samples import play_groups
from leafe_jax.sampler import Rules, Sample
from leafe_jax.tree import Tree, segments
from tests.text.test_families import TRANSCRIPTS, Doors, Talker, opens_too_early

TWO = pytest.mark.parametrize('name', ['qwen2.5', 'mistral'])
EXPLORE = dataclasses.replace(Explore(), num_roots=1, reflect_every=0, restart=False)
RULES = Rules(1.0, 8, ())


def make_player(name, answer=opens_too_early, turns=1, horizon=6, sampler=Talker):
  """(player, states it was asked at); `turns` 0: its transcripts only grow."""
  spelt, seen = TRANSCRIPTS[name], []

  def recorded(text, request):
    seen.append(tuple(request.state))
    return answer(text, request)

  window = functools.partial(spelt.window, turns) if turns else None
  voice = sampler(spelt, recorded)
  return Player(voice, spelt, Doors(), horizon, 0, 0, window=window), seen


def grow(player, config=EXPLORE, door=2):
  task = player.world.tasks('train')[door]
  return explore(player, [task], config, lambda task: Limits(8, 0), 4)[0]


def play(player, count, memory=''):
  tasks = player.world.tasks('train')[2:3]
  [group] = play_groups(player, tasks, count, RULES, 4, 'x', lambda task: memory)
  return group


def cut(example):
  """(prompt, what is trained, which is one run at the end)."""
  start = int(np.flatnonzero(example.weights)[0])
  assert example.weights[start:].all()
  return tuple(example.ids[:start]), example.ids[start:].tolist()


def walk(text, request):
  """Walks on; every third answer holds no action."""
  step = int(text.rpartition('Step ')[2].split()[0])
  return 'hm' if step % 3 == 0 else '<action>right</action>'


def texts(player, node):
  decode = player.transcript.tokenizer.decode
  return [decode(turn.prompt_ids) for turn in node.turns]


@TWO
def test_the_tree_is_the_same_and_reflections_still_see_all_of_it(name):
  (whole, all_seen), (player, seen) = make_player(name, turns=0), make_player(name)
  trees = grow(player), grow(whole)
  ways = [
      [(n.parent, n.tau, n.experience, [t.action for t in n.turns]) for n in t.nodes]
      for t in trees
  ]
  assert ways[0] == ways[1] and len(ways[0]) == 3
  ends = [tuple(player.transcript.reflection(turn, True)) for turn in (1, 2)]
  asked = [
      [s for s in states if any(s[-len(end):] == end for end in ends)]
      for states in (seen, all_seen)
  ]
  assert asked[0] == asked[1] and len(asked[0]) == 2
  # All of it is read for a reflection, and paid for.
  assert trees[0].budget['reflection_prompt_tokens'] == sum(map(len, asked[0]))


@pytest.mark.parametrize('scope', ['turn', 'branch'])
@TWO
def test_what_is_distilled_is_what_was_sampled_without_the_hint(name, scope):
  player, seen = make_player(name)
  tree = grow(player, dataclasses.replace(EXPLORE, hint_scope=scope))
  opener = player.transcript.opener_ids
  config = dataclasses.replace(Experience(), cf_filter='all')
  corrections = build.counterfactual([tree], config)
  assert corrections
  for example in corrections:
    turn = tree.nodes[example.node].turns[0]
    prompt, trained = cut(example)
    assert trained == turn.response_ids
    assert (*prompt[: -len(opener)], *turn.hint_ids, *opener) in seen
    assert 'Lesson' not in player.transcript.tokenizer.decode(list(prompt))
  for pair in preferences.pairs([tree], config):
    chosen, rejected = cut(pair.chosen), cut(pair.rejected)
    assert chosen[0] == rejected[0] and chosen[1] != rejected[1]


@TWO
def test_each_turn_is_rehearsed_once_in_its_own_prompt(name):
  player, seen = make_player(name)
  tree = grow(player)
  path = tree.path(tree.nodes[2])
  assert [turn.hinted for turn in path] == [True, True, False]
  for hinted, expected in ((False, path[2:]), (True, path)):
    config = dataclasses.replace(Experience(), reh_hinted=hinted)
    found = [cut(e) for e in build.rehearsal([tree], config, random.Random(0))]
    assert [trained for _, trained in found] == [t.response_ids for t in expected]
    assert found[-1][0] in seen
    for (prompt, _), turn in zip(found, expected, strict=True):
      assert prompt == (*turn.prompt_ids, *turn.opener_ids)


@TWO
def test_a_branch_has_the_prompt_that_its_parent_had(name):
  tree = grow(make_player(name)[0])
  branch = tree.nodes[2]
  parent = build.parent_turn(tree, branch)
  assert (branch.tau, branch.turns[0].fresh) == (2, True)
  assert branch.turns[0].prompt_ids == parent.prompt_ids
  branch.turns[0].prompt_ids = [*parent.prompt_ids, *branch.turns[0].hint_ids]
  with pytest.raises(build.HintLeak):
    build.rehearsal([tree], Experience(), random.Random(0))


@TWO
def test_a_tree_survives_its_file(name):
  tree = grow(make_player(name)[0])
  again = Tree.from_json(tree.to_json())
  assert again == tree
  assert [t.fresh for t in again.path(again.nodes[2])] == [False, True, True]
  assert [len(part) for part in segments(again.path(again.nodes[2]))] == [1, 1, 1]


@pytest.mark.parametrize('turns', [1, 3])
def test_prompts_are_bounded_and_show_the_last_turns(turns):
  player, _ = make_player('qwen2.5', walk, turns, horizon=30)
  [node] = play(player, 1, memory='look first').nodes
  assert node.ended_by == 'horizon' and len(node.turns) == 30
  lengths = [len(turn.prompt_ids) for turn in node.turns]
  assert max(lengths[20:]) <= max(lengths[turns:20]) + 8 * turns  # wider numbers
  for turn, text in zip(node.turns, texts(player, node), strict=True):
    shown = range(max(1, turn.index - turns), turn.index + 1)
    steps = [f'Step {number}\n' for number in range(1, 31)]
    assert [s for s in steps if s in text] == [f'Step {number}\n' for number in shown]
    assert text.count('Task: door 2') == text.count('look first') == 1
    assert ('so far: ' in text) == turn.fresh == (turn.index > 1)
    assert not turn.fresh or f'so far: {turn.index - 1}.' in text
    assert ('lack of a valid action' in text) == any(k % 3 == 0 for k in shown[:-1])


class Rambler(Talker):
  """Its second answer is cut off."""

  def _one(self, request):
    found = super()._one(request)
    if 'Step 2' not in self.transcript.tokenizer.decode(list(request.state))[-90:]:
      return found
    tokens = found.tokens[:-1]
    return Sample(found.state[:-1], tokens, found.logprobs[:-1], False)


@TWO
def test_an_answer_that_was_cut_off_is_said_where_it_matters(name):
  whole, _ = make_player(name, walk, 0, 4, Rambler)
  player, _ = make_player(name, walk, 2, 4, Rambler)
  nodes = [play(each, 1).nodes[0] for each in (player, whole)]
  assert [turn.cut_off for turn in nodes[0].turns] == [False, True, False, False]
  said = texts(player, nodes[0])
  assert ['was cut off' in text for text in said] == [False, False, True, False]
  assert said[2].index('lack of a valid') < said[2].index('cut off') < len(said[2])
  # The reflector is told of both in the same words.
  task = player.world.tasks('train')[2]
  asked = [
      reflector.reflection_request(each, task, node, Ledger()).state
      for each, node in zip((player, whole), nodes, strict=True)
  ]
  assert asked[0] == asked[1]


@TWO
def test_a_group_trains_every_turn_in_the_prompt_it_was_sampled_at(name):
  def by_luck(text, request):
    step = int(text.rpartition('Step ')[2].split()[0])
    last = 3 if request.key[0] % 2 else 2
    return f'<action>{"open" if step == last else "right"}</action>'

  player, seen = make_player(name, by_luck)
  group = play(player, 6)
  training = types.SimpleNamespace(_config=Grpo(), _step_weight=0.0)
  study = beside.Study(lambda tree, part, arrays: arrays)
  found = online.OnlineTraining._sequences(training, group, study)
  turns = [(node, turn) for node in group.nodes for turn in node.turns]
  assert {node.success for node in group.nodes} == {True, False}
  assert len(found) == len(turns)
  values = {}
  for sequence, (node, turn) in zip(found, turns, strict=True):
    trained = sequence['weights'] > 0
    start = int(np.flatnonzero(trained)[0])
    assert tuple(sequence['tokens'][:start]) in seen
    assert sequence['tokens'][trained].tolist() == turn.response_ids
    assert sequence['logprobs'][trained].tolist() == turn.logprobs
    assert not sequence['advantages'][~trained].any()
    values.setdefault(node.id, set()).update(sequence['advantages'][trained].tolist())
  # Groups are of episodes: what one is worth, all its turns are.
  rewards = np.array([10.0 * node.success for node in group.nodes])
  expected = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
  assert all(len(found) == 1 for found in values.values())
  np.testing.assert_allclose([v for k in sorted(values) for v in values[k]], expected,
                             rtol=1e-5)


@TWO
def test_early_experience_foretells_and_reflects_as_it_was_asked(name):
  def left_then_why(text, request):
    if '<rollback>STEP</rollback>' in text.rpartition('Step ')[2]:
      step = text.count('You did') + text.count('<action>right</action>') + 1
      said = {1: 'right', 2: 'right', 3: 'open'}[step]
      why = f'<experience><action>{said}</action></experience>'
      return f'<rollback>{step}</rollback>{why}'
    return '<action>left</action>'

  player, seen = make_player(name, left_then_why)
  script = [f'<action>{word}</action>' for word in ('right', 'right', 'open')]
  expert = Expert(player.world.tasks('train')[2], tuple(script))
  [tree] = trees = propose(player, [expert], 1, RULES, RULES)
  root = tree.nodes[0]
  copied = [cut(example) for example in foresight.imitation(trees)]
  assert copied == [
      ((*turn.prompt_ids, *turn.opener_ids), turn.response_ids) for turn in root.turns
  ]
  foretold = [cut(e) for e in foresight.world_model(trees, player.transcript)]
  decode = player.transcript.tokenizer.decode
  answers = [decode(ids) for _, ids in foretold]
  for text, seen_next in zip(answers, ['cell 1', 'cell 2', 'opened'], strict=False):
    assert text.strip().removesuffix('[/INST]').strip().endswith(seen_next)
    assert 'Task:' not in text
  assert len(foretold) == 3 + len(tree.nodes) - 1
  for (prompt, _), turn in zip(foretold, root.turns, strict=False):
    assert prompt == (*turn.prompt_ids, *turn.opener_ids, *turn.response_ids)
  reflected = [cut(e) for e in foresight.reflections(trees, player.transcript)]
  assert len(reflected) == 3 and all(prompt in seen for prompt, _ in reflected)
