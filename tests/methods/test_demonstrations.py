"""Scripted training data: what is a target, what is only context."""

import collections
import random

import numpy as np
import pytest

from envs import registry
from leafe_jax.config import WarmStart
from leafe_jax.endings import RunStopped
from leafe_jax.methods.demonstrations import demonstrate, warm_start_examples
from leafe_jax.text.tokenizers import build_word_tokenizer
from leafe_jax.text.transcript import WordTranscript

HORIZON = 15
CONFIG = WarmStart(num_demonstrations=60, hint_share=0.5, in_progress_share=0.5)


@pytest.fixture(name='world', scope='module')
def _world():
  return registry.make('webshop')


@pytest.fixture(name='spelt', scope='module')
def _spelt(world):
  return WordTranscript(build_word_tokenizer(world.vocabulary(), HORIZON))


def _examples(world, spelt, seed=0):
  return list(
      warm_start_examples(
          world, spelt, world.teacher(), world.tasks('train'), HORIZON, 3, CONFIG,
          random.Random(seed),
      )
  )


def _targets(spelt, example):
  """Runs of trained tokens as texts."""
  words = spelt.tokenizer.convert_ids_to_tokens(example.ids.tolist())
  runs, run = [], []
  for word, weight in zip(words, example.weights, strict=True):
    if weight:
      run.append(word)
    elif run:
      runs.append(' '.join(run))
      run = []
  return [*runs, ' '.join(run)] if run else runs


def test_every_target_ends_with_the_stop_token(world, spelt):
  for example in _examples(world, spelt):
    targets = _targets(spelt, example)
    assert targets
    assert all(target.endswith('<end>') for target in targets)


def test_targets_are_actions_and_reflections_only(world, spelt):
  for example in _examples(world, spelt):
    for target in _targets(spelt, example):
      first = target.split()[0]
      assert first in ('search', 'click', '<none>') or first.startswith('<t')


def test_the_kinds_stand_beside_each_other(world, spelt):
  kinds = collections.Counter(e.kind for e in _examples(world, spelt))
  assert kinds['demo'] == CONFIG.num_demonstrations
  assert kinds['hinted'] > 10 and kinds['reflect'] > 5


def test_hints_are_context_and_their_action_is_the_one_target(world, spelt):
  for example in _examples(world, spelt):
    words = spelt.tokenizer.convert_ids_to_tokens(example.ids.tolist())
    if example.kind != 'hinted':
      assert '<hint>' not in words
      continue
    assert words.count('<hint>') == 1
    hint = ' '.join(words[words.index('<hint>') + 1 : words.index('<use>')])
    [target] = _targets(spelt, example)
    assert hint.endswith(target.removesuffix(' <end>'))


def test_failures_end_in_a_reflection_on_an_earlier_turn(world, spelt):
  reflected = 0
  for example in _examples(world, spelt):
    words = spelt.tokenizer.convert_ids_to_tokens(example.ids.tolist())
    if example.kind == 'demo' and '<failed>' in words:
      reflected += 1
      answer = _targets(spelt, example)[-1]
      tau = int(answer.split()[0][2:-1])
      assert 1 <= tau <= example.turn
  assert reflected > 10


def test_the_same_seed_gives_the_same_examples(world, spelt):
  first, second = _examples(world, spelt, 3), _examples(world, spelt, 3)
  assert all(np.array_equal(a.ids, b.ids) for a, b in zip(first, second, strict=True))


def test_a_demonstration_is_within_the_horizon(world):
  rng = random.Random(0)
  for task in world.tasks('train')[:20]:
    demo = demonstrate(world, task, world.teacher(), 4, rng)
    assert len(demo.history.actions) <= 4
    assert len(demo.history.observations) == len(demo.history.actions) + 1


def _without(world, *words):
  known = [word for word in world.vocabulary() if word not in words]
  return WordTranscript(build_word_tokenizer(known, HORIZON))


def test_demonstrations_that_cannot_be_spelt_are_left_out(world, spelt):
  word = spelt.tokenizer.tokenize(world.tasks('train')[0].instruction)[-1]
  found = _examples(world, _without(world, word))
  assert 0 < len(found) < len(_examples(world, spelt))


def test_a_world_that_names_few_of_its_words_is_refused_in_one_line(world):
  with pytest.raises(RunStopped, match=r'outside the vocabulary: .*World\.vocabulary'):
    _examples(world, _without(world, *world.vocabulary()[::2]))
