"""Running tokens through the layers, over keys and values in several parts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import layers, model
from leafe_jax.policy.attention import MASKED
from leafe_jax.sampler import cache

# Keys and values of all layers: a list of them, or with layers scanned one KV
# whose arrays have a leading layer axis.
Layers = list[cache.KV] | cache.KV


@dataclasses.dataclass(frozen=True)
class LayeredPolicy:
  """Weights within one program, layers apart.

  Slicing the stacked weights inside the loop would copy them every step.
  """

  config: config_lib.Policy
  params: model.Params

  @functools.cached_property
  def layers(self) -> list[model.Params]:
    count = self.config.num_layers
    return [model.layer_weights(self.params, i) for i in range(count)]


def stack(layers_of_kv: list[cache.KV]) -> cache.KV:
  """Layers for scanning."""
  return jax.tree.map(lambda *arrays: jnp.stack(arrays), *layers_of_kv)


def unstack(stacked: cache.KV, count: int) -> list[cache.KV]:
  """Scanned layers one by one."""
  return [cache.KV(stacked.k[i], stacked.v[i]) for i in range(count)]


def each_layer(change: Callable[..., cache.KV], *parts: Layers) -> Layers:
  """The same change to every layer."""
  if isinstance(parts[0], cache.KV):
    return jax.vmap(change)(*parts)
  return [change(*layer) for layer in zip(*parts, strict=True)]


def _of_layer(part: Layers, index: int) -> cache.KV:
  assert isinstance(part, list)  # scanned layers come one by one already
  return part[index]


def length_of(part: Layers) -> int:
  """Places of a row."""
  return (part if isinstance(part, cache.KV) else part[0]).k.shape[-1]


def read(
    policy: LayeredPolicy,
    tokens: Int[Array, 'B T'],
    positions: Int[Array, 'B T'],
    fixed: list[Layers],
    growing: Layers,
    keep: Callable[[cache.KV, cache.KV], cache.KV],
    see: Callable[[Array], list[Array]],
    last: Int[Array, ' B'] | None,
) -> tuple[Float[Array, 'B V'] | None, Layers]:
  """Runs tokens through the layers.

  Args:
    policy: the weights.
    tokens: to read.
    positions: their places in the transcript.
    fixed: keys and values to look at.
    growing: more of them, to which those of the tokens are added.
    keep: adds a layer's new keys and values to the growing ones.
    see: masks [B, T or 1, S] of fixed and growing ones for given positions.
    last: the place of each row whose logits are wanted. Only this one goes
      through the rest of the last layer: of the others nothing but keys and
      values is needed. None: no logits.

  Returns:
    The logits, and what `growing` has become.
  """
  config = policy.config
  x = layers.embed(policy.params, tokens, config)
  if config.scan_layers:
    x, growing = _scan_layers(policy, x, positions, fixed, growing, keep, see)
    if last is None:
      return None, growing
    return layers.unembed(policy.params, _pick(x, last)[:, 0], config), growing
  grown = []
  angles = layers.rope_angles(positions, config)
  for index, weights in enumerate(policy.layers):
    parts = [_of_layer(part, index) for part in fixed]
    before = _of_layer(growing, index)
    normed, added = _look(config, x, angles, weights, before, keep)
    grown.append(added)
    if index == config.num_layers - 1:
      if last is None:
        return None, grown
      x, normed, positions = (_pick(a, last) for a in (x, normed, positions))
      angles = layers.rope_angles(positions, config)
    x = _think(config, x, normed, angles, weights, [*parts, added], see(positions))
  return layers.unembed(policy.params, x[:, 0], config), grown


def _scan_layers(
    policy: LayeredPolicy,
    x: Float[Array, 'B T D'],
    positions: Int[Array, 'B T'],
    fixed: list[Layers],
    growing: Layers,
    keep: Callable[[cache.KV, cache.KV], cache.KV],
    see: Callable[[Array], list[Array]],
) -> tuple[Array, Layers]:
  """The layers of `read` as one loop: a deep model compiles like one layer."""
  angles, masks = layers.rope_angles(positions, policy.config), see(positions)

  def layer(x: Array, parts: tuple) -> tuple[Array, cache.KV]:
    weights, fixed, growing = parts
    normed, added = _look(policy.config, x, angles, weights, growing, keep)
    seen = [*fixed, added]
    return _think(policy.config, x, normed, angles, weights, seen, masks), added

  stacks = model.layer_stacks(policy.params)
  return jax.lax.scan(layer, x, (stacks, fixed, growing))


def _look(
    config: config_lib.Policy,
    x: Float[Array, 'B T D'],
    angles: tuple[Array, Array],
    weights: layers.Weights,
    growing: cache.KV,
    keep: Callable[[cache.KV, cache.KV], cache.KV],
) -> tuple[Array, cache.KV]:
  """Normed inputs of a layer, and its keys and values with theirs added."""
  normed = layers.rms_norm(x, weights['attn_norm_ld'], config.norm_eps)
  k, v = layers.key_value(normed, weights, angles, config)
  return normed, keep(growing, cache.KV(k.transpose(0, 1, 3, 2), v))


def _think(
    config: config_lib.Policy,
    x: Float[Array, 'B T D'],
    normed: Float[Array, 'B T D'],
    angles: tuple[Array, Array],
    weights: layers.Weights,
    parts: Sequence[cache.KV],
    masks: Sequence[Array],
) -> Float[Array, 'B T D']:
  """The rest of a layer: attention over the parts, and the MLP."""
  q = layers.query(normed, weights, angles, config)
  x = x + layers.project_out(_attend(q, parts, masks), weights)
  normed = layers.rms_norm(x, weights['mlp_norm_ld'], config.norm_eps)
  return x + layers.feed_forward(normed, weights)


def _pick(x: Array, place: Int[Array, ' B']) -> Array:
  """[B, T, ...] -> [B, 1, ...] at each row's place."""
  if x.shape[1] == 1:
    return x
  return jnp.take_along_axis(x, place.reshape(-1, *[1] * (x.ndim - 1)), axis=1)


def _attend(
    q: Float[Array, 'B N T H'], parts: Sequence[cache.KV], masks: Sequence[Array]
) -> Float[Array, 'B N T H']:
  """Softmax attention over several parts at once, softmax in float32."""
  batch, num_heads, length, head_dim = q.shape
  num_kv_heads = parts[0].v.shape[1]
  # Query heads of a group fold into the rows of one product per KV head.
  rows = q.reshape(batch, num_kv_heads, -1, head_dim) * head_dim**-0.5
  groups = num_heads // num_kv_heads
  scores = []
  for part, mask in zip(parts, masks, strict=True):
    wide = (1, groups, 1) if mask.shape[1] > 1 else (1, 1, 1)
    product = _product('bkrh,bkhs->bkrs', rows, part.k)
    scores.append(jnp.where(jnp.tile(mask, wide)[:, None], product, MASKED))
  top = functools.reduce(jnp.maximum, [s.max(-1, keepdims=True) for s in scores])
  weights = [jnp.exp(s - top) for s in scores]
  total = functools.reduce(jnp.add, [w.sum(-1, keepdims=True) for w in weights])
  products = [
      _product('bkrs,bksh->bkrh', w.astype(part.v.dtype), part.v)
      for w, part in zip(weights, parts, strict=True)
  ]
  mixed = functools.reduce(jnp.add, products)
  return (mixed / total).astype(q.dtype).reshape(batch, num_heads, length, head_dim)


def _product(form: str, left: Array, right: Array) -> Array:
  return jnp.einsum(form, left, right, preferred_element_type=jnp.float32)
