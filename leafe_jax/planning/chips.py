"""Accelerators by their data sheets.

Figures per chip, from cloud.google.com/tpu/docs (v4, v5e, v5p, v6e): dense
bfloat16 peak, HBM size and bandwidth, and the sum over the chip's links.
"""

from __future__ import annotations

import dataclasses

GB = 1e9
GIB = 2.0**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One kind of accelerator.

  Attributes:
    name: as in topologies, 'v5e'.
    kind: as devices call themselves, 'TPU v5 lite'.
    hbm: bytes of memory.
    flops: peak bfloat16 operations per second.
    hbm_bandwidth: bytes per second.
    link_bandwidth: bytes per second to other chips, all links together.
  """

  name: str
  kind: str
  hbm: float
  flops: float
  hbm_bandwidth: float
  link_bandwidth: float


CHIPS = (
    Chip('v4', 'TPU v4', 32 * GIB, 275e12, 1228 * GB, 300 * GB),
    Chip('v5e', 'TPU v5 lite', 16 * GIB, 197e12, 819 * GB, 200 * GB),
    Chip('v5p', 'TPU v5', 95 * GIB, 459e12, 2765 * GB, 600 * GB),
    Chip('v6e', 'TPU v6 lite', 32 * GIB, 918e12, 1640 * GB, 448 * GB),
)


def find_chip(topology: str) -> Chip:
  """The chip of 'v5e:4x4'. ValueError, naming the known ones, otherwise."""
  name = topology.partition(':')[0]
  for chip in CHIPS:
    if chip.name == name:
      return chip
  known = ', '.join(chip.name for chip in CHIPS)
  raise ValueError(f'no chip {name!r} of topology {topology!r}; choose from {known}')
