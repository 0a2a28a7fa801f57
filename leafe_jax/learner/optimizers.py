"""AdamW with clipping and a schedule, as one optax chain."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from leafe_jax import config as config_lib


def make_optimizer(
    learning_rate: float,
    steps: int,
    *,
    warmup_fraction: float = 0.03,
    schedule: str = 'cosine',
    weight_decay: float = 0.0,
    clip_norm: float = 1.0,
    b2: float = 0.95,
    momentum_dtype: str = 'float32',
) -> optax.GradientTransformation:
  """Clipping by global norm, then AdamW; decay on matrices only.

  Args:
    learning_rate: peak of the schedule.
    steps: updates of the whole run.
    warmup_fraction: share of them with linearly rising learning rate.
    schedule: 'cosine' (to zero) or 'constant' afterwards.
    weight_decay: decoupled, times the learning rate.
    clip_norm: largest global norm of the gradients.
    b2: second moment of Adam.
    momentum_dtype: type of the first moment. The second is float32 whatever
      the type of the weights: in bfloat16 it would hardly move.

  Raises:
    ValueError: unknown schedule.
  """
  rate = make_schedule(learning_rate, steps, warmup_fraction, schedule)
  return optax.chain(
      optax.clip_by_global_norm(clip_norm),
      _in_float32(
          optax.adamw(
              rate, b2=b2, weight_decay=weight_decay, mask=is_matrix,
              mu_dtype=jnp.dtype(momentum_dtype),
          )
      ),
  )


def _in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
  """`inner` on float32 weights and gradients, whatever type these have."""

  def init(params: optax.Params) -> optax.OptState:
    return inner.init(widen(params))

  def update(
      updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, optax.OptState]:
    return inner.update(widen(updates), state, widen(params))

  return optax.GradientTransformation(init, update)


def widen(tree: Any) -> Any:
  """The same pytree in float32."""
  return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def from_config(
    config: config_lib.Training, rate_scale: float = 1.0
) -> optax.GradientTransformation:
  """The optimizer of a supervised phase, `rate_scale` times as fast."""
  return make_optimizer(
      rate_scale * config.learning_rate,
      config.steps,
      warmup_fraction=config.warmup_fraction,
      schedule=config.schedule,
      weight_decay=config.weight_decay,
      clip_norm=config.clip_norm,
      b2=config.b2,
      momentum_dtype=config.momentum_dtype,
  )


def make_schedule(
    learning_rate: float, steps: int, warmup_fraction: float, schedule: str
) -> optax.Schedule:
  """Linear warm-up, then 'cosine' to zero or 'constant'. ValueError otherwise."""
  warmup = round(warmup_fraction * steps)
  rest = max(steps - warmup, 1)
  if schedule == 'cosine':
    after = optax.cosine_decay_schedule(learning_rate, rest)
  elif schedule == 'constant':
    after = optax.constant_schedule(learning_rate)
  else:
    raise ValueError(f'unknown schedule {schedule!r}; choose from cosine, constant')
  # One update in, not zero: the first step of a warm-up has to move.
  rise = optax.linear_schedule(learning_rate / (warmup + 1), learning_rate, warmup)
  return optax.join_schedules([rise, after], [warmup])


def is_matrix(params: Any) -> Any:
  """Tree of bools: True for weights that decay, False for norms and biases.

  Judged by name as well as by rank: scanned layers stack their norm scales
  into matrices.
  """

  def decide(path: tuple[Any, ...], leaf: jax.Array) -> bool:
    name = jax.tree_util.keystr(path, simple=True, separator='/').lower()
    exempt = any(word in name for word in ('norm', 'scale', 'bias'))
    return jnp.ndim(leaf) >= 2 and not exempt

  return jax.tree_util.tree_map_with_path(decide, params)
