"""Meta-experience: written about two episodes, tried once, trained as tokens."""

from __future__ import annotations

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.methods import mel, online
from leafe_jax.methods.beside import Scene
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.samples import play_groups
from leafe_jax.sampler import Rules
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.tree import Tree
from tests.memory.test_meta import GOOD
from tests.methods import bandit, taught_bandit
from tests.rollout import corridor
from tests.text.chat_tokenizers import CHATML, make_tokenizer

RULES = Rules(1.0, 8, ())


def acts(reflection):
  """Walks on; opens a door where it is told to; reflects as given."""

  def answer(text, request):
    if '<reflect>' in text:
      return reflection
    return 'open' if 'go open <use> <act>' in text else 'right'

  return answer


def scene_of(player, transcript=None):
  """A group of door 1: one episode walked past it, one opened it."""
  [task] = [t for t in player.world.tasks('train') if t.id == 'door-1']
  nodes = []
  for number, answer in enumerate([acts(''), opens_at_one]):
    other = corridor.player(answer)
    [tree] = play_groups(other, [task], 1, RULES, 8, 'x')
    nodes.append(dataclasses.replace(tree.nodes[0], id=number))
  group = Tree(task.id, task.instruction, 'train', nodes)
  assert [node.success for node in nodes] == [False, True]
  return Scene(1, [task], [group], player, Ledger(), lambda *rest: [], 512)


def opens_at_one(text, request):
  return 'open' if text.endswith('cell 1 <act>') else 'right'


def companion(player, **options):
  explore = dataclasses.replace(config_lib.Explore(), max_response_tokens=8)
  config = config_lib.Experiment(explore=explore)
  run = types.SimpleNamespace(config=config, transcript=player.transcript)
  return mel.MetaExperience(run, config_lib.Mel(**options))


def test_what_solves_the_task_when_shown_is_kept_and_trained_after_its_prompt():
  player = corridor.player(acts('<t2> cell 1 go open'))
  scene = scene_of(player)
  study = companion(player).study(scene)
  assert study.figures == {
      'pairs': 1, 'meta_read': 1, 'meta_kept': 1, 'meta_too_long': 0
  }
  assert scene.ledger.reflections == scene.ledger.episodes == 1
  assert scene.ledger.env_steps == 2  # the replay: right, then open
  [row] = study.further(10.0)
  spelt = player.transcript.text(row['tokens'])
  assert spelt.endswith('<reflect> <failed> <t2> cell 1 go open')
  assert row['weights'].sum() == 0
  assert row['meta'].sum() == pytest.approx(10.0)
  trained = row['tokens'][row['meta'] > 0].tolist()
  assert trained == player.transcript.response('<t2> cell 1 go open')


def test_what_does_not_help_is_dropped_unless_nothing_is_validated():
  player = corridor.player(acts('<t1> cell 0 go left'))
  assert companion(player).study(scene_of(player)).figures['meta_kept'] == 0
  scene = scene_of(player)
  study = companion(player, validate=False).study(scene)
  assert study.figures['meta_kept'] == 1 and scene.ledger.env_steps == 0


def test_a_group_of_one_outcome_has_no_pair():
  player = corridor.player(acts('<t2> cell 1 go open'))
  scene = scene_of(player)
  group = dataclasses.replace(scene.groups[0], nodes=scene.groups[0].nodes[:1])
  study = companion(player).study(dataclasses.replace(scene, groups=[group]))
  assert study.figures['pairs'] == 0 and study.further(1.0) == []
  assert scene.ledger == Ledger()


def test_a_chat_model_writes_four_sections_and_a_replay_shows_them():
  tokenizer = make_tokenizer(CHATML)
  transcript = ChatTranscript(tokenizer)
  seen = []

  def answer(text, request):
    said = tokenizer.decode(list(request.state))
    seen.append(said)
    return GOOD if 'Compare two attempts' in said else 'open'

  player = dataclasses.replace(corridor.player(answer), transcript=transcript)
  player.sampler.transcript = transcript
  scene = scene_of(player)
  figures = companion(player).study(scene).figures
  assert figures['meta_read'] == 1
  assert seen[0].index('Attempt 1 (failed)') < seen[0].index('Attempt 2 (succeeded)')
  assert 'Lessons from earlier attempts:\n<failure>' in seen[1]
  assert figures['meta_kept'] == 0  # it opened the wrong door


def test_the_likelihood_is_the_mean_over_tokens_and_then_over_texts():
  batch = {
      'tokens': np.array([[0, 1, 1, 0, 1]]), 'segment_ids': np.array([[1, 1, 1, 2, 2]]),
      'weights': np.zeros((1, 5), np.float32),
      'meta': np.array([[0, 1.5, 1.5, 0, 3.0]], np.float32),  # two texts, weight 6
  }
  logits = jnp.log(jnp.broadcast_to(jnp.array([0.25, 0.75]), (1, 5, 2)))
  terms = mel.likelihood(logits, batch)
  np.testing.assert_allclose(terms.total / 6, -np.log(0.75), rtol=1e-6)
  gradient = jax.grad(lambda x: mel.likelihood(x, batch).total)(logits)
  assert not np.any(gradient[0, 2])  # the first token of a text is not predicted


# --- a real run


GRPO = dataclasses.replace(
    bandit.GRPO, steps=6, tasks_per_step=3, checkpoint_every=2, learning_rate=1e-2
)


@pytest.fixture(name='base', scope='module')
def _base(tmp_path_factory):
  directory = tmp_path_factory.mktemp('base')
  taught_bandit.make_run(directory, doubts=True)
  return directory


def train(run):
  return mel.mel(run, run.directory.phase('mel').dir)


# Rewards that are all alike leave what was written as the one thing to learn from.
FLAT = dataclasses.replace(GRPO, reward_scale=1e-9, kl=0.0, entropy=0.0)


@pytest.fixture(name='trained', scope='module')
def _trained(base, tmp_path_factory):
  """(run, result) of MEL."""
  run = taught_bandit.make_run(tmp_path_factory.mktemp('mel'), base, grpo=FLAT)
  return run, train(run)


def test_reflections_that_help_become_likelier(trained):
  """The base says as often '<t1> left', which no replay confirms."""
  run, result = trained
  transcript = run.transcript
  prompt = [*transcript.first('', 'choose', 'choose'), *transcript.opener_ids]
  prompt += run.tokenizer.encode('left', add_special_tokens=False)
  prompt += [*transcript.next(2, 'nothing'), *transcript.reflection(1, True)]
  mark, word = run.tokenizer.encode('<t1> right', add_special_tokens=False)
  before, after = (
      taught_bandit.likelihood(
          run, load_params(run.params_path(phase)), [*prompt, mark], [word])
      for phase in ('warm_start', 'mel')
  )
  assert before < 0.7 and after > before + 0.15
  assert result['budget']['episodes'] > 6 * 3 * 8  # replays are paid for


def test_a_killed_run_ends_with_the_same_bits(base, trained, tmp_path, monkeypatch):
  straight, expected = trained
  killed = taught_bandit.make_run(tmp_path, base, grpo=FLAT)
  take_step = online.OnlineTraining._step

  def die(self, state, step, *rest):
    if step == 4:
      raise KeyboardInterrupt
    return take_step(self, state, step, *rest)

  with monkeypatch.context() as patch:
    patch.setattr(online.OnlineTraining, '_step', die)
    with pytest.raises(KeyboardInterrupt):
      train(killed)
  assert train(killed) == expected
  weights = load_params(straight.params_path('mel'))
  for name, value in load_params(killed.params_path('mel')).items():
    np.testing.assert_array_equal(value, weights[name])
