"""The shared defaults that every config file starts from."""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from leafe_jax.config import Experiment


def default() -> ml_collections.ConfigDict:
  """All options of `leafe_jax.config` at their defaults.

  Fields are locked (a misspelt name raises), keep their types, and tuples stay
  tuples. Give an environment its options under `config.unlocked()`.
  """
  return ml_collections.ConfigDict(dataclasses.asdict(Experiment())).lock()


# For policies of a few hundred thousand weights, which start from scratch.
SMALL_GRPO = {
    'num_tasks': 256, 'learning_rate': 3e-4, 'kl': 0.01, 'steps': 60,
    'weight_decay': 0.0, 'b2': 0.95,
}
# To see that it works.
DEBUG_GRPO = {
    'steps': 3, 'tasks_per_step': 4, 'group_size': 4, 'minibatches': 2,
    'checkpoint_every': 1,
}


def make_study(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """All arms over three seeds, at the environment steps of the exploration."""
  config.method = 'study'
  config.study.seeds = (0, 1, 2)
  config.tune.factors = (0.3, 1.0, 3.0)
  config.evaluate.more_temperatures = (0.4,)
  config.grpo.match_explore = True
  return config


def arguments(*functions: Callable[..., Any], **values: Any) -> dict[str, Any]:
  """Every named argument of the functions at its default, or as given.

  An environment's options are the arguments of what makes it; listed in the
  config, all of them can be set by flags and are recorded with the run.
  """
  found = {
      name: parameter.default
      for function in functions
      for name, parameter in inspect.signature(function).parameters.items()
      if parameter.default is not inspect.Parameter.empty
  }
  unknown = values.keys() - found
  if unknown:
    raise ValueError(f'no such options: {", ".join(sorted(unknown))}')
  return {**found, **values}


def choose(
    variants: Mapping[str, Callable[[], ml_collections.ConfigDict]],
    name: str,
    file: str,
) -> ml_collections.ConfigDict:
  """The config of a variant. ValueError, naming them, for another one."""
  if name not in variants:
    raise ValueError(
        f'unknown variant {name!r} of configs/{pathlib.Path(file).name}; choose from '
        + ', '.join(repr(known) for known in variants)
    )
  return variants[name]().lock()
