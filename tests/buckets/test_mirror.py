"""Whatever moment a commit is killed at, the bucket holds the files of one commit."""

import functools
import pathlib
from collections.abc import Mapping

import pytest
from absl import logging


class Killed(Exception):
  """In the place of SIGKILL."""


def _mirror(url, root):
  from leafe_jax.buckets.mirror import Mirror
  from leafe_jax.buckets.store import Store

  root.mkdir(exist_ok=True)
  mirror = Mirror(Store(url, patience_s=20), root)
  mirror.restore()
  return mirror


def _put(root: pathlib.Path, files: Mapping[str, str | None]) -> None:
  for name, text in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True) if text is None else path.write_text(text)


def _files(root: pathlib.Path) -> dict[str, str]:
  return {
      path.relative_to(root).as_posix(): path.read_text()
      for path in sorted(root.rglob('*')) if path.is_file() and path.name[0] != '.'
  }


def _said(monkeypatch):
  said = []
  monkeypatch.setattr(logging, 'warning', lambda text, *of: said.append(text % of))
  return said


FIRST = {'config.json': '{}', 'explore/wave_0000.jsonl': 'a', 'explore/journal': '1',
         'results.json': 'old', 'log.txt': 'x', 'ä b/c%20': 'odd'}  # fmt: skip
CHANGE = {'explore/wave_0001.jsonl': 'b', 'explore/journal': None,
          'results.json': 'new', 'log.txt': 'xy'}  # fmt: skip


def test_another_machine_gets_the_files_of_the_last_commit(url, tmp_path, monkeypatch):
  here = _mirror(url, tmp_path / 'here')
  _put(here.root, FIRST)
  here.commit('wave 0 of explore')
  _put(here.root, {'explore/growing.partial': 'half', 'later': 'not committed'})
  said = _said(monkeypatch)
  there = _mirror(url, tmp_path / 'there')
  assert _files(there.root) == FIRST
  assert 'restored from commit 1 (wave 0 of explore' in said[0]
  assert 'done again' in said[0]


def test_the_same_machine_goes_on_with_what_it_has(url, tmp_path):
  here = _mirror(url, tmp_path / 'here')
  _put(here.root, FIRST)
  here.commit('one')
  _put(here.root, {'later': 'not committed'})
  again = _mirror(url, tmp_path / 'here')
  assert _files(again.root) == {**FIRST, 'later': 'not committed'}
  again.commit('two')
  assert _files(_mirror(url, tmp_path / 'there').root)['later'] == 'not committed'


def test_what_another_machine_overtook_is_named_and_removed(url, tmp_path, monkeypatch):
  here = _mirror(url, tmp_path / 'here')
  _put(here.root, FIRST)
  here.commit('one')
  _put(here.root, {'later': 'lost'})
  there = _mirror(url, tmp_path / 'there')
  _put(there.root, CHANGE)
  there.commit('two')
  said = _said(monkeypatch)
  again = _mirror(url, tmp_path / 'here')
  assert _files(again.root) == _files(there.root)
  assert any('later' in line and 'no part of that commit' in line for line in said)


def test_unchanged_files_are_not_sent_again(url, tmp_path, line):
  here = _mirror(url, tmp_path / 'here')
  _put(here.root, FIRST)
  here.commit('one')
  line.seen.clear()
  here.commit('nothing new')
  _put(here.root, {'log.txt': 'xyz', 'tensorboard/a/events': 'e'})
  here.commit('only logs have grown')
  assert not line.seen
  _put(here.root, {'explore/wave_0001.jsonl': 'b'})
  here.commit('two')
  sent = [path for method, path in line.seen if method == 'POST' and 'upload' in path]
  assert len(sent) == 4  # the wave, the log, the events, the manifest


@pytest.mark.parametrize('done', range(14))
def test_a_kill_leaves_one_commit_or_the_other(url, tmp_path, monkeypatch, done):
  from leafe_jax.buckets import store as store_lib

  here = _mirror(url, tmp_path / 'here')
  _put(here.root, FIRST)
  here.commit('one')
  _put(here.root, CHANGE)
  left = [done]

  def dying(method):
    def act(*args, **kwargs):
      if not left[0]:
        raise Killed
      left[0] -= 1
      return method(*args, **kwargs)

    return act

  with monkeypatch.context() as patch:
    for name in ('upload', 'write', 'copy', 'delete'):
      patch.setattr(store_lib.Store, name, dying(getattr(store_lib.Store, name)))
    try:
      here.commit('two')
      finished = True
    except Killed:
      finished = False
  second = _files(here.root)
  there = _mirror(url, tmp_path / 'there')
  found = _files(there.root)
  assert found in (FIRST, second)
  assert found == second or not finished
  _put(there.root, CHANGE)  # and the next one goes on, to the same
  there.commit('two')
  assert _files(_mirror(url, tmp_path / 'third').root) == second
  assert set(there.store.list()) == {*second, '.manifest.json'}  # and nothing else


def test_a_process_that_was_overtaken_cannot_commit(url, tmp_path):
  from leafe_jax.buckets.store import BucketError

  here = _mirror(url, tmp_path / 'here')
  _put(here.root, FIRST)
  here.commit('one')
  there = _mirror(url, tmp_path / 'there')
  _put(there.root, {'results.json': 'theirs', 'new.json': 'theirs'})
  there.commit('two')
  for files in ({'results.json': 'mine'}, {'new.json': 'mine'}, {'mine.json': 'mine'}):
    _put(here.root, files)
    with pytest.raises(BucketError, match='another process.*taken the run over'):
      here.commit('late')
  assert _files(_mirror(url, tmp_path / 'third').root) == _files(there.root)


@pytest.mark.parametrize('how', ['missing', 'damaged'])
def test_objects_that_others_touched_are_named_and_made_again(
    url, tmp_path, monkeypatch, how
):
  here = _mirror(url, tmp_path / 'here')
  _put(here.root, FIRST)
  here.commit('one')
  name = 'explore/wave_0000.jsonl'
  if how == 'missing':
    here.store.delete(name)
  else:
    found = here.store.find(name)
    assert found is not None
    here.store.write(name, b'z', found.generation)
  said = _said(monkeypatch)
  there = _mirror(url, tmp_path / 'there')
  assert name not in _files(there.root)
  assert any(f'{url}/{name}' in line and 'made again' in line for line in said)
  _put(there.root, {name: 'a'})
  there.commit('again')
  assert _files(_mirror(url, tmp_path / 'third').root) == FIRST


def test_a_copy_mends_what_others_touched(url, tmp_path):
  here = _mirror(url, tmp_path / 'here')
  _put(here.root, FIRST)
  here.commit('one')
  here.store.delete('results.json')
  again = _mirror(url, tmp_path / 'here')
  again.commit('again')
  assert _files(_mirror(url, tmp_path / 'there').root) == FIRST


def test_a_manifest_that_others_touched_is_refused(url, tmp_path):
  from leafe_jax.buckets.store import BucketError

  here = _mirror(url, tmp_path / 'here')
  _put(here.root, FIRST)
  here.commit('one')
  found = here.store.read('.manifest.json')
  assert found is not None
  content, generation = found
  here.store.write('.manifest.json', content.replace(b'config', b'konfig'), generation)
  with pytest.raises(BucketError, match='not as it was written'):
    _mirror(url, tmp_path / 'there')


def test_processes_see_what_the_others_wrote(url, tmp_path):
  from leafe_jax.buckets.mirror import Mirror
  from leafe_jax.buckets.store import Store

  first = _mirror(url, tmp_path / 'host0')
  second = Mirror(Store(url), tmp_path / 'host1', writes=False)
  second.root.mkdir()

  def meet():
    offers = [first.offer(), second.offer()]
    assert not offers[0]
    answer = first.share(lambda: 'done', offers)
    assert first.receive(answer) == second.receive(answer) == 'done'
    assert _files(first.root) == _files(second.root)

  _put(second.root, {'wave.host1': 'of an earlier start'})
  _put(first.root, {'config.json': '{}'})
  meet()
  _put(first.root, {'wave.host0': 'a', 'shared': '1'})
  _put(second.root, {'wave.host1': 'b'})
  meet()
  assert len(_files(first.root)) == 4
  _put(first.root, {'shared': '2', 'wave.host1': None})
  _put(second.root, {'other.host1': 'c'})
  meet()
  assert _files(second.root) == {
      'config.json': '{}', 'wave.host0': 'a', 'shared': '2', 'other.host1': 'c'
  }
  _put(second.root, {'other.host1': 'd'})
  meet()
  assert _files(_mirror(url, tmp_path / 'later').root) == _files(first.root)


def test_a_process_replaces_what_a_killed_start_left_uncommitted(url, tmp_path):
  from leafe_jax.buckets.mirror import Mirror
  from leafe_jax.buckets.store import Store

  Store(url).write('log.host1.txt', b'of a start that was killed', 0)
  first = _mirror(url, tmp_path / 'host0')
  second = Mirror(Store(url), tmp_path / 'host1', writes=False)
  second.root.mkdir()
  _put(first.root, {'config.json': '{}'})
  second.receive(first.share(lambda: 0, []))
  _put(second.root, {'log.host1.txt': 'of this one', 'wave.host1': 'b'})
  second.receive(first.share(lambda: 0, [second.offer()]))
  assert _files(_mirror(url, tmp_path / 'later').root) == {
      'config.json': '{}', 'log.host1.txt': 'of this one', 'wave.host1': 'b'
  }


def test_files_that_come_to_the_same_content_are_committed(url, tmp_path):
  here = _mirror(url, tmp_path / 'here')
  _put(here.root, {name: name for name in 'abcdef'})
  here.commit('one')
  _put(here.root, dict.fromkeys('abcdef', 'same'))
  here.commit('two')
  there = _mirror(url, tmp_path / 'there')
  assert _files(there.root) == dict.fromkeys('abcdef', 'same')
  assert set(here.store.list()) == {*'abcdef', '.manifest.json'}


def test_a_process_goes_on_with_its_own_log(url, tmp_path):
  """It has the file open: one in its place would never get another line."""
  from leafe_jax.buckets.mirror import Mirror
  from leafe_jax.buckets.store import Store

  first = _mirror(url, tmp_path / 'host0')
  second = Mirror(Store(url), tmp_path / 'host1', writes=False)
  second.root.mkdir()
  _put(first.root, {'config.json': '{}', 'log.host1.txt': 'of an earlier start'})
  second.receive(first.share(lambda: 0, []))
  with (second.root / 'log.host1.txt').open('a') as log:
    log.write(', then 1')
    log.flush()
    _put(first.root, {'config.json': '{1}'})
    second.receive(first.share(lambda: 0, [second.offer()]))
    log.write(', then 2')
  assert _files(second.root) == {
      'config.json': '{1}', 'log.host1.txt': 'of an earlier start, then 1, then 2'
  }


def test_a_process_follows_one_that_is_committing(url, tmp_path, monkeypatch):
  """Objects are replaced between its list of them and its reading."""
  from leafe_jax.buckets.mirror import Mirror
  from leafe_jax.buckets.store import Store

  first = _mirror(url, tmp_path / 'host0')
  second = Mirror(Store(url), tmp_path / 'host1', writes=False)
  second.root.mkdir()
  _put(first.root, {'shared': '1', 'kept': '1'})
  second.receive(first.share(lambda: 0, []))
  waiting, listing = [], second.store.list
  for name in ('_settle', '_remove'):
    later = functools.partial(lambda work, *found: waiting.append((work, found)),
                              getattr(first, name))  # fmt: skip
    monkeypatch.setattr(first, name, later)

  def listed(*below):
    found = listing(*below)
    while waiting:
      work, given = waiting.pop(0)
      work(*given)
    return found

  monkeypatch.setattr(second.store, 'list', listed)
  _put(first.root, {'shared': '2'})
  second.receive(first.share(lambda: 0, []))
  assert _files(second.root) == {'shared': '2', 'kept': '1'}

  reader = Mirror(Store(url), tmp_path / 'reader', writes=False)
  reader.root.mkdir()
  monkeypatch.setattr(reader.store, 'list', listed)
  _put(first.root, {'shared': '3'})
  first.commit('three')
  reader.restore()
  assert _files(reader.root) == {'shared': '3', 'kept': '1'}


def test_a_run_that_was_copied_into_a_bucket_is_not_written_over(url, tmp_path):
  from leafe_jax.buckets.store import BucketError, Store

  Store(url).write('warm_start/DONE.json', b'{}', 0)
  with pytest.raises(BucketError, match='(?s)warm_start/DONE.json.*--fork_from=DIR'):
    _mirror(url, tmp_path / 'here')
  assert set(Store(url).list()) == {'warm_start/DONE.json'}


def test_a_reader_changes_nothing(url, tmp_path):
  from leafe_jax import buckets
  from leafe_jax.buckets.store import BucketError

  with pytest.raises(BucketError, match='holds no run'):
    buckets.open_run(url)
  here = _mirror(url, tmp_path / 'here')
  _put(here.root, FIRST)
  here.commit('one')
  before = here.store.list()
  root = buckets.open_run(url)
  assert _files(root) == FIRST
  _put(root, {'results.json': 'mine'})
  buckets.commit(root / 'results.json', 'no')
  assert here.store.list() == before
  assert buckets.spoken(f'in {root}/log.txt') == f'in {url}/log.txt'
