"""A pool that is cut over devices: rows stay with their pages."""

import dataclasses
import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from leafe_jax.sampler import State
from leafe_jax.sampler.batching import Buckets, Row
from leafe_jax.sampler.shards import Shards
from tests.sampler.tiny import SAMPLER

ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 16), st.integers(0, 11)), max_size=40
)
FOUR_SHARDS = """
import dataclasses
import jax, numpy as np
from leafe_jax import config as C
from leafe_jax.policy import model, sharding
from leafe_jax.sampler import Request, Rules, Sampler
from tests.sampler.tiny import POLICY, SAMPLER, VOCAB

def text(seed, length):
  return np.random.default_rng([seed, length]).integers(0, VOCAB, length).tolist()

def run(sizes, devices, num_pages, scan):
  mesh = sharding.make_mesh(sizes, devices)
  policy = dataclasses.replace(POLICY, scan_layers=scan)
  params = model.init_params(policy, VOCAB, jax.random.key(0), mesh)
  options = dataclasses.replace(SAMPLER, num_pages=num_pages, dispatch_rows=8)
  sampler = Sampler(policy, options, mesh)
  sampler.load({name: 2 * value for name, value in params.items()}, 0)
  roots = sampler.prefill([sampler.extend(sampler.empty(), text(i, 6 + i))
                           for i in range(6)])
  states = [root for root in roots for _ in range(3)]
  rules, said = Rules(max_tokens=5), []
  for turn in range(3):
    requests = [Request(sampler.extend(s, text(i, 1 + i % 4)), (turn, i))
                for i, s in enumerate(states)]
    samples = sampler.sample(requests, rules)
    states = [s.state for s in samples]
    said += samples
  return sampler, states, said

for scan in (False, True):
  _, _, alone = run(C.Mesh(), jax.devices()[:1], 400, scan)
  for num_pages in (400, 82):  # 82: 20 a shard, and states must be put back
    sampler, states, said = run(C.Mesh(2, 2, 2), jax.devices(), num_pages, scan)
    for ours, theirs in zip(said, alone, strict=True):
      assert ours.tokens == theirs.tokens
      np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=5e-5)
    assert (sampler.stats.put_back > 0) == (num_pages == 82)
    size = num_pages // 4
    pool = sampler._engine._pool[0]
    assert {shard.data.shape[0] for shard in pool.addressable_shards} == {size}
    places = [{page.id // size for page in state.pages} for state in states]
    assert all(len(place) <= 1 for place in places)
    if num_pages == 400:
      assert len(set.union(*places)) == 4  # the roots were shared out
      del states, said, ours
      sampler.forget()
      assert sampler.num_free_pages == 400

# Nothing travels: what a shard writes are the pages of its own rows.
engine = sampler._engine
batch = engine.buckets.blank(8, 1, 8, num_pages)
with jax.set_mesh(engine._mesh):
  engine._run(batch, 8)
  *_, (batch, pages, _) = engine._unstored
  program = engine._write.lower(engine._pool, {0: batch.write_pages}, pages)
  text = program.compile().as_text()
assert 'all-' not in text and 'collective' not in text, text
"""


@given(rows=ROWS)
def test_rows_stand_in_the_places_of_their_shard(rows):
  config = dataclasses.replace(SAMPLER, prefill_buckets=(4, 8, 16), dispatch_rows=8)
  buckets = Buckets(config, 48, num_shards=4)
  rows = [
      Row(i, State(0, cached=cached), num_new, shard=shard)
      for i, (shard, num_new, cached) in enumerate(rows)
  ]
  groups = buckets.split(rows)
  found = sorted(row.index for group in groups for row in group)
  assert found == list(range(len(rows)))
  for group in groups:
    places = buckets.places(group)
    assert len(set(places)) == len(places) and max(places) < buckets.rows
    assert [place // 2 for place in places] == [row.shard for row in group]


def test_rows_go_where_the_fewest_are_and_stay_with_their_pages():
  shards = Shards(Buckets(SAMPLER, 48, num_shards=3), 96, keep=True)
  chosen = []
  for _ in range(6):
    chosen.append(shards.choose(None))
    shards.enter(chosen[-1])
  assert chosen == [0, 1, 2] * 2
  shards.leave(1)
  assert shards.choose(None) == 1
  row = Row(0, State(0, pending=(1, 2, 3)), 3, shard=2)
  fresh = shards.take(row)
  assert all(64 <= page.id < 96 for page in fresh.pages)
  lease = shards.insert(row, (1, 2, 3), fresh, True)
  assert shards.choose(lease) == 2
  assert shards.match(2, (1, 2, 3))[1] == 3 and shards.match(0, (1, 2, 3))[1] == 0
  assert shards.num_free == 95 and shards.num_idle == 0
  del fresh
  shards.clear()
  assert shards.num_free == 96 and shards.choose(None) == 0
  shards.enter(0)
  assert shards.choose(lease) == 1  # where nothing of it is left, as if new


def test_four_shards_sample_what_one_does_and_hold_a_quarter_each():
  flags = (
      '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 '
      '--xla_llvm_disable_expensive_passes=true'
  )
  env = {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  run = subprocess.run(
      [sys.executable, '-W', 'error', '-c', FOUR_SHARDS],
      env=env | {'PYTHONPATH': os.pathsep.join(sys.path)},
      capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert run.returncode == 0, run.stderr[-3000:]
