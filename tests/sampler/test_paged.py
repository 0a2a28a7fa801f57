"""A turn over pages in place samples what the dense turn samples."""

import dataclasses
import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.literals import TypedInt
from jax.experimental import pallas
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import kernel

from leafe_jax.policy import attention, model
from leafe_jax.sampler import Request, Rules, Sampler, paged, ragged
from leafe_jax.sampler.batching import Buckets
from leafe_jax.sampler.sampler import drawing_arrays, row_shardings
from tests.sampler.tiny import POLICY, SAMPLER, VOCAB


class PagedSampler(Sampler):
  """Dispatches the paged turn; the pool is written by it, not afterwards."""

  def __init__(self, policy, config, mesh):
    super().__init__(policy, config, mesh, VOCAB)
    target = ragged.abstract_pool(policy, config, mesh)
    pool = jax.device_put(jnp.zeros(target.shape, target.dtype), target.sharding)
    run = paged.turn_program(policy, config, mesh)

    def turn(num_decode, params, _, batch, drawing):
      nonlocal pool
      pool, response = run(num_decode, params, pool, batch, drawing)
      return None, response

    self._turn = turn
    self._write = lambda pool, ids, pages: pool


def play(sampler, turns=3):
  """Ragged transcripts, each branched in two and grown for some turns."""
  rng = np.random.default_rng(0)
  texts = [rng.integers(0, VOCAB, n).tolist() for n in (1, 4, 7, 13, 21)]
  states = [sampler.extend(sampler.empty(), text) for text in texts]
  seen = []
  for turn in range(turns):
    requests = [
        Request(sampler.fork(state), (turn, 2 * i + twin))
        for i, state in enumerate(states) for twin in (0, 1)
    ]
    samples = sampler.sample(requests, Rules(max_tokens=5, stop_ids=(3,)))
    seen += samples
    # Of two branches with the same half-filled page, the later one goes on.
    states = [
        sampler.extend(sample.state, rng.integers(0, VOCAB, 2 + turn).tolist())
        for sample in samples[1::2]
    ]
  return seen


def assert_same(ours, theirs):
  for our, their in zip(ours, theirs, strict=True):
    assert our.tokens == their.tokens
    assert our.stopped == their.stopped
    assert our.state.cached == their.state.cached
    np.testing.assert_allclose(our.logprobs, their.logprobs, atol=1e-4)


def test_pages_in_place_sample_what_dense_rows_sample(sampler, params, mesh):
  ours = PagedSampler(POLICY, SAMPLER, mesh)
  ours.load(params, 7)
  assert_same(play(ours), play(sampler))


def test_reading_ahead_changes_nothing(params, mesh, logprobs_of):
  sampler = PagedSampler(POLICY, SAMPLER, mesh)
  sampler.load(params, 7)
  text = np.random.default_rng(1).integers(0, VOCAB, 27).tolist()  # four chunks
  state = sampler.extend(sampler.empty(), text)
  [read] = sampler.prefill([state])
  read = sampler.extend(read, [5])
  [sample] = sampler.sample([Request(read, (0, 1))], Rules(max_tokens=8))
  expected = logprobs_of(text + [5] + sample.tokens)[28:]
  np.testing.assert_allclose(sample.logprobs, expected, atol=1e-4)


def two_turns(mesh):
  """Sixteen prompts, then each row goes on from its neighbour's pages.

  The ids are right for up to eight shards of rows: 24 pages for every two.
  """
  config = dataclasses.replace(SAMPLER, num_pages=192, max_rows=16, dispatch_rows=16)
  params = model.init_params(POLICY, VOCAB, jax.random.key(0), mesh)
  target = ragged.abstract_pool(POLICY, config, mesh)
  pool = jax.device_put(jnp.zeros(target.shape, target.dtype), target.sharding)
  run, rng = paged.turn_program(POLICY, config, mesh), np.random.default_rng(0)
  rules = drawing_arrays(Rules(max_tokens=5))
  rows = np.arange(16)
  cached, pages = np.zeros(16, int), np.zeros((16, 0), int)
  pending, found = rng.integers(0, VOCAB, (16, 1)), []
  for turn in (0, 1):
    fresh = (rows // 2 * 24 + rows % 2 * 5 + turn * 10)[:, None] + np.arange(5)
    tokens = np.concatenate([pending, rng.integers(0, VOCAB, (16, 7))], axis=1)
    full, offset = cached // 4, cached % 4
    batch = Buckets(config, 48).blank(8, 48, 8, 192)._replace(
        prefix_length=full * 4, offset=offset, tokens=tokens, num_new=3 + rows % 6,
        write_pages=fresh, active=np.ones(16, bool),
    )
    batch.prefix_pages[:, : pages.shape[1]] = pages
    if turn:
      batch.tail_page[:] = pages[rows, full]
    batch.keys[:, 1] = rows + 16 * turn
    batch = jax.tree.map(lambda x: np.asarray(x, np.int32), batch)
    batch = batch._replace(keys=batch.keys.astype('uint32'), active=batch.active > 0)
    with jax.set_mesh(mesh):
      placed = jax.tree.map(jax.device_put, batch, row_shardings(mesh, batch))
      pool, response = run(8, params, pool, placed, rules)
    found.append(jax.device_get(response))
    cached, pages, pending = (
        x[rows ^ 1]
        for x in (3 + rows % 6 + 4, fresh, response.tokens[:, 4:5])
    )
  return found


EIGHT_DEVICES = """
import jax, numpy as np
from leafe_jax import config as C
from leafe_jax.policy import sharding
from tests.sampler.test_paged import two_turns

def run(sizes, count):
  return two_turns(sharding.make_mesh(C.Mesh(*sizes), jax.devices()[:count]))

base = run((1, 1, 1), 1)
# A KV head a shard, two shards a KV head, more shards than heads, rows only.
for sizes in [(2, 2, 2), (1, 2, 4), (1, 1, 8), (2, 4, 1)]:
  for ours, theirs in zip(run(sizes, 8), base, strict=True):
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)
"""


def test_eight_devices_sample_what_one_does():
  flags = (
      '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 '
      '--xla_llvm_disable_expensive_passes=true'
  )
  run = subprocess.run(
      [sys.executable, '-W', 'error', '-c', EIGHT_DEVICES],
      env=os.environ | {'XLA_FLAGS': flags, 'PYTHONPATH': os.pathsep.join(sys.path)},
      capture_output=True, text=True, check=False,
  )
  assert run.returncode == 0, run.stderr[-2000:]


def draw_pages(dtype):
  """Queries of three rows, a pool with two KV heads, pages in no order."""
  rng = np.random.default_rng(1)
  draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)  # noqa: E731
  pages = jnp.asarray(rng.permutation(12).reshape(3, 4) % 10, jnp.int32)
  return functools.partial(draw, 3), draw(10, 16, 4, 128), pages


@pytest.mark.parametrize(('dtype', 'length'), [('float32', 6), ('bfloat16', 1)])
def test_the_kernel_equals_the_gather(monkeypatch, dtype, length):
  draw, pool, pages = draw_pages(dtype)
  q, start = draw(length, 4, 128), jnp.asarray([0, 17, 58], jnp.int32)
  expected = ragged.attend(q, pool, pages, start)
  monkeypatch.setattr(attention, 'target_platform', lambda: 'tpu')
  # pltpu.force_tpu_interpret_mode knows no reshaped references; the plain
  # interpreter knows all the kernel does but for the shape of a static index.
  interpreted = functools.partial(pallas.pallas_call, interpret=True)
  monkeypatch.setattr(kernel.pl, 'pallas_call', interpreted)
  monkeypatch.setattr(TypedInt, 'shape', (), raising=False)
  found = ragged.attend(q, pool, pages, start)
  np.testing.assert_allclose(
      found.astype('float32'), expected.astype('float32'), atol=2e-2
  )


def test_the_form_follows_platform_and_shapes(mesh):
  wide = dataclasses.replace(POLICY, head_dim=128, dtype='bfloat16')
  choose = functools.partial(ragged.choose_form, mesh=mesh)
  assert choose('auto', wide, platform='tpu') == 'paged'
  assert choose('auto', POLICY, platform='tpu') == 'dense'  # heads of 8
  assert choose('auto', wide, platform='cpu') == 'dense'
  assert choose('paged', POLICY, platform='cpu') == 'paged'
  with pytest.raises(ValueError, match='paged, but policy.head_dim is 8'):
    choose('paged', POLICY, platform='tpu')
  odd = dataclasses.replace(wide, num_heads=6, num_kv_heads=6)
  with pytest.raises(ValueError, match='6 KV heads'):
    choose('paged', odd, platform='tpu')
  with pytest.raises(ValueError, match="'page'; choose from auto, dense, paged"):
    choose('page', wide, platform='tpu')
