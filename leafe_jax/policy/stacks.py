"""Going through the layers of a policy, whose weights lie in stacks.

A weight is stacked over the layers that have it, in order. `scan` goes over them in
loops: neighbouring layers whose kinds repeat are one loop over their periods, so
that a deep policy compiles like one period. `apart` and `unstack` are for programs
that spell every layer out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from leafe_jax import config as config_lib
from leafe_jax.policy import kinds

Params = dict[str, Array]
# (kind, carry, weights of a layer, its part of the state) -> (carry, what is kept).
Step = Callable[[kinds.Kind, Any, Params, Any], tuple[Any, Any]]


def stacked(params: Params) -> Params:
  """The weights that layers have, stacked along axis l."""
  return {k: v for k, v in params.items() if k.rsplit('_', 1)[1].startswith('l')}


def apart(params: Params, config: config_lib.Policy) -> list[Params]:
  """The weights of every layer, without the layer axis."""
  own = stacked(params)
  # A quantised weight is a tree of arrays.
  return [
      {name: jax.tree.map(lambda x, i=i: x[i], own[name]) for name, i in ranks.items()}
      for ranks in _ranks(own, config)
  ]


def unstack(params: Params, config: config_lib.Policy) -> list[Params]:
  """As `apart`, with gradients that are put side by side.

  Those of slices would be padded to the whole stack and added up.
  """
  parts = {name: _split(stack) for name, stack in sorted(stacked(params).items())}
  return [
      {name: parts[name][i] for name, i in ranks.items()}
      for ranks in _ranks(parts, config)
  ]


def _split(stack: Any) -> list[Any]:
  leaves, tree = jax.tree.flatten(stack)
  parts = [jax.lax.split(leaf, (1,) * leaf.shape[0]) for leaf in leaves]
  return [tree.unflatten([part[0] for part in layer]) for layer in zip(*parts)]


def _ranks(names: Mapping[str, Any], config: config_lib.Policy) -> list[dict[str, int]]:
  """For every layer its weights, and their places in their stacks."""
  found: list[dict[str, int]] = [{} for _ in range(config.num_layers)]
  for name in names:
    for rank, layer in enumerate(kinds.layers_with(name, config)):
      found[layer][name] = rank
  return found


def scan(
    config: config_lib.Policy,
    step: Step,
    carry: Any,
    params: Params,
    states: Mapping[str, Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
  """Goes through all layers, in loops.

  Args:
    config: whose layers.
    step: a layer; what it keeps is the same tree in all layers of a kind of mixer.
    carry: what goes from layer to layer.
    params: weights.
    states: by kind of mixer, arrays with an axis of its layers in front.

  Returns:
    The last carry and, by kind of mixer, what its layers kept, stacked.
  """
  own, states = stacked(params), states or {}
  every = kinds.of_layers(config)
  kept: dict[str, list[Any]] = {}
  for span in kinds.spans(every):
    cut = {
        name: _cut(stack, kinds.layers_with(name, config), span)
        for name, stack in own.items()
    }
    held = {
        mixer: _cut(state, _layers_of(mixer, every), span)
        for mixer, state in states.items()
    }
    carry, found = _scan_span(step, span, carry, cut, held)
    for mixer, values in found.items():
      kept.setdefault(mixer, []).append(values)
  return carry, {mixer: _join(parts) for mixer, parts in kept.items()}


def _layers_of(mixer: str, every: tuple[kinds.Kind, ...]) -> tuple[int, ...]:
  return tuple(i for i, kind in enumerate(every) if kind.mixer == mixer)


def _cut(stack: Any, layers: tuple[int, ...], span: kinds.Span) -> Any:
  """The part of a stack that belongs to a span; None where it has none."""
  before = sum(layer < span.start for layer in layers)
  count = sum(span.start <= layer < span.stop for layer in layers)
  if not count:
    return None
  if count == len(layers):
    return stack
  return jax.tree.map(lambda x: x[before : before + count], stack)


def _join(parts: list[Any]) -> Any:
  if len(parts) == 1:
    return parts[0]
  return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def _scan_span(
    step: Step, span: kinds.Span, carry: Any, own: Params, states: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
  """One loop over the periods of a span; what its layers kept, stacked."""
  if len(span.kinds) == 1:
    [kind] = span.kinds
    weights = {name: stack for name, stack in own.items() if stack is not None}
    carry, kept = jax.lax.scan(
        lambda carry, layer: step(kind, carry, *layer),
        carry, (weights, states.get(kind.mixer)),
    )
    return carry, {kind.mixer: kept}

  def period(carry: Any, part: Any) -> tuple[Any, dict[str, Any]]:
    kept: dict[str, list[Any]] = {}
    for weights, state, kind in _of_period(span, *part):
      carry, found = step(kind, carry, weights, state)
      kept.setdefault(kind.mixer, []).append(found)
    return carry, {
        mixer: jax.tree.map(lambda *x: jnp.stack(x), *found)
        for mixer, found in kept.items()
    }

  by_period = jax.tree.map(
      lambda x: x.reshape(span.repeats, -1, *x.shape[1:]), (own, states)
  )
  carry, kept = jax.lax.scan(period, carry, by_period)
  return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), kept)


def _of_period(
    span: kinds.Span, own: Params, states: dict[str, Any]
) -> list[tuple[Params, Any, kinds.Kind]]:
  """Weights and state of every layer of a period, from its part of the stacks."""
  taken: dict[str, int] = {}  # how many layers so far had a weight

  def take(name: str, stack: Any) -> Any:
    rank = taken[name] = taken.get(name, -1) + 1
    return jax.tree.map(lambda x: x[rank], stack)

  found = []
  for kind in span.kinds:
    weights = {
        name: take(name, stack) for name, stack in own.items()
        if stack is not None and kinds.has(kind, name)
    }
    state = states.get(kind.mixer)
    if state is not None:
      state = take(f'state of {kind.mixer}', state)
    found.append((weights, state, kind))
  return found
