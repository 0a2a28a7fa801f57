"""The smallest run that writes every kind of file: for many draws in few minutes.

A start of it takes some six seconds of one core, most of them imports and programs
from the cache. It knows no exploration; soak `configs/webshop.py:debug` for that.
"""

from __future__ import annotations

import pathlib
import runpy

import ml_collections

_WEBSHOP = pathlib.Path(__file__).parents[2] / 'configs' / 'webshop.py'


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The debug run of the shop, with fewer tasks, updates and layers."""
  if arg:
    raise ValueError(f'{arg!r}: this config has no variants')
  config = runpy.run_path(str(_WEBSHOP))['get_config']('debug')
  config.arms = ('base',)
  config.policy.num_layers = 1
  config.warm_start.update(
      steps=40, num_demonstrations=200, checkpoint_every=10
  )
  config.gate.num_tasks = 2
  config.evaluate.update(num_tasks=2, num_samples=2, bootstrap=100)
  return config
