"""Sessions on the machines of a Ray cluster: the same answers, losses that stay small.

Two nodes of this machine stand for two machines (ray.cluster_utils).
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from envs import api
from envs.contract import EnvironmentContract
from envs.remote.cluster import Actor, Cluster, connect, fingerprint
from envs.remote.protocol import StepTimeout, WorkerLost
from envs.remote.world import RemoteWorld
from tests.fragile_worlds import Fragile

ray = pytest.importorskip('ray', reason='pip install ray')

NAME = 'tests.fragile_worlds:Fragile'
TASK = api.Task('t', 'train', 'go', {'door': 2})
# How soon the cluster notices that a node is gone.
IMPATIENT = {
    'health_check_initial_delay_ms': 500, 'health_check_period_ms': 500,
    'health_check_timeout_ms': 3000, 'health_check_failure_threshold': 3,
}  # fmt: skip
STORE = 100 << 20  # bytes, of each node's store of objects


class Nodes:
  """A cluster of a head, where no worker fits, and one node."""

  def __init__(self):
    from ray.cluster_utils import Cluster as Simulated

    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
    self._simulated = Simulated()
    self._simulated.add_node(
        num_cpus=0, object_store_memory=STORE, _system_config=IMPATIENT
    )
    self.address = self._simulated.address
    self.add()

  def add(self):
    return self._simulated.add_node(
        num_cpus=2, resources={'games': 8}, object_store_memory=STORE
    )

  def lose(self, node):
    self._simulated.remove_node(node, allow_graceful=False)

  def close(self):
    ray.shutdown()
    self._simulated.shutdown()


@pytest.fixture(scope='module')
def nodes():
  made = Nodes()
  yield made
  made.close()


@pytest.fixture
def remote(nodes):
  """Makes remote worlds that are closed at the end."""
  made = []

  def make(workers=1, limit=0.0, memory_gb=0.0, **options):
    cluster = Cluster(nodes.address, 0.25, 'games')
    start = functools.partial(Actor, NAME, options, memory_gb, cluster)
    made.append(RemoteWorld(Fragile(**options), start, workers, limit))
    return made[-1]

  yield make
  for world in made:
    world.close()


@pytest.fixture(scope='module')
def shared(nodes):
  start = functools.partial(Actor, NAME, {}, 0, Cluster(nodes.address, 0.25, 'games'))
  world = RemoteWorld(Fragile(), start, 1)
  yield world
  world.close()


class TestClusterContract(EnvironmentContract):
  num_strange = 100

  @pytest.fixture(autouse=True)
  def _shared(self, shared):
    self._world = shared

  def world(self):
    return self._world

  def actions(self, task):
    return ('right', 'left', 'right', 'open')


def test_answers_are_those_of_a_session_in_process(shared):
  here, there = Fragile().session(), shared.session()
  assert there.reset(TASK) == here.reset(TASK)
  for action in ('right', 'nonsense', 'left', 'left', 'right', 'right', 'open'):
    assert there.step(action) == here.step(action)


@pytest.mark.parametrize(
    'way, settings, kind, said',
    [
        ('exit', {}, WorkerLost, 'it ended with exit code 3'),
        ('fault', {}, WorkerLost, 'it was killed by SIGSEGV'),
        ('hang', {'limit': 3.0}, StepTimeout, 'no answer within 3 s'),
        ('grow', {'memory_gb': 0.3}, WorkerLost, 'it grew over 0.3 GB'),
    ],
)
def test_a_lost_worker_is_the_error_of_one_session(remote, way, settings, kind, said):
  world = remote(way=way, **settings)
  bad, kept = world.session(), world.session()
  for session in (bad, kept):
    session.reset(TASK)
    session.step('right')
  kept.snapshot()
  kept.step('right')
  with pytest.raises(kind) as error:
    bad.step('crash')
  assert type(error.value) is kind
  assert str(error.value) == f"world 'fragile', task 't', step: {said}"
  assert kept.step('right') == api.Step('cell 3')


def test_sessions_of_a_lost_node_go_on_at_another(nodes, remote):
  spare = nodes.add()
  world = remote(2)
  sessions = [world.session() for _ in range(2)]
  for session in sessions:
    session.reset(TASK)
    session.step('right')
  snapshot = sessions[0].snapshot()
  homes = [ray.get(s._side._actor.home.remote()) for s in sessions]
  assert spare.node_id in homes
  away = sessions[homes.index(spare.node_id)]
  nodes.lose(spare)
  with pytest.raises(WorkerLost, match="task 't', step: "):
    _walk_on(away)  # until the cluster knows
  for session in sessions:
    session.restore(snapshot)
    assert session.step('right') == api.Step('cell 2')


def _walk_on(session):
  while True:
    session.step('right')


def test_a_cluster_that_is_not_there_is_named():
  before = signal.getsignal(signal.SIGTERM)
  if ray.is_initialized():
    pytest.skip('this process is connected to a cluster')
  start = time.monotonic()
  with pytest.raises(WorkerLost, match=r"no Ray cluster at '127\.0\.0\.1:9': "):
    Actor(NAME, {}, cluster=Cluster('127.0.0.1:9'))
  assert time.monotonic() - start < 5
  assert signal.getsignal(signal.SIGTERM) == before


def test_a_worker_that_fits_nowhere_is_refused_with_what_there_is(nodes):
  connect(nodes.address)
  actor = Actor(NAME, {}, cluster=Cluster(nodes.address, 64, placed_within=0.5))
  with pytest.raises(WorkerLost, match='no machine of the cluster had 64 CPU free'):
    actor.wait()


def test_another_version_of_the_code_is_refused(nodes, monkeypatch):
  actor = Actor(NAME, {}, cluster=Cluster(nodes.address, 0.25))
  monkeypatch.setattr('envs.remote.cluster.fingerprint', lambda: 'newer')
  with pytest.raises(WorkerLost, match='another version of the package envs'):
    actor.wait()
  assert len(fingerprint()) == 16


def test_a_world_that_cannot_be_made_there_says_why(nodes):
  actor = Actor(NAME, {'way': 'never'}, cluster=Cluster(nodes.address, 0.25))
  with pytest.raises(WorkerLost, match='cannot make its world: OSError: no seats'):
    actor.wait()


def test_a_cluster_of_this_machine_outlives_the_thread_that_started_it():
  program = textwrap.dedent("""
      import threading, time
      from envs import api
      from envs.remote.cluster import Actor, Cluster, connect
      from envs.remote.protocol import Reply, Request, decode, encode
      starting = threading.Thread(target=connect, args=('',))
      starting.start()
      starting.join()
      time.sleep(1)
      actor = Actor('tests.fragile_worlds:Fragile', {}, cluster=Cluster(cpus=0.1))
      actor.wait()
      request = encode(Request(0, 'reset', (api.Task('t', 'train', 'go'), 0)))
      print(decode(Reply, actor.ask(request, 60)).result.observation)
      actor.end()
  """)
  ran = subprocess.run(
      [sys.executable, '-c', program], capture_output=True, text=True, timeout=200
  )
  assert ran.stdout.strip() == 'cell 0', ran.stderr


def test_the_run_keeps_its_own_answer_to_sigterm(nodes):
  before = signal.getsignal(signal.SIGTERM)
  connect(nodes.address)
  assert signal.getsignal(signal.SIGTERM) == before
