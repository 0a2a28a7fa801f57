"""A random chat model as people bring it: a Hugging Face directory."""

from __future__ import annotations

import pathlib

import jax.numpy as jnp
import numpy as np

from leafe_jax.config import Policy
from leafe_jax.policy import hf_export, huggingface, weights
from tests.text.chat_tokenizers import FAMILIES

POLICY = Policy(
    num_layers=2, embed_dim=32, num_heads=2, num_kv_heads=1, head_dim=16, mlp_dim=64,
)


# A million weights, as a newcomer may have lying about.
MILLION = Policy(
    num_layers=4, embed_dim=128, num_heads=4, num_kv_heads=2, head_dim=32, mlp_dim=512,
)


def write(
    directory: pathlib.Path, family: str = 'qwen2.5', terse: float = 1.0,
    policy: Policy = POLICY, **fields,
) -> pathlib.Path:
  """Weights, tokenizer and template of one family.

  Args:
    directory: to write.
    family: of `FAMILIES`.
    terse: how much longer than others the embedding of the token is that ends a
      turn: from about 5 on, most responses come to an end.
    policy: its sizes.
    **fields: go to config.json.
  """
  tokenizer = FAMILIES[family].tokenizer()
  source = directory.with_name(f'{directory.name}_tokenizer')
  tokenizer.save_pretrained(source)
  rng = np.random.default_rng(0)
  params = {
      name: jnp.asarray(0.3 * rng.standard_normal(weight.shape) + (weight.std is None))
      for name, weight in weights.weight_table(policy, len(tokenizer)).items()
  }
  end = tokenizer.eos_token_id
  params['embed_vd'] = params['embed_vd'].at[end].multiply(terse)
  named = {
      'bos_token_id': tokenizer.bos_token_id, 'eos_token_id': tokenizer.eos_token_id,
      'max_position_embeddings': 4096,
  }
  shape = huggingface.Shape(policy, len(tokenizer))
  hf_export.write(directory, params, shape, source, {**named, **fields})
  return directory
