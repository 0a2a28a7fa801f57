"""The attention kernel for GPUs, interpreted, and lowered for CUDA."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax.policy import sharding
from leafe_jax.sampler import Sampler, flash, ragged
from tests.sampler.tiny import POLICY, SAMPLER, play

interpreted = functools.partial(flash.attend, interpret=True)


def draw_rows(dtype, length, heads, kv_heads, head_dim, num_pages):
  """Queries of three rows, a pool, pages in no order, places before the queries."""
  rng = np.random.default_rng(1)
  slots = 3 * num_pages
  q = rng.standard_normal((3, length, heads, head_dim))
  pool = rng.standard_normal((slots, 16, 2 * kv_heads, head_dim))
  pages = rng.permutation(slots).reshape(3, num_pages)
  start = [0, 17, 16 * num_pages - length]
  return (
      jnp.asarray(q, dtype), jnp.asarray(pool, dtype),
      jnp.asarray(pages, jnp.int32), jnp.asarray(start, jnp.int32),
  )


@pytest.mark.parametrize(
    ('dtype', 'shapes'),
    [
        ('float32', (1, 14, 2, 16, 40)),  # seven heads a KV head, two splits
        ('float32', (70, 4, 2, 16, 7)),  # blocks of queries, the last not full
        ('bfloat16', (6, 4, 4, 32, 4)),
    ],
)
def test_the_kernel_equals_the_gather(dtype, shapes):
  rows = draw_rows(dtype, *shapes)
  found, expected = interpreted(*rows), ragged.attend(*rows)
  assert found.dtype == expected.dtype
  np.testing.assert_allclose(
      found.astype('float32'), expected.astype('float32'),
      atol=2e-2 if dtype == 'bfloat16' else 2e-6,
  )


def test_what_is_beyond_a_row_is_never_seen():
  q, pool, pages, start = draw_rows('float32', 2, 4, 2, 16, 4)
  start = jnp.minimum(start, 20)  # places 0 to 21: two pages of four
  spoilt = pool.at[pages[:, 2:]].set(jnp.nan)
  np.testing.assert_array_equal(
      interpreted(q, spoilt, pages, start), interpreted(q, pool, pages, start)
  )


def test_the_sampler_samples_the_same_with_it(monkeypatch, sampler, params, mesh):
  monkeypatch.setattr(ragged, '_attend_gathered', interpreted)
  ours = Sampler(POLICY, dataclasses.replace(SAMPLER, attention='paged'), mesh)
  ours.load(params, 7)
  for our, their in zip(play(ours), play(sampler), strict=True):
    assert our.tokens == their.tokens
    np.testing.assert_allclose(our.logprobs, their.logprobs, atol=1e-4)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('length', [1, 256])
def test_gpus_get_the_kernel(monkeypatch, dtype, length):
  monkeypatch.setattr(sharding, 'target_platform', lambda: 'gpu')
  rows = draw_rows(dtype, length, 14, 2, 64, 20)
  traced = jax.jit(ragged.attend).trace(*rows)
  assert 'paged_flash_attention' in traced.lower(lowering_platforms=('cuda',)).as_text()


def test_the_form_follows_the_size_of_heads(mesh):
  choose = functools.partial(ragged.choose_form, mesh=mesh, platform='gpu')
  fits = dataclasses.replace(POLICY, head_dim=64)
  assert choose('auto', fits) == 'paged'
  odd = dataclasses.replace(POLICY, head_dim=96)
  assert choose('auto', odd) == 'dense'
  with pytest.raises(ValueError, match='paged, but policy.head_dim is 96'):
    choose('paged', odd)
