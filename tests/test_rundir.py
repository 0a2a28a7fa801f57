"""The run directory: completion, atomic files, locks, forks."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leafe_jax import files, launch, rundir
from leafe_jax.rundir import RunDirectory

PHASES = ('base', 'explore', 'distill/leafe', 'report')


@pytest.fixture
def run(tmp_path) -> RunDirectory:
  return RunDirectory(tmp_path / 'runs' / 'one')


@pytest.fixture
def finished(run) -> RunDirectory:
  for i, name in enumerate(PHASES):
    phase = run.phase(name)
    (phase.dir / 'data').mkdir()
    (phase.dir / 'data' / 'x').write_text(name)
    phase.complete({'wall_s': float(i)})
  return run


def test_a_phase_is_done_when_it_says_so_and_keeps_its_result(run):
  phase = run.phase('distill/leafe')
  assert phase.dir.is_dir()
  assert not phase.done()
  with pytest.raises(RuntimeError, match="'distill/leafe' is not complete"):
    phase.result()
  phase.complete({'loss': 0.5})
  again = RunDirectory(run.path).phase('distill/leafe')
  assert again.done()
  assert again.result() == {'loss': 0.5}


def test_wall_times_are_of_complete_phases(finished):
  finished.phase('evaluate/base')
  assert finished.wall_times() == {
      'base': 0.0, 'explore': 1.0, 'distill/leafe': 2.0, 'report': 3.0
  }


@pytest.mark.parametrize('content', ['text ü\n', b'\x00\xff'])
def test_write_atomic_replaces_the_whole_file(tmp_path, content):
  path = tmp_path / 'file'
  path.write_text('an older and much longer text')
  files.write_atomic(path, content)
  expected = content.encode() if isinstance(content, str) else content
  assert path.read_bytes() == expected
  assert os.listdir(tmp_path) == ['file']


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'file'
  files.write_atomic(path, 'old')

  def fail(descriptor):
    raise OSError('disk full')

  monkeypatch.setattr(rundir.os, 'fsync', fail)
  with pytest.raises(OSError, match='disk full'):
    files.write_atomic(path, 'new')
  assert path.read_text() == 'old'


def test_leftovers_are_removed_when_the_run_starts_again(run):
  (run.phase('explore').dir / 'wave.jsonl.77.partial').write_text('{"half')
  (run.path / 'distill.partial' / 'deep').mkdir(parents=True)
  (run.phase('explore').dir / 'wave.jsonl').write_text('whole')
  with run.locked():
    pass
  assert not list(run.path.rglob('*.partial'))
  assert (run.phase('explore').dir / 'wave.jsonl').read_text() == 'whole'


def test_a_second_process_is_kept_out_and_told_by_whom(run):
  code = (
      'import sys; from leafe_jax.rundir import RunDirectory\n'
      'with RunDirectory(sys.argv[1]).locked(): pass'
  )
  command = [sys.executable, '-c', code, str(run.path)]
  with run.locked():
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert f'in use by process {os.getpid()}' in second.stderr
  assert subprocess.run(command, check=False).returncode == 0


def test_every_start_adds_a_line(run):
  run.record_attempt({'argv': ['a']})
  run.record_attempt({'argv': ['b']})
  lines = (run.path / 'attempts.jsonl').read_text().splitlines()
  assert [json.loads(line)['argv'] for line in lines] == [['a'], ['b']]


def test_a_directory_is_blank_until_a_phase_writes(run):
  run.save_config({})
  place = run.phase('explore')
  assert run.is_blank()
  files.write_atomic(place.dir / 'wave.jsonl', '')
  assert not run.is_blank()


@given(
    st.dictionaries(
        st.text('abc', min_size=1, max_size=2),
        st.recursive(
            st.integers() | st.text(), lambda x: st.lists(x, max_size=2), max_leaves=4
        ),
        max_size=4,
    )
)
def test_results_come_back_as_they_were(tmp_path_factory, result):
  phase = RunDirectory(tmp_path_factory.mktemp('run')).phase('p')
  phase.complete(result)
  assert phase.result() == result


def test_other_code_than_last_time_is_warned_of(tmp_path, caplog, monkeypatch):
  run = RunDirectory(tmp_path / 'run')
  for commit in ('a1', 'a1', 'b2', None):
    monkeypatch.setattr(launch, '_git_hash', lambda commit=commit: commit)
    launch.record(run, ['main'], 'sha')
  warned = [record.getMessage() for record in caplog.records]
  assert len(warned) == 1
  assert 'commit a1' in warned[0] and 'this is b2' in warned[0]


@pytest.mark.parametrize('text', ['', '{', '[]\n', '\n'])
def test_notes_of_starts_that_cannot_be_read_are_none(tmp_path, text):
  run = RunDirectory(tmp_path / 'run')
  (run.path / 'attempts.jsonl').write_text(text)
  assert run.last_attempt() == {} and run.recorded_sha256() is None
