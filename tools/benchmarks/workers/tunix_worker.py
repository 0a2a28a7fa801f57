"""google-tunix's sampler behind `protocol`.

Prompts are padded to a multiple of 128 and the cache is as long as that plus
the response: a sampler of its own for each length, which is the best it can do.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import pathlib

import jax.numpy as jnp
import protocol
from tunix.generate import sampler as sampler_lib
from tunix.models.qwen2 import model as qwen2_model
from tunix.models.qwen2 import params as qwen2_params
from tunix.models.qwen3 import model as qwen3_model
from tunix.models.qwen3 import params as qwen3_params

_MODELS = {
    'qwen2': (qwen2_model, qwen2_params),
    'qwen3': (qwen3_model, qwen3_params),
}
_STEP = 128


class _Ids:
  """A tokenizer whose texts are lists of ids."""

  def encode(self, ids):
    return list(ids)

  def decode(self, ids):
    return ''

  def bos_id(self):
    return 0  # false: none is put in front

  def eos_id(self):
    return -1

  def pad_id(self):
    return 0


def make(directory: str) -> protocol.Generate:
  fields = json.loads((pathlib.Path(directory) / 'config.json').read_text())
  model_lib, params_lib = _MODELS[fields['model_type']]
  dtype = jnp.dtype(fields['dtype'])
  config = model_lib.ModelConfig(
      num_layers=fields['num_hidden_layers'],
      vocab_size=fields['vocab_size'],
      embed_dim=fields['hidden_size'],
      hidden_dim=fields['intermediate_size'],
      num_heads=fields['num_attention_heads'],
      head_dim=fields['head_dim'],
      num_kv_heads=fields['num_key_value_heads'],
      rope_theta=fields['rope_theta'],
      norm_eps=fields['rms_norm_eps'],
      use_tied_embedding=fields['tie_word_embeddings'],
      dtype=dtype,
      param_dtype=dtype,
  )
  model = params_lib.create_model_from_safe_tensors(directory, config, dtype=dtype)

  @functools.cache
  def sampler_of(cache_size: int):
    cache = sampler_lib.CacheConfig(
        cache_size, config.num_layers, config.num_kv_heads, config.head_dim
    )
    return sampler_lib.Sampler(model, _Ids(), cache)

  def generate(prompts, new_tokens):
    longest = max(map(len, prompts))
    padded = longest if longest <= 64 else -(-longest // _STEP) * _STEP
    output = sampler_of(padded + new_tokens)(
        prompts,
        max_generation_steps=new_tokens,
        max_prompt_length=padded,
        eos_tokens=[-1],
        temperature=1.0,
        top_p=1.0,
        return_logprobs=True,
    )
    return [[int(token) for token in row] for row in output.tokens]

  return generate


def about() -> dict:
  names = ('google-tunix', 'jax', 'flax')
  return {name: importlib.metadata.version(name) for name in names}


if __name__ == '__main__':
  protocol.serve(make, about)
