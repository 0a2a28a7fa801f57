"""Decoding from pages equals the training forward; the kernel equals a gather."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas import tpu as pltpu

from leafe_jax.policy import attention
from leafe_jax.sampler import paged
from tests.sampler.tiny import POLICY, VOCAB


def test_decode_steps_equal_the_training_forward(params, logprobs_of):
  page_size, num_pages = 4, 12
  shape = (POLICY.num_kv_heads, POLICY.num_layers * num_pages, page_size, 8)
  pool = paged.Pool(jnp.zeros(shape), jnp.zeros(shape))
  step = jax.jit(paged.decode_step, static_argnums=0, donate_argnums=2)
  texts = np.random.default_rng(0).integers(0, VOCAB, (2, 10))
  pages = jnp.asarray([[7, 2, 5], [11, 0, 9]])  # in no order
  found = np.zeros((2, 10))
  for place in range(9):
    # The second row starts three tokens later.
    own = np.asarray([place, max(place - 3, 0)])
    rows = paged.Rows(jnp.asarray(texts[[0, 1], own]), jnp.asarray(own), pages)
    logits, pool = step(POLICY, params, pool, rows)
    logprobs = np.asarray(jax.nn.log_softmax(logits))
    found[[0, 1], own + 1] = logprobs[[0, 1], texts[[0, 1], own + 1]]
  np.testing.assert_allclose(found[0, 1:], logprobs_of(texts[0])[1:], atol=1e-4)
  np.testing.assert_allclose(found[1, 1:7], logprobs_of(texts[1])[1:7], atol=1e-4)


def test_the_kernel_equals_the_gather(monkeypatch):
  rng = np.random.default_rng(1)
  draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
  q, pool = draw(3, 4, 128), paged.Pool(draw(2, 10, 16, 128), draw(2, 10, 16, 128))
  lengths = jnp.asarray([1, 17, 64], jnp.int32)
  pages = jnp.asarray(rng.permutation(12).reshape(3, 4) % 10, jnp.int32)
  expected = paged.attend(q, pool, lengths, pages)
  monkeypatch.setattr(attention, 'target_platform', lambda: 'tpu')
  with pltpu.force_tpu_interpret_mode():
    found = paged.attend(q, pool, lengths, pages)
  np.testing.assert_allclose(found, expected, atol=2e-2)  # it reads values as bf16
