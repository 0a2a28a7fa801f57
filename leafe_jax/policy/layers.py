"""The pieces of a decoder layer, shared by training and sampling.

Weights come as a plain dict per layer, without the leading layer axis. Norms
run in float32; products run in the type of their input. A matrix may be
quantised (see `quantize`), and it may have an adapter beside it (see `lora`):
training and sampling meet both here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import products, quantize

# The matrices of a layer, and the axes that each of them contracts.
INPUTS: Mapping[str, str] = {
    'q_weight_ldnh': 'd',
    'k_weight_ldkh': 'd',
    'v_weight_ldkh': 'd',
    'o_weight_lnhd': 'nh',
    'gate_weight_ldf': 'd',
    'up_weight_ldf': 'd',
    'down_weight_lfd': 'f',
}

Weights = Mapping[str, Array]


def rms_norm(
    x: Float[Array, '... D'], scale: Float[Array, ' D'], eps: float
) -> Float[Array, '... D']:
  """RMSNorm in float32, returned in the type of `x` (arXiv 1910.07467)."""
  wide = x.astype(jnp.float32)
  inverse = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
  return (wide * inverse * scale.astype(jnp.float32)).astype(x.dtype)


class Angles(NamedTuple):
  """Cosines and sines for `rotate`, F = head_dim / 2."""

  cos: Float[Array, 'B 1 T F']
  sin: Float[Array, 'B 1 T F']


def rope_angles(positions: Int[Array, 'B T'], config: config_lib.Policy) -> Angles:
  """How far each place turns queries and keys (arXiv 2104.09864)."""
  angles = positions[:, None, :, None].astype(jnp.float32) * _frequencies(config)
  if config.scan_layers:
    return Angles(jnp.cos(angles), jnp.sin(angles))

  def either(sine: Array) -> Array:
    return jax.lax.cond(sine, jnp.sin, jnp.cos, angles)

  # What comes out of a loop is kept. Else XLA on CPU computes the angles again
  # for every head of every layer; it does not heed an optimization barrier.
  cos, sin = jax.lax.map(either, jnp.array([False, True]))
  return Angles(cos, sin)


def _frequencies(config: config_lib.Policy) -> Float[Array, ' F']:
  """Radians per position; Llama 3.1 slows the low ones down (arXiv 2407.21783).

  Raises:
    ValueError: an unknown `rope_type`.
  """
  half = config.head_dim // 2
  plain = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  if config.rope_type == 'default':
    return plain
  if config.rope_type != 'llama3':
    raise ValueError(f'rope_type {config.rope_type!r}; choose from default, llama3')
  low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
  turns = config.rope_original_length * plain / (2 * jnp.pi)
  kept = jnp.clip((turns - low) / (high - low), 0, 1)
  return plain * kept + plain / config.rope_factor * (1 - kept)


def rotate(
    x: Float[Array, 'B N T H'], angles: Angles
) -> Float[Array, 'B N T H']:
  """Rotary embedding on split halves, as in Hugging Face's checkpoints."""
  cos, sin = angles
  left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = (left * cos - right * sin, right * cos + left * sin)
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def query(
    x: Float[Array, 'B T D'],
    weights: Weights,
    angles: Angles,
    config: config_lib.Policy,
) -> Float[Array, 'B N T H']:
  """Query heads of normed inputs, heads leading."""
  q = _project_heads(x, weights, 'q_weight_ldnh')
  if config.qkv_bias:
    q = q + weights['q_bias_lnh'].astype(x.dtype)[None, :, None]
  if config.qk_norm:
    q = rms_norm(q, weights['q_norm_lh'], config.norm_eps)
  return rotate(q, angles)


def key_value(
    x: Float[Array, 'B T D'],
    weights: Weights,
    angles: Angles,
    config: config_lib.Policy,
) -> tuple[Float[Array, 'B K T H'], Float[Array, 'B K T H']]:
  """Key and value heads of normed inputs, heads leading."""
  k = _project_heads(x, weights, 'k_weight_ldkh')
  v = _project_heads(x, weights, 'v_weight_ldkh')
  if config.qkv_bias:
    k = k + weights['k_bias_lkh'].astype(x.dtype)[None, :, None]
    v = v + weights['v_bias_lkh'].astype(x.dtype)[None, :, None]
  if config.qk_norm:
    k = rms_norm(k, weights['k_norm_lh'], config.norm_eps)
  return rotate(k, angles), v


def _project_heads(
    x: Float[Array, 'B T D'], weights: Weights, name: str
) -> Float[Array, 'B N T H']:
  # Transposed apart: asked for heads first, einsum puts the weight on the left
  # and XLA on CPU copies it, transposed, at every step of a decode loop.
  axes = name.rsplit('_l', 1)[1]  # dnh or dkh
  heads = project(f'btd,{axes}->bt{axes[1:]}', x, weights, name)
  return heads.transpose(0, 2, 1, 3)


def project_out(
    mixed: Float[Array, 'B N T H'], weights: Weights
) -> Float[Array, 'B T D']:
  """Attention output back to the residual stream."""
  heads_inside = mixed.transpose(0, 2, 1, 3)
  return project('btnh,nhd->btd', heads_inside, weights, 'o_weight_lnhd')


def feed_forward(x: Float[Array, 'B T D'], weights: Weights) -> Float[Array, 'B T D']:
  """SwiGLU (arXiv 2002.05202)."""
  gate = project('btd,df->btf', x, weights, 'gate_weight_ldf')
  up = project('btd,df->btf', x, weights, 'up_weight_ldf')
  return project('btf,fd->btd', jax.nn.silu(gate) * up, weights, 'down_weight_lfd')


def conclude(
    x: Float[Array, 'B T D'],
    mixed: Float[Array, 'B N T H'],
    weights: Weights,
    config: config_lib.Policy,
) -> Float[Array, 'B T D']:
  """A layer's end: the attention output and the MLP join the residual stream."""
  x = x + project_out(mixed, weights)
  normed = rms_norm(x, weights['mlp_norm_ld'], config.norm_eps)
  return x + feed_forward(normed, weights)


def adapter_names(weight: str) -> tuple[str, str]:
  """Of a matrix's adapter: 'q_weight_ldnh' -> 'q_lora_a_ldr', 'q_lora_b_lrnh'."""
  kind, _, axes = weight.split('_')
  inputs = INPUTS[weight]
  outputs = axes.removeprefix('l').replace(inputs, '')
  return f'{kind}_lora_a_l{inputs}r', f'{kind}_lora_b_lr{outputs}'


def project(form: str, x: Array, weights: Weights, name: str) -> Array:
  """Product with a matrix, plus that with its adapter where there is one."""
  weight = weights[name]
  if quantize.is_quantized(weight):
    weight = quantize.dense(weight, x.dtype)
  whole = products.einsum(form, x, weight)
  into, out_of = adapter_names(name) if name in INPUTS else ('', '')
  if into not in weights:
    return whole
  given, rest = form.split(',')
  low = products.einsum(f'{given},{INPUTS[name]}r->btr', x, weights[into])
  outputs = out_of.rsplit('_lr', 1)[1]
  form = f'btr,r{outputs}->{rest.split("->")[1]}'
  return whole + products.einsum(form, low, weights[out_of])


def embed(
    params: Weights, tokens: Int[Array, 'B T'], config: config_lib.Policy
) -> Float[Array, 'B T D']:
  return jnp.take(params['embed_vd'], tokens, axis=0).astype(config.dtype)


def unembed(
    params: Weights, x: Float[Array, '... D'], config: config_lib.Policy
) -> Float[Array, '... V']:
  """Final norm and logits, in float32."""
  x = rms_norm(x, params['final_norm_d'], config.norm_eps)
  if config.tie_embeddings:
    weight, form = params['embed_vd'], 'td,vd->tv'
  else:
    weight, form = params['head_weight_dv'], 'td,dv->tv'
  if x.ndim == 3:
    form = form.replace('t', 'bt')
  return products.einsum(form, x, weight, jnp.float32)
