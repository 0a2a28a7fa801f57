"""What a run takes on every device, before anything is allocated.

Weights, optimizer state, batch and KV pages are exact: they are summed from
the shapes and shardings that the run itself uses. Gradients are exact but for
the moment at which XLA frees them. Activations and the sampler's dense rows
are estimates, within a factor of 2 of XLA's own figure on the shapes in
tests/planning; the formulas are in `_activations`, `_dense_rows` and
`_paged_rows`.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from leafe_jax.planning.programs import Target
from leafe_jax.policy import attention, sharding
from leafe_jax.sampler import engine, reading

_WORD = 4  # bytes of int32 and float32
_BATCH_ARRAYS = 4  # tokens, weights, segment ids, positions
TRAINING, SAMPLING = 'training', 'sampling'


class DoesNotFit(ValueError):
  """A run that no device of its mesh, or no pool, can hold; the message says why."""


@dataclasses.dataclass(frozen=True)
class Part:
  """One line of the plan.

  Attributes:
    name: what it is.
    size: bytes per device.
    phases: when it is there.
    exact: whether the figure is more than an estimate.
  """

  name: str
  size: int
  phases: tuple[str, ...]
  exact: bool


@dataclasses.dataclass(frozen=True)
class Plan:
  """Memory per device.

  Attributes:
    parts: the lines.
    page: bytes of one KV page, shared out among the devices.
    num_pages: pages of the pool, on all devices together.
  """

  parts: tuple[Part, ...]
  page: int
  num_pages: int

  def total(self, phase: str, *, exact_only: bool = False) -> int:
    """Bytes per device while training or sampling."""
    return sum(
        part.size for part in self.parts
        if phase in part.phases and (part.exact or not exact_only)
    )

  @property
  def peak(self) -> int:
    return max(self.total(TRAINING), self.total(SAMPLING))

  @property
  def certain(self) -> int:
    """What is needed at least."""
    return max(self.total(p, exact_only=True) for p in (TRAINING, SAMPLING))

  def verdict(self, limit: float) -> str:
    """'fits', or whether only the estimates or already the exact parts do not."""
    if self.peak <= limit:
      return 'fits'
    return 'TIGHT: estimates exceed it' if self.certain <= limit else 'DOES NOT FIT'

  def pages_that_fit(self, limit: float) -> int:
    """KV pages that a device of `limit` bytes has room for; at least 0."""
    rest = limit - (self.peak - self.page * self.num_pages)
    return max(0, int(rest // self.page))


def plan(target: Target, platform: str = '') -> Plan:
  """The plan of a run.

  Args:
    target: the run.
    platform: 'cpu', 'gpu' or 'tpu'; by default that of this process.
  """
  platform = platform or jax.default_backend()
  state, pool = target.state(), target.pool(platform)
  always, training = (TRAINING, SAMPLING), (TRAINING,)
  tokens = _micro_tokens(target) * target.config.distill.grad_accumulation
  num_pages = engine.num_pages(target.config.sampler, target.mesh)
  page = _bytes([pool]) // num_pages
  parts = (
      Part('weights', _bytes(state.params), always, True),
      Part('KV pages', _bytes([pool]), always, True),
      Part('optimizer', _bytes(state.opt_state) + _WORD, training, True),
      Part('batch', tokens * _WORD * _BATCH_ARRAYS, training, True),
      Part('gradients', _gradients(target), training, True),
      Part('activations', _activations(target, platform), training, False),
      Part('logits', _logits(target), training, False),
      _rows(target, platform),
  )
  return Plan(parts, page, num_pages)


def check(target: Target, limit: float) -> str:
  """The table. DoesNotFit if the exact parts alone exceed `limit` bytes.

  An estimate stops no run: only what is certain does, and a pool that cannot
  hold the longest transcript.
  """
  _check_pool(target)
  found = plan(target)
  text = table(found, limit)
  if found.certain > limit:
    raise DoesNotFit(
        f'this run needs {_gb(found.certain)} GB a device at least, which has'
        f' {_gb(limit)}:\n{text}'
    )
  return text


def _check_pool(target: Target) -> None:
  """DoesNotFit if a shard of the KV pages is too small for one transcript."""
  sampler, longest = target.config.sampler, target.policy.max_length
  shards = sharding.num_row_shards(target.mesh)
  own = engine.num_pages(sampler, target.mesh) // shards
  # A half-filled last page is copied before it grows.
  least = -(-longest // sampler.page_size) + 1
  if own < least:
    raise DoesNotFit(
        f'sampler.num_pages={sampler.num_pages}: {own} KV pages for each of {shards}'
        f' shards, and a transcript of policy.max_length={longest} tokens takes'
        f' {least}; at least {least * shards} are needed'
    )


def table(plan: Plan, limit: float) -> str:
  """One line per part, the totals, and the KV pages that fit."""
  lines = [f'{"GB per device":<16}{"training":>10}{"sampling":>10}']
  for part in plan.parts:
    sizes = [part.size if phase in part.phases else None for phase in _PHASES]
    lines.append(_line(part.name, sizes, '' if part.exact else '  (estimate)'))
  lines.append(_line('total', [plan.total(phase) for phase in _PHASES]))
  lines += [
      _line('memory', [limit, limit], f'  {plan.verdict(limit)}'),
      f'KV pages: {plan.num_pages} asked for, room for {plan.pages_that_fit(limit)}',
  ]
  return '\n'.join(lines)


_PHASES = (TRAINING, SAMPLING)


def _line(name: str, sizes: Iterable[float | None], note: str = '') -> str:
  cells = (f'{"-" if size is None else _gb(size):>10}' for size in sizes)
  return f'{name:<16}{"".join(cells)}{note}'


def _gb(size: float) -> str:
  return f'{size / 1e9:.2f}' if size >= 1e7 else f'{size / 1e9:.4f}'


def device_limit() -> float:
  """Bytes that a device of this process may use; on CPU its share of the RAM."""
  devices = jax.local_devices()
  limits = [(device.memory_stats() or {}).get('bytes_limit') for device in devices]
  known = [limit for limit in limits if limit]
  if known:
    return float(min(known))
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return memory / len(devices)


def _bytes(tree: Any) -> int:
  """Of the arrays of a tree on one device."""
  return sum(
      math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
      for leaf in jax.tree.leaves(tree)
  )


def _micro_tokens(target: Target) -> int:
  """Tokens of a micro-batch on one device."""
  config = target.config.distill
  shards = sharding.num_row_shards(target.mesh)
  rows = -(-config.batch_rows // (shards * config.grad_accumulation))
  return rows * config.row_length


def _gradients(target: Target) -> int:
  """One copy; with accumulation also the float32 sums."""
  params = target.params()
  once = _bytes(params)
  if target.config.distill.grad_accumulation == 1:
    return once
  item = jnp.dtype(target.policy.param_dtype).itemsize
  return once // item * _WORD + once


def _share(target: Target, axis: str, size: int) -> int:
  """A dimension's part on one device, as `sharding.partition_spec` cuts it."""
  [names] = sharding.partition_spec((axis,), (size,), target.mesh)
  cut = (names,) if isinstance(names, str) else names or ()
  return size // math.prod(target.mesh.shape[name] for name in cut)


def _activations(target: Target, platform: str) -> int:
  """Residual streams of all layers and the inside of one (remat), or of all.

  Inside a layer: two normed inputs, queries, mixed values and their projection,
  keys and values, three times the MLP's width, and without a fused kernel the
  scores, of which the causal half is computed.
  """
  policy = target.policy
  tokens, item = _micro_tokens(target), jnp.dtype(policy.dtype).itemsize
  heads = _share(target, 'heads', policy.num_heads)
  inside = tokens * _layer_width(target) * item
  form = attention.choose_form(policy.attention, platform, jnp.dtype(policy.dtype))
  if form == 'xla':
    inside += tokens * heads * target.config.distill.row_length // 2 * (_WORD + item)
  streams = policy.num_layers * tokens * policy.embed_dim * item
  if policy.remat != 'none':
    return streams + 2 * inside
  return streams + policy.num_layers * inside


def _layer_width(target: Target) -> int:
  """Numbers inside a layer per token, scores apart."""
  policy = target.policy
  heads = _share(target, 'heads', policy.num_heads)
  kv_heads = _share(target, 'kv_heads', policy.num_kv_heads)
  width = 4 * policy.embed_dim + 2 * (heads + kv_heads) * policy.head_dim
  return width + 3 * _share(target, 'mlp', policy.mlp_dim)


def _logits(target: Target) -> int:
  """Logits of a chunk and their gradient in float32."""
  vocab = _share(target, 'vocab', target.vocab_size)
  length = target.config.distill.row_length
  chunk = min(length, target.policy.logit_chunk or length)
  return 2 * _micro_tokens(target) * chunk // length * vocab * _WORD


def _rows(target: Target, platform: str) -> Part:
  """What one dispatch of the sampler takes besides weights and pool."""
  if target.sampler_attention(platform) == 'paged':
    return Part('paged rows', _paged_rows(target), (SAMPLING,), False)
  return Part('dense rows', _dense_rows(target), (SAMPLING,), False)


def _paged_rows(target: Target) -> int:
  """Gathered weights, beside the most of a prefill, logits.

  The weights are a copy in the type of the products, over tensor alone if they
  are gathered once.
  """
  policy, buckets = target.policy, target.buckets
  item, stored = (jnp.dtype(x).itemsize for x in (policy.dtype, policy.param_dtype))
  copy = _bytes(target.params()) // stored * item
  if target.config.sampler.gather_weights:
    copy *= target.mesh.shape['fsdp']
  elif item == stored:
    copy = 0
  rows, new = _share(target, 'batch', buckets.rows), buckets.new_tokens[-1]
  inside = rows * new * _layer_width(target) * item
  logits = 3 * rows * _share(target, 'vocab', target.vocab_size) * _WORD
  return copy + max(inside, logits)


def _dense_rows(target: Target) -> int:
  """Gathered prefix, buffers and responses of one dispatch, scores and logits.

  Twice the keys and values, for the copies between layouts. With scanned
  layers float32 weights are cast once a dispatch; with unrolled ones several
  dispatches are under way at a time.
  """
  policy, buckets = target.policy, target.buckets
  item = jnp.dtype(policy.dtype).itemsize
  rows = _share(target, 'batch', buckets.rows)
  kv_heads = _share(target, 'kv_heads', policy.num_kv_heads)
  new = buckets.new_tokens[-1]
  places = buckets.lengths[-1] + new + 2 * target.num_decode + buckets.page_size
  dense = rows * places * policy.num_layers * 2 * kv_heads * policy.head_dim * item
  queries = min(new, reading.QUERIES)
  heads = _share(target, 'heads', policy.num_heads)
  scores = 2 * rows * heads * queries * places * _WORD
  logits = 3 * rows * _share(target, 'vocab', target.vocab_size) * _WORD
  total = 2 * dense + scores + logits
  if not policy.scan_layers:
    return engine.MAX_UNDER_WAY * total
  if policy.param_dtype == policy.dtype:
    return total
  stored = jnp.dtype(policy.param_dtype).itemsize
  return total + _bytes(target.params()) // stored * item
