"""The shapes that benchmarks run: small ones for CPUs, real ones for devices."""

from __future__ import annotations

import dataclasses

from leafe_jax import config as config_lib


@dataclasses.dataclass(frozen=True)
class Preset:
  """A policy to measure.

  Attributes:
    policy: sizes; `max_length` holds every workload.
    vocab_size: rows of the embedding table.
    row_length: tokens of a packed training row.
    batch_rows: training rows per update.
  """

  policy: config_lib.Policy
  vocab_size: int
  row_length: int
  batch_rows: int

  def typed(self, dtype: str) -> Preset:
    """With weights and products of a type; empty: as it is."""
    if not dtype:
      return self
    policy = dataclasses.replace(self.policy, dtype=dtype, param_dtype=dtype)
    return dataclasses.replace(self, policy=policy)


_SMALL = config_lib.Policy(qk_norm=True, max_length=1280, norm_eps=1e-6)
_LLAMA = config_lib.Policy(max_length=3072, rope_theta=100_000.0)
_LARGE = config_lib.Policy(
    qkv_bias=True,
    max_length=1280,
    rope_theta=1_000_000.0,
    dtype='bfloat16',
    param_dtype='bfloat16',
)


def _sized(
    base: config_lib.Policy,
    layers: int,
    width: int,
    heads: tuple[int, int, int],
    mlp: int,
) -> config_lib.Policy:
  """Sizes; heads are (query heads, KV heads, head_dim)."""
  return dataclasses.replace(
      base,
      num_layers=layers,
      embed_dim=width,
      num_heads=heads[0],
      num_kv_heads=heads[1],
      head_dim=heads[2],
      mlp_dim=mlp,
  )


# Three layers in four remember in matrices of 32 by 32 (Qwen3.5).
_RECURRENT = dataclasses.replace(
    _SMALL, layer_kinds=('delta', 'delta', 'delta', 'full'), norm_plus_one=True,
    output_gate=True, rope_share=0.25, delta_key_heads=4, delta_value_heads=8,
    delta_key_dim=32, delta_value_dim=32,
)

# Qwen3 shapes of 0.04, 3.7 and 15 million weights; SmolLM2-135M; Qwen2.5 at 0.5B
# and 7B; a Qwen3.5 shape of 15 million.
PRESETS = {
    'micro': Preset(_sized(_SMALL, 2, 32, (2, 1, 16), 48), 64, 64, 2),
    '4m': Preset(_sized(_SMALL, 4, 256, (4, 2, 64), 768), 2048, 512, 4),
    '15m': Preset(_sized(_SMALL, 8, 384, (6, 2, 64), 1152), 4096, 512, 2),
    'recurrent': Preset(
        _sized(_RECURRENT, 8, 384, (6, 2, 64), 1152), 4096, 512, 2
    ),
    'smollm2': Preset(
        _sized(_LLAMA, 30, 576, (9, 3, 64), 1536), 49_152, 1024, 2
    ),
    '0.5b': Preset(_sized(_LARGE, 24, 896, (14, 2, 64), 4864), 151_936, 2048, 8),
    '7b': Preset(
        dataclasses.replace(
            _sized(_LARGE, 28, 3584, (28, 4, 128), 18_944), tie_embeddings=False
        ),
        152_064,
        2048,
        8,
    ),
}
