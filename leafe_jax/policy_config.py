"""Options of the policy: its shape, its layers, how it is computed and kept."""

from __future__ import annotations

import dataclasses
from typing import Any

from leafe_jax.options import option


@dataclasses.dataclass(frozen=True)
class Policy:
  checkpoint: str = option('', 'directory of a Hugging Face checkpoint; empty: train from scratch')
  prompts: str = option('', 'TOML file of what is said to a checkpoint, see configs/prompts; empty: the default')
  history_turns: int = option(0, "earlier turns in a checkpoint's prompts, which then begin anew at every turn (2: verl-agent); 0: all, in a transcript that only grows", at_least=0)
  template: dict[str, Any] = option({}, "variables of the checkpoint's chat template, such as enable_thinking")
  num_layers: int = option(3, 'decoder layers', at_least=1)
  embed_dim: int = option(64, 'width of the residual stream', at_least=1)
  num_heads: int = option(2, 'query heads', at_least=1)
  num_kv_heads: int = option(2, 'key and value heads (divides num_heads)', at_least=1)
  head_dim: int = option(32, 'size of a head', at_least=2)
  mlp_dim: int = option(192, 'hidden width of the SwiGLU block', at_least=1)
  vocab_size: int = option(0, "rows of the embedding table; 0: the tokenizer's", at_least=0)
  layer_kinds: tuple[str, ...] = option((), 'kinds of the layers, a pattern that repeats: full, sliding, no_rope (see policy.kinds); empty: full')
  window: int = option(0, 'places that a token sees in sliding layers, its own included', at_least=0)
  activation: str = option('silu', 'of the gate in the MLP (gelu_tanh: Gemma)', ('silu', 'gelu_tanh'))
  rope_theta: float = option(10_000.0, 'base of the rotary embedding', above=0)
  rope_local_theta: float = option(0.0, 'base in sliding layers, not scaled (Gemma 3); 0: as in the others', at_least=0)
  rope_type: str = option('default', 'scaling of its frequencies (llama3: Llama 3.1 and 3.2; yarn: arXiv 2309.00071)', ('default', 'linear', 'llama3', 'yarn'))
  rope_factor: float = option(8.0, 'by how much low frequencies are slowed; linear: all', at_least=1)
  rope_low_freq_factor: float = option(1.0, 'llama3: slowed in full below this many turns in rope_original_length', above=0)
  rope_high_freq_factor: float = option(4.0, 'llama3: left alone above this many turns', above=0)
  rope_beta_slow: float = option(1.0, 'yarn: slowed in full below this many turns in rope_original_length', above=0)
  rope_beta_fast: float = option(32.0, 'yarn: left alone above this many turns', above=0)
  rope_truncate: bool = option(True, 'yarn: the two bounds are rounded to whole frequencies')
  rope_attention_factor: float = option(0.0, 'yarn: factor of rotated queries and keys; 0: 0.1 ln(rope_factor) + 1', at_least=0)
  rope_original_length: int = option(8192, 'llama3, yarn: context before scaling, in tokens', at_least=1)
  norm_eps: float = option(1e-6, 'epsilon of RMSNorm', above=0)
  tie_embeddings: bool = option(True, 'output projection = embedding table')
  qkv_bias: bool = option(False, 'biases on q, k, v (Qwen2)')
  qk_norm: bool = option(False, 'RMSNorm on q and k heads (Qwen3)')
  norm_plus_one: bool = option(False, 'norms multiply with 1 + weight (Gemma)')
  post_norms: bool = option(False, 'norms after attention and MLP too, before they join the residual stream (Gemma)')
  embed_scale: float = option(1.0, 'factor of embeddings (Gemma, Granite)', above=0)
  residual_scale: float = option(1.0, 'factor of what joins the residual stream (Granite)', above=0)
  attention_scale: float = option(0.0, 'factor of the scores; 0: 1 / sqrt(head_dim)', at_least=0)
  logits_divisor: float = option(1.0, 'logits are divided by it (Granite)', above=0)
  max_length: int = option(320, 'longest transcript in tokens', at_least=2)
  dtype: str = option('float32', 'compute type', ('float32', 'bfloat16'))
  param_dtype: str = option('float32', 'type of the stored weights', ('float32', 'bfloat16'))
  scan_layers: bool = option(False, 'lax.scan over layers: compiles deep models fast')
  attention: str = option('auto', 'attention of training: cuDNN on GPUs and Pallas splash attention on TPUs, or XLA', ('auto', 'xla', 'cudnn', 'splash'))
  remat: str = option('none', 'what the backward pass recomputes: nothing, whole layers, or all but the products with weights', ('none', 'full', 'dots'))
  logit_chunk: int = option(512, 'tokens per row whose logits are in memory at a time in training; 0: all', at_least=0)
  lora_rank: int = option(0, 'rank of the adapters that are trained over a frozen base; 0: all weights are trained', at_least=0)
  lora_alpha: float = option(16.0, 'adapters count alpha / rank times', above=0)
  lora_targets: tuple[str, ...] = option(('q', 'k', 'v', 'o', 'gate', 'up', 'down'), 'matrices of each layer that get adapters')
  lora_rate_scale: float = option(10.0, 'learning rate of adapters, in those of training all weights', above=0)
  quantize: str = option('none', 'how the frozen matrices are kept under adapters (needs qwix)', ('none', 'int8', 'nf4'))
