"""One tiny policy and sampler for all tests of this room: compiling is slow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.policy import model, sharding
from leafe_jax.sampler import Sampler
from tests.drawn import draw_params
from tests.sampler.tiny import POLICY, SAMPLER, VOCAB


@pytest.fixture(scope='session')
def mesh():
  return sharding.make_mesh(config_lib.Mesh(), jax.devices()[:1])


@pytest.fixture(scope='session')
def params(mesh):
  params = draw_params(POLICY, VOCAB, mesh)
  return {name: 2 * value for name, value in params.items()}  # sharper choices


@pytest.fixture(scope='session')
def shared_sampler(mesh):
  return Sampler(POLICY, SAMPLER, mesh)


@pytest.fixture
def sampler(shared_sampler, params):
  """With version 7 loaded and every page free."""
  shared_sampler.load(params, 7)
  assert shared_sampler.num_free_pages == SAMPLER.num_pages
  return shared_sampler


@pytest.fixture(scope='session')
def scored(params):
  """(policy, tokens) -> their log-probabilities by the training forward."""

  @functools.partial(jax.jit, static_argnums=0)
  def compute(policy, *rows):
    return model.token_logprobs(params, policy, *rows)

  def logprobs(policy, tokens):
    padding = policy.max_length - len(tokens)
    row = jnp.asarray([list(tokens) + [0] * padding], jnp.int32)
    place = jnp.arange(policy.max_length)[None]
    segments = (place < len(tokens)).astype(jnp.int32)
    return np.asarray(compute(policy, row, place, segments))[0, : len(tokens)]

  return logprobs


@pytest.fixture(scope='session')
def logprobs_of(scored):
  """Log-probabilities of a transcript's tokens by the training forward."""
  return functools.partial(scored, POLICY)
