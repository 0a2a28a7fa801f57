"""A tiny policy and a task that it can learn in a few updates."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.experience import pipeline
from leafe_jax.experience.examples import Example
from leafe_jax.policy import sharding
from tests.drawn import draw_params

VOCAB = 32


@pytest.fixture(scope='session')
def policy() -> config_lib.Policy:
  return config_lib.Policy(
      num_layers=1, embed_dim=8, num_heads=2, num_kv_heads=1, head_dim=4, mlp_dim=16
  )


@pytest.fixture(scope='session')
def mesh() -> jax.sharding.Mesh:
  return sharding.make_mesh(config_lib.Mesh(), jax.devices()[:1])


@pytest.fixture(scope='session')
def first_params(policy, mesh) -> dict[str, jax.Array]:
  return draw_params(policy, VOCAB, mesh)


@pytest.fixture
def params(first_params) -> dict[str, jax.Array]:
  """Fresh weights of the tiny policy, free to be donated."""
  return {name: jax.device_put(np.array(value), value.sharding)
          for name, value in first_params.items()}


@pytest.fixture(scope='session')
def examples() -> list[Example]:
  rng = np.random.default_rng(0)
  found = []
  for i in range(40):
    ids = rng.integers(1, VOCAB, rng.integers(4, 14)).astype(np.int32)
    ids[-1] = ids[-2]  # to be learnt: say the last word again
    weights = np.zeros(ids.shape, np.float32)
    weights[-1] = 1
    found.append(Example(ids, weights, 'cf' if i % 3 else 'reh', f't{i}'))
  return found


@pytest.fixture
def stream(examples) -> Callable[..., pipeline.Batch]:
  """Makes equal streams of batches [4, 24]."""
  made = []

  def make(**kwargs):
    packing = pipeline.Packing(batch_rows=4, row_length=24, bins=4)
    made.append(pipeline.batches([examples], packing, seed=0, **kwargs))
    return made[-1]

  yield make
  for batches in made:
    batches.close()
