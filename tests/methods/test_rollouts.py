"""Rollouts of a real policy: what they compile, what they say of their time."""

import dataclasses
import re

import jax
import pytest

from leafe_jax import config as config_lib
from leafe_jax.rollout.evaluate import evaluate
from leafe_jax.rollout.explore import explore
from leafe_jax.rollout.grow import Limits
from leafe_jax.rollout.timing import Clock, Meter
from leafe_jax.sampler import Rules, Stats
from tests.methods import bandit

EXPLORE = dataclasses.replace(
    config_lib.Explore(), num_roots=2, reflect_every=1, max_response_tokens=1,
    max_reflection_tokens=3,
)


@pytest.fixture(name='traced')
def _traced():
  """Names of everything that jax has traced since."""
  events = []

  def note(event, seconds, **kwargs):
    if event.endswith('jaxpr_trace_duration'):
      events.append(kwargs)

  jax.monitoring.register_event_duration_secs_listener(note)
  yield events
  jax.monitoring.unregister_event_duration_listener(note)


def roll_out(run, player):
  tasks = run.world.tasks('train')
  trees = explore(player, tasks, EXPLORE, lambda task: Limits(6, 0), 8)
  rules = Rules(1.0, 1, player.transcript.stop_ids)
  return trees, evaluate(player, tasks, 5, rules, 8)


def test_after_compiling_first_rollouts_trace_and_compile_nothing(tmp_path, traced):
  sampler = dataclasses.replace(bandit.SAMPLER, compile_first=True)
  run = bandit.make_run(tmp_path, sampler=sampler)
  player = run.base_player()
  assert traced  # the listener hears
  programs = run.sampler.num_programs
  traced.clear()
  trees, outcomes = roll_out(run, player)
  assert sum(len(tree.nodes) for tree in trees) == 6 * 6
  assert all(len(outcome.successes) == 5 for outcome in outcomes)
  assert run.sampler.num_programs == programs
  assert not traced, traced


def test_rollouts_log_their_time_and_tokens(tmp_path, caplog):
  run = bandit.make_run(tmp_path)
  meter = run.meter()
  assert meter.figures() == {}  # nothing was played yet
  with caplog.at_level('INFO', logger='absl'):
    roll_out(run, run.base_player())
  lines = [line for line in caplog.messages if 'prefill' in line]
  assert lines[0].startswith('6 trees in') and lines[1].startswith('30 episodes in')
  for line in lines:
    for name in ('decode', 'environment', 'idle', 'computed', 'reused', 'sampled'):
      assert re.search(rf'{name} \d', line), name
  seconds, tokens = meter.seconds(), meter.tokens()
  assert seconds['decode'] > 0 and seconds['environment'] >= 0
  assert tokens['sampled'] > 30 and tokens['reused'] > tokens['computed'] > 0


def test_the_same_wave_has_the_same_bits_whatever_was_played_before(tmp_path):
  run = bandit.make_run(tmp_path)
  first = roll_out(run, run.base_player())
  assert roll_out(run, run.base_player()) == first
  player = run.base_player()
  explore(player, run.world.tasks('test'), EXPLORE, lambda task: Limits(3, 0), 4)
  assert roll_out(run, run.base_player()) == first


def test_a_meter_sees_only_what_comes_after_it():
  stats, clock = Stats(prompt_tokens=5, dispatches=1), Clock()
  with clock.running():
    pass
  meter = Meter(clock, lambda: stats)
  assert meter.tokens()['computed'] == 0
  stats.prompt_tokens += 3
  stats.decode_seconds += 100.0
  clock.environment += 50.0
  assert meter.tokens()['computed'] == 3
  seconds = meter.seconds()
  assert (seconds['decode'], seconds['environment'], seconds['other']) == (100, 50, 0)
