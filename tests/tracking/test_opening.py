"""A run tells whom it was asked to tell, and needs none of them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from absl import logging

from leafe_jax import hosts, redaction
from leafe_jax.config import Env, Experiment
from leafe_jax.endings import RunStopped
from leafe_jax.rundir import RunDirectory
from leafe_jax.stops import Stopped
from leafe_jax.tracking import choice, opening
from leafe_jax.tracking.apart import Apart
from leafe_jax.tracking.api import Nobody

CONFIG = Experiment(
    env=Env(name='webshop', options={'api_key': 'abcdefgh', 'size': 3})
)
WAIT_S = 20


class Recorder(Nobody):
  """Keeps what it is told."""

  def __init__(self, fails_at: int = -1):
    self.told, self.codes, self._fails_at = [], [], fails_at

  def scalars(self, part, step, values):
    if step == self._fails_at:
      raise ConnectionResetError('the server\nis gone')
    self.told.append((part, step, dict(values)))

  def close(self, exit_code):
    self.codes.append(exit_code)


@pytest.fixture
def warnings(monkeypatch):
  found = []
  monkeypatch.setattr(
      logging, 'warning', lambda text, *args: found.append(text % args)
  )
  return found


def begun(*args, **kwargs):
  tracker = Apart('x', *args, **kwargs)
  tracker.begin()
  return tracker


def test_what_is_told_arrives_in_order():
  recorder = Recorder()
  tracker = begun(lambda: lambda: recorder)
  for step in range(50):
    tracker.scalars('explore', step, {'success': 0.5})
  tracker.close(0)
  assert [step for _, step, _ in recorder.told] == list(range(50))
  assert recorder.codes == [0]


def test_a_failure_is_one_warning_and_the_end_of_telling(warnings):
  recorder = Recorder(fails_at=1)
  tracker = begun(lambda: lambda: recorder)
  for step in range(4):
    tracker.scalars('explore', step, {'success': 0.5})
  tracker.close(0)
  assert [step for _, step, _ in recorder.told] == [0] and not recorder.codes
  (warning,) = warnings
  assert 'ConnectionResetError: the server is gone' in warning
  assert '--tracker=x' in warning and 'the run goes on' in warning


@pytest.mark.parametrize('place', ['package', 'connection'])
def test_a_tracker_that_cannot_be_opened_is_one_warning(place, warnings):
  def fail():
    raise ImportError('no libssl') if place == 'package' else OSError('no libssl')

  tracker = begun(fail if place == 'package' else lambda: fail)
  tracker.scalars('explore', 1, {'success': 0.5})
  tracker.close(0)
  assert len(warnings) == 1 and 'no libssl' in warnings[0]


def test_no_tracker_works_while_the_package_of_another_is_imported(
    tmp_path, monkeypatch
):
  done = []

  def loader(name):
    def load(_):
      time.sleep(0.05)
      done.append(f'{name} imported')
      return lambda subject: done.append(f'{name} connected') or Nobody()

    return load

  monkeypatch.setattr(opening, '_LOADERS', {name: loader(name) for name in 'abc'})
  with opening.opened(choice.Choice('abc'), tmp_path, CONFIG):
    pass
  assert done[:3] == [f'{name} imported' for name in 'abc'] and len(done) == 6


def test_a_tracker_that_hangs_is_left_behind(warnings):
  released = threading.Event()

  class Hanging(Recorder):
    def scalars(self, part, step, values):
      released.wait(WAIT_S)

  tracker = begun(lambda: Hanging, patience_s=0.2)
  start = time.monotonic()
  tracker.scalars('explore', 1, {})
  tracker.close(0)
  assert time.monotonic() - start < WAIT_S / 4
  released.set()
  assert len(warnings) == 1 and 'left behind' in warnings[0]


@pytest.mark.parametrize(
    ('error', 'code'),
    [(RunStopped('full'), 1), (Stopped(15, 'x'), 143), (KeyError(), 1)],
)
def test_trackers_are_told_how_the_run_ended(error, code, tmp_path, monkeypatch):
  recorder = Recorder()
  monkeypatch.setattr(opening, '_open', lambda *_: recorder)
  with opening.opened(choice.BOARD, tmp_path, CONFIG) as tracker:
    tracker.scalars('explore', 1, {'success': 1.0})
  with pytest.raises(type(error)), opening.opened(choice.BOARD, tmp_path, CONFIG):
    raise error
  assert recorder.codes == [0, code] and len(recorder.told) == 1


def test_a_run_has_one_id_and_no_two_runs_the_same(tmp_path, monkeypatch):
  seen = []
  monkeypatch.setattr(
      opening, '_open', lambda name, place, subject: seen.append(subject) or Nobody()
  )
  for place in ('a', 'a', 'b'):
    grouped = choice.BOARD.within('study')
    with opening.opened(grouped, tmp_path / place, CONFIG):
      pass
  first, again, other = seen
  assert first.id == again.id != other.id
  assert first.name == f'study-a-{first.id}' and first.group == 'study'


def test_only_the_first_process_tells(tmp_path, monkeypatch):
  monkeypatch.setattr(hosts, 'index', lambda: 1)
  with opening.opened(choice.BOARD, tmp_path, CONFIG) as tracker:
    tracker.scalars('explore', 1, {'success': 1.0})
  opening.board(tmp_path, CONFIG).scalars('explore', 1, {'success': 1.0})
  assert not list(tmp_path.iterdir())


def test_what_trackers_keep_makes_no_run_of_a_directory(tmp_path):
  with opening.opened(dataclasses.replace(choice.BOARD, names=()), tmp_path, CONFIG):
    pass
  assert json.loads((tmp_path / 'trackers' / 'id.json').read_text())['id']
  assert RunDirectory(tmp_path).is_blank()


def test_tensorboard_gets_scalars_the_table_the_config_and_pictures(tmp_path):
  import matplotlib.pyplot as plt

  picture = tmp_path / 'passk.png'
  plt.imsave(picture, [[0.0, 1.0]])
  with opening.opened(choice.BOARD, tmp_path, CONFIG) as tracker:
    tracker.scalars('distill_leafe', 1, {'loss': 0.5})
    tracker.table('pass_at_k', ['arm', 'k', 'mean'], [['leafe', 1, 0.25]])
    tracker.files('report', [picture])
  board = tmp_path / 'tensorboard'
  (scalars,) = (board / 'distill_leafe').iterdir()
  assert b'loss' in scalars.read_bytes()
  data = b''.join(path.read_bytes() for path in (board / 'run').iterdir())
  assert b'| leafe | 1 | 0.25 |' in data and b'PNG' in data and b'webshop' in data
  assert b'abcdefgh' not in data  # a key


def test_a_mean_of_nothing_is_kept_without_a_word(tmp_path, capfd, caplog):
  with opening.opened(choice.BOARD, tmp_path, CONFIG) as tracker:
    tracker.scalars('explore', 1, {'reflections': float('nan')})
  (scalars,) = (tmp_path / 'tensorboard' / 'explore').iterdir()
  assert b'reflections' in scalars.read_bytes()
  assert not caplog.records and 'NaN' not in capfd.readouterr().err


FULL = """
import pathlib, resource, sys
from leafe_jax.tracking import choice, opening
from tests.tracking.test_opening import CONFIG
place = pathlib.Path(sys.argv[1])
with opening.opened(choice.BOARD, place, CONFIG) as tracker:
  tracker.scalars('warm_start', 1, {'loss': 0.5})
  resource.setrlimit(resource.RLIMIT_FSIZE, (128, 128))
  for step in range(999):
    tracker.scalars('warm_start', step, {'loss': 0.5})
  tracker.table('pass_at_k', ['arm'], [['leafe']])
print('goes on')
"""


def test_a_full_disk_is_one_warning_and_no_traceback(tmp_path):
  done = subprocess.run(
      [sys.executable, '-c', FULL, str(tmp_path)], capture_output=True, text=True,
      timeout=120, check=False,
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  assert (done.returncode, done.stdout) == (0, 'goes on\n'), done.stderr
  assert len(done.stderr.splitlines()) == 1, done.stderr
  assert '--tracker=tensorboard failed' in done.stderr and 'too large' in done.stderr


def test_a_part_that_is_opened_twice_in_a_second_keeps_both_files(tmp_path):
  with opening.opened(choice.BOARD, tmp_path, CONFIG) as tracker:
    for step in (1, 2):
      tracker.scalars('explore', step, {'success': 1.0})
      tracker.flush('explore')
  assert len([*(tmp_path / 'tensorboard' / 'explore').iterdir()]) == 2


def test_secrets_are_hidden():
  environ = {'SOME_API_KEY': 'k3y-of-somebody', 'PWD': 'home-of-somebody'}
  config = {
      'api_key': 'a', 'HF_TOKEN': 'b', 'service': {'password': 'c', 'user': 'me'},
      'urls': ['https://me:pw@host/x', 'say k3y-of-somebody', 'home-of-somebody'],
      'jerp': {'key': 'word'}, 'max_response_tokens': 8, 'token': '', 'secret': None,
  }
  hidden = redaction.HIDDEN
  assert redaction.hide(config, environ) == {
      'api_key': hidden, 'HF_TOKEN': hidden,
      'service': {'password': hidden, 'user': 'me'},
      'urls': [f'https://{hidden}@host/x', f'say {hidden}', 'home-of-somebody'],
      'jerp': {'key': 'word'}, 'max_response_tokens': 8, 'token': '', 'secret': None,
  }
  text = redaction.config_text(CONFIG)
  assert 'abcdefgh' not in text and json.loads(text)['env']['options']['size'] == 3


def test_an_unknown_tracker_is_refused_by_name():
  with pytest.raises(ValueError, match='--tracker=wand: .*choose from tensorboard'):
    choice.check(['wand'])


@pytest.mark.parametrize(
    ('project', 'message'),
    [
        ('team/leafe', "no '/'.*WANDB_ENTITY"), ('a:b', "no ':'"),
        ('x' * 129, '129 characters, not above 128'),
    ],
)
def test_a_project_that_no_tracker_takes_is_refused_at_once(project, message):
  with pytest.raises(ValueError, match=f'--tracker_project=.*{message}'):
    choice.check(['tensorboard'], project)


def test_names_are_as_long_as_trackers_take_and_end_in_the_id(tmp_path):
  place = tmp_path / ('long' * 50)
  place.mkdir()
  subject = opening._subject(place, Experiment(), 'group' * 40, '')
  assert len(subject.name) <= 128 and len(subject.group) <= 128
  assert subject.name.endswith(f'long-{subject.id}')
  short = opening._subject(tmp_path, Experiment(), 'g', '')
  assert short.name == f'g-{tmp_path.name}-{short.id}'


def test_a_folder_of_the_name_is_no_package(tmp_path, monkeypatch):
  """wandb leaves one where it is used; the real package would be found before it."""
  (tmp_path / 'wandb').mkdir()
  monkeypatch.setattr(sys, 'path', [str(tmp_path)])
  monkeypatch.delitem(sys.modules, 'wandb', raising=False)
  with pytest.raises(ValueError, match=r"pip install -e '.\[wandb\]'"):
    choice.check(['wandb'])


def test_no_tracker_is_imported_unless_asked_for():
  """Of what the command line and a run import."""
  program = (
      'import sys\n'
      'from leafe_jax import launch\n'
      'from leafe_jax.tracking import opening\n'
      'print(sorted({"wandb", "trackio", "gradio_client"} & set(sys.modules)))'
  )
  run = subprocess.run(
      [sys.executable, '-c', program], capture_output=True, text=True, check=True
  )
  assert run.stdout.strip() == '[]'
