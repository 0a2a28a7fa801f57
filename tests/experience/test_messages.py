"""What is exported as messages reads back as the tokens that were trained."""

from __future__ import annotations

import functools
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafe_jax.config import Experience
from leafe_jax.experience import build, conversations, messages
from leafe_jax.experience.examples import make
from leafe_jax.text import history
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.text.conversation import ConversationError, Narrator
from leafe_jax.text.prompts import Prompts
from leafe_jax.tree import Node, Tree, Turn
from tests.text.chat_tokenizers import FAMILIES

EVERYTHING = Experience(
    reh_fraction=1.0, reh_hinted=True, cf_filter='all', citation_filter=False
)


@functools.cache
def transcript(family, system=''):
  tokenizer = FAMILIES[family].tokenizer()
  return ChatTranscript(tokenizer, prompts=Prompts(system=system))


def make_turn(spell, before, index, observation, response_ids, hint=''):
  """A turn as an episode spells it; without its end it was cut off."""
  cut_off = response_ids[-1] not in spell.stop_ids
  prompt = (
      spell.first('Rules.', 'Win.', observation) if before is None
      else history.after(spell, before, observation)
  )
  return Turn(
      index, observation, prompt, list(spell.opener_ids), response_ids, [],
      spell.text(response_ids), None if cut_off else f'do {index} {hint}',
      hint_ids=spell.hint(hint) if hint else [],
      error='CutOff: 3 tokens' if cut_off else None,
  )


def make_tree(spell, words, rng):
  """A success and, from its second turn, a branch that ends well too."""

  def response():
    if rng.random() < 0.5:
      return spell.response(rng.choice(words))
    plain = [i for i in range(len(spell.tokenizer)) if i not in control]
    ids = [rng.choice(plain) for _ in range(rng.randint(1, 4))]
    return ids if rng.random() < 0.3 else [*ids, spell.stop_ids[0]]

  control = {*spell.stop_ids, *spell.tokenizer.all_special_ids}
  tree = Tree('a task', 'Win.', 'train')
  root = Node(0, None, 1, None, 0, success=True, score=1.0, ended_by='terminated')
  for index in (1, 2, 3):
    before = root.turns[-1] if root.turns else None
    root.turns.append(
        make_turn(spell, before, index, rng.choice(words), response())
    )
  branch = Node(1, 0, 2, 'go left', 1, success=True, score=0.5, ended_by='horizon')
  branch.turns.append(make_turn(
      spell, root.turns[0], 2, root.turns[1].observation, response(), 'go left'
  ))
  tree.nodes += [root, branch]
  return tree


def read_back(spell, row):
  row = json.loads(json.dumps(row))
  narrator = Narrator(spell, {})
  conversation, name = conversations.parse(row, narrator.tokenizer)
  return make(narrator.spell(conversation), 'demo', name)


@pytest.mark.parametrize('family', FAMILIES)
@settings(max_examples=15, deadline=None)
@given(
    words=st.lists(st.text(min_size=1, max_size=12).filter(str.strip), min_size=2),
    seed=st.integers(0, 2**20),
)
def test_examples_read_back_to_the_same_ids_and_weights(family, words, seed):
  spell = transcript(family)
  tree = make_tree(spell, words, random.Random(seed))
  found, _ = build.build([tree], EVERYTHING, random.Random(0))
  scribe = messages.Scribe(spell)
  for example in found:
    row = messages.of_example(scribe, tree, example)
    again = read_back(spell, row)
    np.testing.assert_array_equal(again.ids[: len(example)], example.ids)
    np.testing.assert_array_equal(again.weights[: len(example)], example.weights)
    assert len(again) == len(example) and again.task_id == 'a task'
    whole = [read_back(spell, part) for part in messages.as_completions(row)]
    trained = sum(m['loss'] for m in row['messages'])
    assert len(whole) == trained
    if whole:
      np.testing.assert_array_equal(whole[-1].ids, example.ids)


def test_rows_tell_where_they_come_from_and_never_the_hint_in_words():
  spell = transcript('qwen2.5')
  tree = make_tree(spell, ['a door', 'a wall'], random.Random(9))
  rows = list(messages.of_tree(messages.Scribe(spell), tree))
  assert [(r['node'], r['parent'], r['tau'], r['hint']) for r in rows] == [
      (0, -1, 1, ''), (1, 0, 2, 'go left')
  ]
  assert {tuple(r) for r in rows} == {tuple(rows[0])}  # the same fields in all
  told = [message for row in rows for message in row['messages']]
  assert all(m.keys() == {'role', 'content', 'loss'} for m in told)
  assert not any('go left' in m['content'] for m in rows[1]['messages'])
  first = rows[1]['messages'][1]
  assert first['role'] == 'assistant' and not first['loss']  # the parent's


def test_ids_stand_beside_the_words_only_where_these_do_not_give_them():
  spell = transcript('qwen2.5')
  turns = [make_turn(spell, None, 1, 'a door', spell.response('open it'))]
  odd = [*spell.tokenizer.encode('o'), *spell.tokenizer.encode('k'), spell.stop_ids[0]]
  turns.append(make_turn(spell, turns[0], 2, 'a wall', odd))
  row = messages.Scribe(spell).row(turns, [True, False])
  assert [m['content'] for m in row['messages']][1::2] == ['open it', 'ok']
  assert [m['loss'] for m in row['messages']] == [False, True, False, False]
  same = spell.response('ok') == odd
  assert row['token_ids'] == [[], [], [], [] if same else odd]


def test_a_system_message_of_the_prompts_is_told():
  spell = transcript('qwen2.5', 'Be terse.')
  tree = make_tree(spell, ['a door', 'a wall'], random.Random(3))
  row = next(messages.of_tree(messages.Scribe(spell), tree))
  assert row['messages'][0] == {'role': 'system', 'content': 'Be terse.', 'loss': False}
  ids = [i for t in tree.nodes[0].turns
         for i in (*t.prompt_ids, *t.opener_ids, *t.response_ids)]  # fmt: skip
  assert list(read_back(spell, row).ids)[: len(ids)] == ids


def test_ids_of_another_tokenizer_say_nothing():
  spell, other = transcript('qwen2.5'), transcript('llama3.2')
  tree = make_tree(spell, ['a door', 'a wall'], random.Random(1))
  row = next(messages.of_tree(messages.Scribe(spell), tree))
  row['token_ids'] = [[5] for _ in row['messages']]
  assert list(read_back(other, row).ids) != [5] * len(row['messages'])
  row['tokenizer'] = other.tokenizer_id
  row['token_ids'][0] = [10**6]
  with pytest.raises(ConversationError, match='1000000'):
    read_back(other, row)


def test_an_example_of_other_trees_is_named():
  spell = transcript('qwen2.5')
  tree = make_tree(spell, ['a door', 'a wall'], random.Random(3))
  stranger = make([([1, 2], 0.0), ([3], 1.0)], 'reh', 'a task')
  with pytest.raises(messages.NotOfTree, match="task 'a task', node 0"):
    messages.of_example(messages.Scribe(spell), tree, stranger)
