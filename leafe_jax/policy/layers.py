"""The pieces of a decoder layer, shared by training and sampling.

Weights come as a plain dict per layer, without the leading layer axis. Norms
run in float32; products run in the type of their input. A matrix may be
quantised (see `quantize`), and it may have an adapter beside it (see `lora`):
training and sampling meet both here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import experts, kinds, products, quantize
from leafe_jax.policy.rope import Angles, rotate

# The matrices of a layer, and the axes that each of them contracts.
INPUTS: Mapping[str, str] = {
    'q_weight_ldnh': 'd',
    'k_weight_ldkh': 'd',
    'v_weight_ldkh': 'd',
    'q_weight_ldnx': 'd',
    'o_weight_lnhd': 'nh',
    'mix_weight_ldp': 'd',
    'z_weight_ldwj': 'd',
    'fade_weight_ldw': 'd',
    'beta_weight_ldw': 'd',
    'out_weight_lwjd': 'wj',
    'gate_weight_ldf': 'd',
    'up_weight_ldf': 'd',
    'down_weight_lfd': 'f',
    'sgate_weight_lds': 'd',
    'sup_weight_lds': 'd',
    'sdown_weight_lsd': 's',
    **experts.INPUTS,
}

Weights = Mapping[str, Array]


def rms_norm(
    x: Float[Array, '... D'], scale: Float[Array, ' D'], eps: float
) -> Float[Array, '... D']:
  """RMSNorm in float32, returned in the type of `x` (arXiv 1910.07467)."""
  wide = x.astype(jnp.float32)
  inverse = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
  return (wide * inverse * scale.astype(jnp.float32)).astype(x.dtype)


def norm(
    x: Float[Array, '... D'], weights: Weights, name: str, config: config_lib.Policy
) -> Float[Array, '... D']:
  """RMSNorm with one of the weights, or 1 + it."""
  scale = weights[name]
  if config.norm_plus_one:
    scale = 1 + scale.astype(jnp.float32)
  return rms_norm(x, scale, config.norm_eps)


def enter(
    x: Float[Array, 'B T D'], weights: Weights, name: str, config: config_lib.Policy
) -> Float[Array, 'B T D']:
  """What a mixer or an MLP sees of the residual stream."""
  return norm(x, weights, name, config) if config.pre_norms else x


class Query(NamedTuple):
  """What attention is asked, and the gate on what it gives; None without one."""

  q: Float[Array, 'B N T H']
  gate: Float[Array, 'B N T H'] | None


def query(
    x: Float[Array, 'B T D'],
    weights: Weights,
    angles: Angles | None,
    config: config_lib.Policy,
) -> Query:
  """Query heads of normed inputs, heads leading; `angles` is None without rope."""
  q, gate = _project_queries(x, weights, config)
  if config.qkv_bias:
    q = q + weights['q_bias_lnh'].astype(x.dtype)[None, :, None]
  if config.qk_norm:
    q = norm(q, weights, 'q_norm_lh', config)
  if config.qk_norm_wide:
    q = _norm_heads(q, weights, 'q_norm_lnh', config)
  return Query(rotate(q, angles, _query_scale(config)), gate)


def _project_queries(
    x: Float[Array, 'B T D'], weights: Weights, config: config_lib.Policy
) -> tuple[Array, Array | None]:
  if not config.output_gate:
    return _project_heads(x, weights, 'q_weight_ldnh'), None
  q, gate = jnp.split(_project_heads(x, weights, 'q_weight_ldnx'), 2, axis=-1)
  return q, gate


def _query_scale(config: config_lib.Policy) -> float:
  """What attention, which divides by sqrt(head_dim), must find in the queries."""
  return config.attention_scale * config.head_dim**0.5 or 1.0


def key_value(
    x: Float[Array, 'B T D'],
    weights: Weights,
    angles: Angles | None,
    config: config_lib.Policy,
) -> tuple[Float[Array, 'B K T H'], Float[Array, 'B K T H']]:
  """Key and value heads of normed inputs, heads leading."""
  k = _project_heads(x, weights, 'k_weight_ldkh')
  v = _project_heads(x, weights, 'v_weight_ldkh')
  if config.qkv_bias:
    k = k + weights['k_bias_lkh'].astype(x.dtype)[None, :, None]
    v = v + weights['v_bias_lkh'].astype(x.dtype)[None, :, None]
  if config.qk_norm:
    k = norm(k, weights, 'k_norm_lh', config)
  if config.qk_norm_wide:
    k = _norm_heads(k, weights, 'k_norm_lkh', config)
  return rotate(k, angles), v


def _norm_heads(
    x: Float[Array, 'B N T H'], weights: Weights, name: str, config: config_lib.Policy
) -> Float[Array, 'B N T H']:
  """RMSNorm over all heads of a place together."""
  wide = x.astype(jnp.float32)
  mean = jnp.mean(wide * wide, axis=(1, 3), keepdims=True)
  scale = weights[name].astype(jnp.float32)[:, None]
  return (wide * jax.lax.rsqrt(mean + config.norm_eps) * scale).astype(x.dtype)


def _project_heads(
    x: Float[Array, 'B T D'], weights: Weights, name: str
) -> Float[Array, 'B N T H']:
  # Transposed apart: asked for heads first, einsum puts the weight on the left
  # and XLA on CPU copies it, transposed, at every step of a decode loop.
  axes = name.rsplit('_l', 1)[1]  # dnh, dnx or dkh
  heads = project(f'btd,{axes}->bt{axes[1:]}', x, weights, name)
  return heads.transpose(0, 2, 1, 3)


def project_out(
    mixed: Float[Array, 'B N T H'], gate: Array | None, weights: Weights
) -> Float[Array, 'B T D']:
  """Attention output, through its gate, back to the residual stream."""
  if gate is not None:
    mixed = mixed * jax.nn.sigmoid(gate)
  heads_inside = mixed.transpose(0, 2, 1, 3)
  return project('btnh,nhd->btd', heads_inside, weights, 'o_weight_lnhd')


_ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    'silu': jax.nn.silu,
    'gelu_tanh': jax.nn.gelu,
}


def feed_forward(
    x: Float[Array, 'B T D'], weights: Weights, config: config_lib.Policy
) -> Float[Array, 'B T D']:
  """A gated MLP: SwiGLU or GeGLU (arXiv 2002.05202)."""
  gate = project('btd,df->btf', x, weights, 'gate_weight_ldf')
  up = project('btd,df->btf', x, weights, 'up_weight_ldf')
  inside = _ACTIVATIONS[config.activation](gate) * up
  return project('btf,fd->btd', inside, weights, 'down_weight_lfd')


def _consult_shared(x: Float[Array, 'B T D'], weights: Weights) -> Array:
  """What the expert says that every token goes to, through its gate."""
  gate = project('btd,ds->bts', x, weights, 'sgate_weight_lds')
  up = project('btd,ds->bts', x, weights, 'sup_weight_lds')
  said = project('bts,sd->btd', jax.nn.silu(gate) * up, weights, 'sdown_weight_lsd')
  wide, share = (y.astype(jnp.float32) for y in (x, weights['share_weight_ld']))
  return said * jax.nn.sigmoid(wide @ share)[..., None].astype(x.dtype)


def _think(
    x: Float[Array, 'B T D'],
    weights: Weights,
    kind: kinds.Kind,
    config: config_lib.Policy,
) -> tuple[Float[Array, 'B T D'], experts.Routes | None]:
  if kind.mlp == 'experts':
    added, routes = experts.forward(x, weights, config)
    if config.shared_expert_dim:
      added += _consult_shared(x, weights)
    return added, routes
  routes = experts.nothing(x, config) if config.num_experts else None
  return feed_forward(x, weights, config), routes


def conclude(
    x: Float[Array, 'B T D'],
    mixed: Float[Array, 'B T D'],
    weights: Weights,
    kind: kinds.Kind,
    config: config_lib.Policy,
) -> tuple[Float[Array, 'B T D'], experts.Routes | None]:
  """A layer's end: the mixer's output and the MLP join the residual stream.

  Returns:
    The stream, and where its tokens went; None in a policy without experts.
  """
  x = _join(x, mixed, weights, 'attn_post_norm_ld', config)
  normed = enter(x, weights, 'mlp_norm_ld', config)
  added, routes = _think(normed, weights, kind, config)
  return _join(x, added, weights, 'mlp_post_norm_ld', config), routes


def _join(
    x: Array, added: Array, weights: Weights, name: str, config: config_lib.Policy
) -> Array:
  """The residual stream with what is added to it, normed where the policy does so."""
  if config.post_norms:
    added = norm(added, weights, name, config)
  return x + (added if config.residual_scale == 1 else added * config.residual_scale)


def adapter_names(weight: str) -> tuple[str, str]:
  """Of a matrix's adapter: 'q_weight_ldnh' -> 'q_lora_a_ldr', 'q_lora_b_lrnh'."""
  kind, _, axes = weight.split('_')
  inputs = INPUTS[weight]
  outputs = axes.removeprefix('l').replace(inputs, '')
  return f'{kind}_lora_a_l{inputs}r', f'{kind}_lora_b_lr{outputs}'


def project(form: str, x: Array, weights: Weights, name: str) -> Array:
  """Product with a matrix, plus that with its adapter where there is one."""
  weight = weights[name]
  if quantize.is_quantized(weight):
    weight = quantize.dense(weight, x.dtype)
  whole = products.einsum(form, x, weight)
  into, out_of = adapter_names(name)
  if into not in weights:
    return whole
  given, rest = form.split(',')
  low = products.einsum(f'{given},{INPUTS[name]}r->btr', x, weights[into])
  outputs = out_of.rsplit('_lr', 1)[1]
  form = f'btr,r{outputs}->{rest.split("->")[1]}'
  return whole + products.einsum(form, low, weights[out_of])


def embed(
    params: Weights, tokens: Int[Array, 'B T'], config: config_lib.Policy
) -> Float[Array, 'B T D']:
  x = jnp.take(params['embed_vd'], tokens, axis=0).astype(config.dtype)
  # The factor is rounded as the embedding is, as in Gemma.
  return x if config.embed_scale == 1 else x * jnp.asarray(config.embed_scale, x.dtype)


def unembed(
    params: Weights, x: Float[Array, '... D'], config: config_lib.Policy
) -> Float[Array, '... V']:
  """Final norm and logits, in float32."""
  x = norm(x, params, 'final_norm_d', config)
  if config.tie_embeddings:
    weight, form = params['embed_vd'], 'td,vd->tv'
  else:
    weight, form = params['head_weight_dv'], 'td,dv->tv'
  if x.ndim == 3:
    form = form.replace('t', 'bt')
  logits = products.einsum(form, x, weight, jnp.float32)
  return logits if config.logits_divisor == 1 else logits / config.logits_divisor
