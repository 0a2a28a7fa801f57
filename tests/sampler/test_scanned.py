"""The loop over layers samples what the unrolled layers sample."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from leafe_jax.sampler import Sampler, cache, reading
from tests.sampler.tiny import POLICY, SAMPLER, play


def test_scanned_layers_sample_the_same(sampler, params, mesh):
  policy = dataclasses.replace(POLICY, scan_layers=True)
  deep = Sampler(policy, SAMPLER, mesh)
  deep.load(params, 7)
  for ours, theirs in zip(play(deep), play(sampler), strict=True):
    assert ours.tokens == theirs.tokens
    assert ours.stopped == theirs.stopped
    assert ours.state.cached == theirs.state.cached
    np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-5)


def test_queries_in_chunks_change_nothing(monkeypatch):
  rng = np.random.default_rng(0)
  q = jnp.asarray(rng.standard_normal((2, 4, 24, 8)), jnp.float32)
  kv = cache.KV(
      jnp.asarray(rng.standard_normal((2, 2, 8, 40)), jnp.float32),
      jnp.asarray(rng.standard_normal((2, 2, 40, 8)), jnp.float32),
  )
  known = jnp.arange(40)[None, None] < jnp.asarray([3, 40])[:, None, None]
  causal = jnp.broadcast_to(jnp.arange(40) <= jnp.arange(24)[:, None], (2, 24, 40))

  def mix():
    return jax.jit(reading.attend)(q, [kv, kv], [known, causal])

  whole = mix()
  monkeypatch.setattr(reading, 'QUERIES', 8)
  np.testing.assert_allclose(mix(), whole, atol=1e-6)
