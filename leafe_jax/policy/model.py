"""The policy: a decoder-only transformer (Qwen2.5, Qwen3, Llama 3.x shapes).

NNX holds the weights at the edges (`Transformer`: creation, names, logical
axes). Everything jitted takes `params`, a flat dict of arrays: walking an NNX
graph on every call costs more than a small update does. Weights of all layers
are stacked along a leading axis l; the suffix of a name spells its axes (`weights`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import (
  experts,
  kinds,
  layers,
  mixers,
  rope,
  scores,
  sharding,
  stacks,
  weights,
)  # fmt: skip
from leafe_jax.policy.stacks import Params

# Under remat 'dots' the products with weights are kept, those of attention not.
_KEPT = {
    'full': None,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Transformer(nnx.Module):
  """The weights as NNX parameters, one per row of `weights.weight_table`."""

  def __init__(self, config: config_lib.Policy, vocab_size: int, rngs: nnx.Rngs):
    self.config = config
    for name, weight in weights.weight_table(config, vocab_size).items():
      value = weight.initial(rngs.params(), config.param_dtype)
      setattr(self, name, nnx.Param(value, logical_axes=weight.axes))

  def params(self) -> Params:
    """The weights as a flat dict; the arrays are shared, not copied."""
    return nnx.to_pure_dict(nnx.state(self, nnx.Param))

  def __call__(
      self,
      tokens: Int[Array, 'B T'],
      positions: Int[Array, 'B T'],
      segment_ids: Int[Array, 'B T'],
  ) -> Float[Array, 'B T V']:
    return forward(self.params(), self.config, tokens, positions, segment_ids)


def param_shardings(
    config: config_lib.Policy, vocab_size: int, mesh: Mesh
) -> dict[str, NamedSharding]:
  """Where every weight lives on the mesh. ValueError: see `experts.check`."""
  if 'experts' in kinds.mlps(config):
    experts.check(config, mesh)
  return table_shardings(weights.weight_table(config, vocab_size), mesh)


def table_shardings(
    table: Mapping[str, weights.Weight], mesh: Mesh
) -> dict[str, NamedSharding]:
  """Where the weights of a table live on the mesh."""
  axes = {name: weight.axes for name, weight in table.items()}
  shapes = {name: weight.shape for name, weight in table.items()}
  return sharding.shardings(mesh, axes, shapes)


def init_params(
    config: config_lib.Policy, vocab_size: int, key: Array, mesh: Mesh
) -> Params:
  """Fresh weights, created on their devices; the same whatever the mesh.

  Args:
    config: sizes.
    vocab_size: rows of the embedding table.
    key: a typed random key (`jax.random.key`).
    mesh: from `sharding.make_mesh`.
  """

  def build(key: Array) -> Params:
    return Transformer(config, vocab_size, nnx.Rngs(params=key)).params()

  target = param_shardings(config, vocab_size, mesh)
  return jax.jit(build, out_shardings=target)(key)


def abstract_params(
    config: config_lib.Policy, vocab_size: int, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes, types and shardings of the weights, nothing allocated."""
  table = weights.weight_table(config, vocab_size)
  return abstract_table(table, config.param_dtype, mesh)


def abstract_table(
    table: Mapping[str, weights.Weight], dtype: str, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes, types and shardings of the weights of a table."""
  placement = table_shardings(table, mesh)
  return {
      name: jax.ShapeDtypeStruct(
          weight.shape, jnp.dtype(dtype), sharding=placement[name]
      )
      for name, weight in table.items()
  }


def forward(
    params: Params,
    config: config_lib.Policy,
    tokens: Int[Array, 'B T'],
    positions: Int[Array, 'B T'],
    segment_ids: Int[Array, 'B T'],
) -> Float[Array, 'B T V']:
  """Logits of the next token at every place, float32.

  Args:
    params: from `init_params`.
    config: sizes and types.
    tokens: packed rows.
    positions: place of each token in its own sequence, from 0.
    segment_ids: sequence of each token in its row, from 1; 0 is padding.
      Attention stays inside a segment.
  """
  x, _ = hidden(params, config, tokens, positions, segment_ids)
  return layers.unembed(params, x, config)


def hidden(
    params: Params,
    config: config_lib.Policy,
    tokens: Int[Array, 'B T'],
    positions: Int[Array, 'B T'],
    segment_ids: Int[Array, 'B T'],
) -> tuple[Float[Array, 'B T D'], experts.Noted | None]:
  """Output of the last layer, and what is known of the experts of all layers.

  Arguments as for `forward`.
  """
  x = layers.embed(params, tokens, config)
  x = sharding.constrain(x, ('batch', 'length', None))
  places = mixers.Places(rope.all_angles(positions, config), segment_ids)

  def layer(
      kind: kinds.Kind, stream: _Stream, weights: Params, _: None
  ) -> tuple[_Stream, experts.Load | None]:
    return run(kind, stream, weights)

  run = functools.partial(_layer, config, places)
  if config.remat != 'none':
    # A scan keeps the compiler from undoing it; without one, it must not try.
    run = jax.checkpoint(
        run, policy=_KEPT[config.remat], prevent_cse=not config.scan_layers,
        static_argnums=0,
    )
  stream = x, experts.nowhere(tokens, config)
  if config.scan_layers:
    (x, route), by_mixer = stacks.scan(
        config, layer, stream, params, differentiable=True
    )
    loads = list(by_mixer.values())
  else:
    loads = []
    own = stacks.unstack(params, config)
    for kind, weights in zip(kinds.of_layers(config), own, strict=True):
      stream, load = run(kind, stream, weights)
      loads.append(jax.tree.map(lambda x: x[None], load))
    x, route = stream
  if route is None:
    return x, None
  return x, experts.Noted(jax.tree.map(lambda *x: jnp.concatenate(x), *loads), route)


# The residual stream, and a number for the experts that its tokens went to.
_Stream = tuple[Array, Array | None]


def _layer(
    config: config_lib.Policy,
    places: mixers.Places,
    kind: kinds.Kind,
    stream: _Stream,
    weights: Params,
) -> tuple[_Stream, experts.Load | None]:
  x, route = stream
  normed = layers.enter(x, weights, 'attn_norm_ld', config)
  mixed = mixers.MIXERS[kind.mixer](config, places, kind, normed, weights)
  x, routes = layers.conclude(x, mixed, weights, kind, config)
  x = sharding.constrain(x, ('batch', 'length', None))
  load = None if routes is None else experts.load(routes, places.segment_ids > 0)
  return (x, experts.onward(route, routes)), load


def token_scores(
    params: Params,
    config: config_lib.Policy,
    tokens: Int[Array, 'B T'],
    positions: Int[Array, 'B T'],
    segment_ids: Int[Array, 'B T'],
    weights: Float[Array, 'B T'] | None = None,
) -> scores.Scores:
  """What losses need of every token; no array [B, T, V] when rows are long.

  Arguments as for `forward`, from whose logits `scores.of_logits` would give
  the same.

  Args:
    weights: of tokens in a loss; scores of those with 0 are not wanted, and where
      rows are scored in chunks most of them cost nothing. None: all are wanted.
  """
  x, noted = hidden(params, config, tokens, positions, segment_ids)
  asked = None if weights is None else scores.next_tokens(weights) != 0
  found = scores.of_hidden(params, config, x, scores.next_tokens(tokens), asked)
  if noted is not None:
    noted = noted._replace(routes=scores.align(noted.routes, segment_ids))
  return scores.align(found, segment_ids)._replace(noted=noted)


def token_logprobs(
    params: Params,
    config: config_lib.Policy,
    tokens: Int[Array, 'B T'],
    positions: Int[Array, 'B T'],
    segment_ids: Int[Array, 'B T'],
) -> Float[Array, 'B T']:
  """Natural-log probability of every token given those before it, float32.

  0 where nothing predicts the token: the first of a segment, and padding.
  """
  return token_scores(params, config, tokens, positions, segment_ids).logprobs


def candidate_logprobs(
    params: Params,
    config: config_lib.Policy,
    tokens: Int[Array, 'B T'],
    positions: Int[Array, 'B T'],
    segment_ids: Int[Array, 'B T'],
    candidates: Int[Array, 'B T K'],
) -> Float[Array, 'B T K']:
  """Natural-log probabilities of several tokens in the place of each one.

  As `token_logprobs`, of `candidates` instead of the tokens themselves.
  """
  x, _ = hidden(params, config, tokens, positions, segment_ids)
  found = scores.of_candidates(params, config, x, scores.next_tokens(candidates))
  return scores.align(found, segment_ids)


def likeliest(
    params: Params,
    config: config_lib.Policy,
    tokens: Int[Array, 'B T'],
    positions: Int[Array, 'B T'],
    segment_ids: Int[Array, 'B T'],
    count: int,
) -> tuple[Float[Array, 'B T K'], Int[Array, 'B T K']]:
  """(log-probabilities, ids) of what would be likeliest in the place of each token.

  0 where nothing predicts the token: the first of a segment, and padding.
  """
  x, _ = hidden(params, config, tokens, positions, segment_ids)
  return scores.align(scores.likeliest(params, config, x, count), segment_ids)
