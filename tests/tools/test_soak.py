"""Faults change what they say; outcomes are told apart; the table adds up."""

from __future__ import annotations

import json
import pathlib
import random
import signal
import sys

import pytest

from envs import api
from leafe_jax import heartbeat
from leafe_jax.learner import checkpoints
from tests.fragile_worlds import Fragile
from tools.soak import faults, judge, play, report, small, troubled
from tools.soak.__main__ import Soak

RUN = '''
import json, os, pathlib, signal, sys, time
work = pathlib.Path(sys.argv[-1].partition('=')[2])
work.mkdir(parents=True, exist_ok=True)
way = sys.argv[1]
note = work / 'seen'
again, _ = note.exists(), note.write_text('')
if way == 'waits' and not again:
  time.sleep(60)
if way == 'raises':
  raise ValueError('boom')
if way == 'forgets':
  sys.exit(0)
result = work / 'results.json'
if result.exists() and result.read_text() != '{"a": 1}':
  said = f'{result} is not as it was written; remove {result}: it is made again'
  if way == 'refuses':
    sys.exit(f'leafe_jax: {said}')
  if way == 'mends':
    print(f'{result} differs: it is made again')
if way != 'believes' or not result.exists():
  result.write_text('{"a": 1}')
'''


class Stand(play.Player):
  """Plays a few lines in place of a run."""

  def command(self):
    return [sys.executable, '-c', RUN, *self.options]


@pytest.fixture
def scene(tmp_path):
  """A scene of a stand-in that goes the ways it is told."""
  reference = tmp_path / 'reference'
  reference.mkdir()
  (reference / 'results.json').write_text('{"a": 1}')

  def make(way, seconds=0.5):
    player = Stand(tmp_path / 'run', [way], tmp_path / 'log.txt', 20)
    return faults.Scene(player, reference, seconds, random.Random(0))

  return make


def damage(scene):
  """A finished run whose result has other bits."""
  scene.player.workdir.mkdir()
  path = scene.player.workdir / 'results.json'
  path.write_text('{"a": 1}')
  scene.files[path] = path.read_bytes()
  path.write_text('{"a": 2}')
  return scene


@pytest.mark.parametrize(
    ('way', 'outcome'),
    [('mends', judge.REGENERATED), ('refuses', judge.REFUSED), ('', judge.SURVIVED)],
)
def test_a_damage_that_is_made_good_is_told_how(scene, way, outcome):
  assert judge.judge(damage(scene(way)), ()) == outcome


@pytest.mark.parametrize(
    ('way', 'why'),
    [
        ('believes', 'results.json has other bits'),
        ('forgets', 'results.json is missing'),
        ('raises', 'a traceback: ValueError: boom'),
    ],
)
def test_anything_else_is_wrong(scene, way, why):
  found = scene(way)
  if way == 'believes':
    damage(found)
  with pytest.raises(judge.Wrong, match=why):
    judge.judge(found, ())


def test_a_refusal_has_to_name_the_damaged_file(scene):
  found = damage(scene('refuses'))
  other = found.player.workdir / 'sub' / 'tokens.bin'
  found.files = {other: b''}
  with pytest.raises(judge.Wrong, match='does not name tokens.bin'):
    judge.judge(found, ())


def test_weights_that_no_phase_reads_any_more_are_made_again_by_who_reads_them(
    scene, monkeypatch
):
  found = damage(scene('mends'))
  place = found.player.workdir / 'warm_start' / 'params'
  for directory in (found.reference / 'warm_start' / 'params', place):
    directory.mkdir(parents=True)
    (directory / 'seal.json').write_text('{}')
  found.files[place / 'manifest'] = b''

  def load(directory):
    if directory == place and place.exists():
      raise checkpoints.DamagedCheckpoint(
          f'{place / "manifest"} differs; remove {place}, and its run makes it again'
      )
    return {}

  monkeypatch.setattr(checkpoints, 'load_params', load)
  assert judge.judge(found, ()) == judge.REFUSED
  assert not place.exists() and len(found.endings) == 2


def test_a_start_that_takes_too_long_is_wrong(scene):
  found = scene('waits')
  found.player.limit = 0.5
  found.start()
  with pytest.raises(judge.Wrong, match='no end within'):
    judge.judge(found, (0, -signal.SIGKILL))


def test_a_killed_run_is_gone_on_with(scene):
  found = scene('waits', seconds=3.0)
  codes = faults.Signals('kill', (signal.SIGKILL,)).happen(found)
  assert found.endings[0].codes == (-signal.SIGKILL,)
  assert judge.judge(found, codes) == judge.SURVIVED


@pytest.mark.parametrize('fault', [f for f in faults.FAULTS if 'file' in f.name
                                   or 'bit' in f.name], ids=lambda f: f.name)
def test_a_damage_changes_one_file(tmp_path, fault):
  if not isinstance(fault, faults.Damage):
    return
  (tmp_path / 'a').mkdir()
  for name in 'bc':
    (tmp_path / 'a' / f'{name}.json').write_text(json.dumps({name: name * 9}))
  path = tmp_path / 'a' / 'b.json'
  before = path.read_bytes()
  assert fault.change(path, random.Random(1))
  assert not path.exists() or path.read_bytes() != before
  assert (tmp_path / 'a' / 'c.json').read_text() == json.dumps({'c': 'c' * 9})


@pytest.mark.parametrize('way', ['raise', 'lie'])
def test_a_troubled_world_breaks_at_the_same_actions_in_every_branch(way):
  world = troubled.make('tests.fragile_worlds:Fragile', way)
  often = troubled.SELDOM[way]
  task = Fragile().tasks('train')[2]

  def answers(session):
    found = []
    for number in range(3 * often):
      try:
        found.append(repr(session.step(f'look {number}')))
      except RuntimeError as error:
        found.append(str(error))
    return found

  session, other = world.session(), world.session()
  plain = Fragile().session()
  session.reset(task)
  plain.reset(task)
  start = session.snapshot()
  first = answers(session)
  other.restore(start)
  assert answers(other) == first
  assert 0 < sum(a != b for a, b in zip(first, answers(plain))) < often
  assert isinstance(world, api.World)


def test_a_soak_goes_on_with_the_next_draws_and_keeps_what_is_wrong(
    tmp_path, monkeypatch
):
  monkeypatch.setattr(play.Player, 'command', Stand.command)
  kinds = [faults.Signals('a', (signal.SIGKILL,)), faults.Damage('b', faults.truncate)]
  soak = Soak(['believes'], tmp_path, 0, 20, kinds)
  for number in range(4):
    soak.draw(number)
  again = Soak(['believes'], tmp_path, 0, 20, kinds)
  assert again.entries == soak.entries and again.next_number() == 4
  assert [e.fault for e in again.entries].count('a') == 2
  wrong = [e for e in again.entries if e.outcome == judge.WRONG]
  assert {tmp_path / f'draw_{e.number:05d}' for e in wrong} == {
      *tmp_path.glob('draw_*')
  }
  text = report.table(again.entries)
  assert all(f'--draw={e.number}' in text for e in wrong)
  assert pathlib.Path(tmp_path / 'soak.json').exists()
  with pytest.raises(ValueError, match='give another --out'):
    Soak(['believes'], tmp_path, 1, 20, kinds)


def test_a_round_draws_each_kind_once_and_ends_without_a_clock(tmp_path, monkeypatch):
  monkeypatch.setattr(play.Player, 'command', Stand.command)
  kinds = [faults.Damage(name, faults.delete) for name in 'abc']
  soak = Soak(['mends'], tmp_path, 0, 20, kinds)
  soak.draw(0)
  for number in soak.numbers(0, 1):
    soak.draw(number)
  assert sorted(entry.fault for entry in soak.entries) == ['a', 'b', 'c']
  assert not list(soak.numbers(0, 1)) and not list(soak.numbers(0, 0))
  assert next(soak.numbers(0, 2)) == next(soak.numbers(60, 0)) == 3


def test_the_small_run_is_what_it_says():
  config = small.get_config()
  assert config.arms == ('base',) and config.policy.num_layers == 1
  with pytest.raises(ValueError, match='no variants'):
    small.get_config('large')


def test_an_undisturbed_run_that_fails_is_wrong_and_the_soak_goes_on(
    tmp_path, monkeypatch
):
  monkeypatch.setattr(play.Player, 'command', Stand.command)
  soak = Soak(['raises'], tmp_path, 0, 20, [faults.Signals('a', (signal.SIGKILL,))])
  entry = soak.draw(0)
  assert entry.outcome == judge.WRONG and 'undisturbed run' in entry.why


def test_what_a_run_says_of_itself_alone_is_nobodys_result(tmp_path):
  (tmp_path / 'results.json').write_text('{}')
  (tmp_path / heartbeat.FILE).write_text('{"pid": 1}')
  (tmp_path / 'trackers').mkdir()
  (tmp_path / 'trackers' / 'id.json').write_text('{"id": "x"}')
  assert judge.results(tmp_path) == ['results.json']
