"""Real policies: their sizes, and settings that fit the devices they are named for.

    one GPU of 80 GB     qwen2_5_1_5b_gpu1, qwen3_4b_gpu1        all weights
                         qwen2_5_7b_lora_gpu1                    adapters
                         qwen2_5_7b_qlora_gpu1                   ... over nf4
    eight such GPUs      qwen2_5_7b_gpu8                         all weights
    TPU slices           qwen2_5_7b (v5e, 16 chips), qwen2_5_7b_v6e_16,
                         qwen2_5_7b_v5p_16, qwen3_5_9b (v5e, 16 chips),
                         qwen3_30b_a3b (v5p, 16 chips),
                         qwen3_5_35b_a3b (v5p, 16),
                         gemma3_12b (v5e, 16), gemma3_27b (v5p, 16),
                         llama3_70b (v5p, 64), llama3_70b_v6e_256

The variants of GPUs are in every config file with real checkpoints, those of
slices in configs/webshop.py. What a run of one takes, and the room that is left:

    python -m tools.plan --config=configs/webshop.py:qwen3_4b_gpu1 --devices=1 \\
        --hbm_gb=75 --platform=gpu

jax takes 75 % of a GPU if it is not told otherwise; all of these are planned for
95 % of 80 GB: start them with XLA_PYTHON_CLIENT_MEM_FRACTION=0.95.
`python -m tools.compile_for_tpu --config=configs/webshop.py:NAME --topology=...`
compiles a variant's programs for its slice. Sizes are those of the published
config.json files; with policy.checkpoint set, the checkpoint's own are taken.
"""

from __future__ import annotations

import dataclasses

import ml_collections

# Of all Gemma 3 that read images: their text parts.
_GEMMA3 = dict(
    layer_kinds=('sliding',) * 5 + ('full',), window=1024, vocab_size=262_208,
    rope_theta=1e6, rope_local_theta=1e4, rope_type='linear', rope_factor=8.0,
    tie_embeddings=True, qk_norm=True, norm_plus_one=True, post_norms=True,
    activation='gelu_tanh',
)
MODELS = {
    'qwen2_5_1_5b': dict(
        num_layers=28, embed_dim=1536, num_heads=12, num_kv_heads=2, head_dim=128,
        mlp_dim=8960, vocab_size=151_936, rope_theta=1e6, tie_embeddings=True,
        qkv_bias=True,
    ),
    'qwen3_4b': dict(
        num_layers=36, embed_dim=2560, num_heads=32, num_kv_heads=8, head_dim=128,
        mlp_dim=9728, vocab_size=151_936, rope_theta=1e6, tie_embeddings=True,
        qk_norm=True,
    ),
    'qwen2_5_7b': dict(
        num_layers=28, embed_dim=3584, num_heads=28, num_kv_heads=4, head_dim=128,
        mlp_dim=18_944, vocab_size=152_064, rope_theta=1e6, tie_embeddings=False,
        qkv_bias=True,
    ),
    'qwen3_30b_a3b': dict(
        num_layers=48, embed_dim=2048, num_heads=32, num_kv_heads=4, head_dim=128,
        mlp_dim=6144, layer_kinds=('experts',), num_experts=128, experts_per_token=8,
        expert_dim=768, vocab_size=151_936, rope_theta=1e6, tie_embeddings=False,
        qk_norm=True,
    ),
    'qwen3_5_9b': dict(
        num_layers=32, embed_dim=4096, num_heads=16, num_kv_heads=4, head_dim=256,
        mlp_dim=12_288, layer_kinds=('delta', 'delta', 'delta', 'full'),
        delta_key_heads=16, delta_value_heads=32, delta_key_dim=128,
        delta_value_dim=128, vocab_size=248_320, rope_theta=1e7, rope_share=0.25,
        tie_embeddings=False, qk_norm=True, norm_plus_one=True, output_gate=True,
    ),
    'qwen3_5_35b_a3b': dict(
        num_layers=40, embed_dim=2048, num_heads=16, num_kv_heads=2, head_dim=256,
        layer_kinds=('delta_experts',) * 3 + ('experts',), num_experts=256,
        experts_per_token=8, expert_dim=512, shared_expert_dim=512,
        delta_key_heads=16, delta_value_heads=32, delta_key_dim=128,
        delta_value_dim=128, vocab_size=248_320, rope_theta=1e7, rope_share=0.25,
        tie_embeddings=False, qk_norm=True, norm_plus_one=True, output_gate=True,
    ),
    'gemma3_12b': dict(
        num_layers=48, embed_dim=3840, num_heads=16, num_kv_heads=8, head_dim=256,
        mlp_dim=15_360, attention_scale=256**-0.5, embed_scale=3840**0.5, **_GEMMA3,
    ),
    'gemma3_27b': dict(
        num_layers=62, embed_dim=5376, num_heads=32, num_kv_heads=16, head_dim=128,
        mlp_dim=21_504, attention_scale=168**-0.5, embed_scale=5376**0.5, **_GEMMA3,
    ),
    'llama3_70b': dict(
        num_layers=80, embed_dim=8192, num_heads=64, num_kv_heads=8, head_dim=128,
        mlp_dim=28_672, vocab_size=128_256, rope_theta=5e5, norm_eps=1e-5,
        tie_embeddings=False,
    ),
}  # fmt: skip
# What an update of the pretrained variants trains on, in rows of the longest chat.
_ROWS, _STEPS = 128, 200
_LENGTH = 8192


@dataclasses.dataclass(frozen=True)
class Variant:
  """Settings of one model on the devices of one name.

  Attributes:
    model: of MODELS.
    devices: how many.
    micro_rows: rows of 8192 tokens in a micro-batch, on all devices together.
    num_pages: KV pages of 64 tokens, on all shards of fsdp together.
    dispatch_rows: rows sampled by one program.
    topology: of a slice, as tools.compile_for_tpu takes it; empty: GPUs.
    tensor: shards of heads, MLP and vocabulary; the rest of the mesh is fsdp.
    expert: shards of the experts of a mixture.
    param_dtype: of the stored weights.
    lora_rank, quantize: of adapters, 0 and 'none' where all weights are trained.
    accumulates: an update is of 128 rows; else of one micro-batch, and there are
      as many more of them. Sums of gradients cost four bytes a weight.
    momentum_dtype: of the optimizer.
  """

  model: str
  devices: int
  micro_rows: int
  num_pages: int
  dispatch_rows: int
  topology: str = ''
  tensor: int = 1
  expert: int = 1
  param_dtype: str = 'float32'
  lora_rank: int = 0
  quantize: str = 'none'
  accumulates: bool = True
  momentum_dtype: str = 'float32'


GPUS = {
    'qwen2_5_1_5b_gpu1': Variant('qwen2_5_1_5b', 1, 2, 12_288, 32),
    'qwen3_4b_gpu1': Variant(
        'qwen3_4b', 1, 3, 4096, 32, accumulates=False, momentum_dtype='bfloat16'
    ),
    'qwen2_5_7b_lora_gpu1': Variant(
        'qwen2_5_7b', 1, 2, 8192, 32, param_dtype='bfloat16', lora_rank=16
    ),
    'qwen2_5_7b_qlora_gpu1': Variant(
        'qwen2_5_7b', 1, 2, 8192, 32, param_dtype='bfloat16', lora_rank=16,
        quantize='nf4',
    ),
    'qwen2_5_7b_gpu8': Variant('qwen2_5_7b', 8, 8, 65_536, 128),
}
# Plain names stand for the smallest slice that fits.
SLICES = {
    'qwen2_5_7b': Variant('qwen2_5_7b', 16, 4, 8192, 16, 'v5e:4x4', 4),
    'qwen2_5_7b_v6e_16': Variant('qwen2_5_7b', 16, 4, 32_768, 32, 'v6e:4x4', 4),
    'qwen2_5_7b_v5p_16': Variant('qwen2_5_7b', 16, 16, 65_536, 64, 'v5p:2x2x4', 4),
    'qwen3_30b_a3b': Variant(
        'qwen3_30b_a3b', 16, 16, 32_768, 32, 'v5p:2x2x4', expert=4
    ),
    'qwen3_5_9b': Variant(
        'qwen3_5_9b', 16, 4, 8192, 16, 'v5e:4x4', 4, accumulates=False,
        momentum_dtype='bfloat16',
    ),
    'qwen3_5_35b_a3b': Variant(
        'qwen3_5_35b_a3b', 16, 16, 8192, 32, 'v5p:2x2x4', expert=4
    ),
    'gemma3_12b': Variant(
        'gemma3_12b', 16, 4, 2048, 16, 'v5e:4x4', 4, accumulates=False,
        momentum_dtype='bfloat16',
    ),
    'gemma3_27b': Variant('gemma3_27b', 16, 16, 16_384, 32, 'v5p:2x2x4', 4),
    'llama3_70b': Variant('llama3_70b', 64, 16, 32_768, 32, 'v5p:4x4x4', 8),
    'llama3_70b_v6e_256': Variant('llama3_70b', 256, 32, 32_768, 32, 'v6e:16x16', 8),
}
DEVICES = {name: variant.devices for name, variant in {**SLICES, **GPUS}.items()}


def apply(config: ml_collections.ConfigDict, name: str) -> None:
  """Sets a variant's policy, mesh, pages and batches; after `base.make_pretrained`."""
  chosen = {**GPUS, **SLICES}[name]
  config.policy.update(
      MODELS[chosen.model], param_dtype=chosen.param_dtype,
      lora_rank=chosen.lora_rank, quantize=chosen.quantize,
  )
  config.mesh.update(tensor=chosen.tensor, expert=chosen.expert)
  config.sampler.update(num_pages=chosen.num_pages, dispatch_rows=chosen.dispatch_rows)
  for training in (config.distill, config.dpo, config.warm_start):
    training.momentum_dtype = chosen.momentum_dtype
  _set_batches(config, chosen)


def _set_batches(config: ml_collections.ConfigDict, chosen: Variant) -> None:
  shards = chosen.devices // chosen.tensor
  shorter = min(1.0, _LENGTH / config.distill.row_length)
  micro = shards * max(1, int(shorter * chosen.micro_rows / shards))
  if chosen.accumulates:
    config.distill.update(batch_rows=_ROWS, grad_accumulation=_ROWS // micro)
    config.warm_start.update(batch_rows=_ROWS, grad_accumulation=_ROWS // micro)
  else:
    steps = -(-_ROWS * _STEPS // micro)
    config.distill.update(
        batch_rows=micro, grad_accumulation=1, steps=steps, checkpoint_every=steps // 4
    )
    config.warm_start.update(batch_rows=micro, grad_accumulation=1)
  # Every episode in a row of its own, at most.
  grpo = config.grpo
  minibatch = grpo.tasks_per_step * grpo.group_size // grpo.minibatches
  grpo.grad_accumulation = max(1, minibatch // micro)


# Where `make model` puts SmolLM2-135M-Instruct.
SMOLLM2 = 'models/smollm2'


def smollm2(config: ml_collections.ConfigDict, length: int) -> None:
  """SmolLM2-135M-Instruct, taught first, on two CPU cores; a new config's settings.

  Chats of `length` tokens at most. An update is of some 10,000 tokens: 45 s at 228
  tokens a second, which is what two cores with AVX512_BF16 do.
  """
  rows = 10_240 // length
  config.arms = ('base', 'rft', 'leafe_reh', 'leafe', 'grpo')
  config.policy.update(
      checkpoint=SMOLLM2, max_length=length, dtype='bfloat16', scan_layers=True,
      remat='dots',
  )
  config.sampler.update(
      page_size=32, num_pages=3072, max_rows=16, dispatch_rows=16,
      prefill_buckets=(64, 128, 256, 512), length_buckets=(0, 512, 1024, length),
      decode_chunk=16,
  )
  batches = dict(batch_rows=rows, grad_accumulation=rows, row_length=length)
  config.warm_start.update(
      batches, steps=56, learning_rate=1e-4, warmup_fraction=0.1, checkpoint_every=14
  )
  # What the base says is to be readable; how far it is right is the script's to say.
  config.gate.update(num_tasks=12, min_parsed=0.9, min_diagnosis=0.0, min_follow=0.0)
  config.explore.update(max_response_tokens=48, max_reflection_tokens=96, wave_tasks=8)
  config.distill.update(batches, steps=6, learning_rate=2e-5, checkpoint_every=3)
  config.grpo.update(
      tasks_per_step=4, group_size=8, minibatches=1, learning_rate=5e-6,
      match_explore=True, grad_accumulation=16, checkpoint_every=1,
  )
  config.evaluate.update(num_tasks=16, num_samples=8, wave_tasks=16)


def smollm2_debug(config: ml_collections.ConfigDict) -> None:
  """Teaching, GRPO and evaluation at toy size, in chats of three turns.

  So little teaching brings no success, without which nothing can be distilled:
  arms that explore need the whole of it.
  """
  length = 1024
  config.arms = ('base', 'grpo')
  config.env.horizon = 3
  config.policy.max_length = length
  config.sampler.update(
      num_pages=512, max_rows=8, dispatch_rows=8, prefill_buckets=(256,),
      length_buckets=(length,),
  )
  batches = dict(batch_rows=1, grad_accumulation=1, row_length=length, steps=2)
  config.warm_start.update(batches, num_demonstrations=8, checkpoint_every=2)
  config.gate.update(num_tasks=2, min_parsed=0.0)
  config.explore.update(
      num_tasks=2, wave_tasks=2, attempts=3, reflect_every=2, max_response_tokens=24,
      max_reflection_tokens=48,
  )
  config.distill.update(batches, checkpoint_every=2)
  config.grpo.update(
      steps=1, tasks_per_step=1, group_size=2, match_explore=False, grad_accumulation=1
  )
  config.evaluate.update(num_tasks=2, num_samples=2, wave_tasks=2, bootstrap=100)
