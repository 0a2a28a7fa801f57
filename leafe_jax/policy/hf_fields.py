"""Fields of config.json, by name: types, defaults and checks.

Types and defaults are those of transformers: null is as good as missing, and every
number is above zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from leafe_jax.policy.hf_files import CONFIG, UnsupportedCheckpoint, short

Fields = Mapping[str, Any]
NEEDED: Any = object()
_KINDS = {
    int: 'a whole number above 0',
    float: 'a number above 0',
    bool: 'true or false',
    str: 'a text',
    list: 'a list',
    dict: 'an object',
}


class Field(NamedTuple):
  """One field of config.json.

  Attributes:
    kind: its type.
    default: where it is missing or null; `NEEDED` if it must be there.
    choices: supported values; empty for all of the type.
    zero: whether a number may be 0.
  """

  kind: type
  default: Any = None
  choices: tuple[str, ...] = ()
  zero: bool = False


FIELDS: Mapping[str, Field] = {
    'model_type': Field(str, ''),
    'architectures': Field(list, ()),
    'transformers_weights': Field(str, ''),
    'vocab_size': Field(int, NEEDED),
    'hidden_size': Field(int, NEEDED),
    'intermediate_size': Field(int, NEEDED),
    'num_hidden_layers': Field(int, NEEDED),
    'num_attention_heads': Field(int, NEEDED),
    'num_key_value_heads': Field(int),
    'head_dim': Field(int),
    'hidden_act': Field(str, 'silu', ('silu', 'swish')),
    'hidden_activation': Field(str, 'gelu_pytorch_tanh', ('gelu_pytorch_tanh',)),
    'rms_norm_eps': Field(float, 1e-6),
    'max_position_embeddings': Field(int),
    'original_max_position_embeddings': Field(int),
    'rope_theta': Field(float, 10_000.0),
    'rope_scaling': Field(dict, {}),
    'rope_parameters': Field(dict, {}),
    'partial_rotary_factor': Field(float, 1.0),
    'tie_word_embeddings': Field(bool, False),
    'attention_bias': Field(bool, False),
    'mlp_bias': Field(bool, False),
    'use_sliding_window': Field(bool, False),
    'sliding_window': Field(int),
    'max_window_layers': Field(int, 28, zero=True),
    'sliding_window_pattern': Field(int, 6),
    'no_rope_layers': Field(list, ()),
    'no_rope_layer_interval': Field(int, 4),
    'num_experts': Field(int),
    'num_local_experts': Field(int),
    'num_experts_per_tok': Field(int, 8),
    'moe_intermediate_size': Field(int, 768),
    'shared_expert_intermediate_size': Field(int, 512),
    'norm_topk_prob': Field(bool, False),
    'mlp_only_layers': Field(list, ()),
    'decoder_sparse_step': Field(int, 1),
    'rope_local_base_freq': Field(float, 10_000.0),
    'query_pre_attn_scalar': Field(float, 256.0),
    'embedding_multiplier': Field(float, 1.0),
    'residual_multiplier': Field(float, 1.0),
    'attention_multiplier': Field(float, 1.0),
    'logits_scaling': Field(float, 1.0),
    'attn_logit_softcapping': Field(float),
    'final_logit_softcapping': Field(float),
    'use_bidirectional_attention': Field(bool, False),
    'full_attention_interval': Field(int, 4),
    'linear_num_key_heads': Field(int, 16),
    'linear_num_value_heads': Field(int, 32),
    'linear_key_head_dim': Field(int, 128),
    'linear_value_head_dim': Field(int, 128),
    'linear_conv_kernel_dim': Field(int, 4),
    'text_config': Field(dict, {}),
    'layer_types': Field(list, ()),
    'quantization_config': Field(dict),
    'per_layer_config': Field(dict),
}


def value(fields: Fields, name: str) -> Any:
  """A field of config.json, checked, or its default.

  Raises:
    UnsupportedCheckpoint: names the field, its value and what it must be.
  """
  return checked(fields, name, FIELDS[name], '')


def checked(fields: Fields, name: str, field: Field, before: str) -> Any:
  found = fields.get(name)
  if found is None and field.default is not NEEDED:
    return field.default
  place = f'{CONFIG}: {before}{name}'
  if found is None:
    state = 'null' if name in fields else 'missing'
    raise UnsupportedCheckpoint(f'{place} is {state}; it must be {_KINDS[field.kind]}')
  if not _fits(found, field):
    raise UnsupportedCheckpoint(
        f'{place} is {short(found)}; it must be {_KINDS[field.kind]}'
    )
  if field.choices and found not in field.choices:
    raise UnsupportedCheckpoint(
        f'{place} is {short(found)}; supported: {", ".join(field.choices)}'
    )
  return float(found) if field.kind is float else found


def _fits(found: Any, field: Field) -> bool:
  kind = field.kind
  if kind is float:
    number = type(found) in (int, float) and abs(found) < 1e300
    return number and math.isfinite(found) and found > 0
  if type(found) is not kind:  # True is no int
    return False
  return kind is not int or found > 0 or (field.zero and found == 0)
