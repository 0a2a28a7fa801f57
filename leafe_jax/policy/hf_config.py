"""config.json of a Hugging Face checkpoint, as options of a policy.

Types, defaults and precedence are those of transformers: `model_type` decides
the architecture, null is as good as missing. What differs between architectures is
in the table of `families`. What the policy cannot express is refused by name.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from leafe_jax import config as config_lib
from leafe_jax.policy import families, hf_experts, hf_layers, hf_rope, rope
from leafe_jax.policy.families import FAMILIES
from leafe_jax.policy.hf_fields import Fields, value
from leafe_jax.policy.hf_files import CONFIG, UnsupportedCheckpoint, short


def completed(fields: Fields) -> dict[str, Any]:
  """config.json with what its class leaves out.

  Of a model of text and images, the text part alone.

  Raises:
    UnsupportedCheckpoint: the class is not supported, or the part is missing.
  """
  fields = _text_fields(fields)
  return {**FAMILIES[architecture(fields)].missing, **fields}


def is_part(fields: Fields) -> bool:
  """Whether config.json is of a model of text and images."""
  said = value(fields, 'architectures')
  return bool(said) and isinstance(said[0], str) and bool(families.holder_of(said[0]))


def _text_fields(fields: Fields) -> dict[str, Any]:
  if not is_part(fields):
    return dict(fields)
  name = families.holder_of(fields['architectures'][0])
  part = value(fields, 'text_config')
  if not part:
    raise UnsupportedCheckpoint(f'{CONFIG}: text_config is missing')
  kept = {
      key: fields[key]
      for key in ('dtype', 'torch_dtype', 'transformers_weights', 'tie_word_embeddings')
      if key in fields
  }
  row = FAMILIES[name]
  return {**kept, **part, 'architectures': [name], 'model_type': row.model_type}


def architecture(fields: Fields) -> str:
  """The architecture that transformers would make, if it is supported.

  Raises:
    UnsupportedCheckpoint: names it, or the contradiction.
  """
  kind = value(fields, 'model_type')
  said = value(fields, 'architectures')
  if said and not isinstance(said[0], str):
    raise UnsupportedCheckpoint(f'{CONFIG}: architectures is {short(said)}')
  by_type = {row.model_type: name for name, row in FAMILIES.items()}
  found = said[0] if said else by_type.get(kind, '?')
  if found not in FAMILIES:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: architecture {found!r} of model_type {kind!r}; supported: '
        + ', '.join(FAMILIES)
    )
  if kind and by_type.get(kind) != found:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: model_type {kind!r} is not that of architecture {found!r}, '
        f'{FAMILIES[found].model_type!r}'
    )
  return found


def policy_options(
    fields: Fields, options: config_lib.Policy, zero_output_bias: bool
) -> config_lib.Policy:
  """The policy that config.json describes.

  Args:
    fields: of config.json, see `completed`.
    options: types, lengths and memory options.
    zero_output_bias: whether the biases on the output of attention, where
      there are any, are nothing but zeros.

  Raises:
    UnsupportedCheckpoint: names what is not supported.
  """
  name = architecture(fields)
  family = FAMILIES[name]
  biased = _has_biases(fields, family, zero_output_bias)
  _refuse_unsupported(fields)
  value(fields, family.activation)
  heads = value(fields, 'num_attention_heads')
  facts = families.facts(name)
  facts['qkv_bias'] |= biased
  found = dataclasses.replace(
      options,
      num_layers=value(fields, 'num_hidden_layers'),
      embed_dim=value(fields, 'hidden_size'),
      num_heads=heads,
      num_kv_heads=_kv_heads(fields, heads),
      head_dim=_head_dim(fields, family, heads),
      mlp_dim=value(fields, 'intermediate_size'),
      norm_eps=value(fields, 'rms_norm_eps'),
      tie_embeddings=value(fields, 'tie_word_embeddings'),
      **facts,
      **_scalars(fields, name),
      **_sizes(fields, family),
      **hf_layers.options(fields, family),
      **hf_experts.options(fields, family),
      **hf_rope.options(fields, family, _positions(fields)),
  )
  turned = rope.turned_dim(found)
  if turned % 2 or not turned:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: partial_rotary_factor is {found.rope_share} of head_dim, '
        f'{found.head_dim}; rotary positions need an even number, not {turned}'
    )
  return found


def longest(fields: Fields) -> int:
  """Tokens that the positions of a checkpoint were made for.

  With YaRN it is what they are stretched to: Qwen2.5 leaves max_position_embeddings as
  it was before.
  """
  found = _positions(fields)
  rope = hf_rope.options(fields, FAMILIES[architecture(fields)], found)
  if rope['rope_type'] != 'yarn':
    return found
  return max(found, int(rope['rope_factor'] * rope['rope_original_length']))


def _positions(fields: Fields) -> int:
  found = value(fields, 'max_position_embeddings')
  return found or FAMILIES[architecture(fields)].longest


def _kv_heads(fields: Fields, heads: int) -> int:
  found = value(fields, 'num_key_value_heads') or heads
  if heads % found:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: num_key_value_heads is {found}; it must divide '
        f'num_attention_heads, {heads}'
    )
  return found


def _head_dim(fields: Fields, family: families.Family, heads: int) -> int:
  default = family.head_dim or value(fields, 'hidden_size') // heads
  found = value(fields, 'head_dim') or default
  if found % 2 or not found:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: head_dim is {found}; rotary positions need an even one'
    )
  return found


def _scalars(fields: Fields, name: str) -> dict[str, float]:
  """Factors of embeddings, scores, layers and logits."""
  neutral = config_lib.Policy()
  found = {scalar: getattr(neutral, scalar) for scalar in families.SCALARS}
  scalars = FAMILIES[name].scalars
  found |= {scalar: value(fields, field) for scalar, field in scalars.items()}
  if FAMILIES[name].gemma_scalars:
    found['embed_scale'] = value(fields, 'hidden_size') ** 0.5
    found['attention_scale'] = value(fields, 'query_pre_attn_scalar') ** -0.5
  return found


def _sizes(fields: Fields, family: families.Family) -> dict[str, int]:
  """Sizes that only layers of some kinds have."""
  found = {option: value(fields, field) for option, field in family.sizes.items()}
  if found and found['delta_value_heads'] % found['delta_key_heads']:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: linear_num_key_heads is {found["delta_key_heads"]}; it must divide '
        f'linear_num_value_heads, {found["delta_value_heads"]}'
    )
  return found


def _has_biases(fields: Fields, family: families.Family, zero_output: bool) -> bool:
  """Whether there are biases on q, k and v that config.json may say or not."""
  if family.bias == 'none' or not value(fields, 'attention_bias'):
    return False
  if family.bias == 'refused' or not zero_output:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: not supported: biases on attention (attention_bias)'
    )
  return True


def _refuse_unsupported(fields: Fields) -> None:
  refused = {
      'quantised weights (quantization_config)': value(fields, 'quantization_config')
      is not None,
      'layers that differ (per_layer_config)': bool(value(fields, 'per_layer_config')),
      'biases on the MLP (mlp_bias)': value(fields, 'mlp_bias'),
      'capped scores (attn_logit_softcapping)': value(fields, 'attn_logit_softcapping')
      is not None,
      'capped logits (final_logit_softcapping)': value(
          fields, 'final_logit_softcapping'
      )
      is not None,
      'attention to later tokens (use_bidirectional_attention)': value(
          fields, 'use_bidirectional_attention'
      ),
  }
  found = [what for what, present in refused.items() if present]
  if found:
    raise UnsupportedCheckpoint(f'{CONFIG}: not supported: {", ".join(found)}')
