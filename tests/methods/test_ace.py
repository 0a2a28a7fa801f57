"""ACE's roles: what becomes of reflections, of readable and unreadable answers."""

import json

import pytest

from leafe_jax.config import Ace
from leafe_jax.memory.playbook import Delta, Playbook
from leafe_jax.methods import ace_roles
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.samples import play_groups
from leafe_jax.sampler import Rules
from leafe_jax.text import chat
from tests.rollout import corridor
from tests.rollout.corridor import ScriptedSampler
from tests.text.chat_tokenizers import CHATML, make_tokenizer

RULES = Rules(1.0, 8, ())


def learn(player, book, doors=(0, 2)):
  tasks = [player.world.tasks('train')[door] for door in doors]
  shown = book.best(5)
  memory = '\n'.join(bullet.text for bullet in shown)
  groups = play_groups(player, tasks, 1, RULES, 4, 'ace', lambda task: memory)
  ledger = Ledger()
  applied = ace_roles.learn(
      player, tasks, groups, shown, book, Ace(), RULES, 1, ledger
  )
  return applied, ledger


def opens_at_once(text, request):
  return '<t1> go right' if text.endswith('<failed>') else 'open'


def test_a_failure_becomes_a_lesson_and_a_success_none():
  book = Playbook()
  applied, ledger = learn(corridor.player(opens_at_once), book)
  assert applied == 1
  assert [bullet.text for bullet in book.bullets.values()] == ['go right']
  assert ledger.reflections == 1


def test_bullets_whose_action_was_taken_are_tagged_by_the_outcome():
  book = Playbook()
  book.merge([Delta('ADD', 'lessons', (), 'cell 0 open')], 0)
  book.merge([Delta('ADD', 'lessons', (), 'go left')], 0)
  learn(corridor.player(opens_at_once), book)
  first, second, *_ = book.bullets.values()
  assert (first.helpful, first.harmful) == (1, 1)
  assert (second.helpful, second.harmful) == (0, 0)


def test_what_cannot_be_read_is_logged():
  book = Playbook()
  applied, _ = learn(corridor.player(lambda text, request: 'open'), book)
  assert applied == 0
  assert not book.bullets
  assert book.log[-1]['op'] == 'NO-OP'


class _Roles:
  """A chat policy that plays, reflects and curates by the book."""

  def __init__(self, curated):
    self.curated = curated
    self.asked = []

  def __call__(self, text, request):
    del request
    text = text.replace(' ', '').replace('Ġ', ' ')  # a token is a byte here
    if 'keep a playbook' in text:
      self.asked.append('curator')
      return self.curated
    if 'with a playbook' in text:
      self.asked.append('reflector')
      tags = [{'id': 'les-00001', 'tag': 'harmful'}]
      return 'So: ' + json.dumps({'key_insight': 'walk', 'bullet_tags': tags})
    return 'open'


def chat_player(answer):
  player = corridor.player(answer)
  transcript = chat.ChatTranscript(make_tokenizer(CHATML))
  sampler = ScriptedSampler(transcript, answer)
  return type(player)(sampler, transcript, player.world, 6, 0, 0)


def test_roles_tag_bullets_and_curate_deltas():
  roles = _Roles('[{"op": "ADD", "section": "strategies", "text": "walk on"}]')
  book = Playbook()
  book.merge([Delta('ADD', 'lessons', (), 'open at once')], 0)
  applied, ledger = learn(chat_player(roles), book, doors=(2,))
  assert applied == 1
  assert book.bullets['les-00001'].harmful == 1
  assert book.bullets['str-00002'].text == 'walk on'
  assert roles.asked == ['reflector', 'curator']
  assert ledger.reflections == 2


@pytest.mark.parametrize('curated', ['no idea', '[{"op": "ADD"}]', '[1, 2'])
def test_a_curator_that_cannot_be_read_changes_nothing(curated):
  roles = _Roles(curated)
  book = Playbook()
  applied, _ = learn(chat_player(roles), book, doors=(2,))
  assert applied == 0
  assert not book.bullets
  assert book.log[-1]['op'] == 'NO-OP'
