"""Rotary embeddings (arXiv 2104.09864): how places turn queries and keys.

A policy has one rotary embedding for all layers ('global'), or another one, not
scaled, for those with a window ('local', Gemma 3). Scaling slows frequencies down,
so that longer texts stay within the turns that the policy was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import kinds

TYPES = ('default', 'linear', 'llama3', 'yarn')


class Angles(NamedTuple):
  """Cosines and sines for `rotate`, F = head_dim / 2."""

  cos: Float[Array, 'B 1 T F']
  sin: Float[Array, 'B 1 T F']


# Which rotary embedding -> its angles.
AllAngles = Mapping[str, Angles]


def all_angles(positions: Int[Array, 'B T'], config: config_lib.Policy) -> AllAngles:
  """The angles of some places in every rotary embedding that layers have."""
  used = {kind.rope for kind in kinds.of_layers(config)} - {''}
  return {name: angles(positions, config, name) for name in sorted(used)}


def angles(
    positions: Int[Array, 'B T'], config: config_lib.Policy, name: str = 'global'
) -> Angles:
  """How far each place turns queries and keys."""
  turned = positions[:, None, :, None].astype(jnp.float32) * frequencies(config, name)
  if config.scan_layers:
    return _scaled(Angles(jnp.cos(turned), jnp.sin(turned)), config, name)

  def either(sine: Array) -> Array:
    return jax.lax.cond(sine, jnp.sin, jnp.cos, turned)

  # What comes out of a loop is kept. Else XLA on CPU computes the angles again
  # for every head of every layer; it does not heed an optimization barrier.
  cos, sin = jax.lax.map(either, jnp.array([False, True]))
  return _scaled(Angles(cos, sin), config, name)


def _scaled(found: Angles, config: config_lib.Policy, name: str) -> Angles:
  """YaRN makes queries and keys longer, which sharpens the softmax."""
  if name == 'local' or config.rope_type != 'yarn':
    return found
  factor = config.rope_attention_factor or default_attention_factor(config.rope_factor)
  return Angles(found.cos * factor, found.sin * factor)


def default_attention_factor(factor: float, mscale: float = 1.0) -> float:
  """That of YaRN, equation 22."""
  return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def turned_dim(config: config_lib.Policy) -> int:
  """How many of a head's places are turned, the first ones."""
  return int(config.head_dim * config.rope_share)


def frequencies(config: config_lib.Policy, name: str = 'global') -> Float[Array, ' F']:
  """Radians per position.

  Raises:
    ValueError: an unknown `rope_type`.
  """
  half = turned_dim(config) // 2
  theta = config.rope_local_theta if name == 'local' else config.rope_theta
  plain = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  if name == 'local' or config.rope_type == 'default':
    return plain
  if config.rope_type == 'linear':
    return plain / config.rope_factor
  if config.rope_type == 'llama3':
    kept = _kept_by_llama3(plain, config)
  elif config.rope_type == 'yarn':
    kept = _kept_by_yarn(half, config)
  else:
    raise ValueError(
        f'rope_type {config.rope_type!r}; choose from {", ".join(TYPES)}'
    )
  return plain * kept + plain / config.rope_factor * (1 - kept)


def _kept_by_llama3(
    plain: Float[Array, ' F'], config: config_lib.Policy
) -> Float[Array, ' F']:
  """Share of each frequency that is left alone (arXiv 2407.21783)."""
  low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
  turns = config.rope_original_length * plain / (2 * jnp.pi)
  return jnp.clip((turns - low) / (high - low), 0, 1)


def _kept_by_yarn(half: int, config: config_lib.Policy) -> Float[Array, ' F']:
  """Share of each frequency that is left alone (arXiv 2309.00071, section 3.2)."""

  def place(turns: float) -> float:
    """Of the frequency that turns so often, among the F from 0."""
    length = config.rope_original_length / (turns * 2 * math.pi)
    return half * math.log(length) / math.log(config.rope_theta)

  first, last = place(config.rope_beta_fast), place(config.rope_beta_slow)
  if config.rope_truncate:
    first, last = math.floor(first), math.ceil(last)
  first, last = max(first, 0), min(last, 2 * half - 1)
  width = last - first or 0.001
  return 1 - jnp.clip((jnp.arange(half, dtype=jnp.float32) - first) / width, 0, 1)


def rotate(
    x: Float[Array, 'B N T H'], angles: Angles | None, scale: float = 1.0
) -> Float[Array, 'B N T H']:
  """Rotary embedding on split halves, as in Hugging Face's checkpoints.

  Args:
    x: queries or keys.
    angles: of their places; None: they are not turned.
    scale: a factor of the result.
  """
  wide = x.astype(jnp.float32)
  if angles is not None:
    cos, sin = angles
    half = cos.shape[-1]
    left, right, rest = jnp.split(wide, (half, 2 * half), axis=-1)
    turned = (left * cos - right * sin, right * cos + left * sin)
    wide = jnp.concatenate((*turned, rest) if rest.shape[-1] else turned, axis=-1)
  return (wide if scale == 1 else wide * scale).astype(x.dtype)
