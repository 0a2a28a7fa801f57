"""Telling an agent's steps from an expert's, for rewards step by step.

A linear head on hidden states of a frozen policy, pooled over a response
(arXiv 2411.03817, whose discriminator is not told): D(s, a) near 1 says that the
agent acted, so the reward of a step is -log D(s, a).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from leafe_jax.experience import pipeline
from leafe_jax.learner.policy_gradient import normalise
from leafe_jax.learner.scoring import CHUNK, Forward
from leafe_jax.learner.update import pad_rows
from leafe_jax.policy import model


class Head(NamedTuple):
  """A linear head and the state of its optimizer.

  Attributes:
    w: {'w_d': [D], 'b': []}.
    opt_state: of Adam.
  """

  w: dict[str, Array]
  opt_state: Any


class Discriminator:
  """Trains a `Head`.

  Args:
    width: D of the features.
    learning_rate: of Adam.
    smoothing: of the labels, 0 and 1.
  """

  def __init__(self, width: int, learning_rate: float, smoothing: float):
    self._width = width
    self._optimizer = optax.adam(learning_rate)
    self._step = jax.jit(
        functools.partial(_learn, optimizer=self._optimizer, smoothing=smoothing)
    )

  def init(self) -> Head:
    """A head that cannot tell: D = 1/2 everywhere."""
    w = {'w_d': jnp.zeros(self._width), 'b': jnp.zeros(())}
    return Head(w, self._optimizer.init(w))

  def learn(
      self, head: Head, agent: Float[np.ndarray, 'N D'],
      expert: Float[np.ndarray, 'N D'],
  ) -> tuple[Head, dict[str, float]]:
    """One update of the binary cross-entropy; its loss and accuracy before it."""
    head, found = self._step(head, agent, expert)
    return head, {name: float(value) for name, value in found.items()}


def _learn(
    head: Head, agent: Array, expert: Array, optimizer: optax.GradientTransformation,
    smoothing: float,
) -> tuple[Head, dict[str, Array]]:  # fmt: skip
  def loss(w: dict[str, Array]) -> tuple[Array, Array]:
    scores = jnp.concatenate([_score(w, agent), _score(w, expert)])
    is_agent = jnp.arange(len(scores)) < len(agent)
    labels = jnp.where(is_agent, 1 - smoothing, smoothing)
    entropy = optax.sigmoid_binary_cross_entropy(scores, labels)
    return jnp.mean(entropy), jnp.mean((scores > 0) == is_agent)

  (value, accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(head.w)
  updates, opt_state = optimizer.update(gradient, head.opt_state, head.w)
  w: Any = optax.apply_updates(head.w, updates)
  return Head(w, opt_state), {
      'discriminator_loss': value, 'discriminator_accuracy': accuracy
  }


def _score(w: Mapping[str, Array], features: Array) -> Float[Array, ' N']:
  return features @ w['w_d'] + w['b']


def rewards(
    head: Head, features: Float[np.ndarray, 'N D'], clip: float
) -> Float[np.ndarray, ' N']:
  """-log D(s, a), cut to `clip`: large where a step looks like the expert's."""
  found = -np.asarray(jax.nn.log_sigmoid(_score(head.w, jnp.asarray(features))))
  return np.clip(found, -clip, clip)


def whiten(values: Float[np.ndarray, ' N']) -> Float[np.ndarray, ' N']:
  """Mean 0, standard deviation 1; zeros where all are alike."""
  return normalise(np.asarray(values, np.float64), 'population').astype(np.float32)


class Pooler(Forward):
  """Hidden states of a frozen policy, in the mean over the tokens of responses."""

  def find(
      self, weights: model.Params, batch: Mapping[str, Array]
  ) -> Float[Array, 'P D']:
    """Sums over the tokens of each response; row 0 is of all others."""
    hidden, _ = model.hidden(
        weights, self._policy, batch['tokens'], batch['positions'],
        batch['segment_ids'],
    )
    flat = hidden.reshape(-1, hidden.shape[-1]).astype(jnp.float32)
    return jax.ops.segment_sum(flat, batch['pool'].reshape(-1), CHUNK + 1)

  def __call__(
      self, params: model.Params, said: Sequence[tuple[Sequence[int], Sequence[int]]],
      row_length: int, batch_rows: int,
  ) -> Float[np.ndarray, 'N D']:
    """Features of (prompt, response) pairs, none longer than a row together."""
    found = [
        self._chunk(params, said[start : start + CHUNK], row_length, batch_rows)
        for start in range(0, len(said), CHUNK)
    ]
    return np.concatenate(found)

  def _chunk(
      self, params: model.Params, said: Sequence[tuple[Sequence[int], Sequence[int]]],
      row_length: int, batch_rows: int,
  ) -> np.ndarray:  # fmt: skip
    rows = pipeline.pack_rows([
        {'tokens': np.asarray([*prompt, *response], np.int32),
         'pool': np.repeat(np.array([0, number + 1], np.int32),
                           [len(prompt), len(response)])}
        for number, (prompt, response) in enumerate(said)
    ], row_length)  # fmt: skip
    sums: Any = 0.0
    for first in range(0, len(rows['tokens']), batch_rows):
      part = {
          name: pad_rows(value[first : first + batch_rows], batch_rows)
          for name, value in rows.items()
      }
      sums = sums + self.run(params, part)
    counts = np.array([len(response) for _, response in said])
    return sums[1 : 1 + len(said)] / counts[:, None]
