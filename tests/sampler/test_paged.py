"""A turn over pages in place samples what the dense turn samples."""

import dataclasses
import functools
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.literals import TypedInt
from jax.experimental import pallas
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import kernel

from leafe_jax.policy import sharding
from leafe_jax.sampler import Request, Rules, Sampler, ragged
from tests.drawn import draw_params
from tests.sampler.tiny import POLICY, SAMPLER, VOCAB, play

PAGED = dataclasses.replace(SAMPLER, attention='paged')


def assert_same(ours, theirs):
  for our, their in zip(ours, theirs, strict=True):
    assert our.tokens == their.tokens
    assert our.stopped == their.stopped
    assert our.state.cached == their.state.cached
    np.testing.assert_allclose(our.logprobs, their.logprobs, atol=1e-4)


def test_pages_in_place_sample_what_dense_rows_sample(sampler, params, mesh):
  ours = Sampler(POLICY, PAGED, mesh)
  ours.load(params, 7)
  assert_same(play(ours), play(sampler))


@pytest.mark.parametrize('attention', ['dense', 'paged'])
def test_fresh_prompts_may_have_a_program_without_prefix(
    attention, sampler, params, mesh
):
  config = dataclasses.replace(SAMPLER, attention=attention, length_buckets=(0, 48))
  ours = Sampler(POLICY, config, mesh)
  ours.load(params, 7)
  assert_same(play(ours), play(sampler))


def test_reading_ahead_changes_nothing(params, mesh, logprobs_of):
  sampler = Sampler(POLICY, PAGED, mesh)
  sampler.load(params, 7)
  text = np.random.default_rng(1).integers(0, VOCAB, 27).tolist()  # four chunks
  state = sampler.extend(sampler.empty(), text)
  [read] = sampler.prefill([state])
  read = sampler.extend(read, [5])
  [sample] = sampler.sample([Request(read, (0, 1))], Rules(max_tokens=8))
  expected = logprobs_of(text + [5] + sample.tokens)[28:]
  np.testing.assert_allclose(sample.logprobs, expected, atol=1e-4)


def grow(mesh):
  """What `play` samples on a mesh: tokens and log-probabilities."""
  config = dataclasses.replace(PAGED, num_pages=512)
  sampler = Sampler(POLICY, config, mesh)
  sampler.load(draw_params(POLICY, VOCAB, mesh), 7)
  return [(sample.tokens, sample.logprobs) for sample in play(sampler)]


EIGHT_DEVICES = """
import jax, numpy as np
from leafe_jax import config as C
from leafe_jax.policy import sharding
from tests.sampler.test_paged import grow

def run(sizes, count):
  return grow(sharding.make_mesh(C.Mesh(*sizes), jax.devices()[:count]))

base = run((1, 1, 1), 1)
# A KV head a shard, two shards a KV head, more shards than heads, rows only.
for sizes in [(2, 2, 2), (1, 2, 4), (1, 1, 8), (2, 4, 1)]:
  for ours, theirs in zip(run(sizes, 8), base, strict=True):
    assert ours[0] == theirs[0]
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-4)
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


@pytest.mark.parametrize(
    ('dtype', 'length', 'window'),
    [('float32', 6, 0), ('bfloat16', 1, 0), ('float32', 6, 9)],
)
def test_the_kernel_equals_the_gather(monkeypatch, dtype, length, window):
  draw, pool, pages = draw_pages(dtype)
  q, start = draw(length, 4, 128), jnp.asarray([0, 17, 58], jnp.int32)
  expected = ragged.attend(q, pool, pages, start, window)
  monkeypatch.setattr(sharding, 'target_platform', lambda: 'tpu')
  # pltpu.force_tpu_interpret_mode knows no reshaped references; the plain
  # interpreter knows all the kernel does but for the shape of a static index.
  interpreted = functools.partial(pallas.pallas_call, interpret=True)
  monkeypatch.setattr(kernel.pl, 'pallas_call', interpreted)
  monkeypatch.setattr(TypedInt, 'shape', (), raising=False)
  found = ragged.attend(q, pool, pages, start, window)
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
