"""Running tokens through the layers, over keys and values in several parts.

A small policy runs fastest with its layers unrolled; 80 of them would take
minutes to compile. With `policy.scan_layers` the weights, keys and values of
all layers stay stacked and one `lax.scan` goes over them: a layer then only
reads its caches, and what it adds comes out of the scan. The results are the
same.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import (
  delta,
  experts,
  kinds,
  layers,
  model,
  products,
  rope,
  sharding,
  stacks,
)  # fmt: skip
from leafe_jax.policy.attention import MASKED
from leafe_jax.sampler import recall
from leafe_jax.sampler.cache import KV, Layers

QUERIES = 64  # at a time: what a long prefill scores should stay in the VMEM of a TPU

# Window -> what the tokens see of each part, through it.
Masks = Mapping[int, Sequence[Bool[Array, '#B t S']]]
# A layer's caches, its new keys and values -> parts to attend to, what to keep.
Keep = Callable[[Sequence[KV], KV], tuple[list[KV], KV]]


class Next(NamedTuple):
  """What is known at the last place that was read.

  Attributes:
    logits: [B, V] of the next token.
    route: [B] a number for the experts that were asked there; None without any.
  """

  logits: Array
  route: Array | None


@dataclasses.dataclass(frozen=True)
class LayeredPolicy:
  """Weights within one program."""

  config: config_lib.Policy
  params: model.Params

  @classmethod
  def prepare(cls, config: config_lib.Policy, params: model.Params) -> LayeredPolicy:
    """Casts what is scanned once: a loop would cast (and gather) at every step."""
    if config.scan_layers:
      params = {
          name: value.astype(config.dtype) if is_cast(name, value) else value
          for name, value in params.items()
      }
    return cls(config, params)

  @functools.cached_property
  def layers(self) -> list[model.Params]:
    """Layers apart: slicing stacked weights in a loop copies them every step."""
    return stacks.apart(self.params, self.config)


def is_cast(name: str, value: Any) -> bool:
  """Whether a weight is brought to the type of the products before they are made.

  A quantised one is spelt out where it is used; a router, and what decides how fast
  a layer forgets, stay as they are in training.
  """
  wide = (experts.ROUTER, *delta.WIDE)
  return isinstance(value, jax.Array) and name not in wide


def read(
    policy: LayeredPolicy,
    tokens: Int[Array, 'B T'],
    angles: rope.AllAngles,
    caches: Sequence[Layers],
    keep: Keep,
    masks: Masks,
    last: Int[Array, ' B'] | None,
    recalled: Recalled | None = None,
) -> tuple[Next | None, Layers, recall.Layers]:
  """Runs tokens through the layers.

  Args:
    policy: the weights.
    tokens: to read.
    angles: of their places in the transcript.
    caches: keys and values of all layers, by part.
    keep: says what a layer attends to and which keys and values come out.
    masks: by window; t = T, or 1: all the same.
    last: the place of each row whose logits are wanted; None: no logits.
    recalled: what recurrent layers know; None without such layers.

  Returns:
    What follows, the kept keys and values of all layers with attention, and what the
    others know now.
  """
  x = layers.embed(policy.params, tokens, policy.config)
  run = _scan if policy.config.scan_layers else _unroll
  stream = x, experts.nowhere(tokens, policy.config)
  wanted = _Wanted(angles, caches, keep, masks, last, recalled)
  (x, route), kept, memory = run(policy, stream, wanted)
  if last is None:
    return None, kept, memory
  logits = layers.unembed(policy.params, x[:, 0], policy.config)
  return Next(logits, None if route is None else route[:, 0]), kept, memory


# The residual stream, and a number for the experts that its tokens went to.
_Stream = tuple[Array, Array | None]


class Recalled(NamedTuple):
  """What recurrent layers know before some tokens.

  Attributes:
    layers: their memories.
    known: [B, T] which tokens are to be remembered, the first of every row.
  """

  layers: recall.Layers
  known: Array


class _Wanted(NamedTuple):
  """What `read` is asked for, but for the tokens."""

  angles: rope.AllAngles
  caches: Sequence[Layers]
  keep: Keep
  masks: Masks
  last: Int[Array, ' B'] | None
  recalled: Recalled | None

  def layer(self, window: int, rank: int) -> list[KV]:
    """The caches of one of the layers with a window, where they stand one by one."""
    groups = [part[window] for part in self.caches]
    return [group[rank] for group in groups if isinstance(group, list)]

  def memory(self, rank: int) -> delta.Memory:
    """Of one of the recurrent layers, where they stand one by one."""
    assert self.recalled is not None  # given where there are such layers
    return self.recalled.layers[rank]  # type: ignore[return-value]


def _unroll(
    policy: LayeredPolicy, stream: _Stream, wanted: _Wanted
) -> tuple[_Stream, Layers, recall.Layers]:
  """Layer by layer.

  Of the last layer nothing but keys and values is needed, except at `last`:
  only these places go through the rest of it.
  """
  config, memories = policy.config, []
  kept: dict[int, list[KV]] = {window: [] for window in kinds.groups(config)}
  (x, route), last = stream, wanted.last
  every = zip(kinds.of_layers(config), policy.layers, strict=True)
  for index, (kind, weights) in enumerate(every):
    final = index == config.num_layers - 1
    if kind.mixer == 'delta':
      memory = wanted.memory(len(memories))
      mixed, memory = _remember(config, x, weights, memory, wanted)
      memories.append(memory)
      if final:
        if last is None:
          break
        x, mixed = pick(x, last), pick(mixed, last)
        route = None if route is None else pick(route, last)
      x, routes = layers.conclude(x, mixed, weights, kind, config)
      route = experts.onward(route, routes)
      continue
    angles, masks = wanted.angles.get(kind.rope), wanted.masks[kind.window]
    group = kept[kind.window]
    of_layer = wanted.layer(kind.window, len(group))
    normed, parts, grown = _look(config, x, angles, weights, of_layer, wanted.keep)
    group.append(grown)
    if final:
      if last is None:
        break
      x, normed = pick(x, last), pick(normed, last)
      route = None if route is None else pick(route, last)
      angles = jax.tree.map(lambda a: pick(a, last, axis=2), angles)
      masks = [pick(mask, last) for mask in masks]
    x, routes = _think(config, x, normed, angles, weights, kind, parts, masks)
    route = experts.onward(route, routes)
  return (x, route), {**kept}, memories


def _scan(
    policy: LayeredPolicy, stream: _Stream, wanted: _Wanted
) -> tuple[_Stream, Layers, recall.Layers]:
  """The layers as loops: a deep model compiles like one layer of each kind."""
  config = policy.config

  def layer(
      kind: kinds.Kind, stream: _Stream, weights: model.Params, caches: Any
  ) -> tuple[_Stream, KV | delta.Memory]:
    x, route = stream
    if kind.mixer == 'delta':
      mixed, memory = _remember(config, x, weights, caches, wanted)
      x, routes = layers.conclude(x, mixed, weights, kind, config)
      x = sharding.constrain(x, ('batch', 'length', None))
      return (x, experts.onward(route, routes)), memory
    angles, masks = wanted.angles.get(kind.rope), wanted.masks[kind.window]
    normed, parts, kept = _look(config, x, angles, weights, caches, wanted.keep)
    x, routes = _think(config, x, normed, angles, weights, kind, parts, masks)
    x = sharding.constrain(x, ('batch', 'length', None))
    return (x, experts.onward(route, routes)), kept

  states: dict[stacks.State, Any] = {
      ('attention', window): tuple(part[window] for part in wanted.caches)
      for window in kinds.groups(config)
  }
  if wanted.recalled is not None:
    states['delta', 0] = wanted.recalled.layers
  stream, found = stacks.scan(config, layer, stream, policy.params, states)
  kept = {window: found['attention', window] for window in kinds.groups(config)}
  last = wanted.last
  if last is not None:
    stream = jax.tree.map(lambda x: pick(x, last), stream)
  return stream, kept, found.get(('delta', 0), [])


def _remember(
    config: config_lib.Policy,
    x: Float[Array, 'B T D'],
    weights: layers.Weights,
    memory: delta.Memory,
    wanted: _Wanted,
) -> tuple[Float[Array, 'B T D'], delta.Memory]:
  """What a recurrent layer adds, and what it knows after the tokens."""
  assert wanted.recalled is not None  # given where there are such layers
  normed = layers.enter(x, weights, 'attn_norm_ld', config)
  return delta.mix(normed, weights, config, memory, known=wanted.recalled.known)


def _look(
    config: config_lib.Policy,
    x: Float[Array, 'B T D'],
    angles: rope.Angles | None,
    weights: layers.Weights,
    caches: Sequence[KV],
    keep: Keep,
) -> tuple[Array, list[KV], KV]:
  """Normed inputs of a layer, what to attend to, and what to keep."""
  normed = layers.enter(x, weights, 'attn_norm_ld', config)
  k, v = layers.key_value(normed, weights, angles, config)
  return normed, *keep(caches, KV(k.transpose(0, 1, 3, 2), v))


def _think(
    config: config_lib.Policy,
    x: Float[Array, 'B T D'],
    normed: Float[Array, 'B T D'],
    angles: rope.Angles | None,
    weights: layers.Weights,
    kind: kinds.Kind,
    parts: Sequence[KV],
    masks: Sequence[Array],
) -> tuple[Float[Array, 'B T D'], experts.Routes | None]:
  """The rest of a layer: attention over the parts, and the MLP."""
  q, gate = layers.query(normed, weights, angles, config)
  mixed = layers.project_out(attend(q, parts, masks), gate, weights)
  return layers.conclude(x, mixed, weights, kind, config)


def pick(x: Array, place: Int[Array, ' B'], axis: int = 1) -> Array:
  """[B, T, ...] -> [B, 1, ...] at each row's place; of length 1: as it is."""
  if x.shape[axis] == 1:
    return x
  return jnp.take_along_axis(x, place.reshape(-1, *[1] * (x.ndim - 1)), axis=axis)


def attend(
    q: Float[Array, 'B N T H'], parts: Sequence[KV], masks: Sequence[Array]
) -> Float[Array, 'B N T H']:
  """Softmax attention over several parts at once, softmax in float32.

  Many queries go a chunk at a time.
  """
  rows, heads, length, dim = q.shape
  if length <= QUERIES or length % QUERIES:
    return _attend_whole(q, parts, masks)

  def chunk(index: Array) -> Array:
    cut = functools.partial(
        jax.lax.dynamic_slice_in_dim, start_index=index * QUERIES, slice_size=QUERIES
    )
    seen = [mask if mask.shape[1] == 1 else cut(mask, axis=1) for mask in masks]
    return _attend_whole(cut(q, axis=2), parts, seen)

  mixed = jax.lax.map(chunk, jnp.arange(length // QUERIES))  # [chunks, B, N, Q, H]
  return mixed.transpose(1, 2, 0, 3, 4).reshape(rows, heads, length, dim)


def _attend_whole(
    q: Float[Array, 'B N T H'], parts: Sequence[KV], masks: Sequence[Array]
) -> Float[Array, 'B N T H']:
  batch, num_heads, length, head_dim = q.shape
  num_kv_heads = parts[0].v.shape[1]
  # Query heads of a group fold into the rows of one product per KV head.
  rows = q.reshape(batch, num_kv_heads, -1, head_dim) * head_dim**-0.5
  groups = num_heads // num_kv_heads
  scores = []
  for part, mask in zip(parts, masks, strict=True):
    wide = (1, groups, 1) if mask.shape[1] > 1 else (1, 1, 1)
    product = products.einsum('bkrh,bkhs->bkrs', rows, part.k, jnp.float32)
    scores.append(jnp.where(jnp.tile(mask, wide)[:, None], product, MASKED))
  top = functools.reduce(jnp.maximum, [s.max(-1, keepdims=True) for s in scores])
  weights = [jnp.exp(s - top) for s in scores]
  total = functools.reduce(jnp.add, [w.sum(-1, keepdims=True) for w in weights])
  sums = [
      products.einsum('bkrs,bksh->bkrh', w.astype(part.v.dtype), part.v, jnp.float32)
      for w, part in zip(weights, parts, strict=True)
  ]
  mixed = functools.reduce(jnp.add, sums)
  return (mixed / total).astype(q.dtype).reshape(batch, num_heads, length, head_dim)
