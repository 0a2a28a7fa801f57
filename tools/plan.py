"""Says what a run takes before anything is allocated.

    python -m tools.plan --config=configs/webshop.py:qwen3_4b_gpu1 --devices=1 \\
        --hbm_gb=75 --platform=gpu
    python -m tools.plan --config=configs/webshop.py:qwen2_5_7b --devices=16 \\
        --hbm_gb=16

Memory by what is on a device at the same time, then every phase with the most
episodes, tokens and updates that it may take. Weights, optimizer, batch and KV
pages are exact; the rest is estimated. Without --hbm_gb the memory is that of
this machine's devices. Exits with 1 if what is exact exceeds it; the estimates
alone only say so.

--compile compiles the updates for this machine's own devices as well, without
allocating anything, and says how far plan and compiler are apart; minutes a program
at real sizes, and 20 to 30 GB of the host's memory for a few billion weights.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence

import jax
from absl import flags
from ml_collections import config_flags

from leafe_jax import command_line, experiment
from leafe_jax.methods import effort
from leafe_jax.planning import memory, programs
from leafe_jax.planning.programs import Target
from leafe_jax.policy import experts, lora
from tools import targets


def define_flags() -> None:
  command_line.define_config()
  flags.DEFINE_integer('devices', 1, 'Devices of the mesh.', lower_bound=1)
  flags.DEFINE_float(
      'hbm_gb', 0.0, 'Memory per device in GiB; 0: that of the devices here.',
      lower_bound=0,
  )
  flags.DEFINE_enum(
      'platform', 'tpu', ['cpu', 'gpu', 'tpu'], 'Which attention will run.'
  )
  flags.DEFINE_bool('compile', False, 'Compare with the compiler of the devices here.')


def compare(target: Target) -> Iterator[str]:
  """A line per update: what is planned for the devices here, what is compiled."""
  outlook = experiment.look_ahead(target)
  for job in effort.total(outlook.efforts.values()).jobs:
    compiled = programs.compile_uncached(programs.trace(target, 'train', job).lower())
    found = compiled.memory_analysis()
    size = found.argument_size_in_bytes + found.temp_size_in_bytes
    planned = outlook.plan.moment(job.name).total()
    yield (
        f'{job.name}: planned {planned / 1e9:.2f} GB, compiled {size / 1e9:.2f} GB '
        f'({planned / size:.2f}) on {target.platform}'
    )


def weights(target: Target) -> str:
  """How many there are, and how many of them a token meets."""
  counts = {name: math.prod(array.shape) for name, array in target.base().items()}
  total, policy = sum(counts.values()), target.policy
  if not policy.num_experts:
    return f'{total / 1e9:.3f} billion weights'
  share = policy.experts_per_token / policy.num_experts
  active = sum(
      count * (share if name in experts.INPUTS else 1) for name, count in counts.items()
  )
  met = active - counts['embed_vd'] * (not policy.tie_embeddings)  # looked up
  return (
      f'{total / 1e9:.3f} billion weights, {active / 1e9:.3f} of them for each token: '
      f'{2 * met / 1e9:.3g} GFLOP to read one, {6 * met / 1e9:.3g} to train on it, '
      'attention apart'
  )


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments {list(argv[1:])}')
  values = flags.FLAGS
  limit = values.hbm_gb * 2**30 or memory.device_limit()
  try:
    target = targets.make_target(values.config, values.devices)
    lora.check(target.policy)
    outlook = experiment.look_ahead(target, values.platform)
  except (ValueError, OSError) as error:
    path = config_flags.get_config_filename(values['config'])
    raise command_line.UsageError(targets.explain(error, path)) from error
  print(f'{memory.table(outlook.plan, limit)}\n\n{outlook.phases()}')
  print(f'\n{weights(target)}')
  if values.compile:
    here = targets.make_target(values.config, jax.devices()[: values.devices])
    for line in compare(here):
      print(line, flush=True)
  sys.exit(int(outlook.plan.certain > limit))


if __name__ == '__main__':
  define_flags()
  command_line.run(main, config=True)
