"""A wave that is stopped anywhere goes on from its journal to the same bits."""

from __future__ import annotations

import dataclasses
import random
import signal

import pytest

from leafe_jax import config as config_lib
from leafe_jax import stops
from leafe_jax.learner.metrics import Nowhere
from leafe_jax.methods.assess import assess
from leafe_jax.methods.collect import collect
from leafe_jax.rollout.grow import Limits
from tests.methods import bandit

EXPLORE = config_lib.Explore(
    num_tasks=3, wave_tasks=3, attempts=6, max_response_tokens=1,
    max_reflection_tokens=3,
)
EVALUATE = config_lib.Evaluate(num_samples=8, wave_tasks=2, keep_episodes=1)
ROWS, EVERY = 4, 12


@pytest.fixture(name='player', scope='module')
def _player(tmp_path_factory):
  run = bandit.make_run(
      tmp_path_factory.mktemp('journal'),
      sampler=dataclasses.replace(
          bandit.SAMPLER, dispatch_rows=2, decode_chunk=2, checkpoint_every=EVERY
      ),
  )
  return run.base_player()


def explore(player, directory):
  directory.mkdir(exist_ok=True)
  tasks = player.world.tasks('train')[:3]
  limits = Limits(EXPLORE.attempts, 0)
  collect(
      'explore', directory, player, tasks, EXPLORE, lambda task: limits, ROWS, Nowhere()
  )
  return contents(directory)


def evaluate(player, directory):
  directory.mkdir(exist_ok=True)
  tasks = player.world.tasks('test')[:2]
  assess('evaluate', directory, player, tasks, EVALUATE, 1, ROWS)
  return contents(directory)


def contents(directory):
  return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def stop_after(monkeypatch, polls):
  """The run is asked to stop at this poll; returns how many there were."""
  seen = []

  def asked():
    seen.append(0)
    return signal.SIGTERM if len(seen) > polls else 0

  monkeypatch.setattr(stops, 'asked', asked)
  return seen


def stopped(monkeypatch, play, player, directory, polls):
  """Plays up to a poll; the message."""
  with monkeypatch.context() as patch:
    stop_after(patch, polls)
    with pytest.raises(stops.Stopped) as error:
      play(player, directory)
  # As another process would find the sampler.
  scheduler = player.sampler._scheduler
  while scheduler.busy:
    scheduler.poll()
  player.sampler.forget()
  return str(error.value)


@pytest.mark.parametrize('play', [explore, evaluate])
def test_a_wave_stopped_at_any_poll_comes_out_with_the_same_bits(
    tmp_path, monkeypatch, player, play
):
  with monkeypatch.context() as patch:
    seen = stop_after(patch, 10**9)
    whole = play(player, tmp_path / 'whole')
  assert not any('journal' in name for name in whole) and len(seen) > 2 * EVERY / ROWS
  kept = set()
  for polls in range(len(seen)):
    place = tmp_path / str(polls)
    message = stopped(monkeypatch, play, player, place, polls)
    kept.add(message.partition('the first ')[2].split()[0])
    assert play(player, place) == whole
  assert len(kept) > 2 and '0' in kept  # from several points


def test_a_wave_may_be_stopped_again_and_again(tmp_path, monkeypatch, player):
  whole = explore(player, tmp_path / 'whole')
  place = tmp_path / 'often'
  said = [stopped(monkeypatch, explore, player, place, polls) for polls in (9, 8, 12)]
  assert len(set(said)) > 1  # each time further
  assert explore(player, place) == whole


def test_what_is_torn_or_changed_is_played_again(tmp_path, monkeypatch, player):
  whole = explore(player, tmp_path / 'whole')
  stopped(monkeypatch, explore, player, tmp_path / 'first', 20)
  written = (tmp_path / 'first' / 'journal_0000.jsonl').read_bytes()
  assert written.count(b'"kept"\n') > 1
  rng = random.Random(0)
  for number in range(12):
    content, at = bytearray(written), rng.randrange(len(written))
    if number % 2:
      content[at] ^= 1 << rng.randrange(7)
    else:
      del content[at:]
    place = tmp_path / f'damaged{number}'
    place.mkdir()
    (place / 'journal_0000.jsonl').write_bytes(content)
    assert explore(player, place) == whole


def test_the_policy_is_not_asked_again(tmp_path, monkeypatch, player):
  explore(player, tmp_path / 'whole')
  every = player.sampler.stats.sampled_tokens
  stopped(monkeypatch, explore, player, tmp_path / 'stopped', 20)
  before = player.sampler.stats.sampled_tokens
  explore(player, tmp_path / 'stopped')
  assert player.sampler.stats.sampled_tokens - before < every


class Changed(bandit.Bandit):
  """Pays for nothing, whatever it paid for before."""

  def step(self, action):
    step = super().step(action)
    return dataclasses.replace(step, observation='left', terminated=False)


def test_a_world_that_does_otherwise_is_followed_from_there(
    tmp_path, monkeypatch, player, caplog
):
  place = tmp_path / 'changed'
  stopped(monkeypatch, explore, player, place, 20)
  monkeypatch.setattr(player.world, 'session', Changed)
  explore(player, tmp_path / 'anew')
  said = stopped(monkeypatch, explore, player, place, 3)
  assert 'did not do again' in caplog.text and 'the first 0 ' not in said
  journal = place / 'journal_0000.jsonl'
  (tmp_path / 'copy').mkdir()
  (tmp_path / 'copy' / journal.name).write_bytes(journal.read_bytes())
  caplog.clear()
  assert explore(player, place) == explore(player, tmp_path / 'copy')
  assert 'did not do again' not in caplog.text  # it was told once


def test_a_journal_of_another_wave_is_not_used(tmp_path, monkeypatch, player, caplog):
  stopped(monkeypatch, explore, player, tmp_path / 'one', 20)
  other = dataclasses.replace(player, seed=1)
  whole = explore(other, tmp_path / 'whole')
  assert explore(other, tmp_path / 'one') == whole
  assert 'of another wave' in caplog.text


def test_a_written_wave_leaves_no_journal_behind(tmp_path, player):
  whole = explore(player, tmp_path)
  (tmp_path / 'journal_0000.jsonl').write_bytes(b'killed before it was removed')
  assert explore(player, tmp_path) == whole


def test_without_points_nothing_is_kept(tmp_path, monkeypatch, player):
  plain = dataclasses.replace(player, keep_every=0)
  said = stopped(monkeypatch, explore, plain, tmp_path, 20)
  assert 'the present one is not' in said
  assert set(contents(tmp_path)) == {'growing_0000.jsonl'}
