"""Every form of attention against one written out plainly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.policy import attention, sharding

LENGTH, HEADS, KV_HEADS, DIM = 200, 4, 2, 32


def make_inputs(rows, seed=0, length=LENGTH):
  rng = np.random.default_rng(seed)
  shapes = [(rows, n, length, DIM) for n in (HEADS, KV_HEADS, KV_HEADS)]
  q, k, v = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes)
  # Two or three sequences, then padding.
  cuts = rng.integers(1, 40, (rows, 4)).cumsum(axis=1)
  ids = (np.arange(length)[None, None] >= cuts[:, :3, None]).sum(axis=1) + 1
  ids[:, length - 20 :] = 0
  return q, k, v, jnp.asarray(ids, jnp.int32)


def reference(q, k, v, segment_ids, window=LENGTH):
  """Softmax over the last keys at or before a query, of its own segment."""
  q, k, v, segment_ids = (np.asarray(x) for x in (q, k, v, segment_ids))
  k, v = (np.repeat(x, HEADS // KV_HEADS, axis=1) for x in (k, v))
  scores = q @ k.swapaxes(2, 3) / np.sqrt(DIM)
  place = np.arange(scores.shape[2])
  distance = place[:, None] - place
  visible = (distance >= 0) & (distance < window)
  visible = visible & (segment_ids[:, :, None] == segment_ids[:, None])
  scores = np.where(visible[:, None], scores, -np.inf)
  weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
  return weights / weights.sum(axis=-1, keepdims=True) @ v


@pytest.mark.parametrize('form', ['auto', 'xla', 'splash'])
def test_forms_equal_the_reference(form):
  inputs = make_inputs(rows=2)
  mixed = attention.attend(*inputs, form)
  np.testing.assert_allclose(mixed, reference(*inputs), atol=2e-5)


def test_gradients_of_splash_equal_those_of_xla():
  *inputs, ids = make_inputs(rows=1, seed=1, length=130)
  probe = jnp.cos(jnp.arange(DIM))

  def gradients(form):
    def loss(q, k, v):
      return jnp.sum(attention.attend(q, k, v, ids, form) * probe)

    return jax.grad(loss, argnums=(0, 1, 2))(*inputs)

  for ours, theirs in zip(gradients('splash'), gradients('xla'), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=5e-5)


def test_auto_takes_the_fastest_form_of_the_platform():
  def choose(platform, dtype=jnp.bfloat16):
    return attention.choose_form('auto', platform, jnp.dtype(dtype))

  assert choose('cpu') == 'xla'
  assert choose('tpu') == choose('tpu', jnp.float32) == 'splash'
  assert choose('gpu') == 'cudnn'
  assert choose('gpu', jnp.float32) == 'xla'  # cuDNN has half precision only


@pytest.mark.parametrize(
    'form, platform, dtype, choices',
    [
        ('cudnn', 'cpu', jnp.bfloat16, 'auto, xla, splash'),
        ('cudnn', 'gpu', jnp.float32, 'auto, xla'),
        ('splash', 'gpu', jnp.bfloat16, 'auto, xla, cudnn'),
        ('flash', 'tpu', jnp.bfloat16, 'auto, xla, splash'),
    ],
)
def test_a_form_that_cannot_be_is_refused_with_the_choices(
    form, platform, dtype, choices
):
  with pytest.raises(ValueError, match=f'choose from {choices}$'):
    attention.choose_form(form, platform, jnp.dtype(dtype))


def test_a_config_names_the_choices():
  from leafe_jax import settings

  with pytest.raises(settings.ConfigError, match='policy.attention.*splash'):
    settings.from_config_dict({'policy': {'attention': 'flash'}})


def test_the_platform_is_that_of_the_mesh_in_context():
  assert sharding.target_platform() == 'cpu'
  with jax.set_mesh(sharding.make_mesh(config_lib.Mesh())):
    assert sharding.target_platform() == 'cpu'
