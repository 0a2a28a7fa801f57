"""Going through the layers of a policy, whose weights lie in stacks.

A weight is stacked over the layers that have it, in order. `scan` goes over them in
loops: neighbouring layers whose kinds repeat are one loop over their periods, so
that a deep policy compiles like one period. `apart` and `unstack` are for programs
that spell every layer out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from leafe_jax import config as config_lib
from leafe_jax.policy import kinds

Params = dict[str, Array]
State = tuple[str, int]  # see `kinds.Kind.state`
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
    states: Mapping[State, Any] | None = None,
    *,
    differentiable: bool = False,
) -> tuple[Any, dict[State, Any]]:
  """Goes through all layers, in loops.

  Args:
    config: whose layers.
    step: a layer; what it keeps is the same tree in all layers of a `kinds.Kind.state`.
    carry: what goes from layer to layer.
    params: weights.
    states: by `kinds.Kind.state`, arrays with an axis of its layers in front.
    differentiable: cut the stacks into those of each loop, a copy of all weights
      where there are several. Else layers are read where they lie, but the gradient
      of a stack would be added up over all of it for every layer.

  Returns:
    The last carry and, by `kinds.Kind.state`, what its layers kept, stacked.
  """
  every = kinds.of_layers(config)
  own = {
      name: _Stack(stack, kinds.layers_with(name, config))
      for name, stack in stacked(params).items()
  }
  held = {
      key: _Stack(state, kinds.layers_keeping(key, config))
      for key, state in (states or {}).items()
  }
  kept: dict[State, list[Any]] = {}
  for span in kinds.spans(every):
    found: dict[State, Any]
    if len(span.kinds) == 1 and span.repeats == len(every):
      carry, found = _scan_alike(step, span.kinds[0], carry, own, held)
    else:
      carry, found = _scan_span(step, span, carry, own, held, differentiable)
    for key, values in found.items():
      kept.setdefault(key, []).append(values)
  return carry, {key: _join(parts) for key, parts in kept.items()}


class _Stack(NamedTuple):
  """Arrays with an axis of layers in front, and which layers these are."""

  whole: Any
  layers: tuple[int, ...]

  def places(self, span: kinds.Span) -> tuple[int, int]:
    """The first place of a span in the stack, and how many each period has."""
    before = sum(layer < span.start for layer in self.layers)
    inside = sum(span.start <= layer < span.stop for layer in self.layers)
    return before, inside // span.repeats

  def cut(self, span: kinds.Span) -> Any:
    """The part of a span, with an axis of periods in front."""
    before, count = self.places(span)

    def part(x: Array) -> Array:
      if count * span.repeats < x.shape[0]:
        x = x[before : before + count * span.repeats]
      return x.reshape(span.repeats, count, *x.shape[1:])

    return jax.tree.map(part, self.whole)

  def read(self, span: kinds.Span, period: Array, rank: int) -> Any:
    """One layer of a period, from where it lies in the stack."""
    before, count = self.places(span)
    place = before + period * count + rank
    return jax.tree.map(
        lambda x: jax.lax.dynamic_index_in_dim(x, place, keepdims=False), self.whole
    )


_Stacks = Mapping[str, _Stack]
_States = Mapping[State, _Stack]


def _join(parts: list[Any]) -> Any:
  if len(parts) == 1:
    return parts[0]
  return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def _scan_alike(
    step: Step, kind: kinds.Kind, carry: Any, own: _Stacks, held: _States
) -> tuple[Any, dict[State, Any]]:
  """One loop over layers that are all of one kind."""
  weights = {name: stack.whole for name, stack in own.items()}
  state = held[kind.state].whole if kind.state in held else None
  carry, kept = jax.lax.scan(
      lambda carry, layer: step(kind, carry, *layer), carry, (weights, state)
  )
  return carry, {kind.state: kept}


def _scan_span(
    step: Step,
    span: kinds.Span,
    carry: Any,
    own: _Stacks,
    held: _States,
    differentiable: bool,
) -> tuple[Any, dict[State, Any]]:
  """One loop over the periods of a span; what its layers kept, stacked."""
  cuts: Any = None
  if differentiable:
    cuts = {
        name: stack.cut(span)
        for name, stack in {**own, **held}.items() if stack.places(span)[1]
    }

  def period(carry: Any, at: tuple[Array, Any]) -> tuple[Any, dict[State, Any]]:
    index, parts = at
    if parts is not None:
      return _scan_period(step, span.kinds, carry, parts)

    kept: dict[State, list[Any]] = {}
    for kind, ranks, rank in _of_period(span.kinds, own):
      weights = {name: own[name].read(span, index, i) for name, i in ranks.items()}
      state = held.get(kind.state)
      state = None if state is None else state.read(span, index, rank)
      carry, found = step(kind, carry, weights, state)
      kept.setdefault(kind.state, []).append(jax.tree.map(lambda x: x[None], found))
    return carry, {key: _join(found) for key, found in kept.items()}

  carry, kept = jax.lax.scan(period, carry, (jnp.arange(span.repeats), cuts))
  return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), kept)


def _scan_period(
    step: Step, period: tuple[kinds.Kind, ...], carry: Any, parts: Mapping[Any, Any]
) -> tuple[Any, dict[State, Any]]:
  """The layers of one period, neighbours of one kind in a loop of their own.

  Spelt out, nothing would keep a compiler from computing again all layers of a period
  at once in the backward pass, with the memory of all of them.

  Args:
    step, carry: as for `scan`.
    period: kinds of its layers.
    parts: weights and states of the period, with an axis of layers in front.
  """
  kept: dict[State, list[Any]] = {}
  names = [name for name in parts if isinstance(name, str)]
  layers = list(_of_period(period, names))
  for kind, run in itertools.groupby(layers, key=lambda layer: layer[0]):
    alike = list(run)
    _, ranks, rank = alike[0]

    def part(name: Any, first: int, count: int = len(alike)) -> Any:
      return jax.tree.map(lambda x: x[first : first + count], parts[name])

    weights = {name: part(name, first) for name, first in ranks.items()}
    state = part(kind.state, rank) if kind.state in parts else None
    carry, found = jax.lax.scan(
        lambda carry, layer, kind=kind: step(kind, carry, *layer),
        carry, (weights, state),
    )
    kept.setdefault(kind.state, []).append(found)
  return carry, {key: _join(found) for key, found in kept.items()}


def _of_period(
    period: tuple[kinds.Kind, ...], names: Iterable[str]
) -> Iterator[tuple[kinds.Kind, dict[str, int], int]]:
  """Of every layer its kind, and how many before it have each weight and its state."""
  for place, kind in enumerate(period):
    before = period[:place]
    ranks = {
        name: sum(kinds.has(other, name) for other in before)
        for name in names if kinds.has(kind, name)
    }
    yield kind, ranks, sum(other.state == kind.state for other in before)
