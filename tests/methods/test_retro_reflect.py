"""What a reflection of RetroAgent is asked, and what is read from its answer."""

from __future__ import annotations

import json

import pytest

from leafe_jax.methods import retro_reflect
from leafe_jax.methods.retro_reflect import Case, Judgement
from leafe_jax.rollout.ledger import Ledger
from tests.methods.hindsight_cases import RULES, TASK, episode, group_of
from tests.rollout import corridor

NAMES = ('search', 'buy')


def answer(progress=('completed', 'incomplete'), success=False, **lessons):
  listed = [{'name': name, 'description': '', 'status': status}
            for name, status in zip(NAMES, progress, strict=False)]
  return {'subtasks': listed, 'task_success': success, **lessons}


def test_an_answer_is_read():
  text = json.dumps(answer(
      (' Completed ', 'N/A'), action_lesson='Compare\nprices first.',
      navigation_lesson='None.',
  ))  # fmt: skip
  found = retro_reflect.parse(f'Well: {text} So.', NAMES)
  assert found == Judgement(0.5, False, 'Action: Compare prices first.')


def test_leaving_subtasks_out_gains_nothing_where_the_world_names_them():
  text = json.dumps(answer(('completed',)))
  assert retro_reflect.parse(text, NAMES).progress == 0.5
  assert retro_reflect.parse(text, ()).progress == 1.0


def changed(**fields):
  return json.dumps({**answer(), **fields})


@pytest.mark.parametrize(
    'text',
    [
        '', 'all went well', '[]', '}{', json.dumps(answer())[:-1],
        '{"subtasks": ' + '[' * 100_000 + '}',
        changed(subtasks=[]), changed(subtasks='search'), changed(subtasks=['search']),
        changed(subtasks=[{'name': n, 'status': 'done'} for n in (*NAMES, 'sing')]),
        changed(subtasks=[{'name': 'buy', 'status': 'completed'}] * 2),
        changed(subtasks=[{'name': 'buy', 'status': 1}]),
        changed(subtasks=[{'name': None, 'status': 'completed'}]),
        changed(subtasks=[{'name': str(n), 'status': 'x'} for n in range(33)]),
        changed(task_success='true'), changed(task_success=None),
        changed(action_lesson=['Look', 'twice']),
        changed(action_lesson='half a pair: \ud800'),
        changed(task_success=1),
        '{"subtasks": ' + '9' * 5000 + '}',
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text):
  with pytest.raises(ValueError):
    retro_reflect.parse(text, NAMES)


def test_told_a_policy_reads_the_outcome_and_another_attempt_else_neither():
  case = Case(TASK, episode(0, ('left', True)), 'the other attempt')
  told = retro_reflect.question(case, {'search': 'look it up'}, True)
  assert 'which failed:\n1. seen -> left\nend: the end' in told
  assert 'which succeeded:\nthe other attempt' in told
  assert '- search: look it up' in told and 'all of the above' in told
  untold = retro_reflect.question(case, {}, False)
  assert 'failed' not in untold and 'the other attempt' not in untold
  assert 'Sub-tasks' not in untold and '{"subtasks": [{"name"' in untold


@pytest.mark.parametrize(
    ('told', 'said', 'read'),
    [
        # Told, failures alone are asked about.
        (True, '<t2> cell 1 go open', [(0, False, 'cell 1 go open')]),
        (True, '<none>', [(0, None, '')]),
        (False, '<t2> cell 1 go open',
         [(0, False, 'cell 1 go open'), (1, False, 'cell 1 go open')]),
        (False, '<none>', [(0, True, ''), (1, True, '')]),
    ],
)  # fmt: skip
def test_a_word_level_policy_reflects_as_in_stage_1(told, said, read):
  player = corridor.player(lambda text, request: said)
  task = player.world.tasks('train')[1]
  group, ledger = group_of(player, task), Ledger()
  found = retro_reflect.reflect(
      player, [Case(task, node) for node in group.nodes], RULES, told, ledger)
  assert [(h.case.node.id, h.judgement.success, h.judgement.lesson)
          for h in found] == read
  assert ledger.reflections == len(read)
  spelt = player.transcript.text(found[0].prompt_ids)
  assert spelt.endswith('<reflect> <failed>' if told else '<reflect> <going>')
