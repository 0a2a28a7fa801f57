"""RetroAgent: what hindsight says, what it earns, who is shown lessons, and resume."""

from __future__ import annotations

import dataclasses
import json
import signal
import types

import numpy as np
import pytest

pytest.importorskip('nltk', reason="pip install -e '.[memsearch]'")

from envs import api
from leafe_jax import config as config_lib
from leafe_jax import stops
from leafe_jax.config import Grpo, Retro
from leafe_jax.endings import RunStopped
from leafe_jax.experience import examples
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.methods import hindsight as hindsight_lib
from leafe_jax.methods import online, retro, retro_reflect, training
from leafe_jax.methods.beside import Scene
from leafe_jax.methods.retro_reflect import Case, Hindsight, Judgement
from leafe_jax.methods.run import BASE
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.samples import play_groups
from leafe_jax.text import tokenizers as tok
from leafe_jax.tree import Tree
from tests.methods import bandit, taught_bandit
from tests.methods.hindsight_cases import RULES, TASK, episode, group_of
from tests.methods.test_r2mem import chat_player
from tests.rollout import corridor

# --- what it earns


def memory_of(player=None, trained=False, grpo=None, **options):
  player = player or corridor.player(lambda text, request: 'open')
  explore = dataclasses.replace(config_lib.Explore(), max_reflection_tokens=8)
  config = config_lib.Experiment(retro=Retro(**options), explore=explore)
  run = types.SimpleNamespace(
      config=config, world=player.world, transcript=player.transcript)
  return hindsight_lib.Retrospection(run, grpo or Grpo(group_size=4), trained)


GROUP = [
    episode(0, ('a', True), ('b', True), success=True), episode(1, ('c', True)),
    episode(2, ('d', False)),
]
# By hand: Phi is .4 and phi 1, .5 and .25, so .6, .1 and 0 are earned beside 10.
GAINED = {('t', 0): 0.6, ('t', 1): 0.1, ('t', 2): 0.0}


def hindsight(node, progress, success, lesson='', tokens=3):
  return Hindsight(
      Case(TASK, node), [7, 8], [9] * tokens, [-0.5] * tokens,
      Judgement(progress, success, lesson))


SAID = [
    hindsight(GROUP[0], 0.0, True, 'Action: do b'),
    hindsight(GROUP[1], 0.5, False, 'Action: not c'),
    hindsight(GROUP[2], 0.25, True, 'Action: rest'),
]


def studied(monkeypatch, memory, said=SAID, row_length=64):
  monkeypatch.setattr(retro_reflect, 'reflect', lambda *arguments: list(said))
  group = Tree('t', TASK.instruction, 'train', list(GROUP))
  scene = Scene(1, [TASK], [group], None, Ledger(), None, row_length)
  return memory.study(scene), group


def test_what_goes_beyond_the_best_of_the_task_is_earned(monkeypatch):
  memory = memory_of(judge='world')
  memory._judges = 'self'  # as of a chat policy
  memory.best['t'] = 0.4
  study, group = studied(monkeypatch, memory)
  assert study.figures['progress'] == pytest.approx(1.75 / 3)
  assert study.figures['intrinsic'] == pytest.approx(0.7 / 3)
  rows = np.array([0.95 * 10.6, 10.6, 0.1, 0.0 - 0.1])  # the last one was refused
  expected = (rows - rows.mean()) / rows.std(ddof=1)
  found = study.advantages(group, group.nodes)
  np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-5)
  assert [len(values) for values in found] == [2, 1, 1]


def test_as_released_episodes_earn_their_outcome_alone(monkeypatch):
  memory = memory_of(parity='released_code', credit='episode')
  memory._judges = 'self'
  study, group = studied(monkeypatch, memory)
  scores = np.array([10.0, 0.0, -0.1])
  expected = (scores - scores.mean()) / scores.std(ddof=1)
  found = study.advantages(group, group.nodes)
  np.testing.assert_allclose([values[0] for values in found], expected, rtol=1e-5)


def test_the_world_judges_a_policy_without_words_for_it():
  world = corridor.CorridorWorld()
  node = dataclasses.replace(episode(0, ('right', True), ('dance', True)), score=0.3)
  assert hindsight_lib.world_progress(world, TASK, node) == 0.3
  world.subtasks = lambda: {'go': '', 'open': '', 'leave': ''}
  seen = []
  world.completed = lambda task, history: seen.append(history) or ['go', 'sing']
  assert hindsight_lib.world_progress(world, TASK, node) == pytest.approx(1 / 3)
  assert seen == [api.History('a red shirt', ('seen', 'seen', 'the end'),
                              ('right', 'dance'))]


@pytest.mark.parametrize(
    ('parity', 'expected'),
    [
        ('paper', [20.0, 0.0, 0.0]),
        # (.6, .1, 0), whitened with the sample's spread, times 2.
        ('released_code', [2 * 1.1406, 2 * -0.4148, 2 * -0.7259]),
    ],
)
def test_what_a_reflection_earns(monkeypatch, parity, expected):
  memory = memory_of(trained=True, parity=parity, reflect_weight=2.0)
  memory._judges, memory.best['t'] = 'self', 0.4
  study, _ = studied(monkeypatch, memory)
  assert [row['tokens'].tolist() for row in study.afterwards] == [[7, 8, 9, 9, 9]] * 3
  for row, value in zip(study.afterwards, expected, strict=True):
    np.testing.assert_allclose(
        row['advantages'], [0, 0, value, value, value], rtol=1e-3)
    assert row['weights'].tolist() == [0, 0, 1, 1, 1]
    assert row['logprobs'].tolist() == [0, 0, -0.5, -0.5, -0.5]
  short, _ = studied(monkeypatch, memory, row_length=4)
  assert short.afterwards == [] and short.figures['reflections_too_long'] == 3


def test_what_was_judged_right_is_kept_and_the_best_rate_rises(monkeypatch):
  memory = memory_of()
  _, group = studied(monkeypatch, memory)
  figures = memory.learn(1, [TASK], [group], None, Ledger())
  assert [(lesson.text, lesson.success, lesson.source) for lesson in
          memory.lessons.lessons.values()] == [
      ('Action: do b', True, 't episode 0'), ('Action: not c', False, 't episode 1'),
  ]
  assert memory.best == {'t': pytest.approx(1 / 3)}
  assert figures['with_lessons'] == 0  # nobody was shown any
  # Episodes 2 and 3 of 4 are shown what is there by now: 2 was, and failed.
  memory.learn(2, [TASK], [group], None, Ledger())
  assert memory.lessons.lessons[1].utility == pytest.approx(
      0.95 * 0.95 * 0.5 + 0.05 * 0.5)  # failed under it, then was said again
  assert memory.lessons.lessons[1].uses == 3
  worse = Tree('t', '', 'train', [GROUP[1]])
  memory.learn(3, [TASK], [worse], None, Ledger())
  assert memory.best == {'t': pytest.approx(1 / 3)}


# --- episodes and reflections


def test_half_of_a_group_is_shown_lessons_and_the_other_half_is_not():
  player = corridor.player(
      lambda text, request: 'open' if 'go open <use>' in text and 'cell 1 <act>' in text
      else 'right')
  tasks = [player.world.tasks('train')[1]]
  [group] = play_groups(
      player, tasks, 5, RULES, 8, 'x', lambda task: 'go open',
      online.bare_episodes(0.5, Grpo(group_size=5)))
  assert [node.success for node in group.nodes] == [False, False, False, True, True]
  first = [player.transcript.text(node.turns[0].prompt_ids) for node in group.nodes]
  assert first[:3] == ['<bos> <t1> cell 0'] * 3
  assert first[3:] == ['<bos> <hint> go open <use> <t1> cell 0'] * 2
  assert online.bare_episodes(0.5, Grpo(group_size=8)) == 4


def test_a_chat_policy_looks_back_with_the_other_attempt_and_is_shown_lessons():
  seen = []

  def act(text, request):
    seen.append(text)
    if 'Look back' in text:
      return json.dumps({
          'subtasks': [{'name': 'open', 'status': 'completed'},
                       {'name': 'go', 'status': 'incomplete'}],
          'task_success': 'which succeeded:' in text.split('"subtasks"')[0].rsplit(
              'The attempt,', 1)[-1],
          'action_lesson': 'Open cell 1.', 'navigation_lesson': '',
      })  # fmt: skip
    return 'right'

  player = chat_player(act)
  task = player.world.tasks('train')[1]
  group = group_of(player, task)
  memory = memory_of(player)
  scene = Scene(1, [task], [group], player, Ledger(), None, 64)
  study = memory.study(scene)
  assert study.figures['progress'] == 0.75 and not study.afterwards
  assert 'another attempt at this task, which succeeded' in seen[0]
  assert 'another attempt at this task, which failed' in seen[1]
  figures = memory.learn(1, [task], [group], player, scene.ledger)
  assert figures['lessons'] == 1 and study.figures['reflections_right'] == 1
  shown = memory.recall(task)
  assert shown == f'{hindsight_lib.CAVEAT}\n- Action: Open cell 1.'
  play_groups(player, [task], 1, RULES, 8, 'x', memory.recall)
  assert 'Open cell 1.' in seen[-1]
  # The next step meets failures alone: the success of before is shown.
  lone = Tree(task.id, task.instruction, 'train', [group.nodes[0]])
  seen.clear()
  memory.study(dataclasses.replace(scene, groups=[lone]))
  assert 'another attempt at this task, which succeeded' in seen[0]


def test_a_word_level_policy_cannot_judge_itself():
  with pytest.raises(RunStopped, match='retro.judge=world'):
    memory_of(judge='self')


# --- real runs of the bandit

GRPO = dataclasses.replace(
    bandit.GRPO, steps=6, tasks_per_step=3, checkpoint_every=2, learning_rate=1e-2
)
FREE = dataclasses.replace(GRPO, kl=0.0, entropy=0.0)


def untold(run, said, seen):
  """The prompt of hindsight on an episode of one turn."""
  transcript = run.transcript
  prompt = [*transcript.first('', 'choose', 'choose'), *transcript.opener_ids]
  prompt += run.tokenizer.encode(said, add_special_tokens=False)
  return [*prompt, *transcript.next(2, seen), *transcript.reflection(1, False)]


@pytest.fixture(name='base', scope='module')
def _base(tmp_path_factory):
  """A base that knows no better than chance how it ended."""
  directory = tmp_path_factory.mktemp('base')
  run = bandit.make_run(directory)
  start = run.start()
  place = run.directory.phase(BASE).dir
  (place / 'params').rename(place / 'untaught')
  lessons = taught_bandit.lessons(run, False)
  for said, seen in (('left', 'nothing'), ('right', 'paid')):
    for verdict in (tok.NONE, '<t1> right'):
      ids = run.tokenizer.encode(verdict, add_special_tokens=False)
      end = run.tokenizer.encode(tok.END, add_special_tokens=False)
      lessons.append(examples.make(
          [(untold(run, said, seen), 0), ([*ids, *end], 1)], 'demo'))
  training.train_on(
      run, 'teach', place, start, lessons, taught_bandit.TEACHING, {})
  return directory


def train(run, trained):
  name = retro.TRAINED if trained else retro.IN_CONTEXT
  return retro._fit(trained, run, run.directory.phase(name).dir)


@pytest.fixture(name='in_context', scope='module')
def _in_context(base, tmp_path_factory):
  run = taught_bandit.make_run(tmp_path_factory.mktemp('retro'), base, grpo=GRPO)
  return run, train(run, False)


def test_lessons_are_learnt_shown_and_found_useful(in_context):
  run, result = in_context
  directory = run.directory.phase(retro.IN_CONTEXT).dir
  state = json.loads((directory / hindsight_lib.FILE).read_text())
  utility = {held['text']: held['utility'] for held in state['lessons']['lessons']}
  # Who is told to go right goes right, and most of the others do not.
  assert utility['right'] > 0.5 and result['lessons'] == len(utility)
  assert np.mean(result['success'][1:]) > result['success'][0] + 0.2
  task = run.world.tasks('test')[0]
  assert 'right' in retro._memory_at_test(False, run)(task).split('\n')
  assert result['budget']['reflections'] > 0 and result['updates'] == 6 * 2


def test_the_memory_is_switched_off_at_test(in_context):
  run, _ = in_context
  config = dataclasses.replace(run.config, retro=Retro(shown_at_test=0))
  off = types.SimpleNamespace(config=config)
  assert retro._memory_at_test(False, off)(run.world.tasks('test')[0]) == ''


@pytest.fixture(name='trained', scope='module')
def _trained(base, tmp_path_factory):
  run = taught_bandit.make_run(
      tmp_path_factory.mktemp('trained'), base, grpo=FREE)
  return run, train(run, True)


def test_being_right_about_a_success_becomes_likelier(trained):
  run, result = trained
  prompt = untold(run, 'right', 'paid')
  verdict = run.tokenizer.encode(tok.NONE, add_special_tokens=False)
  before, after = (
      taught_bandit.likelihood(
          run, load_params(run.params_path(phase)), prompt, verdict)
      for phase in ('warm_start', retro.TRAINED)
  )
  assert before < 0.7 and after > before + 0.15
  assert result['updates'] == 2 * 6 * 2  # two passes a step


def stop_in(last, ask):
  calls = []

  def stopping(*arguments):
    calls.append(0)
    if len(calls) == last:
      raise stops.Stopped(signal.SIGTERM, 'what was finished before is saved')
    return ask(*arguments)

  return stopping


@pytest.mark.parametrize('arm', ['in_context', 'trained'])
def test_a_killed_run_ends_with_the_same_bits(
    base, arm, request, tmp_path, monkeypatch
):
  straight, expected = request.getfixturevalue(arm)
  is_trained = arm == 'trained'
  killed = taught_bandit.make_run(tmp_path, base, grpo=straight.config.grpo)
  take_step = online.OnlineTraining._step

  def die(self, state, step, *rest):
    if step == 4:
      raise KeyboardInterrupt
    return take_step(self, state, step, *rest)

  with monkeypatch.context() as patch:
    if is_trained:  # asked to stop while it looks back
      patch.setattr(retro_reflect, 'ask', stop_in(4, retro_reflect.ask))
      with pytest.raises(stops.Stopped, match='retro_trained saved after step 3 of 6'):
        train(killed, True)
    else:
      patch.setattr(online.OnlineTraining, '_step', die)
      with pytest.raises(KeyboardInterrupt):
        train(killed, False)
  assert train(killed, is_trained) == expected
  name = retro.TRAINED if is_trained else retro.IN_CONTEXT
  weights = load_params(straight.params_path(name))
  for key, value in load_params(killed.params_path(name)).items():
    np.testing.assert_array_equal(value, weights[key])
  places = [run.directory.phase(name).dir for run in (straight, killed)]
  books = [place / hindsight_lib.FILE for place in places]
  assert books[0].read_bytes() == books[1].read_bytes()
