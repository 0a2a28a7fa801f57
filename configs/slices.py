"""Real policies on TPU slices: their sizes, and settings that fit.

`python -m tools.compile_for_tpu --config=configs/webshop.py:NAME_SLICE
--topology=...` compiles a variant's programs for its slice; BUILD_NOTES.md has
the tables. Sizes are those of the published config.json files; with
policy.checkpoint set, the checkpoint's own are taken.
"""

from __future__ import annotations

import dataclasses

import ml_collections

MODELS = {
    'qwen2_5_7b': dict(
        num_layers=28, embed_dim=3584, num_heads=28, num_kv_heads=4, head_dim=128,
        mlp_dim=18_944, vocab_size=152_064, rope_theta=1e6, tie_embeddings=False,
        qkv_bias=True,
    ),
    'llama3_70b': dict(
        num_layers=80, embed_dim=8192, num_heads=64, num_kv_heads=8, head_dim=128,
        mlp_dim=28_672, vocab_size=128_256, rope_theta=5e5, norm_eps=1e-5,
        tie_embeddings=False,
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Slice:
  """Settings of one model on one slice.

  Attributes:
    model: of MODELS.
    topology: as tools.compile_for_tpu takes it.
    tensor: shards of heads, MLP and vocabulary; the rest of the mesh is fsdp.
    grad_accumulation: micro-batches of an update of 128 rows.
    num_pages: KV pages of 64 tokens, on all shards of the rows together.
    dispatch_rows: rows sampled by one program.
    param_dtype: of the stored weights and of the optimizer's moments.
  """

  model: str
  topology: str
  tensor: int
  grad_accumulation: int
  num_pages: int
  dispatch_rows: int
  param_dtype: str = 'float32'


# Plain names stand for the smallest slice that fits.
SLICES = {
    'qwen2_5_7b': Slice('qwen2_5_7b', 'v5e:4x4', 4, 32, 8192, 16),
    'qwen2_5_7b_v6e_16': Slice('qwen2_5_7b', 'v6e:4x4', 4, 32, 32_768, 32),
    'qwen2_5_7b_v5p_16': Slice('qwen2_5_7b', 'v5p:2x2x4', 4, 8, 65_536, 64),
    'llama3_70b': Slice('llama3_70b', 'v5p:4x4x4', 8, 8, 32_768, 32),
    'llama3_70b_v6e_256': Slice('llama3_70b', 'v6e:16x16', 8, 4, 32_768, 32),
}


def apply(config: ml_collections.ConfigDict, name: str) -> None:
  """Sets the policy, mesh, sampler and batches of a slice."""
  chosen = SLICES[name]
  config.policy.update(MODELS[chosen.model])
  config.policy.update(
      max_length=8192, dtype='bfloat16', param_dtype=chosen.param_dtype,
      scan_layers=True, remat='full',
  )
  config.mesh.tensor = chosen.tensor
  config.sampler.update(
      page_size=64, num_pages=chosen.num_pages, max_rows=128,
      dispatch_rows=chosen.dispatch_rows, prefill_buckets=(256, 1024),
      length_buckets=(2048, 4096, 8192),
  )
  config.distill.update(
      batch_rows=128, row_length=8192, grad_accumulation=chosen.grad_accumulation
  )
