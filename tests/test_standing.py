"""What a fork keeps, what a resumed run makes again, and what is refused."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from leafe_jax import seals, standing
from leafe_jax.rundir import SHOWN, WEIGHTS, DamagedPhase, RunDirectory
from leafe_jax.standing import Inputs

PHASES = {
    'base': Inputs(('seed', 'policy', 'explore.reflect_every')),
    'explore': Inputs(('seed', 'explore'), ('base',)),
    'sample': Inputs(('explore',), ('base', 'explore')),
    'distill/leafe': Inputs(('distill',), ('base', 'explore')),
    'distill/rft': Inputs(('distill.steps',), ('base', 'sample')),
    'evaluate/base': Inputs(('evaluate',), ('base',)),
    'evaluate/leafe': Inputs(('evaluate',), ('distill/leafe',)),
    'report': Inputs((standing.WHOLE_RUN,)),
}
ALL_BUT_REPORT = [name for name in PHASES if name != 'report']


@pytest.fixture(name='finished')
def _finished(tmp_path) -> RunDirectory:
  run = RunDirectory(tmp_path / 'one')
  for name in PHASES:
    write(run, name)
  return run


def write(run: RunDirectory, name: str) -> None:
  """What a phase does: the files that are missing, then the mark."""
  place = run.phase(name)
  for wave in ('wave_0000.jsonl', 'wave_0001.jsonl', 'data/x'):
    path = place.dir / wave
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
      path.write_text(f'{name} {wave}')
  place.complete({'wall_s': 1.0})


def kept(found):
  return [phase.name for phase in found if phase.kept]


@pytest.mark.parametrize(
    ('changed', 'redone'),
    [
        ([], []),
        (['evaluate.num_tasks'], ['evaluate/base', 'evaluate/leafe']),
        (['distill.beta'], ['distill/leafe', 'evaluate/leafe']),
        (['distill.steps'], ['distill/leafe', 'distill/rft', 'evaluate/leafe']),
        (['explore.num_tasks'], [
            'explore', 'sample', 'distill/leafe', 'distill/rft', 'evaluate/leafe']),
        (['explore.reflect_every'], ALL_BUT_REPORT),
        (['seed'], ALL_BUT_REPORT),
        (['explore_more.x', 'seeds'], []),
    ],
)
def test_a_fork_does_again_what_reads_a_change(finished, tmp_path, changed, redone):
  target = RunDirectory(tmp_path / 'two')
  found = standing.fork(finished, target, changed, PHASES)
  taken = [name for name in ALL_BUT_REPORT if name not in redone]
  assert kept(found) == taken
  for name in PHASES:
    assert target.phase(name).done() == (name in taken)
  assert standing.left(target, PHASES) == [*redone, 'report']


def test_a_fork_takes_over_what_stands_behind_an_unfinished_phase(finished, tmp_path):
  (finished.phase('distill/leafe').dir / 'DONE.json').unlink()
  found = standing.fork(finished, RunDirectory(tmp_path / 'two'), [], PHASES)
  assert [p.name for p in found if not p.kept] == ['distill/leafe', 'report']
  assert f'not finished in {finished.path}' in standing.describe(found)


def test_a_fork_leaves_a_damaged_phase_behind_and_says_so(finished, tmp_path):
  (finished.path / 'sample' / 'wave_0000.jsonl').write_text('changed')
  found = standing.fork(finished, RunDirectory(tmp_path / 'two'), [], PHASES)
  assert 'sample' not in kept(found) and 'explore' in kept(found)
  assert 'sample/wave_0000.jsonl differs' in standing.describe(found)


def test_a_fork_leaves_complete_phases_of_the_target_alone(finished, tmp_path):
  target = RunDirectory(tmp_path / 'two')
  target.phase('base').complete({'mine': True})
  (target.phase('explore').dir / 'half').write_text('')
  standing.fork(finished, target, [], PHASES)
  assert target.phase('base').result() == {'mine': True}
  assert not (target.phase('explore').dir / 'half').exists()


def test_what_a_fork_would_do_is_said_without_doing_it(finished, tmp_path):
  target = RunDirectory(tmp_path / 'two', make=False)
  found = standing.after_fork(finished, target, ['distill.beta'], PHASES)
  lines = standing.describe(found).splitlines()
  assert lines[0].split(maxsplit=2)[:2] == ['base', 'keep']
  assert lines[3].split(maxsplit=2) == ['distill/leafe', 'do', 'reads distill.beta']
  assert lines[6].split(maxsplit=2) == [
      'evaluate/leafe', 'do', 'reads phase distill/leafe'
  ]
  assert not target.path.exists()


def change(path):
  path.write_text(path.read_text().replace('x', 'y').replace('wave', 'wive'))


def cut(path):
  path.write_text(path.read_text()[:-1])


def lose(path):
  path.unlink()


@pytest.mark.parametrize('damage', [change, cut, lose])
@pytest.mark.parametrize('name', ['wave_0001.jsonl', 'data/x'])
def test_a_damaged_file_is_made_again_and_nothing_else(
    finished, damage, name, caplog
):
  path = finished.path / 'explore' / name
  before = path.read_bytes()
  damage(path)
  assert [p.name for p in standing.at_start(finished, PHASES) if not p.kept] == [
      'explore'
  ]
  assert standing.left(finished, PHASES) == ['explore']
  assert f'explore/{name}' in caplog.text and 'is made again' in caplog.text
  assert not path.exists() and (finished.path / 'explore/wave_0000.jsonl').exists()
  write(finished, 'explore')
  assert path.read_bytes() == before
  assert standing.left(finished, PHASES) == []


@pytest.fixture(name='weighty')
def _weighty(finished) -> RunDirectory:
  """Finished, with weights that nobody reads any more."""
  place = finished.path / 'distill/leafe' / WEIGHTS
  place.mkdir()
  (place / 'tokens').write_text('x' * 9)
  seals.write(place, place / seals.SEAL)
  finished.phase('distill/leafe').complete({'wall_s': 1.0})
  return finished


@pytest.mark.parametrize('damage', [cut, lose])
def test_weights_that_lack_files_are_made_again_though_nobody_reads_them(
    weighty, damage, caplog
):
  assert standing.left(weighty, PHASES) == []
  damage(weighty.path / 'distill/leafe' / WEIGHTS / 'tokens')
  assert standing.left(weighty, PHASES) == ['distill/leafe']
  assert 'distill/leafe/params is damaged: tokens' in caplog.text


def test_weights_that_nobody_reads_are_not_read_to_be_compared(weighty):
  change(weighty.path / 'distill/leafe' / WEIGHTS / 'tokens')
  assert standing.left(weighty, PHASES) == []
  assert weighty.phase('distill/leafe').faults(weights=True)


@pytest.fixture(name='shown')
def _shown(finished) -> pathlib.Path:
  """One of two groups of a finished phase, which nothing of the run reads."""
  place = finished.path / SHOWN / 'distill/leafe'
  place.mkdir(parents=True)
  for name in ('episodes_0001.jsonl', 'episodes_0002.jsonl'):
    (place / name).write_text(f'x of {name}')
  finished.phase('distill/leafe').complete({'wall_s': 1.0}, [place])
  return place / 'episodes_0002.jsonl'


@pytest.mark.parametrize('damage', [change, cut, lose])
def test_of_what_is_shown_alone_a_damage_is_named_and_nothing_is_trained_again(
    finished, shown, damage
):
  before = shown.read_text()
  assert standing.left(finished, PHASES) == []
  damage(shown)
  with pytest.raises(DamagedPhase, match=r'/one/groups/distill/leafe/episodes_0002'):
    standing.left(finished, PHASES)
  shown.write_text(before)
  assert standing.left(finished, PHASES) == []


def test_what_is_shown_alone_may_be_deleted(finished, shown):
  shutil.rmtree(shown.parent)
  assert standing.left(finished, PHASES) == []
  (finished.path / 'distill/leafe/data/x').unlink()
  assert standing.left(finished, PHASES) == ['distill/leafe']
  write(finished, 'distill/leafe')
  assert standing.left(finished, PHASES) == []


def test_a_changed_digit_of_a_result_is_found(finished):
  path = finished.path / 'evaluate/leafe/DONE.json'
  path.write_text(path.read_text().replace('1.0', '7.0'))
  assert standing.left(finished, PHASES) == ['evaluate/leafe']
  assert (finished.path / 'evaluate/leafe/wave_0000.jsonl').exists()


@pytest.mark.parametrize('content', ['{}', '', '{"files": {}, "sha256": ""}', None])
def test_a_seal_that_says_nothing_stops_by_name_with_the_remedy(finished, content):
  seal = finished.path / 'explore' / 'seal.json'
  if content is None:
    seal.unlink()
  else:
    seal.write_text(content)
  with pytest.raises(DamagedPhase, match=r'explore/seal\.json .*remove .*/explore'):
    standing.left(finished, PHASES)
  (finished.path / 'explore' / 'DONE.json').unlink()  # the remedy
  assert standing.left(finished, PHASES) == ['explore']
  write(finished, 'explore')
  assert standing.left(finished, PHASES) == []


def test_an_entry_taken_out_of_a_seal_is_no_seal(finished):
  seal = finished.path / 'explore' / 'seal.json'
  content = json.loads(seal.read_text())
  del content['files']['wave_0001.jsonl']
  seal.write_text(json.dumps(content))
  with pytest.raises(DamagedPhase, match='not a seal as it was written'):
    standing.left(finished, PHASES)


def test_a_file_that_would_be_read_and_was_not_written_stops(finished):
  (finished.path / 'explore' / 'notes.txt').write_text('of the user')
  assert standing.left(finished, PHASES) == []
  (finished.path / 'explore' / 'wave_0007.jsonl').write_text('')
  with pytest.raises(DamagedPhase, match=r'wave_0007\.jsonl was not written'):
    standing.left(finished, PHASES)


def test_data_that_comes_out_otherwise_is_not_put_under_later_phases(finished):
  path = finished.path / 'explore' / 'wave_0001.jsonl'
  path.unlink()
  assert standing.left(finished, PHASES) == ['explore']
  path.write_text('of another machine')
  with pytest.raises(DamagedPhase, match='came out otherwise'):
    write(finished, 'explore')
  assert not finished.phase('explore').done()


def seal_weights(run, name):
  from leafe_jax import seals

  place = run.path / name / 'params'
  (place / 'params').mkdir(parents=True)
  (place / 'params' / 'array').write_text('weights')
  seals.write(place, place / 'seal.json')


def test_weights_are_compared_where_somebody_will_read_them(tmp_path):
  run = RunDirectory(tmp_path / 'one')
  for name in ('base', 'distill/leafe', 'evaluate/leafe'):
    if name != 'evaluate/leafe':
      seal_weights(run, name)
    write(run, name)
  phases = {name: PHASES[name] for name in ('base', 'distill/leafe', 'evaluate/leafe')}
  weights = run.path / 'distill/leafe/params/params/array'
  weights.write_text('changed')
  assert standing.left(run, phases) == []  # nobody reads them
  (run.path / 'evaluate/leafe/wave_0000.jsonl').unlink()
  assert standing.left(run, phases) == ['distill/leafe', 'evaluate/leafe']
  assert not (run.path / 'distill/leafe/params').exists()
  seal = run.path / 'base/params/seal.json'
  seal.write_text('{}')  # which the phase's own seal knows
  assert standing.left(run, phases)[0] == 'base'


def test_a_damaged_try_of_a_sweep_is_made_again_with_its_phase(tmp_path):
  run = RunDirectory(tmp_path / 'one')
  for name in ('grpo/rate_1', 'grpo/rate_2', 'grpo'):
    write(run, name)
  (run.path / 'grpo/rate_2/wave_0000.jsonl').unlink()
  assert standing.left(run, {'grpo': Inputs(())}) == ['grpo']
  assert run.phase('grpo/rate_1').done() and not run.phase('grpo/rate_2').done()


def test_checkpoints_are_sealed_by_themselves(tmp_path):
  run = RunDirectory(tmp_path / 'one')
  state = run.phase('base').dir / 'checkpoints' / 'steps' / '3'
  state.mkdir(parents=True)
  (state / 'array').write_text('state')
  write(run, 'base')
  (state / 'array').write_text('changed')
  assert standing.left(run, {'base': PHASES['base']}) == []


def test_what_a_phase_wrote_elsewhere_is_made_again(tmp_path):
  run = RunDirectory(tmp_path / 'one')
  results = run.path / 'results.json'
  results.write_text('{}')
  run.phase('report').complete({}, [results])
  assert standing.left(run, {'report': PHASES['report']}) == []
  results.unlink()
  assert standing.left(run, {'report': PHASES['report']}) == ['report']
