"""How close the sampler comes to what the machine can do."""

from __future__ import annotations

import math

import jax.numpy as jnp

from leafe_jax import config as config_lib
from leafe_jax.policy import weights
from tools.benchmarks import machine
from tools.benchmarks.ours import Ours
from tools.benchmarks.presets import Preset
from tools.benchmarks.workloads import conversation

_PROMPT = 64
_FEW, _MANY = 8, 64  # responses that fill their decode buckets


def num_params(preset: Preset) -> int:
  """All weights, the embedding table counted once."""
  table = weights.weight_table(preset.policy, preset.vocab_size)
  return sum(math.prod(weight.shape) for weight in table.values())


def num_multiplied(preset: Preset) -> int:
  """Weights that every token is multiplied with.

  All but the embedding table, which is looked up; as the output projection it
  counts, tied or not.
  """
  looked_up = 0 if preset.policy.tie_embeddings else _table_size(preset)
  return num_params(preset) - looked_up


def _table_size(preset: Preset) -> int:
  return preset.vocab_size * preset.policy.embed_dim


def kv_bytes(policy: config_lib.Policy) -> int:
  """Bytes of one token's keys and values."""
  width = 2 * policy.num_layers * policy.num_kv_heads * policy.head_dim
  return width * jnp.dtype(policy.dtype).itemsize


def attention_flops(policy: config_lib.Policy, seen: float) -> float:
  """Of one query token that sees `seen` places, all layers."""
  return 4.0 * policy.num_layers * policy.num_heads * policy.head_dim * seen


def prefill_flops(preset: Preset, length: int) -> float:
  """What reading a prompt needs.

  The logits, and of the last layer all but keys and values, are needed at the
  last place alone.
  """
  policy = preset.policy
  heads = 2 * policy.num_heads * policy.head_dim  # queries and output
  once = policy.embed_dim * (heads + 3 * policy.mlp_dim)
  body = num_multiplied(preset) - _table_size(preset) - once
  attention = attention_flops(policy, length / 2) * (1 - 1 / policy.num_layers)
  return length * (2 * body + attention) + 2 * (once + _table_size(preset))


def decode_bounds(
    preset: Preset, ours: Ours, rows: int, clock: str, repeats: int
) -> dict[str, float]:
  """Shares of the bounds in decode and prefill at one batch size.

  A step's time is the difference of two runs that differ in the length of the
  response alone; the rest of the shorter run is prefill.
  """
  policy = preset.policy
  pair = [
      conversation(rows, 1, _PROMPT, tokens, preset.vocab_size)
      for tokens in (_FEW, _MANY)
  ]
  runs = [(ours.runner(workload, True), workload) for workload in pair]
  # The first runs compile; then interleaved.
  times = [
      [getattr(run(workload), clock) for run, workload in runs]
      for _ in range(repeats + 1)
  ][1:]
  short, long = (min(column) for column in zip(*times))
  step = (long - short) / (_MANY - _FEW)
  prefill = short - (_FEW - 1) * step
  weights = num_multiplied(preset)
  seen = _PROMPT + (_FEW + _MANY) / 2
  item = jnp.dtype(policy.dtype).itemsize
  moved = weights * item + rows * seen * kv_bytes(policy)
  flops = rows * (2 * weights + attention_flops(policy, seen))
  bandwidth = machine.read_bandwidth(weights * item, policy.dtype, clock)
  peak = machine.matmul_peak(policy.dtype, clock)
  read = rows * prefill_flops(preset, _PROMPT)
  return {
      'rows': rows,
      'step_ms': 1e3 * step,
      'prefill_ms': 1e3 * prefill,
      'bandwidth_GB_s': bandwidth / 1e9,
      'matmul_peak_GFLOP_s': peak / 1e9,
      'decode_share_of_bandwidth': moved / step / bandwidth,
      'decode_share_of_matmul_peak': flops / step / peak,
      'prefill_share_of_matmul_peak': read / prefill / peak,
  }
