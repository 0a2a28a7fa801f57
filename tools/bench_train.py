"""Measures supervised fine-tuning on packed rows: tokens a second and MFU.

    python -m tools.bench_train --preset=15m --cores=1 --clock=cpu \
        --json=tools/baselines/train_cpu.json

The real update (`learner.update`) with AdamW on batches from the real packer.
A token costs 6 N + 12 L H h T FLOPs: N are the weights that it is multiplied
with (all but an untied embedding table, which is looked up), L layers, H query
heads of size h, rows of T tokens. By this convention attention over the whole
row counts, of which a causal one needs half. MFU is that over the peak: on CPU
of a large product measured beside every update, elsewhere of the data sheet.

    python -m tools.bench_train --preset=smollm2 --against=torch \\
        --torch_python=.venv/bin/python

measures it in float32 and in bfloat16 beside transformers on torch, in float32, in
bfloat16 and under autocast, one after the other on the same cores. A ratio is
theirs / ours, above 1 where ours is faster; "best" is between the fastest of each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import pathlib
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from leafe_jax import command_line
from leafe_jax import config as config_lib
from leafe_jax.experience import examples as examples_lib
from leafe_jax.experience import pipeline
from leafe_jax.learner import losses, optimizers
from leafe_jax.learner import update as update_lib
from leafe_jax.policy import hf_export, model, runtime, sharding
from leafe_jax.policy.huggingface import Shape
from tools.benchmarks import bounds, figures, machine
from tools.benchmarks.presets import PRESETS, Preset

_TYPES = ('float32', 'bfloat16')
_WORKER = pathlib.Path(__file__).parent / 'benchmarks/workers/torch_training_worker.py'


def define_flags() -> None:
  """Defines the flags; by the program alone, as tools share their names."""
  flags.DEFINE_enum('preset', '15m', list(PRESETS), 'Shape of the policy.')
  flags.DEFINE_integer(
      'rows', 0, 'Rows per update; 0: as the preset says.', lower_bound=0
  )
  flags.DEFINE_integer(
      'row_length', 0, 'Tokens per row; 0: as the preset says.', lower_bound=0
  )
  flags.DEFINE_integer(
      'repeats', 5, 'Timed updates, after one to compile.', lower_bound=1
  )
  flags.DEFINE_enum(
      'dtype', '', ['', 'float32', 'bfloat16'], "Type of products; empty: the preset's."
  )
  flags.DEFINE_boolean('scan_layers', False, 'Scan over layers.')
  flags.DEFINE_enum('remat', 'none', ['none', 'full', 'dots'], 'What to recompute.')
  flags.DEFINE_enum('against', '', ['', 'torch'], 'Rival; empty: none.')
  flags.DEFINE_string('torch_python', '', 'Interpreter with torch, transformers.')
  command_line.define_numbers('cores', [], 'Cores to stay on, numbers; none: all.')
  flags.DEFINE_enum('clock', 'wall', ['wall', 'cpu'], 'What counts.')
  command_line.define_path('json', '', 'File that takes the result.')
  command_line.define_path('baseline', '', 'File to compare with.')


def flops_per_token(preset: Preset, row_length: int) -> float:
  """6 N + 12 L H h T, see above."""
  attention = bounds.attention_flops(preset.policy, row_length)
  return 6 * bounds.num_multiplied(preset) + 3 * attention


def packed_batches(rows: int, length: int, vocab_size: int, count: int) -> list[Any]:
  """Batches of episodes a sixteenth to half a row long, packed."""
  rng = np.random.default_rng(0)
  sizes = rng.integers(max(2, length // 16), length // 2 + 1, 256)
  found = [
      examples_lib.make(
          [(rng.integers(4, vocab_size, size).tolist(), 1.0)], examples_lib.REHEARSAL
      )
      for size in sizes
  ]
  packing = pipeline.Packing(rows, length, bins=32, prefetch=1)
  with contextlib.closing(pipeline.batches([found], packing, seed=0)) as stream:
    return [next(stream) for _ in range(count)]


def measure(preset: Preset, rows: int, length: int) -> dict[str, Any]:
  """Seconds of every update, and what they mean."""
  values = flags.FLAGS
  mesh = sharding.make_mesh(config_lib.Mesh())
  key = jax.random.key(0)
  params = model.init_params(preset.policy, preset.vocab_size, key, mesh)
  optimizer = optimizers.from_config(config_lib.Training())
  state = update_lib.init_state(params, optimizer, mesh)
  update = update_lib.make_update(
      preset.policy, optimizer, losses.weighted_nll, mesh, forward=model.token_scores
  )
  batches = packed_batches(rows, length, preset.vocab_size, values.repeats + 1)
  state, _ = jax.block_until_ready(update(state, batches[0]))
  seconds, peaks = [], []
  for batch in batches[1:]:
    peaks.append(_peak(preset.policy.dtype))
    spent, (state, metrics) = machine.timed(functools.partial(update, state, batch))
    seconds.append(getattr(spent, values.clock))
  if not np.isfinite(float(metrics['loss'])):
    raise FloatingPointError('the loss is not finite')
  filled = float(np.mean([(batch['segment_ids'] > 0).mean() for batch in batches]))
  return _figures(preset, rows, length, seconds, max(peaks), filled)


def _peak(dtype: str) -> float:
  kind = jax.devices()[0].device_kind
  sheet = machine.sheet_peak(kind)
  if jax.default_backend() != 'cpu' and sheet is not None:
    return sheet * jax.device_count()
  return machine.matmul_peak(dtype, flags.FLAGS.clock, repeats=3)


def _figures(
    preset: Preset,
    rows: int,
    length: int,
    seconds: Sequence[float],
    peak: float,
    filled: float,
) -> dict[str, Any]:
  per_token = flops_per_token(preset, length)
  rates = [rows * length / spent for spent in seconds]
  return {
      'rows': rows,
      'row_length': length,
      'filled': filled,
      'weights': bounds.num_params(preset),
      'flops_per_token': per_token,
      'peak_GFLOP_s': peak / 1e9,
      'seconds': list(seconds),
      'tokens_per_second': figures.spread(rates),
      'ratios': {
          'MFU': figures.spread([rate * per_token / peak for rate in rates]),
          'MFU without padding': figures.spread(
              [rate * filled * per_token / peak for rate in rates]
          ),
      },
  }


def compare(preset: Preset, rows: int, length: int) -> dict[str, Any]:
  """Both types of ours and all of torch's, and the ratios of their medians."""
  ours = {
      dtype: measure(_typed(preset, dtype), rows, length) for dtype in _TYPES
  }
  theirs = torch_seconds(preset, rows, length)
  rates = {
      **{f'ours {name}': found['tokens_per_second'] for name, found in ours.items()},
      **{
          f'torch {name}': figures.spread([rows * length / s for s in seconds])
          for name, seconds in theirs.items()
      },
  }
  for name, rate in rates.items():
    print(f'  {name:<18}{rate["median"]:9,.0f} tokens/s'
          f' [{rate["min"]:,.0f}, {rate["max"]:,.0f}]')  # fmt: skip
  best = {
      who: max(rate['median'] for name, rate in rates.items() if name.startswith(who))
      for who in ('ours', 'torch')
  }
  plain = [rates[f'{who} float32']['median'] for who in ('ours', 'torch')]
  return {
      'rates': rates,
      'ratios': {
          'training, best vs torch': figures.spread([best['ours'] / best['torch']]),
          'training, float32 vs torch': figures.spread([plain[0] / plain[1]]),
      },
  }


def _typed(preset: Preset, dtype: str) -> Preset:
  """Products of a type over weights in float32."""
  policy = dataclasses.replace(preset.policy, dtype=dtype)
  return dataclasses.replace(preset, policy=policy)


def torch_seconds(preset: Preset, rows: int, length: int) -> dict[str, list[float]]:
  """Seconds of torch's updates by type. UsageError where it cannot run."""
  values = flags.FLAGS
  if not values.torch_python:
    raise command_line.UsageError('--against=torch needs --torch_python=ITS_PYTHON')
  mesh = sharding.make_mesh(config_lib.Mesh())
  params = model.init_params(preset.policy, preset.vocab_size, jax.random.key(0), mesh)
  shape = Shape(preset.policy, preset.vocab_size)
  with tempfile.TemporaryDirectory() as place:
    checkpoint = pathlib.Path(place) / 'policy'
    fields = {'max_position_embeddings': preset.policy.max_length}
    hf_export.write(checkpoint, params, shape, fields=fields)
    del params
    sizes = map(str, (rows, length, values.repeats))
    command = [values.torch_python, str(_WORKER), str(checkpoint), *sizes]
    return _run_worker(command)


def _run_worker(command: Sequence[str]) -> dict[str, list[float]]:
  done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
  if done.returncode:
    raise command_line.UsageError(
        f'{command[0]} cannot train with torch; what it wrote stands above'
    )
  return json.loads(done.stdout)['seconds']


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments {list(argv[1:])}')
  values = flags.FLAGS
  machine.pin([int(core) for core in values.cores])
  runtime.keep_freed_memory()
  preset = PRESETS[values.preset]
  policy = dataclasses.replace(
      preset.policy,
      scan_layers=values.scan_layers,
      remat=values.remat,
      dtype=values.dtype or preset.policy.dtype,
  )
  preset = dataclasses.replace(preset, policy=policy)
  rows = values.rows or preset.batch_rows
  length = values.row_length or preset.row_length
  result: dict[str, Any] = {
      'machine': machine.description(),
      'clock': values.clock,
      'command': figures.command('bench_train'),
  }
  if values.against:
    print(f'{values.preset}, {rows} rows of {length}, wall time')
    result |= compare(preset, rows, length)
    _conclude(result)
    return
  result |= measure(preset, rows, length)
  rate = result['tokens_per_second']
  print(f'{values.preset}, {rows} rows of {length}, {values.clock} time')
  print(
      f'  {rate["median"]:,.0f} tokens/s [{rate["min"]:,.0f}, {rate["max"]:,.0f}],'
      f' peak {result["peak_GFLOP_s"]:,.1f} GFLOP/s, {result["filled"]:.3f} filled'
  )
  _conclude(result)


def _conclude(result: dict[str, Any]) -> None:
  """Prints the ratios and saves."""
  values = flags.FLAGS
  baseline = figures.load(values.baseline, values.preset) if values.baseline else None
  print('\n'.join(figures.ratio_lines(result, baseline)))
  if values.json:
    figures.save(values.json, values.preset, result)


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
