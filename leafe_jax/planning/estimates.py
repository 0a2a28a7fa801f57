"""Parts of the memory plan: what is exact, and how the rest is estimated.

The formulas follow the programs: `_activations` is of `policy.model`, `_logits`
of `policy.scores`, `_dense_rows` and `_paged_rows` are of `sampler.turn` and
`sampler.paged`. XLA on CPU has no bfloat16 and no numbers of 4 bits: an update
computes in float32 there, and whole stacks of layers are spelt out (`_widened`).
In bfloat16 on CPU estimates are a little high for updates, too low for the sampler.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from leafe_jax.planning.jobs import Job
from leafe_jax.planning.programs import Target
from leafe_jax.policy import (
  attention,
  delta,
  delta_rule,
  kinds,
  layers,
  scores,
  sharding,
  stacks,
)  # fmt: skip
from leafe_jax.sampler import engine, reading

_WORD = 4  # bytes of int32 and float32
_WIDER = {'uint4': 1, 'bfloat16': 4}  # what XLA on CPU lacks: bytes of what it takes


@dataclasses.dataclass(frozen=True)
class Part:
  """One line of the plan.

  Attributes:
    name: what it is.
    size: bytes per device.
    exact: whether the figure is more than an estimate.
  """

  name: str
  size: int
  exact: bool


def size(tree: Any) -> int:
  """Bytes of the arrays of a tree on one device; two 4-bit numbers share one."""
  return sum(
      -(-_count(leaf) * _bits(leaf.dtype) // 8) for leaf in jax.tree.leaves(tree)
  )


def _bits(dtype: Any) -> int:
  dtype = jnp.dtype(dtype)
  if jnp.issubdtype(dtype, jnp.integer):
    return int(jnp.iinfo(dtype).bits)
  return 8 * dtype.itemsize


def _count(leaf: Any) -> int:
  return math.prod(leaf.sharding.shard_shape(leaf.shape))


def _numbers(tree: Any) -> int:
  return sum(map(_count, jax.tree.leaves(tree)))


def weights(trained: Any, frozen: Mapping[str, Any]) -> tuple[Part, ...]:
  """Of a policy: all of them, or frozen ones and their adapters."""
  if not frozen:
    return (Part('weights', size(trained), True),)
  adapters = Part('adapters', size(trained), True)
  return Part('frozen weights', size(frozen), True), adapters


def kept(target: Target, job: Job) -> tuple[Part, ...]:
  """What a job keeps from its first update to its last."""
  state, frozen = target.state(job), target.frozen(job)
  optimizer = Part('optimizer', size(state.opt_state) + _WORD, True)
  parts = (*weights(state.params, frozen), optimizer)
  if not job.reference:
    return parts
  return (*parts, Part('reference', size(state.params), True))


def batch(target: Target, job: Job) -> Part:
  rows = target.batch_rows(job) // sharding.num_row_shards(target.mesh)
  return Part('batch', rows * job.length * _WORD * len(job.arrays), True)


def freezing(target: Target) -> tuple[Part, ...]:
  """When the base is read: whole weights, and one matrix in float32, twice.

  Those before it are quantised by then, but they are the smaller ones.
  """
  base = target.base()
  widest = max(_numbers([base[name]]) for name in layers.INPUTS if name in base)
  wide = 2 * widest * _WORD if target.policy.quantize != 'none' else 0
  return Part('weights', size(base), True), Part('widened', wide, False)


def update(target: Target, platform: str, job: Job) -> tuple[Part, ...]:
  """What an update makes and lets go of."""
  trained = target.trained(job)
  gradients = size(trained)
  if job.grad_accumulation > 1:  # their sums are float32
    gradients += _numbers(trained) * _WORD
  parts = (
      Part('gradients', gradients, True),
      Part('activations', _activations(target, platform, job), False),
      Part('copies', _copies(target, job), False),
  )
  if platform == 'cpu':
    parts = (*parts, Part('widened', _widened(target, job), False))
  # Gradients and updates of all weights in float32, when activations are gone.
  rest = 2 * _numbers(trained) * _WORD - sum(part.size for part in parts)
  return (*parts, Part('updates', max(0, rest), False))


def _micro_tokens(target: Target, job: Job) -> int:
  """Tokens of a micro-batch on one device."""
  shards = sharding.num_row_shards(target.mesh)
  return target.batch_rows(job) // (shards * job.grad_accumulation) * job.length


def _share(target: Target, axis: str, size: int) -> int:
  """A dimension's part on one device, as `sharding.partition_spec` cuts it."""
  [names] = sharding.partition_spec((axis,), (size,), target.mesh)
  cut = (names,) if isinstance(names, str) else names or ()
  return size // math.prod(target.mesh.shape[name] for name in cut)


def _computed(target: Target) -> Any:
  """The type of what an update keeps between its products."""
  return jnp.dtype(target.policy.dtype)


def _activations(target: Target, platform: str, job: Job) -> int:
  """Residual streams of all layers, beside the inside of one, or the logits.

  Without remat the inside of all layers is there. Inside a layer: two normed
  inputs, queries, mixed values and their projection, keys and values, three times
  the MLP's width, each with its gradient, and without a fused kernel the scores.
  """
  policy = target.policy
  tokens, item = _micro_tokens(target, job), _computed(target).itemsize
  inside = tokens * _layer_width(target) * item
  form = attention.choose_form(policy.attention, platform, jnp.dtype(policy.dtype))
  if form == 'xla':
    heads = _share(target, 'heads', policy.num_heads)
    seen = attention.scores_in_memory(job.length)
    inside += tokens // job.length * heads * seen * (_WORD + item)
  streams = policy.num_layers * tokens * policy.embed_dim * item
  logits = _logits(target, job)
  if policy.remat != 'none':  # layers are gone through when the logits are gone
    return streams + max(2 * inside, logits)
  return streams + policy.num_layers * inside + logits


def _layer_width(target: Target) -> int:
  """Numbers inside a layer per token, scores apart."""
  policy = target.policy
  heads = _share(target, 'heads', policy.num_heads)
  kv_heads = _share(target, 'kv_heads', policy.num_kv_heads)
  width = 4 * policy.embed_dim + 2 * (heads + kv_heads) * policy.head_dim
  if kinds.count('delta', policy):
    width = max(width, _delta_width(target))
  return width + max(_mlp_width(target, kind) for kind in kinds.mlps(policy))


def _mlp_width(target: Target, kind: str) -> int:
  """Numbers inside an MLP per token.

  Experts have copies of the tokens, before and after they are sorted and on the way
  back; each device holds those of all devices along the axis of experts.
  """
  policy = target.policy
  if kind != 'experts':
    return 3 * _share(target, 'mlp', policy.mlp_dim)
  copies = policy.experts_per_token * target.mesh.shape['expert']
  inside = 4 * policy.embed_dim + 3 * _share(target, 'mlp', policy.expert_dim)
  shared = 3 * _share(target, 'mlp', policy.shared_expert_dim)
  return copies * inside + 2 * policy.num_experts + shared


def _delta_width(target: Target) -> int:
  """The same of a recurrent layer: what is float32 in it counts in words."""
  policy = target.policy
  words = _WORD // _computed(target).itemsize
  heads = _share(target, 'heads', policy.delta_value_heads)
  of_head = 4 * policy.delta_key_dim + 4 * policy.delta_value_dim + 4 * delta_rule.CHUNK
  return 4 * policy.embed_dim + 3 * delta.channels(policy) + words * heads * of_head


def _logits(target: Target, job: Job) -> int:
  """Of a chunk in float32: logits, gradients, what the loss keeps beside them."""
  vocab = _share(target, 'vocab', target.vocab_size)
  rows = job.rows // job.grad_accumulation
  chunk = scores.chunk_length(target.policy, rows, job.length, target.vocab_size)
  tokens = _micro_tokens(target, job) * chunk // job.length
  return job.logit_copies * tokens * vocab * _WORD


def _copies(target: Target, job: Job) -> int:
  """Matrices of a layer, and the unembedding, where products take another type.

  A table that embeds and unembeds has two gradients, before they are added.
  """
  policy, base, frozen = target.policy, target.base(), target.frozen(job)
  kept, dtype = frozen or base, _computed(target)

  def is_copied(name: str) -> bool:
    value = kept[name]
    return not isinstance(value, jax.ShapeDtypeStruct) or value.dtype != dtype

  matrices = [name for name in layers.INPUTS if name in base]
  layer = _numbers([base[name] for name in matrices if is_copied(name)])
  table = 'embed_vd' if policy.tie_embeddings else 'head_weight_dv'
  whole = _numbers([base[table]]) if is_copied(table) else 0
  copied = dtype.itemsize * (layer // policy.num_layers + whole)
  twice = policy.tie_embeddings and not frozen
  return copied + (size([base[table]]) if twice else 0)


def _widened(target: Target, job: Job) -> int:
  """Stacks of layers that XLA on CPU brings to types that it computes with.

  It does so before the loops over layers that read them, to all layers at once.
  """
  stacked = stacks.stacked(target.frozen(job) or target.trained(job))
  sizes = (
      _count(leaf) * _WIDER[leaf.dtype.name]
      for leaf in jax.tree.leaves(stacked) if leaf.dtype.name in _WIDER
  )
  return sum(sizes)


def rows(target: Target, platform: str) -> Part:
  """What one dispatch of the sampler takes besides weights and pool."""
  if target.sampler_attention(platform) == 'paged':
    return Part('paged rows', _paged_rows(target), False)
  return Part('dense rows', _dense_rows(target), False)


def _paged_rows(target: Target) -> int:
  """Copies of weights, beside the most of a prefill, logits.

  FSDP shards that are gathered once come together over tensor alone.
  """
  policy, buckets = target.policy, target.buckets
  gathered = target.mesh.shape['fsdp'] if target.config.sampler.gather_weights else 1
  rows, new = _share(target, 'batch', buckets.rows), buckets.new_tokens[-1]
  inside = rows * new * _layer_width(target) * jnp.dtype(policy.dtype).itemsize
  logits = 3 * rows * _share(target, 'vocab', target.vocab_size) * _WORD
  return _cast_weights(target, gathered) + max(inside, logits) + _recalled(target)


def _recalled(target: Target) -> int:
  """Memories of the rows of a dispatch: as they come, and from step to step."""
  kept = target.memories()
  if kept is None:
    return 0
  rows = _share(target, 'batch', target.buckets.rows)
  own = kept.state.sharding.shard_shape(kept.state.shape)[0]
  return 3 * rows * size(kept) // own


def _dense_rows(target: Target) -> int:
  """Gathered prefix, buffers and responses of one dispatch, scores and logits.

  Keys and values half again, for the copies between layouts. With scanned
  layers weights of another type are cast once a dispatch; with unrolled ones
  several dispatches are under way at a time.
  """
  policy, buckets = target.policy, target.buckets
  item = jnp.dtype(policy.dtype).itemsize
  rows = _share(target, 'batch', buckets.rows)
  kv_heads = _share(target, 'kv_heads', policy.num_kv_heads)
  new = buckets.new_tokens[-1]
  ahead = new + 2 * target.num_decode + buckets.page_size
  groups, longest = kinds.groups(policy), buckets.lengths[-1]
  # Of layers with a window, what it reaches.
  held = [n * (min(window or longest, longest) + ahead) for window, n in groups.items()]
  places = ahead + (longest if 0 in groups else min(max(groups), longest))
  dense = rows * sum(held) * 2 * kv_heads * policy.head_dim * item
  queries = min(new, reading.QUERIES)
  heads = _share(target, 'heads', policy.num_heads)
  scores = rows * heads * queries * places * _WORD
  logits = 3 * rows * _share(target, 'vocab', target.vocab_size) * _WORD
  total = 3 * dense // 2 + max(scores, logits) + _recalled(target)
  if not policy.scan_layers:
    return engine.MAX_UNDER_WAY * total
  return total + _cast_weights(target, 1)


def _cast_weights(target: Target, gathered: int) -> int:
  """Weights as a dispatch of the sampler reads them, where that is a copy.

  A quantised matrix is spelt out layer by layer.

  Args:
    target: the run.
    gathered: shards of FSDP that are brought together.
  """
  dtype = jnp.dtype(target.policy.dtype)
  plain, packed = [], []
  for value in target.params().values():
    (plain if isinstance(value, jax.ShapeDtypeStruct) else packed).append(value)
  copied = plain if gathered > 1 else [x for x in plain if x.dtype != dtype]
  layer = _numbers([x.qvalue for x in packed]) // target.policy.num_layers
  return dtype.itemsize * (gathered * _numbers(copied) + layer)
