"""Compiles a run's device programs for a TPU slice, without a TPU.

    pip install 'leafe_jax[tpu]'
    python -m tools.compile_for_tpu --config=configs/webshop.py:qwen2_5_7b \\
        --topology=v5e:4x4

The train step, the longest prefill and the longest turn of the sampler are
lowered from shapes and go through the real TPU compiler; options are
overridden as in a run, --config.mesh.tensor=8. Per program: memory per chip as
XLA plans it, matrix-product operations, memory traffic and collectives, and
the least time that the chip's data sheet allows for the largest of the three.
No such program was timed. The compiler refuses what does not fit.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags, logging
from jax.experimental import topologies
from packaging.requirements import Requirement

from leafe_jax import command_line
from leafe_jax.planning import chips, flops, hlo, programs
from tools import targets

_GB = 1e9


@dataclasses.dataclass(frozen=True)
class Report:
  """What the compiler says about one program; bytes and operations per chip.

  Attributes:
    program: 'train', 'prefill' or 'decode'.
    compile_seconds: wall time of compiling.
    arguments: bytes of weights, states, pages and batch.
    temporaries: bytes of XLA's scratch space.
    peak: bytes in use at most, arguments included.
    hbm: bytes of the chip.
    flops: of matrix products, if the chips share them evenly.
    traffic: bytes to and from memory.
    sent: bytes to other chips.
    collectives: by kind and group size.
    seconds: by bound: compute, memory, links.
    decode_steps: steps of the decode loop that are counted in.
  """

  program: str
  compile_seconds: float
  arguments: int
  temporaries: int
  peak: int
  hbm: float
  flops: float
  traffic: float
  sent: float
  collectives: tuple[hlo.Collective, ...]
  seconds: dict[str, float]
  decode_steps: int

  def lines(self) -> list[str]:
    """For people."""
    bound = max(self.seconds, key=lambda name: self.seconds[name])
    bounds = ', '.join(f'{name} {s:.4g} s' for name, s in self.seconds.items())
    steps = f' ({self.decode_steps} decode steps)' if self.decode_steps else ''
    fits = 'fits' if self.peak <= self.hbm else 'DOES NOT FIT'
    return [
        f'{self.program}{steps}: compiled in {self.compile_seconds:.0f} s',
        f'  memory     arguments {self.arguments / _GB:.2f} GB,'
        f' temporaries {self.temporaries / _GB:.2f} GB,'
        f' peak {self.peak / _GB:.2f} of {self.hbm / _GB:.2f} GB: {fits}',
        f'  work       {self.flops / 1e12:.4g} TFLOP,'
        f' {self.traffic / _GB:.4g} GB memory traffic, {self.sent / _GB:.4g} GB sent',
        f'  estimate   at least {self.seconds[bound]:.4g} s ({bounds})',
        *(
            f'  {c.kind:<20} over {c.devices:>3} chips {c.count:>8} x'
            f' {c.bytes / c.count / 1e6:10.3f} MB'
            for c in self.collectives
        ),
    ]


def compile_program(
    target: programs.Target, name: programs.Name, chip: chips.Chip
) -> Report:
  """Compiles one program. `jax.errors.JaxRuntimeError`: it does not fit."""
  traced = programs.trace(target, name)
  start = time.perf_counter()
  compiled = programs.compile_uncached(traced.lower())
  elapsed = time.perf_counter() - start
  steps = target.num_decode - 1 if name == 'decode' else 0
  # A loop that ends by data is the decode loop.
  traffic = hlo.Module(compiled.as_text()).traffic(open_loop=max(steps, 1))
  work = flops.count(traced.jaxpr, open_loop=max(steps, 1)) / target.mesh.size
  memory = compiled.memory_analysis()
  return Report(
      program=name,
      compile_seconds=elapsed,
      arguments=memory.argument_size_in_bytes,
      temporaries=memory.temp_size_in_bytes,
      peak=memory.peak_memory_in_bytes,
      hbm=chip.hbm,
      flops=work,
      traffic=traffic.memory,
      sent=traffic.sent,
      collectives=traffic.collectives,
      seconds={
          'compute': work / chip.flops,
          'memory': traffic.memory / chip.hbm_bandwidth,
          'links': traffic.sent / chip.link_bandwidth,
      },
      decode_steps=steps,
  )


def topology_devices(name: str) -> Sequence[Any]:
  """Descriptions of the chips of a slice that is not there.

  Raises:
    ImportError: libtpu is not installed.
    ValueError: no such topology, or an unknown chip.
  """
  chips.find_chip(name)
  try:
    import libtpu  # noqa: F401
  except ImportError as error:
    raise ImportError("no libtpu here; pip install 'leafe_jax[tpu]'") from error
  _warn_of_release(importlib.metadata.version('libtpu'))
  # Before libtpu loads: there is no metadata server to ask, and its lock is
  # for processes that share a TPU.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  try:
    return topologies.get_topology_desc(platform='tpu', topology_name=name).devices
  except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
    raise ValueError(f'topology {name!r}: {error}') from error


def _warn_of_release(found: str) -> None:
  """Says that libtpu is not of the releases that this jax was made for.

  It may compile what jaxlib cannot read, and fail with INTERNAL for programs that fit.
  """
  for wanted in map(Requirement, importlib.metadata.requires('jax') or []):
    if wanted.name == 'libtpu' and found not in wanted.specifier:
      logging.warning(
          'libtpu %s beside jax %s, which asks for libtpu%s: programs that fit may '
          "be refused (pip install 'leafe_jax[tpu]')",
          found, jax.__version__, wanted.specifier,
      )


def define_flags() -> None:
  command_line.define_config()
  flags.DEFINE_string('topology', 'v5e:4x4', 'The slice, CHIP:AxB or CHIP:AxBxC.')
  flags.DEFINE_list('programs', list(programs.NAMES), 'What to compile.')
  flags.DEFINE_bool('json', False, 'Print JSON, one program per line.')


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments {list(argv[1:])}')
  jax.config.update('jax_platforms', 'cpu')  # the slice is not here
  values = flags.FLAGS
  unknown = set(values.programs) - set(programs.NAMES)
  if unknown:
    raise command_line.UsageError(
        f'--programs={",".join(sorted(unknown))}: choose from '
        + ', '.join(programs.NAMES)
    )
  try:
    chip = chips.find_chip(values.topology)
    target = targets.make_target(values.config, topology_devices(values.topology))
  except (ValueError, ImportError, OSError) as error:
    raise command_line.UsageError(str(error)) from error
  failed = False
  for name in programs.NAMES:
    if name in values.programs:
      failed |= not _compile_and_print(target, name, chip)
  sys.exit(int(failed))


def _compile_and_print(
    target: programs.Target, name: programs.Name, chip: chips.Chip
) -> bool:
  try:
    report = compile_program(target, name, chip)
  except jax.errors.JaxRuntimeError as error:
    text = '\n  '.join(str(error).splitlines()[:12])
    if flags.FLAGS.json:
      text = json.dumps({'program': name, 'error': text})
    print(text if flags.FLAGS.json else f'{name}: refused\n  {text}', flush=True)
    return False
  if flags.FLAGS.json:
    print(json.dumps(dataclasses.asdict(report)), flush=True)
  else:
    print('\n'.join(report.lines()), flush=True)
  return report.peak <= report.hbm


if __name__ == '__main__':
  define_flags()
  command_line.run(main, config=True)
