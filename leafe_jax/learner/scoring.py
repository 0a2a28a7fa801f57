"""What a frozen policy says of many sequences, a few packed rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt32

from leafe_jax import config as config_lib
from leafe_jax.experience import pipeline
from leafe_jax.learner import update
from leafe_jax.policy import lora, model, sharding

# (weights, packed rows) -> arrays [B, T, ...]: a `Scorer`, a `Likeliest`.
Score = Callable[[Any, Mapping[str, np.ndarray]], Any]
# Sequences that are packed and scored together; bounds the memory this takes.
CHUNK = 512


class Forward:
  """One pass of a policy over packed rows; subclasses say what they `find`.

  Args:
    policy_config: of the policy.
    mesh: of the weights.
    frozen: weights beneath adapters, as for `update.make_update`.
  """

  def __init__(
      self,
      policy_config: config_lib.Policy,
      mesh: Mesh,
      frozen: Mapping[str, Any] | None = None,
  ):
    def run(params: model.Params, frozen: model.Params, batch: Mapping[str, Array]):
      return self.find(lora.join(frozen, params, policy_config), batch)

    self._policy = policy_config
    self._mesh = mesh
    self._frozen = dict(frozen or {})
    self._jitted: Any = jax.jit(run, out_shardings=sharding.replicated(mesh))

  def find(self, weights: model.Params, batch: Mapping[str, Array]) -> Any:
    """A tree of arrays, from whole weights and rows on the devices; is compiled."""
    raise NotImplementedError

  def run(self, params: model.Params, batch: Mapping[str, np.ndarray]) -> Any:
    """What is found, on the host."""
    with jax.set_mesh(self._mesh):
      on_device = update.put_batch(batch, self._mesh)
      return jax.device_get(self._jitted(params, self._frozen, on_device))

  def run_on_rows(self, params: model.Params, batch: Mapping[str, np.ndarray]) -> Any:
    """What is found of each row; those that fill up a mesh are cut off."""
    names = ('tokens', 'positions', 'segment_ids')
    rows = len(batch['tokens'])
    found = self.run(params, {name: batch[name] for name in names})
    return jax.tree.map(lambda array: array[:rows], found)


class Scorer(Forward):
  """scorer(params, batch) -> log-probabilities by the training forward."""

  def find(
      self, weights: model.Params, batch: Mapping[str, Array]
  ) -> tuple[Array, Array | None]:
    found = model.token_scores(
        weights, self._policy, batch['tokens'], batch['positions'],
        batch['segment_ids'],
    )
    return found.logprobs, None if found.noted is None else found.noted.routes

  def __call__(
      self, params: model.Params, batch: Mapping[str, np.ndarray]
  ) -> Float[np.ndarray, 'B T']:
    """Natural-log probability of every token given those before it.

    0 on padding and on the first token of a sequence.

    Args:
      params: weights.
      batch: 'tokens', 'positions' and 'segment_ids', host arrays [B, T].
    """
    return self.with_routes(params, batch)[0]

  def with_routes(
      self, params: model.Params, batch: Mapping[str, np.ndarray]
  ) -> tuple[Float[np.ndarray, 'B T'], UInt32[np.ndarray, 'B T'] | None]:
    """The same, and numbers for the experts that were asked; None without any."""
    return self.run_on_rows(params, batch)


class Likeliest(Forward):
  """likeliest(params, batch) -> the most probable tokens at every place.

  Args:
    policy_config, mesh, frozen: as for `Forward`.
    count: K, tokens at each place.
  """

  def __init__(
      self,
      policy_config: config_lib.Policy,
      mesh: Mesh,
      count: int,
      frozen: Mapping[str, Any] | None = None,
  ):
    super().__init__(policy_config, mesh, frozen)
    self._count = count

  def find(
      self, weights: model.Params, batch: Mapping[str, Array]
  ) -> tuple[Array, Array]:
    return model.likeliest(
        weights, self._policy, batch['tokens'], batch['positions'],
        batch['segment_ids'], self._count,
    )

  def __call__(
      self, params: model.Params, batch: Mapping[str, np.ndarray]
  ) -> tuple[Float[np.ndarray, 'B T K'], Int[np.ndarray, 'B T K']]:
    """(log-probabilities, ids) of what could stand at a place.

    Args:
      params: weights.
      batch: 'tokens', 'positions' and 'segment_ids', host arrays [B, T].
    """
    return self.run_on_rows(params, batch)


def score_sequences(
    score: Score,
    params: Any,
    sequences: Sequence[Sequence[int]],
    row_length: int,
    batch_rows: int,
) -> list[Any]:
  """What `score` says of the tokens of each sequence: trees of arrays [T, ...].

  Args:
    score: gives arrays [B, T, ...], or a tree of them, for packed rows.
    params: of the policy that scores.
    sequences: token ids, none longer than a row.
    row_length: tokens per packed row.
    batch_rows: rows scored at a time.
  """
  found: list[Any] = []
  for start in range(0, len(sequences), CHUNK):
    chunk = sequences[start : start + CHUNK]
    ends = np.cumsum([0, *map(len, chunk)])
    rows = pipeline.pack_rows([
        {'tokens': np.asarray(ids, np.int32),
         'place': np.arange(first + 1, first + 1 + len(ids))}
        for ids, first in zip(chunk, ends, strict=False)
    ], row_length)  # fmt: skip
    flat = score_places(score, params, rows, int(ends[-1]), batch_rows)
    found += [
        jax.tree.map(lambda x, a=a, b=b: x[a:b], flat)
        for a, b in zip(ends, ends[1:], strict=False)
    ]
  return found


def score_places(
    score: Score, params: Any, rows: Mapping[str, np.ndarray], count: int,
    batch_rows: int,
) -> Any:  # fmt: skip
  """What `score` says of `count` tokens: a tree of arrays [count, ...].

  Args:
    score, params, batch_rows: as for `score_sequences`.
    rows: packed, with 'place': 1, 2, ... for the tokens in their order, 0 on padding.
    count: the last place.
  """
  parts = []
  for first in range(0, len(rows['tokens']), batch_rows):
    part = {
        name: update.pad_rows(value[first : first + batch_rows], batch_rows)
        for name, value in rows.items()
    }
    parts.append((part['place'], score(params, part)))

  def gather(*arrays: np.ndarray) -> np.ndarray:
    flat = np.zeros((count + 1, *arrays[0].shape[2:]), arrays[0].dtype)  # 0: padding
    for (place, _), values in zip(parts, arrays, strict=True):
      flat[place] = values
    return flat[1:]

  return jax.tree.map(gather, *(values for _, values in parts))
