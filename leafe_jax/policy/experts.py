"""A mixture of experts in the place of the MLP (Qwen3-MoE, arXiv 2505.09388).

A router gives every token to `experts_per_token` of `num_experts` small MLPs, whose
outputs are added up, weighed by the router's probabilities. No token is ever
dropped: copies of tokens are sorted by expert, and products of groups take what
there is (`grouped`). The router runs in float32 whatever the type of the policy,
since a rounded logit sends a token elsewhere.

Over a mesh the experts lie along the axis 'expert', and so do the rows of a batch.
Each device sees the tokens of all devices along that axis, computes what its own
experts have to say to them, and the sums go back to where the rows are. Sending
only the chosen copies would move more, as long as there are fewer devices along the
axis than experts a token.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Array, Bool, Float, Int, UInt32

from leafe_jax import config as config_lib
from leafe_jax.policy import grouped, products, quantize, sharding

ROUTER = 'router_weight_lde'
# The matrices of the experts, and the axes that each of them contracts.
INPUTS: Mapping[str, str] = {
    'egate_weight_ledm': 'd',
    'eup_weight_ledm': 'd',
    'edown_weight_lemd': 'm',
}
_AXES: Mapping[str, sharding.LogicalAxes] = {
    'egate_weight_ledm': ('experts', None, 'mlp'),
    'eup_weight_ledm': ('experts', None, 'mlp'),
    'edown_weight_lemd': ('experts', 'mlp', None),
}

Weights = Mapping[str, Any]


class Routes(NamedTuple):
  """Where the tokens of a layer go; E experts, k of them a token.

  Attributes:
    experts: [B, T, k] whom a token goes to, the likeliest first.
    gains: [B, T, k] what their outputs are multiplied with, float32.
    shares: [B, T, E] probabilities of all experts, float32.
  """

  experts: Int[Array, 'B T k']
  gains: Float[Array, 'B T k']
  shares: Float[Array, 'B T E']


class Load(NamedTuple):
  """What the experts of a layer, or of several, have to do.

  Attributes:
    tokens: [..., E] that went to each expert.
    shares: [..., E] sums of the tokens' probabilities.
    total: [...] tokens that were counted.
  """

  tokens: Float[Array, '... E']
  shares: Float[Array, '... E']
  total: Float[Array, ...]


class Noted(NamedTuple):
  """What is known of the experts of all layers after a forward pass.

  Attributes:
    load: [L, E].
    routes: [B, T] a number for the experts that each token went to, in all layers.
  """

  load: Load
  routes: UInt32[Array, 'B T']


def stds(config: config_lib.Policy) -> dict[str, float]:
  """The weights of a layer's experts, and the spreads they start from."""
  into, depth = config.embed_dim**-0.5, (2 * config.num_layers) ** -0.5
  found = {
      ROUTER: into,
      'egate_weight_ledm': into,
      'eup_weight_ledm': into,
      'edown_weight_lemd': depth * config.expert_dim**-0.5,
  }
  if config.shared_expert_dim:
    found |= {
        'share_weight_ld': into,
        'sgate_weight_lds': into,
        'sup_weight_lds': into,
        'sdown_weight_lsd': depth * config.shared_expert_dim**-0.5,
    }
  return found


def check(config: config_lib.Policy, mesh: Mesh | AbstractMesh) -> None:
  """ValueError for experts that cannot be, or that do not divide among devices."""
  count, chosen = config.num_experts, config.experts_per_token
  if not count:
    raise ValueError(
        'policy.layer_kinds has layers of experts: give policy.num_experts'
    )
  if chosen > count:
    raise ValueError(
        f'policy.experts_per_token is {chosen}; there are policy.num_experts={count}'
    )
  if count % mesh.shape['expert']:
    raise ValueError(
        f'mesh.expert={mesh.shape["expert"]} does not divide {count} experts; give '
        f'--config.mesh.expert={math.gcd(mesh.shape["expert"], count)}'
    )


def forward(
    x: Float[Array, 'B T D'], weights: Weights, config: config_lib.Policy
) -> tuple[Float[Array, 'B T D'], Routes]:
  """Normed inputs through the experts that each token is sent to."""
  routes = route(x, weights, config)
  return mix(x, routes, weights), routes


def route(
    x: Float[Array, 'B T D'], weights: Weights, config: config_lib.Policy
) -> Routes:
  """Whom each token goes to; softmax over all experts, then the k likeliest."""
  logits = products.einsum('btd,de->bte', x.astype(jnp.float32), weights[ROUTER])
  shares = jax.nn.softmax(logits, axis=-1)
  gains, experts = jax.lax.top_k(shares, config.experts_per_token)
  if config.renormalise_experts:
    gains = gains / jnp.sum(gains, axis=-1, keepdims=True)
  return Routes(experts, gains, shares)


def nothing(x: Float[Array, 'B T D'], config: config_lib.Policy) -> Routes:
  """Of a layer without experts, in a policy that has some elsewhere."""
  places, count = x.shape[:2], config.num_experts
  nobody = jnp.full((*places, config.experts_per_token), count, jnp.int32)
  gains = jnp.zeros(nobody.shape, jnp.float32)
  return Routes(nobody, gains, jnp.zeros((*places, count), jnp.float32))


def mix(
    x: Float[Array, 'B T D'], routes: Routes, weights: Weights
) -> Float[Array, 'B T D']:
  """What the chosen experts say to each token, weighed and added up."""
  matrices = [quantize.dense(weights[name], x.dtype) for name in INPUTS]
  if sharding.is_alone():
    return _consult(x, routes.experts, routes.gains, *matrices)
  mesh = jax.sharding.get_abstract_mesh()
  of_rows = sharding.partition_spec(('batch', 'length', None), x.shape, mesh)
  specs = [
      sharding.partition_spec(axes, matrix.shape, mesh)
      for axes, matrix in zip(_AXES.values(), matrices, strict=True)
  ]
  apart = specs[0][0] is not None
  run = functools.partial(
      _consult_apart, apart=apart, gathered=apart and of_rows[0] is not None,
      cut=specs[0][2] is not None,
  )
  mapped = jax.shard_map(
      run, in_specs=(of_rows, of_rows, of_rows, *specs), out_specs=of_rows,
      check_vma=False,  # the loops of `grouped` begin with plain zeros
  )
  return mapped(x, routes.experts, routes.gains, *matrices)


def _consult_apart(
    x: Float[Array, 'B T D'],
    experts: Int[Array, 'B T k'],
    gains: Float[Array, 'B T k'],
    *matrices: Array,
    apart: bool,
    gathered: bool,
    cut: bool,
) -> Float[Array, 'B T D']:
  """On one of several devices.

  Args:
    x: its rows.
    experts: of its tokens.
    gains: of these.
    *matrices: of its experts, and its part of their width.
    apart: whether the devices along 'expert' have other experts each.
    gathered: whether they have other rows each, too.
    cut: whether the experts' width is cut over 'tensor'.
  """
  if gathered:
    x, experts, gains = (
        jax.lax.all_gather(part, 'expert', axis=0, tiled=True)
        for part in (x, experts, gains)
    )
  if apart:
    experts = experts - jax.lax.axis_index('expert') * matrices[0].shape[0]
  mixed = _consult(x, experts, gains, *matrices)
  if cut:
    mixed = jax.lax.psum(mixed, 'tensor')
  if gathered:
    return jax.lax.psum_scatter(mixed, 'expert', scatter_dimension=0, tiled=True)
  return jax.lax.psum(mixed, 'expert') if apart else mixed


def _consult(
    x: Float[Array, 'B T D'],
    experts: Int[Array, 'B T k'],
    gains: Float[Array, 'B T k'],
    gate: Float[Array, 'E D M'],
    up: Float[Array, 'E D M'],
    down: Float[Array, 'E M D'],
) -> Float[Array, 'B T D']:
  """SwiGLU of the experts 0 .. E-1; what goes to others adds nothing."""
  count, chosen = gate.shape[0], experts.shape[-1]
  flat = experts.reshape(-1)
  flat = jnp.where((flat >= 0) & (flat < count), flat, count)
  order = jnp.argsort(flat, stable=True)
  back = jnp.argsort(order)
  sizes = jnp.bincount(flat, length=count)
  copies = jnp.repeat(x.reshape(-1, x.shape[-1]), chosen, axis=0)
  rows = _permuted(copies, order, back)
  wide = jax.nn.silu(grouped.product(rows, gate, sizes))
  wide = wide * grouped.product(rows, up, sizes)
  said = _permuted(grouped.product(wide, down, sizes), back, order)
  said = said.reshape(*experts.shape, -1).astype(jnp.float32)
  return jnp.sum(said * gains[..., None], axis=-2).astype(x.dtype)


@jax.custom_vjp
def _permuted(rows: Array, order: Array, back: Array) -> Array:
  """Rows in another order; derived, the gather would become a scatter."""
  del back
  return rows[order]


def _permuted_forward(rows: Array, order: Array, back: Array) -> tuple[Array, Array]:
  return _permuted(rows, order, back), back


def _permuted_backward(back: Array, cotangent: Array) -> tuple[Array, None, None]:
  return cotangent[back], None, None


_permuted.defvjp(_permuted_forward, _permuted_backward)


def load(routes: Routes, known: Bool[Array, 'B T']) -> Load:
  """What the experts of one layer have to do for the tokens that are real."""
  shares = jnp.where(known[..., None], routes.shares, 0)
  count = shares.shape[-1]
  chosen = jnp.where(known[..., None], routes.experts, count)
  tokens = jnp.bincount(chosen.reshape(-1), length=count + 1)[:count]
  tokens = tokens.astype(jnp.float32)
  total = jnp.sum(tokens) / routes.experts.shape[-1]
  return Load(tokens, jnp.sum(shares, axis=(0, 1)), total)


def imbalance(loads: Load) -> Float[Array, '']:
  """The loss that keeps experts equally busy (arXiv 2101.03961, equations 4 to 6).

  All layers together, as transformers has it: E times the sum over experts of the
  share of tokens times the mean probability; `experts_per_token` where both are
  the same for all.

  Args:
    loads: of all layers, [L, E].
  """
  total = jnp.maximum(jnp.sum(loads.total), 1)
  tokens, shares = jnp.sum(loads.tokens, axis=0), jnp.sum(loads.shares, axis=0)
  return tokens.shape[0] * jnp.sum(tokens * shares) / total**2


def busiest(loads: Load) -> Float[Array, ' L']:
  """Tokens of the busiest expert of each layer, in those of a mean one."""
  mean = jnp.mean(loads.tokens, axis=-1)
  return jnp.max(loads.tokens, axis=-1) / jnp.maximum(mean, 1e-9)


def nowhere(
    tokens: Int[Array, 'B T'], config: config_lib.Policy
) -> UInt32[Array, 'B T'] | None:
  """The route of tokens before the first layer; None in a policy without experts."""
  return jnp.zeros(tokens.shape, jnp.uint32) if config.num_experts else None


def onward(
    route: UInt32[Array, 'B T'] | None, routes: Routes | None
) -> UInt32[Array, 'B T'] | None:
  """The route of tokens after a layer that sends them to `routes`."""
  if route is None or routes is None:
    return None
  return route + fingerprint(routes.experts)


def fingerprint(experts: Int[Array, '... k']) -> UInt32[Array, ...]:
  """A number for the set of experts that a token goes to, whatever their order."""
  mixed = (experts.astype(jnp.uint32) + 1) * jnp.uint32(0x9E3779B1)
  mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x85EBCA77)
  mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE3D)
  return jnp.sum(mixed ^ (mixed >> 16), axis=-1, dtype=jnp.uint32)
