"""What training needs to know of every token, without the logits of all.

The logits of a batch, [B, T, V] in float32, are its largest array by far when
the vocabulary is large: 5 GB for one row of 8192 tokens and 151k words. Here
they exist for a few tokens at a time and are recomputed in the backward pass,
unless those of the whole batch are small. In the rows of an agent many tokens are what
the environment said: no loss reads their scores, and their logits are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from leafe_jax import config as config_lib
from leafe_jax.policy import experts, layers, sharding

_SMALL = 2**27  # logits, half a GiB: kept, rather than computed again


class Scores(NamedTuple):
  """Of every token, given those before it in its segment.

  Attributes:
    logprobs: [B, T] natural log-probability, float32.
    likeliest: [B, T] whether no token was likelier.
    entropy: [B, T] of the distribution that it was drawn from, in nats.

    noted: what is known of the experts of all layers; None without any. The
      routes of a token are those of the place that predicts it.

  All are 0 where nothing predicts a token: the first of a segment, padding.
  """

  logprobs: Array
  likeliest: Array
  entropy: Array
  noted: experts.Noted | None = None


def of_logits(
    logits: Float[Array, '*B V'], targets: Int[Array, '*B']
) -> Scores:
  """Scores of the targets, each under its own logits; softmax in float32."""
  logits = logits.astype(jnp.float32)
  logprobs = _logprobs(logits, targets)
  # The sum of exponentials again: the compiler finds that it has it already.
  total = jax.nn.logsumexp(logits, axis=-1)
  mean = jnp.sum(jnp.exp(logits - total[..., None]) * logits, axis=-1)
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return Scores(logprobs, chosen >= jnp.max(logits, axis=-1), total - mean)


@jax.custom_vjp
def _logprobs(logits: Float[Array, '*B V'], targets: Int[Array, '*B']) -> Array:
  return _forward(logits, targets)[0]


def _forward(logits: Array, targets: Array) -> tuple[Array, tuple[Array, ...]]:
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  total = jax.nn.logsumexp(logits, axis=-1)
  return chosen - total, (logits, targets, total)


def _backward(saved: tuple[Array, ...], given: Array) -> tuple[Array, None]:
  """[target] - p in one pass over the logits; derived, each step takes its own."""
  logits, targets, total = saved
  share = jnp.exp(logits - total[..., None])
  hit = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  hit = hit == targets[..., None]
  return (hit - share) * given[..., None], None


_logprobs.defvjp(_forward, _backward)


def of_hidden(
    params: Mapping[str, Array],
    config: config_lib.Policy,
    hidden: Float[Array, 'B T D'],
    targets: Int[Array, 'B T'],
    asked: Bool[Array, 'B T'] | None = None,
) -> Scores:
  """Scores of the targets from the last layer's output, chunk by chunk.

  Args:
    params: weights; of the final norm and the unembedding.
    config: `logit_chunk` says how many tokens of a row make a chunk.
    hidden: output of the last layer.
    targets: the token that each place is to predict.
    asked: places whose scores are wanted; other places may have scores of 0. None:
      all of them.
  """
  rows, length = targets.shape
  chunk = chunk_length(config, rows, length, params['embed_vd'].shape[0])
  if asked is None or chunk == length:
    return _by_chunks(params, config, of_logits, hidden, targets)
  # Those that are asked for come first in their row, so that whole chunks have none.
  order = jnp.argsort(~asked, axis=1, stable=True)
  hidden = jnp.take_along_axis(hidden, order[..., None], axis=1)
  targets, asked = (jnp.take_along_axis(x, order, axis=1) for x in (targets, asked))
  found = _by_chunks(params, config, of_logits, hidden, targets, asked)
  back = jnp.argsort(order, axis=1)
  return jax.tree.map(lambda x: jnp.take_along_axis(x, back, axis=1), found)


def of_candidates(
    params: Mapping[str, Array],
    config: config_lib.Policy,
    hidden: Float[Array, 'B T D'],
    candidates: Int[Array, 'B T K'],
) -> Float[Array, 'B T K']:
  """Natural-log probabilities of several tokens for each place, as `of_hidden`."""

  def score(logits: Array, candidates: Array) -> Array:
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, candidates, axis=-1)
    return chosen - jax.nn.logsumexp(logits, axis=-1, keepdims=True)

  return _by_chunks(params, config, score, hidden, candidates)


def likeliest(
    params: Mapping[str, Array],
    config: config_lib.Policy,
    hidden: Float[Array, 'B T D'],
    count: int,
) -> tuple[Float[Array, 'B T K'], Int[Array, 'B T K']]:
  """(log-probabilities, ids) of the `count` likeliest tokens, as `of_hidden`."""

  def score(logits: Array, unused: Array) -> tuple[Array, Array]:
    del unused
    logits = logits.astype(jnp.float32)
    best, ids = jax.lax.top_k(logits, count)
    return best - jax.nn.logsumexp(logits, axis=-1, keepdims=True), ids

  places = jnp.zeros(hidden.shape[:2], jnp.int32)
  return _by_chunks(params, config, score, hidden, places)


def _by_chunks(
    params: Mapping[str, Array],
    config: config_lib.Policy,
    of: Callable[[Array, Array], Any],
    hidden: Array,
    targets: Array,
    asked: Array | None = None,
) -> Any:
  """`of(logits, targets)`, arrays [B, T, ...], without the logits of all tokens.

  Where `asked` [B, T] is given, chunks in which it is nowhere true are left out: 0.
  """

  def score(hidden: Array, targets: Array) -> Any:
    if not sharding.is_alone():
      return of(layers.unembed(params, hidden, config), targets)
    # As one list of tokens: XLA on CPU copies arrays of fewer axes faster.
    lead = targets.shape[:2]
    flat, targets = (x.reshape(-1, *x.shape[2:]) for x in (hidden, targets))
    found = of(layers.unembed(params, flat, config), targets)
    return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), found)

  rows, length = targets.shape[:2]
  size = chunk_length(config, rows, length, params['embed_vd'].shape[0])
  count = -(-length // size)
  if count == 1:
    return score(hidden, targets)

  def cut(x: Array) -> Array:
    full = jnp.pad(x, ((0, 0), (0, count * size - length)) + ((0, 0),) * (x.ndim - 2))
    return jnp.moveaxis(full.reshape(x.shape[0], count, size, *x.shape[2:]), 1, 0)

  def leave_out(*chunk: Array) -> Any:
    none = jax.eval_shape(score, *chunk)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), none)

  def step(carry: None, chunk: tuple[Array, Array, Any]) -> tuple[None, Any]:
    hidden = sharding.constrain(chunk[0], ('batch', 'length', None))
    run = jax.checkpoint(score, prevent_cse=False)
    if chunk[2] is None:
      return carry, run(hidden, chunk[1])
    return carry, jax.lax.cond(chunk[2], run, leave_out, hidden, chunk[1])

  needed = None if asked is None else jnp.any(cut(asked), axis=(1, 2))
  _, chunks = jax.lax.scan(step, None, (cut(hidden), cut(targets), needed))
  return jax.tree.map(
      lambda x: jnp.moveaxis(x, 0, 1).reshape(rows, -1, *x.shape[3:])[:, :length],
      chunks,
  )


def chunk_length(
    config: config_lib.Policy, rows: int, length: int, vocab_size: int
) -> int:
  """Tokens of a row whose logits are in memory at a time.

  Args:
    config: `logit_chunk` is the most, unless the logits of all are small.
    rows: on all devices.
    length: of a row in tokens.
    vocab_size: rows of the embedding table.
  """
  if not config.logit_chunk or rows * length * vocab_size <= _SMALL:
    return length
  return -(-length // -(-length // config.logit_chunk))


def next_tokens(tokens: Int[Array, 'B T *K']) -> Int[Array, 'B T *K']:
  """What each place is to predict; 0 at the end of a row."""
  return jnp.pad(tokens[:, 1:], ((0, 0), (0, 1)) + ((0, 0),) * (tokens.ndim - 2))


def align(scores: Any, segment_ids: Int[Array, 'B T']) -> Any:
  """From the places that predict to the tokens that are predicted.

  Args:
    scores: a tree of arrays [B, T, ...].
    segment_ids: of the row.
  """
  known = predicted(segment_ids)

  def shift(x: Array) -> Array:
    more = (1,) * (x.ndim - 2)
    moved = jnp.pad(x[:, :-1], ((0, 0), (1, 0)) + ((0, 0),) * len(more))
    return jnp.where(known.reshape(*known.shape, *more), moved, 0)

  return jax.tree.map(shift, scores)


def predicted(segment_ids: Int[Array, 'B T']) -> Bool[Array, 'B T']:
  """Whether a token follows another one of its segment; False for padding."""
  same = (segment_ids[:, 1:] == segment_ids[:, :-1]) & (segment_ids[:, 1:] > 0)
  return jnp.pad(same, ((0, 0), (1, 0)))
