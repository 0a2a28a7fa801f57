"""The weights of a policy as a table: names, shapes, axes, where they start.

The suffix of a name spells its axes:

    l layer, d embed, n query head, k KV head, h head_dim, f mlp, v vocabulary,
    r rank of an adapter, e expert, m mlp of an expert, s of the shared one, x queries
    and gates; those of `delta` are told there
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array

from leafe_jax import config as config_lib
from leafe_jax.policy import delta, experts, kinds

_LIST = 2**20  # numbers of a weight that are drawn as a plain list
_AXIS_OF_SUFFIX = {
    'l': 'layers',
    'd': 'embed',
    'n': 'heads',
    'k': 'kv_heads',
    'h': 'head_dim',
    'f': 'mlp',
    'e': 'experts',
    'm': 'mlp',
    's': 'mlp',
    'v': 'vocab',
    'r': 'rank',
    'x': 'head_dim',
    'p': 'channels',
    'c': 'taps',
    'w': 'heads',
    'j': 'head_dim',
}


@dataclasses.dataclass(frozen=True)
class Weight:
  """Shape, logical axes and initial spread of one weight.

  Attributes:
    shape: sizes by axis.
    axes: logical axis names, see `sharding.LOGICAL_RULES`.
    std: of the normal that it starts from; None: a norm's scale (ones), 0: a
      bias (zeros).
  """

  shape: tuple[int, ...]
  axes: tuple[str, ...]
  std: float | None

  def initial(self, key: Array, dtype: str) -> Array:
    if self.std is None:
      return jnp.ones(self.shape, dtype)
    if self.std == 0:
      return jnp.zeros(self.shape, dtype)
    # The same numbers, of which XLA compiles a plain list in a tenth of the time.
    # Large arrays are made in their own shape, each device its part.
    size = math.prod(self.shape)
    drawn = (size,) if size <= _LIST else self.shape
    values = jax.random.normal(key, drawn, jnp.float32) * self.std
    return values.astype(dtype).reshape(self.shape)


def weight_table(config: config_lib.Policy, vocab_size: int) -> dict[str, Weight]:
  """Every weight of the model by name.

  Projections start at 1/sqrt(fan-in); those that add to the residual stream
  are smaller by sqrt(2 * layers) (GPT-2).
  """
  stds = {name: std for name, std in _spreads(config).items() if _is_part(name, config)}
  if config.norm_plus_one:  # the scale of a norm that starts at 1
    stds = {
        name: 0.0 if std is None and name != 'out_norm_lj' else std
        for name, std in stds.items()
    }
  return make_table(stds, config, vocab_size)


def _is_part(name: str, config: config_lib.Policy) -> bool:
  """Whether a weight is not of layers, or some layer has it."""
  of_layers = name.rsplit('_', 1)[1].startswith('l')
  return not of_layers or bool(kinds.layers_with(name, config))


def _spreads(config: config_lib.Policy) -> dict[str, float | None]:
  """The spread of every weight, of all kinds of layers."""
  width, heads = config.embed_dim, config.num_heads * config.head_dim
  into = width**-0.5
  depth = (2 * config.num_layers) ** -0.5
  stds: dict[str, float | None] = {
      'embed_vd': into,
      **({'attn_norm_ld': None} if config.pre_norms else {}),
      'q_weight_ldnh': into,
      'k_weight_ldkh': into,
      'v_weight_ldkh': into,
      'o_weight_lnhd': depth * heads**-0.5,
      **({'mlp_norm_ld': None} if config.pre_norms else {}),
      'gate_weight_ldf': into,
      'up_weight_ldf': into,
      'down_weight_lfd': depth * config.mlp_dim**-0.5,
      'final_norm_d': None,
  }
  if config.qkv_bias:
    stds |= {'q_bias_lnh': 0.0, 'k_bias_lkh': 0.0, 'v_bias_lkh': 0.0}
  if config.qk_norm:
    stds |= {'q_norm_lh': None, 'k_norm_lh': None}
  if config.output_gate:
    stds['q_weight_ldnx'] = stds.pop('q_weight_ldnh')
  if 'delta' in kinds.mixers(config):
    stds |= delta.spreads(config)
  if config.qk_norm_wide:
    stds |= {'q_norm_lnh': None, 'k_norm_lkh': None}
  if 'experts' in kinds.mlps(config):
    stds |= experts.stds(config)
  if config.post_norms:
    stds |= {'attn_post_norm_ld': None, 'mlp_post_norm_ld': None}
  if not config.tie_embeddings:
    stds['head_weight_dv'] = into
  return stds


def make_table(
    stds: Mapping[str, float | None], config: config_lib.Policy, vocab_size: int
) -> dict[str, Weight]:
  """Weights from their names and spreads; the names spell the shapes."""
  sizes = _axis_sizes(config, vocab_size)
  return {
      name: _weight(name, std, sizes | {'l': len(kinds.layers_with(name, config))})
      for name, std in stds.items()
  }


def _axis_sizes(config: config_lib.Policy, vocab_size: int) -> dict[str, int]:
  if config.num_heads % config.num_kv_heads:
    raise ValueError(
        f'num_kv_heads {config.num_kv_heads} does not divide num_heads'
        f' {config.num_heads}'
    )
  return {
      'd': config.embed_dim,
      'n': config.num_heads,
      'k': config.num_kv_heads,
      'h': config.head_dim,
      'f': config.mlp_dim,
      'e': config.num_experts,
      'm': config.expert_dim,
      's': config.shared_expert_dim,
      'v': vocab_size,
      'r': config.lora_rank,
      'x': 2 * config.head_dim,
      **delta.axis_sizes(config),
  }


def _weight(name: str, std: float | None, sizes: dict[str, int]) -> Weight:
  suffix = name.rsplit('_', 1)[1]
  shape = tuple(sizes[letter] for letter in suffix)
  return Weight(shape, logical_axes(name), std)


def logical_axes(name: str) -> tuple[str, ...]:
  """Of a weight: 'q_weight_ldnh' -> ('layers', 'embed', 'heads', 'head_dim')."""
  return tuple(_AXIS_OF_SUFFIX[letter] for letter in name.rsplit('_', 1)[1])
