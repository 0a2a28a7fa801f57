"""The program that lets a person play, as a person runs it."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.envs.alfworld_support import needs_engine
from tools import play

ROOT = pathlib.Path(__file__).resolve().parents[2]
LEVELS = {'train_levels': 3, 'validation_levels': 1, 'test_levels': 1}
SOKOBAN = ('--env=sokoban', f'--options={json.dumps(LEVELS)}')
START = play.Start('sokoban', LEVELS, 'train', 0, 0)


def call(*arguments: str, typed: str = '') -> subprocess.CompletedProcess[str]:
  return subprocess.run(
      [sys.executable, '-m', 'tools.play', *arguments],
      cwd=ROOT, input=typed, capture_output=True, text=True, check=False,
  )


def test_sokoban_is_played_undone_saved_and_replayed(tmp_path):
  script = tmp_path / 'script.txt'
  typed = f'up\nleft\n:undo\n:undo 7\n:reset\nup\n:save {script}\n:what\n:quit\nup\n'
  played = call(*SOKOBAN, typed=typed)
  assert played.returncode == 0, played.stderr
  shown = played.stdout.split('\n> ')
  assert shown[3] == shown[1]  # undone
  assert 'cannot undo 7 of 1 actions' in shown[4]
  assert shown[0].endswith(shown[5]) and shown[6] == shown[1]  # reset
  assert shown[7] == f'1 actions in {script}'
  assert ':save FILE' in shown[8] and len(shown) == 10
  replayed = call(f'--script={script}')
  assert replayed.returncode == 0, replayed.stderr
  head, _, rest = replayed.stdout.partition('\n\n')
  assert {'env: sokoban', 'split: train', 'index: 0', 'seed: 0'} < set(head.split('\n'))
  assert f'options: {json.dumps(LEVELS)}' in head and 'task: sokoban-' in head
  assert rest.count('\n> ') == 1
  assert rest.endswith('not over after 1 actions\n')


def test_webshop_is_played_to_its_end_and_on_by_undo(tmp_path):
  typed = 'search shirt\nclick a\nclick buy\nclick a\n:undo 2\n:list\n'
  played = call('--env=webshop', '--split=test', '--index=2', typed=typed)
  assert played.returncode == 0, played.stderr
  shown = played.stdout.split('\n> ')
  assert '<words>' in shown[0]
  assert 'terminated: score' in played.stdout
  assert 'step after the end of the episode' in played.stdout
  script = tmp_path / 'script.txt'
  script.write_text('search shirt\n# a remark\n\nclick a\nclick buy\n')
  replayed = call(f'--script={script}', '--env=webshop', '--split=test', '--index=2')
  assert replayed.returncode == 0, replayed.stderr
  assert 'split: test\nindex: 2' in replayed.stdout
  assert 'terminated: score' in replayed.stdout.splitlines()[-1]


def listed(env, options, capsys):
  """What :list prints at the start of a game, and the head of the game."""
  start = play.Start(env, options, 'train', 0, 0)
  world, task = start.open()
  play.show_head(start, world, task)
  head = capsys.readouterr().out
  play.obey(':list', play.Game(world, task, 0), world, start)
  return head, capsys.readouterr().out.splitlines()


def test_frozen_lakes_moves_are_listed(capsys):
  pytest.importorskip('gymnasium', reason='pip install gymnasium')
  options = {'env_id': 'FrozenLake-v1', 'observe': 'render', 'train_tasks': 1,
             'kwargs': {'render_mode': 'ansi'}}
  assert listed('gymnasium', options, capsys)[1] == ['0', '1', '2', '3']
  names = ['left', 'down', 'right', 'up']
  assert listed('gymnasium', {**options, 'action_names': names}, capsys)[1] == names


@needs_engine
@pytest.mark.parametrize('view, look', [('text', 'look'), ('compact', '')])
def test_alfworlds_commands_are_listed_and_its_task_is_said(capsys, view, look):
  options = {'view': view, 'train_games': 1, 'validation_games': 0, 'test_games': 0}
  head, commands = listed('alfworld', options, capsys)
  assert look in commands or not look
  assert any(c.startswith('go ') for c in commands)
  assert re.search('^(put|clean|heat|cool|find|look|examine) ', head, re.MULTILINE)


def test_sokobans_words_come_with_rules_for_words(capsys):
  head, moves = listed('sokoban', LEVELS, capsys)
  assert set(moves) <= {'up', 'down', 'left', 'right'}
  assert 'a letter for the column' in head and '_ floor' not in head


@pytest.mark.parametrize(
    'text, message',
    [
        (None, 'No such file'),
        ('# {"env": "chess"}', "unknown environment 'chess'"),
        ('# {"index": 3}', 'index 3: the train split has 3 tasks'),
        ('# {"task": "sokoban-0"}', 'not sokoban-0'),
        ('# {"levels": 3}', ':1: .*levels'),
        ('# {"env', ':1: '),
        ('# {"options": {"view": "video"}}', "'video'"),
        ('up\n"down', ':2: '),
    ],
)
def test_a_bad_script_is_refused_in_words(tmp_path, text, message):
  path = tmp_path / 'script.txt'
  if text is not None:
    path.write_text(text)
  with pytest.raises(play.BadScript, match=rf'script.txt.*{message}'):
    play.replay(str(path), START)


def test_a_script_that_goes_on_after_the_end_fails_with_its_line(tmp_path):
  script = tmp_path / 'script.txt'
  script.write_text('# {"options": {"max_steps": 1}}\nup\nup\n')
  replayed = call('--env=sokoban', f'--script={script}')
  assert replayed.returncode == 1
  assert replayed.stderr == (
      f"error: {script}:3: 'up': step after the end of the episode\n"
  )


@given(st.lists(st.text(st.characters(exclude_categories=[]), max_size=8)))
def test_whatever_was_played_can_be_saved_and_read(tmp_path_factory, actions):
  path = tmp_path_factory.mktemp('scripts') / 'script.txt'
  path.write_text(play.write_script(START, actions), encoding='utf-8')
  start, read = play.read_script(str(path), play.Start('', {}, 'test', 9, 9))
  assert start == START
  assert [action for _, action in read] == actions


def test_no_text_of_a_world_writes_to_the_terminal(capsys):
  play.say('\x1b]0;title\x07\x1b[2Jplain\ttext\r\nnext\u202e')
  assert capsys.readouterr().out == (
      '\\x1b]0;title\\x07\\x1b[2Jplain\\ttext\\r\nnext\\u202e\n'
  )
