"""Families of models: what Hugging Face's classes are made of, as a table.

A row says which parts of ours a class has (`facts`, options of the policy), where its
config.json differs from a Llama's, and how its tensors are called. Reading
(`hf_config`, `hf_rope`, `hf_layers`), writing (`hf_export`) and the names of tensors
(`hf_names`) all follow the table; a family that is made of known parts is one more
row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from leafe_jax import config as config_lib


@dataclasses.dataclass(frozen=True)
class Family:
  """One class of transformers.

  Attributes:
    model_type: as config.json names it.
    facts: options of the policy that are the same in all of its checkpoints.
    missing: what a field of config.json is where it is missing (not null), and
      differs from `hf_config.FIELDS`.
    longest: positions where config.json does not say.
    head_dim: where config.json does not say; 0: width / heads.
    bias: what `attention_bias` may say: 'none' (there is no such field), 'refused',
      or 'llama' (it may, with zeros on the output).
    scalars: option of the policy -> the field that holds it.
    gemma_scalars: whether embeddings count sqrt(width) times, and scores
      1 / sqrt(query_pre_attn_scalar) times.
    activation: the field that names it.
    pattern: how config.json says which layers differ, a row of `hf_layers.READERS`.
    rope_by_kind: whether layers with and without a window have a rope of their own.
    names: weight -> its tensor, where a Llama's is called otherwise.
    sizes: option of the policy -> the field that holds it.
    partial_rope: whether rope may turn a part of each head.
    experts: '' for none, 'routed', or 'shared': beside them one for every token.
    left_out: beginnings of the names of tensors that ours does without.
    holders: classes that hold this one as their text part, and images beside it.
    held_as: where in a holder its module is, if `AutoModelForCausalLM` gives the
      holder for a holder's checkpoint; '' if it gives the text part alone.
  """

  model_type: str
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  missing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  longest: int = 2048
  head_dim: int = 0
  bias: str = 'llama'
  scalars: Mapping[str, str] = dataclasses.field(default_factory=dict)
  gemma_scalars: bool = False
  activation: str = 'hidden_act'
  pattern: str = 'uniform'
  rope_by_kind: bool = False
  names: Mapping[str, str] = dataclasses.field(default_factory=dict)
  sizes: Mapping[str, str] = dataclasses.field(default_factory=dict)
  partial_rope: bool = False
  experts: str = ''
  left_out: tuple[str, ...] = ()
  holders: tuple[str, ...] = ()
  held_as: str = ''


_GRANITE_SCALARS = {
    'embed_scale': 'embedding_multiplier',
    'residual_scale': 'residual_multiplier',
    'attention_scale': 'attention_multiplier',
    'logits_divisor': 'logits_scaling',
}
_QWEN_MISSING = {'num_key_value_heads': 32, 'sliding_window': 4096}
_DELTA_SIZES = {
    'delta_key_heads': 'linear_num_key_heads',
    'delta_value_heads': 'linear_num_value_heads',
    'delta_key_dim': 'linear_key_head_dim',
    'delta_value_dim': 'linear_value_head_dim',
    'delta_taps': 'linear_conv_kernel_dim',
}
_QWEN3_5 = {'qk_norm': True, 'norm_plus_one': True, 'output_gate': True}
# Heads that guess several tokens, and eyes.
_NOT_TEXT = ('mtp.', 'model.visual.')
_GEMMA_NORMS = {'mlp_norm_ld': 'pre_feedforward_layernorm.weight'}

FAMILIES: Mapping[str, Family] = {
    'Qwen2ForCausalLM': Family(
        'qwen2', {'qkv_bias': True}, _QWEN_MISSING,
        longest=32_768, bias='none', pattern='max_window_layers',
    ),
    'Qwen3ForCausalLM': Family(
        'qwen3', {'qk_norm': True}, _QWEN_MISSING,
        longest=32_768, head_dim=128, bias='refused', pattern='max_window_layers',
    ),
    'Qwen3MoeForCausalLM': Family(
        'qwen3_moe', {'qk_norm': True}, {'num_key_value_heads': 4},
        longest=32_768, bias='refused', pattern='experts', experts='routed',
    ),
    'LlamaForCausalLM': Family('llama'),
    'MistralForCausalLM': Family(
        'mistral', missing={'num_key_value_heads': 8, 'sliding_window': 4096},
        longest=131_072, bias='none', pattern='all_sliding',
    ),
    'SmolLM3ForCausalLM': Family(
        'smollm3',
        missing={
            'num_key_value_heads': 4, 'rope_theta': 2e6, 'tie_word_embeddings': True,
        },
        longest=32_768, pattern='no_rope_layers',
    ),
    'GraniteForCausalLM': Family('granite', scalars=_GRANITE_SCALARS),
    'Olmo3ForCausalLM': Family(
        'olmo3', {'qk_norm_wide': True, 'pre_norms': False, 'post_norms': True},
        {
            'rms_norm_eps': 1e-5, 'rope_theta': 5e5, 'rope_local_base_freq': 5e5,
            'sliding_window': 4096, 'sliding_window_pattern': 4,
        },
        pattern='sliding_window_pattern', rope_by_kind=True,
    ),
    'Gemma3ForCausalLM': Family(
        'gemma3_text',
        {
            'qk_norm': True, 'norm_plus_one': True, 'post_norms': True,
            'activation': 'gelu_tanh',
        },
        {
            'num_key_value_heads': 4, 'head_dim': 256, 'tie_word_embeddings': True,
            'rope_theta': 1e6, 'sliding_window': 4096, 'num_attention_heads': 8,
            'hidden_size': 2304, 'intermediate_size': 9216, 'num_hidden_layers': 26,
            'vocab_size': 262_208,
        },
        longest=131_072, bias='refused', gemma_scalars=True,
        activation='hidden_activation', pattern='sliding_window_pattern',
        rope_by_kind=True, names=_GEMMA_NORMS,
        holders=('Gemma3ForConditionalGeneration',), held_as='language_model',
    ),
    'Qwen3_5ForCausalLM': Family(
        'qwen3_5_text', _QWEN3_5,
        {
            'vocab_size': 248_320, 'hidden_size': 4096, 'intermediate_size': 12_288,
            'num_hidden_layers': 32, 'num_attention_heads': 16,
            'num_key_value_heads': 4, 'head_dim': 256, 'partial_rotary_factor': 0.25,
        },
        longest=32_768, bias='refused', pattern='full_attention_interval',
        sizes=_DELTA_SIZES, partial_rope=True, left_out=_NOT_TEXT,
        holders=('Qwen3_5ForConditionalGeneration',),
    ),
    'Qwen3_5MoeForCausalLM': Family(
        'qwen3_5_moe_text', _QWEN3_5,
        {
            'vocab_size': 248_320, 'hidden_size': 2048, 'num_hidden_layers': 40,
            'num_attention_heads': 16, 'num_key_value_heads': 2, 'head_dim': 256,
            'partial_rotary_factor': 0.25, 'moe_intermediate_size': 512,
            'intermediate_size': 1,  # there is no MLP but experts
        },
        longest=32_768, bias='refused', pattern='experts_interval',
        sizes=_DELTA_SIZES, partial_rope=True, left_out=_NOT_TEXT, experts='shared',
        holders=('Qwen3_5MoeForConditionalGeneration',),
    ),
}  # fmt: skip

# Options of the policy that a class has as its facts, or in its config.json.
PARTS = (
    'qkv_bias', 'qk_norm', 'qk_norm_wide', 'norm_plus_one', 'pre_norms', 'post_norms',
    'output_gate', 'activation',
)  # fmt: skip
SCALARS = tuple(_GRANITE_SCALARS)


def holder_of(name: str) -> str:
  """The class of the text part of a model of text and images; '' for others."""
  held = {holder: text for text, row in FAMILIES.items() for holder in row.holders}
  return held.get(name, '')


def tensor_names(policy: config_lib.Policy) -> Mapping[str, str]:
  """Weight -> its tensor, where a policy's class calls it otherwise than a Llama."""
  fitting = (row for name, row in FAMILIES.items() if not refusal(policy, name))
  return next(fitting, FAMILIES['LlamaForCausalLM']).names


def facts(name: str) -> dict[str, Any]:
  """All parts of a family, those of a Llama where it says nothing."""
  neutral = config_lib.Policy()
  return {part: getattr(neutral, part) for part in PARTS} | dict(FAMILIES[name].facts)


def refusal(policy: config_lib.Policy, name: str) -> str:
  """Which option of a policy a class cannot hold; '' where it can hold all.

  Layers that differ are apart, see `hf_layers.refusal`.
  """
  family, neutral = FAMILIES[name], config_lib.Policy()
  wanted = facts(name)
  if family.bias == 'llama':  # has biases or not, as config.json says
    del wanted['qkv_bias']
  if not family.partial_rope:
    wanted['rope_share'] = 1.0
  free = set(family.scalars)
  if family.gemma_scalars:
    free.add('attention_scale')
    wanted['embed_scale'] = policy.embed_dim**0.5
  else:
    fixed = [scalar for scalar in SCALARS if scalar not in free]
    wanted |= {scalar: getattr(neutral, scalar) for scalar in fixed}
  return next(
      (
          f'{option}={getattr(policy, option)}'
          for option, value in wanted.items() if getattr(policy, option) != value
      ),
      '',
  )
