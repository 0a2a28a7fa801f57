"""The host's side of sampling: pages, buckets, drawing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.sampler import OutOfPages, Rules, State
from leafe_jax.sampler.batching import Buckets, Row
from leafe_jax.sampler.drawing import draw, uniforms
from leafe_jax.sampler.pages import PagePool

CONFIG = config_lib.Sampler(
    page_size=4, dispatch_rows=4, prefill_buckets=(4, 8, 32), length_buckets=(10, 64)
)


def row(index, num_new, cached=0):
  return Row(index, State(0, cached=cached), num_new)


def test_a_page_is_free_again_when_its_last_reference_goes():
  pool = PagePool(3)
  pages = pool.take(2)
  shared = (pages[0],)
  assert pool.num_free == 1
  del pages
  assert pool.num_free == 2
  with pytest.raises(OutOfPages, match='3 KV pages wanted, 2 of 3 free'):
    pool.take(3)
  del shared
  assert len({page.id for page in pool.take(3)}) == 3


def test_length_buckets_are_whole_pages_and_reach_the_longest_transcript():
  assert Buckets(CONFIG, max_length=41).lengths == (12, 44)


def test_fresh_prompts_have_a_bucket_of_no_pages_if_asked_for():
  config = dataclasses.replace(CONFIG, length_buckets=(0, 10))
  buckets = Buckets(config, max_length=41)
  assert buckets.lengths == (0, 12, 44)
  assert buckets.blank(3, 0, 8, 96).prefix_pages.shape[1] == 0
  assert buckets.blank(3, 1, 8, 96).prefix_pages.shape[1] == 3


def test_rows_share_dispatches_by_new_tokens_and_length():
  rows = [row(i, num_new=3, cached=100 - i) for i in range(9)]
  groups = Buckets(CONFIG, 128).split(rows)
  assert [[r.index for r in group] for group in groups] == [
      [8, 7, 6, 5], [4, 3, 2, 1], [0],
  ]  # fmt: skip


def test_the_rest_of_a_bucket_joins_the_next_unless_that_is_far_longer():
  rows = [row(0, 3), row(1, 6), row(2, 20)]
  groups = Buckets(CONFIG, 128).split(rows)
  assert [[r.index for r in group] for group in groups] == [[0, 1], [2]]


@pytest.mark.parametrize('value', [{'temperature': -1.0}, {'max_tokens': 0}])
def test_rules_that_make_no_sense_are_refused(value):
  with pytest.raises(ValueError, match=next(iter(value))):
    Rules(**value)


def test_token_i_uses_the_row_key_folded_with_i():
  words = jnp.asarray([[1, 2], [3, 4]], jnp.uint32)
  key = jax.random.wrap_key_data(words[1], impl='threefry2x32')
  expected = jax.random.uniform(jax.random.fold_in(key, 5))
  assert float(uniforms(words, 8)[1, 5]) == float(expected)


@pytest.mark.parametrize('temperature', [1.0, 0.5])
def test_draws_follow_the_tempered_softmax(temperature):
  logits = jnp.asarray([0.3, -1.0, 2.0, 0.0])
  count = 4000
  grid = (jnp.arange(count) + 0.5) / count
  tokens, logprobs = draw(
      jnp.tile(logits, (count, 1)), grid, jnp.float32(temperature)
  )
  shares = np.bincount(tokens, minlength=4) / count
  np.testing.assert_allclose(shares, jax.nn.softmax(logits / temperature), atol=1e-3)
  np.testing.assert_allclose(logprobs, jax.nn.log_softmax(logits)[tokens], atol=1e-6)


def test_a_token_of_probability_zero_is_never_drawn():
  never = -jnp.inf
  logits = jnp.asarray([[never, 0.1, never, 0.7, never]] * 2)
  edges = jnp.asarray([0.0, 1 - 2**-24], jnp.float32)
  tokens, _ = draw(logits, edges, jnp.float32(1.0))
  assert tokens.tolist() == [1, 3]
