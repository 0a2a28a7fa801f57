"""The shared defaults that every config file starts from."""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from leafe_jax import settings
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


def make_debug(
    config: ml_collections.ConfigDict, num_demonstrations: int
) -> ml_collections.ConfigDict:
  """Every phase at toy size; the environment must be easy for it."""
  config.warm_start.update(
      steps=160, num_demonstrations=num_demonstrations, checkpoint_every=80
  )
  config.gate.update(num_tasks=8, min_parsed=0.0, min_diagnosis=0.0, min_follow=0.0)
  config.explore.update(num_tasks=8, wave_tasks=4, attempts=6)
  config.distill.update(steps=4, checkpoint_every=2)
  config.grpo.update(DEBUG_GRPO)
  config.evaluate.update(num_tasks=4, num_samples=8, wave_tasks=2, bootstrap=200)
  config.sampler.update(num_pages=4096, max_rows=min(64, config.sampler.max_rows))
  return config


def make_pretrained(
    config: ml_collections.ConfigDict, max_length: int
) -> ml_collections.ConfigDict:
  """A real checkpoint: its own layers, widths and heads, chats of `max_length`."""
  config.policy.update(
      checkpoint=settings.REQUIRED, max_length=max_length, dtype='bfloat16',
      scan_layers=True, remat='full',
  )
  config.sampler.update(
      page_size=64, max_rows=128, prefill_buckets=(64, 256, 1024), decode_chunk=128,
      checkpoint_every=4096,
  )
  config.explore.update(num_tasks=2048, wave_tasks=128, max_reflection_tokens=512)
  config.experience.update(reh_fraction=0.2)
  config.distill.update(
      steps=200, batch_rows=128, row_length=max_length, grad_accumulation=16,
      learning_rate=1e-6, checkpoint_every=50,
  )
  config.dpo.update(learning_rate=5e-7)
  # Taught nothing unless asked (steps), then from files unless asked (scripts).
  config.warm_start.update(
      steps=0, num_demonstrations=0, batch_rows=32, row_length=max_length,
      grad_accumulation=16, learning_rate=1e-5, checkpoint_every=50,
  )
  return config


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
