"""Trees grown over worker processes are those grown in process, to the bit."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from envs import api
from envs.remote.process import Process
from envs.remote.world import RemoteWorld
from leafe_jax.config import Env, Experiment, Explore
from leafe_jax.endings import RunStopped
from leafe_jax.experiment import phase_inputs
from leafe_jax.methods.run import Run
from leafe_jax.rollout import crew as crew_lib
from leafe_jax.rollout.crew import Crew
from leafe_jax.rollout.evaluate import evaluate
from leafe_jax.rollout.explore import explore
from leafe_jax.rollout.grow import Limits
from leafe_jax.rollout.timing import Clock
from leafe_jax.rundir import RunDirectory
from leafe_jax.sampler import Rules
from leafe_jax.settings import ConfigError, from_config_dict
from tests.fragile_worlds import Fragile
from tests.rollout import corridor
from tests.rollout.test_crew import answer

NAME = 'tests.fragile_worlds:Fragile'
CONFIG = dataclasses.replace(Explore(), num_roots=2, reflect_every=2, max_depth=3)


def grow(world):
  player = dataclasses.replace(corridor.player(answer), world=world)
  return explore(player, world.tasks('train'), CONFIG, lambda task: Limits(9, 0), 5)


def remote(workers, **options):
  connect = functools.partial(Process, NAME, options)
  return RemoteWorld(Fragile(**options), connect, workers)


def without_errors(trees):
  """The trees, and the errors of their nodes and turns."""
  errors = []
  for tree in trees:
    for part in [*tree.nodes, *(turn for node in tree.nodes for turn in node.turns)]:
      errors.append(part.error)
      part.error = part.error and 'an error'
  return trees, [error for error in errors if error is not None]


@pytest.fixture(scope='module')
def alone():
  return grow(Fragile())


def test_two_workers_give_the_trees_of_none(alone):
  assert any('caved in' in (node.error or '') for tree in alone for node in tree.nodes)
  world = remote(2)
  assert grow(world) == alone
  world.close()


def test_a_session_that_ends_its_process_ends_its_own_episode_alone(alone):
  world = remote(2, way='exit')
  trees, errors = without_errors(grow(world))
  world.close()
  expected, raised = without_errors(grow(Fragile()))
  assert trees == expected
  lost = [error for error in errors if error.startswith('WorkerLost')]
  assert len(lost) == sum(error.startswith('RuntimeError') for error in raised) > 5
  assert all('it ended with exit code 3' in error for error in lost)


def test_evaluation_over_workers_counts_a_loss_by_its_type():
  world = remote(1, way='exit')
  player = dataclasses.replace(corridor.player(answer), world=world)
  tasks = world.tasks('test')
  outcomes = evaluate(player, tasks, 3, Rules(), 5)
  world.close()
  alone = dataclasses.replace(player, world=Fragile())
  for outcome, other in zip(outcomes, evaluate(alone, tasks, 3, Rules(), 5)):
    other.turn_errors = {
        {'RuntimeError': 'WorkerLost'}.get(kind, kind): count
        for kind, count in other.turn_errors.items()
    }
    assert outcome == other
  assert any('WorkerLost' in outcome.turn_errors for outcome in outcomes)


def test_options_of_workers_need_workers():
  for name in ('step_timeout', 'worker_gb'):
    with pytest.raises(ConfigError, match=f'env.{name}=5 needs env.workers'):
      from_config_dict({'env': {name: 5.0}})
    from_config_dict({'env': {name: 5.0, 'workers': 1}})


def test_options_of_a_fleet_need_a_fleet():
  with pytest.raises(ConfigError, match="env.fleet='ray' needs env.workers"):
    from_config_dict({'env': {'fleet': 'ray'}})
  options = {'fleet_address': 'h:6379', 'fleet_resource': 'games', 'worker_cpus': 2.0}
  for name, value in options.items():
    with pytest.raises(ConfigError, match=f"env.{name}=.* needs env.fleet='ray'"):
      from_config_dict({'env': {name: value, 'workers': 1}})
  from_config_dict({'env': {'fleet': 'ray', 'workers': 1, **options}})


def test_a_fork_with_workers_keeps_every_finished_phase():
  inputs = phase_inputs(Experiment()).values()
  reads = {path for each in inputs for path in each.options}
  options = {f'env.{field.name}' for field in dataclasses.fields(Env)}
  assert options - reads == {
      'env.workers', 'env.step_timeout', 'env.worker_gb', 'env.worker_cpus',
      'env.fleet', 'env.fleet_address', 'env.fleet_resource',
  }
  assert 'env' not in reads


def test_a_run_whose_workers_cannot_start_stops_by_name(tmp_path, monkeypatch):
  config = Experiment(env=Env(name=NAME, workers=1))
  run = Run(config, RunDirectory(tmp_path), 'no hash')
  assert isinstance(run.world, RemoteWorld)
  monkeypatch.setattr(
      run.world, '_workers', [*RemoteWorld(Fragile(), _no_worker, 1)._workers]
  )
  with pytest.raises(RunStopped, match='env.name=.*Fragile: no more processes'):
    run._playable()


def _no_worker():
  raise api.EnvError('no more processes')


def test_a_world_that_does_not_answer_is_named_in_the_log(monkeypatch, caplog):
  monkeypatch.setattr(crew_lib, 'PATIENCE', 0.01)
  task = api.Task('slow', 'train', 'go')

  def wait(outcome):
    while 'has not answered' not in caplog.text:
      pass

  with caplog.at_level('WARNING'):
    Crew([task], Clock(), Fragile()).run([('slow', wait)])
  assert "world 'fragile' has not answered for 0 s, playing slow; " in caplog.text
