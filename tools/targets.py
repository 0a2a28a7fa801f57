"""What the planning tools share: a config file, and the sizes of its policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import ml_collections

from envs import registry
from leafe_jax import inputs, launch, settings
from leafe_jax.config import Experiment, Policy
from leafe_jax.planning.programs import Target
from leafe_jax.policy import huggingface, sharding
from leafe_jax.text.tokenizers import build_word_tokenizer


def make_target(
    values: ml_collections.ConfigDict, devices: Sequence[Any] | int
) -> Target:
  """A target from a config whose checkpoint and data may be missing here.

  Args:
    values: the config; without a checkpoint the policy's sizes come from it.
    devices: of the mesh, or only their number.

  Raises:
    ValueError: the config or the mesh cannot be.
  """
  given = values.to_dict()
  config = read_config(values)
  if isinstance(devices, int):
    mesh: Any = sharding.make_abstract_mesh(config.mesh, devices)
  else:
    mesh = sharding.make_mesh(config.mesh, devices)
  shape = _shape(config)
  # The run will have a checkpoint, although its sizes do not come from one here.
  policy = dataclasses.replace(config.policy, checkpoint=given['policy']['checkpoint'])
  config = dataclasses.replace(config, policy=policy)
  return Target(config, shape.policy, shape.vocab_size, mesh)


def explain(error: Exception, path: str) -> str:
  """One line; where the mesh is wrong, with the variants that fit the devices.

  Args:
    error: from `make_target`.
    path: of the config, FILE[:VARIANT].
  """
  if isinstance(error, sharding.MeshError):
    return f'{error}{launch.variants_for(path, error.num_devices)}'
  return str(error)


def read_config(values: ml_collections.ConfigDict) -> Experiment:
  """The checked config; empty where a run would ask for a path."""
  return settings.from_config_dict(_drop_required(values.to_dict()))


def _drop_required(values: dict[str, Any]) -> dict[str, Any]:
  """Empty where a run would ask for a path."""
  return {
      name: _drop_required(value) if isinstance(value, dict)
      else '' if value == settings.REQUIRED else value
      for name, value in values.items()
  }


def _shape(config: Experiment) -> huggingface.Shape:
  policy = config.policy
  if policy.checkpoint:
    return _shape_of_checkpoint(policy)
  if policy.vocab_size:
    return huggingface.Shape(policy, policy.vocab_size)
  options = inputs.local_options(config.env.options)
  world = registry.make(config.env.name, **options)
  try:
    words = build_word_tokenizer(world.vocabulary(), config.env.horizon)
  except NotImplementedError as error:
    raise ValueError(
        f'env.name={config.env.name}: {error}, so the policy needs a checkpoint, whose '
        'sizes are planned with: --config.policy.checkpoint=DIR'
    ) from error
  finally:
    world.close()
  return huggingface.Shape(policy, len(words))


def _shape_of_checkpoint(policy: Policy) -> huggingface.Shape:
  """As a run would read it. ValueError: it cannot."""
  try:
    checkpoint = inputs.local(policy.checkpoint)
    huggingface.check_length(checkpoint, policy.max_length)
    return huggingface.read_shape(checkpoint, policy)
  except (OSError, huggingface.UnsupportedCheckpoint) as error:
    raise ValueError(f'policy.checkpoint={policy.checkpoint}: {error}') from error
