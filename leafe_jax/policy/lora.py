"""Low-rank adapters over a frozen base (arXiv 2106.09685).

A matrix W with an adapter acts as W + alpha / rank * A B; A starts random and
B at zero, so a fresh adapter changes nothing. The base's weights and the
adapters are two dicts of arrays; `join` makes the one that the forward pass
and the sampler take, `merge` a policy without adapters. Adapters are float32
whatever the type of the base: their updates are small.

The base may be quantised (QLoRA, arXiv 2305.14314); what it then computes is
the policy that is sampled, trained and merged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from leafe_jax import config as config_lib
from leafe_jax.policy import experts, layers, model, quantize, weights
from leafe_jax.policy.model import Params
from leafe_jax.policy.weights import Weight

DTYPE = 'float32'


def targets(config: config_lib.Policy) -> dict[str, str]:
  """The matrices that may have adapters, by option: 'q' -> 'q_weight_ldnh'."""
  table = weights.weight_table(config, 1)
  return {
      name.split('_')[0]: name for name in layers.INPUTS
      if name in table and name not in experts.INPUTS
  }


_EVERY_TARGET = tuple(dict.fromkeys(
    name.split('_')[0] for name in layers.INPUTS if name not in experts.INPUTS
))


def _usual_targets() -> tuple[str, ...]:
  return config_lib.Policy().lora_targets


def check(config: config_lib.Policy, *, layers_known: bool = True) -> None:
  """Refuses options of adapters that do not go together.

  Args:
    config: the options.
    layers_known: whether they hold the layers too; else a target may be of any kind.

  Raises:
    ValueError: names the option, its value and the choices, or the package
      that is missing.
  """
  known = targets(config) if layers_known else _EVERY_TARGET
  unknown = [name for name in config.lora_targets if name not in known]
  if not config.lora_rank and config.lora_targets == _usual_targets():
    unknown = []  # nobody asked for adapters
  if unknown or (config.lora_rank and not config.lora_targets):
    hint = ' (experts get no adapters): --config.policy.lora_targets=' + ','.join(known)
    raise ValueError(
        f'policy.lora_targets is {",".join(unknown) or "empty"}; choose from '
        + ', '.join(known)
        + (hint if config.num_experts else '')
    )
  if config.lora_rank < 0:
    raise ValueError(f'policy.lora_rank is {config.lora_rank}; it is at least 0')
  quantize.check(config.quantize)
  if config.quantize != 'none' and not config.lora_rank:
    raise ValueError(
        f'policy.quantize={config.quantize} keeps the base frozen: give its '
        'adapters a rank (policy.lora_rank)'
    )


def table(config: config_lib.Policy, vocab_size: int) -> dict[str, Weight]:
  """Every adapter by name. ValueError: see `check`."""
  check(config)
  stds: dict[str, float | None] = {}
  base, known = weights.weight_table(config, vocab_size), targets(config)
  for target in config.lora_targets:
    weight = known[target]
    into, out_of = layers.adapter_names(weight)
    width = _size(weight, base[weight].shape, layers.INPUTS[weight])
    # The spread of peft's initial values, whose learning rates are well known.
    stds |= {into: (3 * width) ** -0.5, out_of: 0.0}
  return weights.make_table(stds, config, vocab_size)


def _size(name: str, shape: tuple[int, ...], letters: str) -> int:
  """The product of the axes with these letters."""
  axes = name.rsplit('_', 1)[1]
  return math.prod(shape[axes.index(letter)] for letter in letters)


def init_params(
    config: config_lib.Policy, vocab_size: int, key: jax.Array, mesh: Mesh
) -> Params:
  """Fresh adapters, created on their devices; the same whatever the mesh.

  Args:
    config: `lora_rank` and `lora_targets`.
    vocab_size: of the policy.
    key: a typed random key.
    mesh: that the base lives on.
  """
  adapters = table(config, vocab_size)

  def build(key: jax.Array) -> Params:
    keys = jax.random.split(key, len(adapters))
    return {
        name: weight.initial(keys[i], DTYPE)
        for i, (name, weight) in enumerate(adapters.items())
    }

  target = model.table_shardings(adapters, mesh)
  return jax.jit(build, out_shardings=target)(key)


def abstract_params(
    config: config_lib.Policy, vocab_size: int, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes, types and shardings of the adapters, nothing allocated."""
  return model.abstract_table(table(config, vocab_size), DTYPE, mesh)


def are_adapters(params: Mapping[str, Any]) -> bool:
  """Whether these are adapters, not the weights of a whole policy."""
  return any('_lora_' in name for name in params)


def freeze(params: Params, config: config_lib.Policy, mesh: Mesh) -> dict[str, Any]:
  """A base's weights as they are kept under adapters.

  Args:
    params: emptied one by one, so that both forms of all are never there.
    config: `quantize` says how its matrices are kept.
    mesh: that the weights live on.
  """
  return _frozen(params, config, mesh, quantize.quantize)


def abstract_frozen(
    config: config_lib.Policy, vocab_size: int, mesh: Mesh
) -> dict[str, Any]:
  """Shapes, types and shardings of what `freeze` returns, nothing allocated."""
  params: Any = model.abstract_params(config, vocab_size, mesh)
  return _frozen(params, config, mesh, quantize.abstract)


def _frozen(
    params: Params, config: config_lib.Policy, mesh: Mesh, convert: Callable[..., Any]
) -> dict[str, Any]:
  """The weights, emptied from `params`; matrices as `convert` makes them."""
  quantize.check(config.quantize)
  frozen = {}
  for name in list(params):
    weight = params.pop(name)
    if config.quantize != 'none' and name in layers.INPUTS:
      letters = name.rsplit('_', 1)[1]
      inputs = tuple(letters.index(letter) for letter in layers.INPUTS[name])
      weight = convert(
          weight, config.quantize, weights.logical_axes(name), inputs, mesh
      )
    frozen[name] = weight
  return frozen


def join(
    frozen: Mapping[str, Any], trained: Params, config: config_lib.Policy
) -> dict[str, Any]:
  """What the forward pass takes: a base with its adapters, if it has any.

  The scale alpha / rank goes into B here, so that the layers need not know it.
  Gradients with respect to `trained` pass through.

  Args:
    frozen: the base's weights; empty when `trained` is a whole policy.
    trained: adapters, a whole policy, or nothing.
    config: `lora_rank` and `lora_alpha`.
  """
  scaled = {
      name: array * scale(config) if '_lora_b_' in name else array
      for name, array in trained.items()
  }
  return {**frozen, **scaled}


def scale(config: config_lib.Policy) -> float:
  """How often an adapter counts."""
  return config.lora_alpha / config.lora_rank


def merge(
    frozen: Mapping[str, Any], adapters: Params, config: config_lib.Policy
) -> Params:
  """The same policy without adapters, its weights in `config.param_dtype`."""
  return dict(_merged(frozen, adapters, config))


def _merged(
    frozen: Mapping[str, Any], adapters: Params, config: config_lib.Policy
) -> Iterator[tuple[str, jax.Array]]:
  for name, weight in frozen.items():
    whole = quantize.dense(weight, jnp.float32)
    if name in layers.INPUTS:
      into, out_of = layers.adapter_names(name)
      if into in adapters:
        whole = whole + scale(config) * product(name, adapters[into], adapters[out_of])
    yield name, whole.astype(config.param_dtype)


def product(weight: str, into: jax.Array, out_of: jax.Array) -> jax.Array:
  """A B of all layers, with the axes of a matrix, float32."""
  names = (*layers.adapter_names(weight), weight)
  down, up, whole = (name.rsplit('_', 1)[1] for name in names)
  wide = (jnp.asarray(x, jnp.float32) for x in (into, out_of))
  return jnp.einsum(f'{down},{up}->{whole}', *wide, precision='highest')
