"""The policy: a decoder-only transformer (Qwen2.5, Qwen3, Llama 3.x shapes).

NNX holds the weights at the edges (`Transformer`: creation, names, logical
axes). Everything jitted takes `params`, a flat dict of arrays: walking an NNX
graph on every call costs more than a small update does. Weights of all layers
are stacked along a leading axis l; the suffix of a name spells its axes:

    l layer, d embed, n query head, k KV head, h head_dim, f mlp, v vocabulary,
    r rank of an adapter, e expert, m mlp of an expert, x queries and gates; those of
    `delta` are told there
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import (
  delta,
  experts,
  kinds,
  layers,
  mixers,
  rope,
  scores,
  sharding,
  stacks,
)  # fmt: skip
from leafe_jax.policy.stacks import Params

_AXIS_OF_SUFFIX = {
    'l': 'layers',
    'd': 'embed',
    'n': 'heads',
    'k': 'kv_heads',
    'h': 'head_dim',
    'f': 'mlp',
    'e': 'experts',
    'm': 'mlp',
    'v': 'vocab',
    'r': 'rank',
    'x': 'head_dim',
    'p': 'channels',
    'c': 'taps',
    'w': 'heads',
    'j': 'head_dim',
}
# Under remat 'dots' the products with weights are kept, those of attention not.
_KEPT = {
    'full': None,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class Weight:
  """Shape, logical axes and initial spread of one weight.

  Attributes:
    shape: sizes by axis.
    axes: logical axis names, see `sharding.LOGICAL_RULES`.
    std: of the normal that it starts from; None: a norm's scale (ones), 0: a
      bias (zeros).
  """

  shape: tuple[int, ...]
  axes: tuple[str, ...]
  std: float | None

  def initial(self, key: Array, dtype: str) -> Array:
    if self.std is None:
      return jnp.ones(self.shape, dtype)
    if self.std == 0:
      return jnp.zeros(self.shape, dtype)
    values = jax.random.normal(key, self.shape, jnp.float32) * self.std
    return values.astype(dtype)


def weight_table(config: config_lib.Policy, vocab_size: int) -> dict[str, Weight]:
  """Every weight of the model by name.

  Projections start at 1/sqrt(fan-in); those that add to the residual stream
  are smaller by sqrt(2 * layers) (GPT-2).
  """
  stds = {name: std for name, std in _spreads(config).items() if _is_part(name, config)}
  if config.norm_plus_one:  # the scale of a norm that starts at 1
    stds = {
        name: 0.0 if std is None and name != 'out_norm_lj' else std
        for name, std in stds.items()
    }
  return make_table(stds, config, vocab_size)


def _is_part(name: str, config: config_lib.Policy) -> bool:
  """Whether a weight is not of layers, or some layer has it."""
  of_layers = name.rsplit('_', 1)[1].startswith('l')
  return not of_layers or bool(kinds.layers_with(name, config))


def _spreads(config: config_lib.Policy) -> dict[str, float | None]:
  """The spread of every weight, of all kinds of layers."""
  width, heads = config.embed_dim, config.num_heads * config.head_dim
  into = width**-0.5
  depth = (2 * config.num_layers) ** -0.5
  stds: dict[str, float | None] = {
      'embed_vd': into,
      **({'attn_norm_ld': None} if config.pre_norms else {}),
      'q_weight_ldnh': into,
      'k_weight_ldkh': into,
      'v_weight_ldkh': into,
      'o_weight_lnhd': depth * heads**-0.5,
      **({'mlp_norm_ld': None} if config.pre_norms else {}),
      'gate_weight_ldf': into,
      'up_weight_ldf': into,
      'down_weight_lfd': depth * config.mlp_dim**-0.5,
      'final_norm_d': None,
  }
  if config.qkv_bias:
    stds |= {'q_bias_lnh': 0.0, 'k_bias_lkh': 0.0, 'v_bias_lkh': 0.0}
  if config.qk_norm:
    stds |= {'q_norm_lh': None, 'k_norm_lh': None}
  if config.output_gate:
    stds['q_weight_ldnx'] = stds.pop('q_weight_ldnh')
  if 'delta' in kinds.mixers(config):
    stds |= delta.spreads(config)
  if config.qk_norm_wide:
    stds |= {'q_norm_lnh': None, 'k_norm_lkh': None}
  if 'experts' in kinds.mlps(config):
    stds |= experts.stds(config)
  if config.post_norms:
    stds |= {'attn_post_norm_ld': None, 'mlp_post_norm_ld': None}
  if not config.tie_embeddings:
    stds['head_weight_dv'] = into
  return stds


def make_table(
    stds: Mapping[str, float | None], config: config_lib.Policy, vocab_size: int
) -> dict[str, Weight]:
  """Weights from their names and spreads; the names spell the shapes."""
  sizes = _axis_sizes(config, vocab_size)
  return {
      name: _weight(name, std, sizes | {'l': len(kinds.layers_with(name, config))})
      for name, std in stds.items()
  }


def _axis_sizes(config: config_lib.Policy, vocab_size: int) -> dict[str, int]:
  if config.num_heads % config.num_kv_heads:
    raise ValueError(
        f'num_kv_heads {config.num_kv_heads} does not divide num_heads'
        f' {config.num_heads}'
    )
  return {
      'd': config.embed_dim,
      'n': config.num_heads,
      'k': config.num_kv_heads,
      'h': config.head_dim,
      'f': config.mlp_dim,
      'e': config.num_experts,
      'm': config.expert_dim,
      'v': vocab_size,
      'r': config.lora_rank,
      'x': 2 * config.head_dim,
      **delta.axis_sizes(config),
  }


def _weight(name: str, std: float | None, sizes: dict[str, int]) -> Weight:
  suffix = name.rsplit('_', 1)[1]
  shape = tuple(sizes[letter] for letter in suffix)
  return Weight(shape, logical_axes(name), std)


def logical_axes(name: str) -> tuple[str, ...]:
  """Of a weight: 'q_weight_ldnh' -> ('layers', 'embed', 'heads', 'head_dim')."""
  return tuple(_AXIS_OF_SUFFIX[letter] for letter in name.rsplit('_', 1)[1])


class Transformer(nnx.Module):
  """The weights as NNX parameters, one per row of `weight_table`."""

  def __init__(self, config: config_lib.Policy, vocab_size: int, rngs: nnx.Rngs):
    self.config = config
    for name, weight in weight_table(config, vocab_size).items():
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
  return table_shardings(weight_table(config, vocab_size), mesh)


def table_shardings(
    table: Mapping[str, Weight], mesh: Mesh
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
  return abstract_table(weight_table(config, vocab_size), config.param_dtype, mesh)


def abstract_table(
    table: Mapping[str, Weight], dtype: str, mesh: Mesh
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
) -> scores.Scores:
  """What losses need of every token; no array [B, T, V] when rows are long.

  Arguments as for `forward`, from whose logits `scores.of_logits` would give
  the same.
  """
  x, noted = hidden(params, config, tokens, positions, segment_ids)
  found = scores.of_hidden(params, config, x, scores.next_tokens(tokens))
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
