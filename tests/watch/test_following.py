"""A run that goes on is followed; nothing of it is touched."""

from __future__ import annotations

import os
import time

import pytest
import tensorboardX

from leafe_jax.evaluation.specimens import compact
from leafe_jax.tree import Tree
from leafe_jax.watch import reading, scalars, standing
from leafe_jax.watch.forest import read_line
from tests.evaluation import runs
from tests.watch.live import LiveRun, serving


@pytest.fixture(name='live')
def _live(tmp_path):
  return LiveRun(tmp_path / 'run')


def sources_of(run):
  return {source['name']: source for source in run['sources']}


def contents(path):
  return {
      str(place): (place.stat().st_mtime_ns, place.stat().st_size)
      for place in sorted(path.rglob('*'))
  }


def bar(**changes):
  known = {
      'name': 'explore', 'unit': 'task', 'total': 100, 'done': 41, 'fresh': 40,
      'figures': {'solved': '3'}, 'first': 1000.0, 'last': 1080.0,
  }  # fmt: skip
  return {**known, **changes}


def test_a_run_is_followed_from_its_first_sign_to_its_end(live):
  with serving(live.path) as reader:
    assert reader.run()['status']['word'] == 'unfinished'
    live.finish('warm_start')
    live.beat(phase='explore', ahead={'explore': None, 'distill/leafe': 'warm_start'})
    run = reader.run()
    assert run['status']['word'] == 'running'
    states = [phase['state'] for phase in run['phases']]
    assert states == ['done', 'now', 'todo', 'todo', 'todo']
    assert run['phases'][2]['expected_s'] == 10.0
    assert run['left'] == {'known_s': 10.0, 'unknown': ['explore', 'evaluate/leafe']}

    first = runs.branching_tree()
    first.nodes[-1].ended_by, first.nodes[-1].success = '', False
    live.grow([first])
    explore = sources_of(reader.run())['explore']
    assert explore['figures']['successes'] == 0 and explore['figures']['ended'] == 3
    live.grow([runs.branching_tree(), runs.root_tree()])
    run = reader.run()
    found = sources_of(run)['explore']['figures']
    assert (found['tasks'], found['solved'], found['successes']) == (2, 2, 2)
    assert (found['reflections'], found['usable'], found['turns']) == (4, 3, 12)
    latest = run['recent'][0]
    assert latest['title'] == 'find a chair'
    assert len(run['recent']) == 5

    live.grow([runs.branching_tree(), runs.root_tree()], 'wave_0000.jsonl')
    (live.path / 'explore' / 'growing_0000.jsonl').unlink()
    run = reader.run()
    assert list(sources_of(run)['explore']['files']) == ['wave_0000.jsonl']
    assert len(run['recent']) == 5  # the same episodes as before

    for phase in ('explore', 'distill/leafe', 'evaluate/leafe', 'report'):
      live.finish(phase)
    live.beat(ended='finished')
    assert reader.run()['status']['word'] == 'finished'


def test_the_last_episodes_are_those_whose_files_were_written_last(live):
  live.grow([runs.root_tree('old')], 'wave_0007.jsonl')
  os.utime(live.path / 'explore' / 'wave_0007.jsonl', (1e9, 1e9))
  live.grow([runs.root_tree(f'new{i}') for i in range(2)], 'wave_0001.jsonl')
  with serving(live.path) as reader:
    recent = reader.run()['recent']
  assert [episode['task'] for episode in recent] == ['new1', 'new0', 'old']
  assert recent[0]['seen'] > 1.7e9 and recent[2]['seen'] == 1e9


def test_nothing_of_a_run_is_written_locked_or_made(live):
  live.grow([runs.branching_tree()])
  live.beat(phase='explore', bar=bar())
  before = contents(live.path)
  with serving(live.path) as reader:
    reader.state()
    [name] = sources_of(reader.run())['explore']['files']
    for path in ('/api/tree', '/api/tokens'):
      assert reader.ask(path, run=0, source='explore', file=name, line=0)[0] == 200
    with live.directory.locked():  # nobody holds the lock
      pass
  (live.path / '.lock').unlink()
  assert contents(live.path) == before


def test_trees_come_one_by_one_with_their_tokens(live):
  tree = runs.branching_tree()
  live.grow([runs.root_tree(), tree])
  with serving(live.path) as reader:
    place = {'run': 0, 'source': 'explore', 'file': 'growing_0000.jsonl'}
    status, found = reader.ask('/api/trees', **place)
    assert status == 200
    assert [entry['id'] for entry in found['trees']] == ['train-2', 'train-1']
    assert reader.ask('/api/tree', **place, line=1) == (200, compact(tree))
    _, spelt = reader.ask('/api/tokens', **place, line=1)
    assert 'tokenizer cannot be read' in spelt['note']  # the run has none
    deep = spelt['nodes'][3][0]
    assert deep['response'] == ['5 ', '2 '] and deep['logprobs'] == [-0.123, -0.5]
    assert deep['hint'] == ['9 ']
    [role] = deep['roles']
    assert (role['kind'], role['why']) == ('', "the parent's action again")
    assert 'roles' not in spelt['nodes'][1][0]


def test_several_runs_stand_side_by_side_with_their_differences(tmp_path):
  one = LiveRun(tmp_path / 'a' / 'run')
  two = LiveRun(tmp_path / 'b' / 'run', seed=3)
  two.grow([runs.root_tree()])
  with serving(one.path, two.path) as reader:
    state = reader.state()
    assert [run['name'] for run in state['runs']] == ['a/run', 'b/run']
    assert state['differences'] == [{'path': 'seed', 'values': ['0', '3']}]
    assert [len(run['sources']) for run in state['runs']] == [0, 1]


def test_the_runs_of_a_study_are_found_as_they_begin(tmp_path):
  study = LiveRun(tmp_path / 'study')
  with serving(study.path) as reader:
    assert [run['name'] for run in reader.state()['runs']] == ['study']
    LiveRun(study.path / 'seed_0')
    LiveRun(study.path / 'seed_1', seed=1)
    assert [run['name'] for run in reader.state()['runs']] == ['seed_0', 'seed_1']


def test_an_arm_is_counted_by_the_waves_that_are_complete(live):
  place = live.path / 'evaluate' / 'leafe'
  place.mkdir(parents=True)
  line = '{"task_id": "t%d", "successes": [%s]}\n'
  (place / 'wave_0000.jsonl').write_text(line % (0, '1, 0, 0, 0') + line % (1, '0, 0'))
  with serving(live.path) as reader:
    [arm] = reader.state()['arms']
  assert (arm['name'], arm['tasks'], arm['samples']) == ('leafe', 2, 2)
  assert [point['mean'] for point in arm['points']] == [0.25, 0.5]


# What is damaged, torn or gone.


def test_a_damaged_directory_is_shown_as_far_as_it_can_be_read(live):
  (live.path / 'config.json').write_text('{"seed": ')
  (live.path / 'progress.json').write_text('[]')
  (live.path / 'results.json').write_bytes(b'\xff\xfe')
  (live.path / 'log.txt').write_bytes(b'\xff\xfe I am no log')
  events = live.path / 'tensorboard' / 'explore'
  events.mkdir(parents=True)
  (events / 'events.out.1').write_bytes(b'\x07' * 400)
  whole = runs.root_tree().to_json()
  place = live.path / 'explore'
  place.mkdir()
  lines = [whole, '{"schema": 99}', 'null', '[[[', whole, whole[:90]]
  (place / 'wave_0000.jsonl').write_text('\n'.join(lines))
  with serving(live.path) as reader:
    run = reader.run()
    assert sources_of(run)['explore']['figures']['tasks'] == 2
    troubles = ' '.join(run['troubles'])
    for said in ('config', 'progress', 'results', 'wave_0000.jsonl: line 2'):
      assert said in troubles
    query = {'run': 0, 'source': 'explore', 'file': 'wave_0000.jsonl'}
    assert reader.ask('/api/tree', **query, line=1)[0] == 200
    _, spelt = reader.ask('/api/tokens', **query, line=1)
    assert 'What is trained is not known' in spelt['note']


def test_a_directory_may_vanish_and_come_back(live, tmp_path):
  live.grow([runs.root_tree()])
  with serving(live.path) as reader:
    assert reader.run()['sources']
    live.path.rename(tmp_path / 'away')
    run = reader.run()
    assert run['status']['word'] == 'missing' and not run['sources']
    (tmp_path / 'away').rename(live.path)
    assert reader.run()['sources']


def test_a_torn_line_is_read_when_it_is_whole(tmp_path):
  path = tmp_path / 'wave_0000.jsonl'
  text = runs.root_tree().to_json() + '\n'
  file = reading.LinesFile(path, read_line, clock=lambda: 0.0)
  assert not file.refresh()  # not there yet
  path.write_text(text + text[:70])
  assert file.refresh() and len(file.lines) == 1 and 'its end' in file.trouble
  path.write_text(text + text)
  assert file.refresh() and len(file.lines) == 2 and not file.trouble
  assert not file.refresh()
  path.unlink()
  assert not file.refresh() and len(file.lines) == 2


def test_a_file_that_takes_long_is_left_alone_for_a_while(tmp_path):
  path = tmp_path / 'wave_0000.jsonl'
  path.write_text(runs.root_tree().to_json())
  now = [0.0]

  def slow(record):
    now[0] += 3.0
    return read_line(record)

  file = reading.LinesFile(path, slow, clock=lambda: now[0])
  assert file.refresh()
  path.write_text(runs.lost_tree().to_json())
  now[0] += 29.0
  assert not file.refresh()
  now[0] += 2.0
  assert file.refresh()


def refresh_until(found, points, writer):
  """Real writers write from a thread of their own."""
  for _ in range(500):
    writer.flush()
    found.refresh()
    if [len(series['points']) for series in found.series()] == [points]:
      return
    time.sleep(0.01)


def test_scalars_are_read_as_a_real_writer_adds_them(tmp_path):
  writer = tensorboardX.SummaryWriter(str(tmp_path / 'tensorboard' / 'explore'))
  found = scalars.Scalars(tmp_path / 'tensorboard')
  values = [1.5, -2.0, float('nan'), 0.25]
  for step, value in enumerate(values):
    writer.add_scalar('loss', value, step)
  refresh_until(found, 4, writer)
  points = [[0, 1.5], [1, -2.0], [2, None], [3, 0.25]]
  assert found.series() == [{'part': 'explore', 'name': 'loss', 'points': points}]
  writer.add_scalar('loss', 7.0, 4)
  refresh_until(found, 5, writer)
  assert found.series()[0]['points'] == [*points, [4, 7.0]]


def test_events_that_are_cut_at_any_byte_are_read_on_from_there(tmp_path):
  writer = tensorboardX.SummaryWriter(str(tmp_path / 'whole'))
  for step in range(3):
    writer.add_scalar('loss', step, step)
  writer.close()
  [path] = (tmp_path / 'whole').iterdir()
  data, growing = path.read_bytes(), tmp_path / 'events.growing'
  file, found = scalars.EventFile(growing), []
  growing.write_bytes(b'')
  for end in range(len(data) + 1):
    growing.write_bytes(data[:end])
    found += file.fresh()
  assert found == [('loss', step, float(step)) for step in range(3)]


def test_long_series_are_thinned_and_end_where_they_end():
  series = scalars.Scalars.__new__(scalars.Scalars)
  series._series = {('a', 'loss'): {step: float(step) for step in range(10_001)}}
  [found] = series.series()
  assert len(found['points']) <= scalars.MOST_POINTS + 2
  assert found['points'][0] == [0, 0.0] and found['points'][-1] == [10_000, 10_000.0]


# Time that is left.


def left_at(now, **changes):
  found = standing.bar_of({'bar': bar(**changes), 'time': now})
  assert found is not None
  return found['left_s']


def test_what_is_left_is_said_when_a_rate_is_known():
  assert left_at(1080.0) == pytest.approx(118)
  assert left_at(1081.5) == pytest.approx(116.5)  # in the middle of a unit
  # A unit that takes longer than all before makes the estimate worse, not better.
  assert left_at(1400.0) > 200


@pytest.mark.parametrize('changes', [
    {'fresh': 0}, {'first': None, 'last': None}, {'first': 1070.0}, {'first': 'x'},
    {'last': float('nan')},
])  # fmt: skip
def test_nothing_is_said_of_a_rate_that_is_not_known(changes):
  assert left_at(1080.0, **changes) is None


@pytest.mark.parametrize(
    ('facts', 'done', 'stopped', 'word'),
    [
        ({}, {}, '', 'waiting'),
        ({}, {'explore': {}}, '', 'unfinished'),
        ({}, {'report': {}}, '', 'finished'),
        ({}, {}, 'the gate', 'ended early'),
        ({'ended': 'stopped by signal 15'}, {}, '', 'stopped'),
        ({'ended': 'finished'}, {'explore': {}}, '', 'paused'),
        ({'host': os.uname().nodename, 'pid': 2**22 + 1}, {}, '', 'stopped'),
        ({'host': os.uname().nodename, 'pid': os.getpid()}, {}, '', 'silent'),
        ({'host': 'elsewhere', 'pid': 2**22 + 1}, {}, '', 'silent'),
    ],
)
def test_whether_a_run_goes_on_is_said_as_far_as_it_is_known(
    tmp_path, facts, done, stopped, word
):
  beat = standing.Beat(tmp_path)
  beat.facts, beat._changed = facts, time.monotonic() - 300
  assert standing.status_of(tmp_path, beat, done, stopped)['word'] == word


def test_another_machines_clock_is_not_believed(tmp_path):
  path = tmp_path / 'progress.json'
  path.write_text('{"time": 1}')
  os.utime(path, (1, 1))
  beat = standing.Beat(tmp_path)
  beat.refresh()
  assert beat.age > 1e6  # nothing else is known at the first look
  path.write_text('{"time": 2}')
  os.utime(path, (1, 1))
  beat.refresh()
  assert beat.age < 5


def test_an_unfinished_tree_has_a_compact_form():
  tree = Tree.from_json(runs.branching_tree().to_json())
  tree.nodes[1].ended_by = ''
  assert 'ended_by' not in compact(tree)['nodes'][1]
