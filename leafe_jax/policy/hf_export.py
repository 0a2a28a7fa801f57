"""Writing policies as Hugging Face checkpoints that transformers loads.

The inverse of `huggingface`: what is written there and read back here has the
same bits. Policies trained from scratch are Llamas, unless they have norms on q
and k.
"""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from leafe_jax import config as config_lib
from leafe_jax.files import PARTIAL, replace
from leafe_jax.policy import (
  families,
  hf_config,
  hf_experts,
  hf_files,
  hf_layers,
  hf_names,
  hf_rope,
  lora,
)
from leafe_jax.policy.huggingface import Shape
from leafe_jax.policy.stacks import Params
from leafe_jax.policy.weights import Weight, weight_table

# Fields of a source that name files which are not written.
_NOT_KEPT = ('transformers_weights', 'auto_map')
# What belongs to a tokenizer, under the names in use.
_TOKENIZER_FILES = (
    'tokenizer*', 'special_tokens_map.json', 'added_tokens.json', 'vocab.*',
    'merges.txt', '*.tiktoken', 'chat_template*',
    'additional_chat_templates', 'generation_config.json',
)


def write(
    directory: str | pathlib.Path,
    params: Params,
    shape: Shape,
    tokenizer: str | pathlib.Path | None = None,
    fields: Mapping[str, Any] | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
  """Writes config.json, the weights and a tokenizer; all of it or nothing.

  Args:
    directory: to write; must not exist, or be empty.
    params: the weights, in the type they are to be stored in.
    shape: of the policy.
    tokenizer: directory whose tokenizer files are copied.
    fields: further fields of config.json, such as those of the checkpoint that
      the policy came from; ours win, but for an architecture that can hold them.
    max_shard_bytes: largest file, unless a single tensor is larger.

  Raises:
    FileExistsError: `directory` holds something.
    ValueError: no supported architecture has these parts.
  """
  fields = fields or {}
  name = architecture(shape.policy, fields)
  if fields and hf_config.is_part(fields):  # what is written is the text part alone
    fields = hf_config.completed(fields)
  kept = {key: value for key, value in fields.items() if key not in _NOT_KEPT}
  config = {**kept, **config_fields(shape, name)}
  with written_whole(pathlib.Path(directory)) as partial:
    if tokenizer is not None:
      copy_tokenizer(pathlib.Path(tokenizer), partial)
    (partial / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
    _write_weights(partial, params, shape, _zeros(name, shape.policy), max_shard_bytes)


def write_adapter(
    directory: str | pathlib.Path,
    adapters: Params,
    policy: config_lib.Policy,
    base: str,
    fields: Mapping[str, Any] | None = None,
) -> None:
  """Writes adapters as peft loads them; all of it or nothing.

  Args:
    directory: to write; must not exist, or be empty.
    adapters: see `lora`.
    policy: `lora_rank`, `lora_alpha`, `lora_targets`.
    base: the checkpoint that they belong to, by name or path; '' if it has none.
    fields: of its config.json. Over a model of text and images peft finds adapters
      by the names that its text part has there.

  Raises:
    FileExistsError: `directory` holds something.
  """
  targets, inside = lora.targets(policy), _held_as(fields or {})
  modules: Any = [
      hf_names.their_module(targets[name]) for name in policy.lora_targets
  ]
  if inside:  # eyes have modules of the same names
    modules = rf'.*\.{inside}\.layers\..*\.({"|".join(modules)})'
  config = {
      'peft_type': 'LORA',
      'task_type': 'CAUSAL_LM',
      'base_model_name_or_path': base,
      'r': policy.lora_rank,
      'lora_alpha': policy.lora_alpha,
      'lora_dropout': 0.0,
      'target_modules': modules,
      'bias': 'none',
      'fan_in_fan_out': False,
      'use_rslora': False,
      'inference_mode': True,
  }
  layers = f'model.{inside}.layers.' if inside else 'model.layers.'
  tensors = {
      name.replace('model.layers.', layers, 1): tensor
      for ours, array in adapters.items()
      for name, tensor in hf_names.split(ours, array, policy)
  }
  with written_whole(pathlib.Path(directory)) as partial:
    (partial / 'adapter_config.json').write_text(json.dumps(config, indent=2) + '\n')
    hf_files.write(tensors, partial / 'adapter_model.safetensors')


def _held_as(fields: Mapping[str, Any]) -> str:
  if not hf_config.is_part(fields):
    return ''
  return families.FAMILIES[families.holder_of(fields['architectures'][0])].held_as


@contextlib.contextmanager
def written_whole(directory: pathlib.Path) -> Iterator[pathlib.Path]:
  """An empty directory that takes the place of `directory` at the end.

  Raises:
    FileExistsError: `directory` holds something.
  """
  directory = directory.absolute()
  if directory.exists() and any(directory.iterdir()):
    raise FileExistsError(f'{directory} is not empty')
  partial = directory.with_name(f'{directory.name}{PARTIAL}')
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  yield partial
  replace(partial, directory)


def architecture(
    policy: config_lib.Policy, fields: Mapping[str, Any] | None = None
) -> str:
  """The architecture with this policy's parts.

  Args:
    policy: to be written.
    fields: of config.json; the architecture that they name is taken if it can hold
      the policy. A Llama with biases on q, k and v has one more, on the output, which
      is zero.

  Raises:
    ValueError: there is none.
  """
  said = [families.holder_of(x) or x for x in (fields or {}).get('architectures') or ()]
  named = [name for name in said if name in families.FAMILIES]
  refusals = {name: _refusal(policy, name) for name in (*named, *families.FAMILIES)}
  for name, reason in refusals.items():
    if not reason:
      return name
  raise ValueError(
      'no architecture has all parts of this policy: '
      + '; '.join(f'not {name}, with {reason}' for name, reason in refusals.items())
  )


def _refusal(policy: config_lib.Policy, name: str) -> str:
  """Which option keeps a policy from being of a class; '' where none does."""
  family = families.FAMILIES[name]
  layers = hf_layers.refusal(policy, family) or hf_experts.refusal(policy, family)
  return families.refusal(policy, name) or layers


def _zeros(name: str, policy: config_lib.Policy) -> dict[str, int]:
  """Tensors of zeros that an architecture has and our policies lack, with sizes."""
  if families.FAMILIES[name].bias != 'llama' or not policy.qkv_bias:
    return {}
  return dict.fromkeys(hf_names.output_biases(policy.num_layers), policy.embed_dim)


def config_fields(shape: Shape, name: str) -> dict[str, Any]:
  """The fields of config.json that follow from policy and architecture."""
  policy, family = shape.policy, families.FAMILIES[name]
  biases = {} if family.bias == 'none' else {'attention_bias': policy.qkv_bias}
  activation = {'silu': 'silu', 'gelu_tanh': 'gelu_pytorch_tanh'}[policy.activation]
  return {
      'architectures': [name],
      'model_type': family.model_type,
      'vocab_size': shape.vocab_size,
      'num_hidden_layers': policy.num_layers,
      'hidden_size': policy.embed_dim,
      'num_attention_heads': policy.num_heads,
      'num_key_value_heads': policy.num_kv_heads,
      'head_dim': policy.head_dim,
      family.activation: activation,
      'rms_norm_eps': policy.norm_eps,
      'tie_word_embeddings': policy.tie_embeddings,
      **biases,
      **({} if family.experts == 'shared' else {'intermediate_size': policy.mlp_dim}),
      **_scalars(policy, family),
      **{field: getattr(policy, name) for name, field in family.sizes.items()},
      **hf_layers.written(policy, family),
      **hf_experts.written(policy, family),
      **hf_rope.written(policy, family),
      'dtype': policy.param_dtype,
      'torch_dtype': policy.param_dtype,
  }


def _scalars(policy: config_lib.Policy, family: families.Family) -> dict[str, float]:
  usual = policy.head_dim**-0.5
  values = {name: getattr(policy, name) for name in families.SCALARS}
  values['attention_scale'] = policy.attention_scale or usual
  found = {field: values[name] for name, field in family.scalars.items()}
  if family.gemma_scalars:
    # transformers takes a whole number.
    found['query_pre_attn_scalar'] = round(values['attention_scale'] ** -2)
  return found


def copy_tokenizer(source: pathlib.Path, target: pathlib.Path) -> None:
  found = {path for pattern in _TOKENIZER_FILES for path in source.glob(pattern)}
  if not found:
    raise FileNotFoundError(f'no tokenizer files in {source}')
  for path in sorted(found):
    if path.is_dir():  # transformers keeps further chat templates in one
      shutil.copytree(path, target / path.name)
    else:
      shutil.copyfile(path, target / path.name)


def _write_weights(
    directory: pathlib.Path,
    params: Params,
    shape: Shape,
    zeros: Mapping[str, int],
    max_shard_bytes: int,
) -> None:
  """The safetensors files, and their index where there are several."""
  policy = shape.policy
  table = weight_table(policy, shape.vocab_size)
  width = jnp.dtype(policy.param_dtype).itemsize
  sizes = dict(_sizes(table, policy, width))
  sizes |= {name: width * size for name, size in zeros.items()}
  shards = _plan(sizes, max_shard_bytes)
  tensors = _tensors(params, table, policy, zeros)
  weight_map = {}
  for number, names in enumerate(shards, start=1):
    file = 'model.safetensors'
    if len(shards) > 1:
      file = f'model-{number:05d}-of-{len(shards):05d}.safetensors'
    content = {name: next(tensors)[1] for name in names}
    hf_files.write(content, directory / file)
    weight_map |= dict.fromkeys(names, file)
  if len(shards) > 1:
    total = sum(sizes.values())
    index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
    path = directory / 'model.safetensors.index.json'
    path.write_text(json.dumps(index, indent=2) + '\n')


def _sizes(
    table: Mapping[str, Weight], policy: config_lib.Policy, width: int
) -> Iterator[tuple[str, int]]:
  """Their names and bytes, in the order of `_tensors`."""
  for ours, weight in table.items():
    names = hf_names.their_names(ours, policy)
    for name in names:
      yield name, width * math.prod(weight.shape) // len(names)


def _tensors(
    params: Params,
    table: Mapping[str, Weight],
    policy: config_lib.Policy,
    zeros: Mapping[str, int],
) -> Iterator[tuple[str, Any]]:
  for ours in table:
    weight = params[ours].astype(policy.param_dtype)
    yield from hf_names.split(ours, weight, policy)
  for name, size in zeros.items():
    yield name, np.zeros(size, jnp.dtype(policy.param_dtype))


def _plan(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
  """Names by file, in order, each file as full as the limit allows."""
  shards: list[list[str]] = []
  room = 0
  for name, size in sizes.items():
    if not shards or size > room:
      shards.append([])
      room = limit
    shards[-1].append(name)
    room -= size
  return shards
