"""progress.json says where a run is, and how it came to its end."""

import json
import time

import pytest

from leafe_jax import heartbeat
from leafe_jax.progress import Progress


def read(path):
  return json.loads((path / heartbeat.FILE).read_text())


def wait_for(path, test):
  for _ in range(6000):
    if (path / heartbeat.FILE).exists() and test(read(path)):
      return read(path)
    time.sleep(0.01)
  raise AssertionError(read(path))


def test_a_bar_is_written_while_it_moves_and_gone_afterwards(tmp_path):
  with heartbeat.beating(tmp_path, every_s=0.01):
    heartbeat.tell(phase='explore')
    with Progress('explore', 8, 'task', done=2) as bar:
      bar.skip(1)
      bar.show({'solved': 3})
      bar.advance()
      bar.advance(2)
      found = wait_for(tmp_path, lambda beat: (beat.get('bar') or {}).get('fresh') == 2)
    wait_for(tmp_path, lambda beat: beat.get('bar') is None)
  shown = found['bar']
  assert (shown['done'], shown['total'], shown['figures']) == (6, 8, {'solved': '3'})
  assert shown['first'] <= shown['last'] <= found['time']
  assert found['phase'] == 'explore' and found['memory']['peak'] > 1e6
  assert 'ended' not in found and read(tmp_path)['ended'] == heartbeat.FINISHED
  assert [path.name for path in tmp_path.iterdir()] == [heartbeat.FILE]


def test_an_error_is_told_in_one_line_and_goes_on(tmp_path):
  with pytest.raises(RuntimeError), heartbeat.beating(tmp_path, every_s=10):
    raise RuntimeError('the gate\nis shut')
  assert read(tmp_path)['ended'] == 'the gate is shut'
  with heartbeat.beating(tmp_path, every_s=10):
    pass
  assert read(tmp_path)['ended'] == heartbeat.FINISHED


def test_a_directory_that_takes_nothing_is_a_warning_and_no_end(tmp_path, caplog):
  with heartbeat.beating(tmp_path / 'gone', every_s=0.01):
    time.sleep(0.1)
  assert 'is not written any more' in caplog.text


def test_bars_outside_of_a_run_are_only_bars():
  with Progress('explore', 2, 'task') as bar:
    bar.advance()
