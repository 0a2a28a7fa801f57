"""The training state and the jitted update.

One update: gradients of a loss's sum over all micro-batches, divided once by
the sum of the weights, through an optax chain. The old state is donated.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from leafe_jax import config as config_lib
from leafe_jax import hosts
from leafe_jax.learner import losses, optimizers
from leafe_jax.learner.losses import Loss, Terms
from leafe_jax.policy import lora, model, sharding

Forward = Callable[..., Any]
Metrics = dict[str, jax.Array]
_INTEGERS = ('tokens', 'segment_ids', 'positions')  # of a batch; others are float32
BATCH_ARRAYS = (*_INTEGERS, 'weights')  # what every loss and the policy take


class TrainState(NamedTuple):
  """What an update changes: a pytree, saved and donated as one.

  Attributes:
    params: what is trained, a dict of arrays by name: all weights, or the
      adapters over a frozen base.
    opt_state: of the optax chain, sharded like the weights.
    step: int32 scalar, updates done.
  """

  params: Any
  opt_state: Any
  step: Any


class NonFiniteLoss(FloatingPointError):
  """The loss or the gradients are not finite; the batch was saved."""

  def __init__(self, step: int, metrics: Mapping[str, float], saved: pathlib.Path):
    values = ', '.join(f'{name}={value:g}' for name, value in metrics.items())
    super().__init__(f'update {step} is not finite ({values}); batch in {saved}')
    self.step = step
    self.saved = saved


def init_state(
    params: Any, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
  """A fresh state around `params`, which keep their sharding.

  Args:
    params: weights; the first update donates them, so copy what is needed.
    optimizer: gives the optimizer state.
    mesh: the mesh the weights live on.
  """
  target = abstract_state(params, optimizer, mesh)
  shardings = jax.tree.map(lambda x: x.sharding, target.opt_state)
  opt_state = jax.jit(optimizer.init, out_shardings=shardings)(params)
  step = sharding.place(np.int32(0), sharding.replicated(mesh))
  return TrainState(params, opt_state, step)


def abstract_state(
    params: Any, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
  """Shapes, types and shardings of a state: moments lie where the weights do.

  Args:
    params: arrays, or ShapeDtypeStructs with shardings.
    optimizer: gives the optimizer state.
    mesh: the mesh the weights live on.
  """
  whole = sharding.replicated(mesh)
  shapes = jax.eval_shape(optimizer.init, params)

  def place(shape: Any, target: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=target)

  opt_state = optax.tree_utils.tree_map_params(
      optimizer,
      lambda shape, weight: place(shape, weight.sharding),
      shapes,
      params,
      transform_non_params=lambda shape: place(shape, whole),
  )
  weights = jax.tree.map(lambda x: place(x, x.sharding), params)
  step = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
  return TrainState(weights, opt_state, step)


class Update:
  """update(state, batch) -> (state, metrics); donates the state.

  Compiled once, at the first call, whose shardings the new state keeps.
  """

  def __init__(
      self,
      step: Callable[..., Any],
      mesh: Mesh,
      grad_accumulation: int,
      frozen: Mapping[str, Any],
  ):
    self._step = step
    self._frozen = dict(frozen)
    self._mesh = mesh
    self._count = grad_accumulation
    self._jitted: Any = None

  def __call__(
      self, state: TrainState, batch: Mapping[str, np.ndarray]
  ) -> tuple[TrainState, Metrics]:
    """One update.

    Args:
      state: donated.
      batch: host arrays [B, T, ...] as `experience.pipeline.Batch`, the same on
        every process.

    Returns:
      The new state and metrics, float32 scalars on the devices: 'loss',
      'weight', 'grad_norm' (before clipping), 'update_norm', 'param_norm' and
      the loss's own.
    """
    on_device = put_batch(batch, self._mesh, self._count)
    with jax.set_mesh(self._mesh):
      return self._compiled(state)(state, on_device, self._frozen)

  def lower(self, *args: Any, **options: Any) -> Any:
    """Lowers what `trace` gives."""
    return self.trace(*args, **options).lower()

  def trace(
      self,
      state: TrainState,
      rows: int,
      length: int,
      arrays: Iterable[str] = BATCH_ARRAYS,
  ) -> Any:
    """The program (`jax.stages.Traced`) of an update.

    Args:
      state: arrays, or an `abstract_state`.
      rows: of the batches.
      length: of the rows.
      arrays: names of a batch's arrays, by default those of supervised losses.
    """
    place = sharding.batch_sharding(self._mesh, (rows, length))
    batch = {
        name: jax.ShapeDtypeStruct(
            (rows, length), jnp.int32 if name in _INTEGERS else jnp.float32,
            sharding=place,
        )
        for name in arrays
    }
    with jax.set_mesh(self._mesh):
      return self._compiled(state).trace(state, batch, self._frozen)

  def num_compilations(self) -> int:
    return 0 if self._jitted is None else self._jitted._cache_size()

  def _compiled(self, state: TrainState) -> Any:
    if self._jitted is None:
      kept = jax.tree.map(lambda x: x.sharding, state)
      out = (kept, sharding.replicated(self._mesh))
      self._jitted = jax.jit(self._step, donate_argnums=0, out_shardings=out)
    return self._jitted


def make_update(
    policy_config: config_lib.Policy,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    mesh: Mesh,
    *,
    grad_accumulation: int = 1,
    forward: Forward = model.forward,
    forward_reads: tuple[str, ...] = (),
    frozen: Mapping[str, Any] | None = None,
) -> Update:
  """The jitted update of a policy.

  Args:
    policy_config: second argument of `forward`.
    optimizer: an optax chain.
    loss: see `losses`.
    mesh: of the state.
    grad_accumulation: micro-batches per update.
    forward: (params, policy_config, tokens, positions, segment_ids) -> what
      the loss takes: `model.token_scores`, or `model.forward` for logits.
    forward_reads: further arrays of the batch that it takes, by name.
    frozen: weights beneath the state's adapters (`lora.freeze`); an update
      reads them, has no gradients for them, and neither changes nor donates
      them. None: the state's weights are the whole policy.
  """
  program = _Program(
      policy_config, optimizer, loss, forward, grad_accumulation, forward_reads
  )
  return Update(program.step, mesh, grad_accumulation, frozen or {})


@dataclasses.dataclass(frozen=True)
class _Program:
  """What `make_update` compiles."""

  policy_config: config_lib.Policy
  optimizer: optax.GradientTransformation
  loss: Loss
  forward: Forward
  grad_accumulation: int
  forward_reads: tuple[str, ...] = ()

  def micro_loss(
      self, frozen: Any, params: Any, micro: Any
  ) -> tuple[jax.Array, Terms]:
    weights = lora.join(frozen, params, self.policy_config)
    outputs = self.forward(
        weights, self.policy_config, micro['tokens'], micro['positions'],
        micro['segment_ids'], **{name: micro[name] for name in self.forward_reads},
    )
    terms = self.loss(outputs, micro)
    noted = getattr(outputs, 'noted', None)
    if noted is not None:
      terms = losses.with_experts(terms, noted.load, self.policy_config.router_loss)
    return terms.total, terms

  def step(
      self, state: TrainState, batch: Any, frozen: Any
  ) -> tuple[TrainState, Metrics]:
    micro_loss = functools.partial(self.micro_loss, frozen)
    grads, terms = _accumulate(
        micro_loss, state.params, batch, self.grad_accumulation
    )
    weight = jnp.maximum(terms.weight, 1e-9)  # a batch of padding moves nothing
    # float32 from here on, also for bfloat16 weights.
    grads = jax.tree.map(lambda g: g / weight, optimizers.widen(grads))
    updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
        'loss': terms.total / weight,
        **{name: value / weight for name, value in terms.sums.items()},
        'weight': terms.weight,
        'grad_norm': optax.tree.norm(grads),
        'update_norm': optax.tree.norm(updates),
        'param_norm': optax.tree.norm(optimizers.widen(params)),
    }
    return TrainState(params, opt_state, state.step + 1), metrics


def _accumulate(
    micro_loss: Callable[..., Any], params: Any, batch: Any, count: int
) -> tuple[Any, Terms]:
  """Gradients and terms, summed over `count` micro-batches."""
  grad_fn = jax.grad(micro_loss, has_aux=True)
  if count == 1:
    return grad_fn(params, batch)
  micro_batches = jax.tree.map(lambda x: _split_rows(x, count), batch)
  first = jax.tree.map(lambda x: x[0], micro_batches)
  shapes = jax.eval_shape(grad_fn, params, first)
  # float32 sums, also for gradients of bfloat16 weights.
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.float32), shapes)

  def add(sums: Any, micro: Any) -> tuple[Any, None]:
    return jax.tree.map(jnp.add, sums, grad_fn(params, micro)), None

  sums, _ = jax.lax.scan(add, zeros, micro_batches)
  return sums


def _split_rows(x: jax.Array, count: int) -> jax.Array:
  """[B, T, ...] -> [count, B / count, T, ...]; every device keeps its own rows."""
  rows, *others = x.shape
  return jnp.swapaxes(x.reshape(rows // count, count, *others), 0, 1)


def put_batch(
    batch: Mapping[str, np.ndarray], mesh: Mesh, multiple: int = 1
) -> dict[str, jax.Array]:
  """Host batch -> devices, rows split over the mesh's data and fsdp axes.

  Empty rows (no weight, segment 0) are added until shards times `multiple`
  (the number of micro-batches) divides them; they change no loss. Every
  process passes the same global batch and keeps its own rows.
  """
  shards = sharding.num_row_shards(mesh)

  def put(value: np.ndarray) -> jax.Array:
    full = pad_rows(value, shards * multiple)
    hosts.witness(full)
    return sharding.place(full, sharding.batch_sharding(mesh, full.shape))

  return {name: put(value) for name, value in batch.items()}


def pad_rows(value: np.ndarray, multiple: int) -> np.ndarray:
  """Adds rows of zeros until `multiple` divides their number."""
  missing = -value.shape[0] % multiple
  if not missing:
    return value
  return np.pad(value, [(0, missing)] + [(0, 0)] * (value.ndim - 1))


def check_finite(
    step: int,
    metrics: Mapping[str, float],
    batch: Mapping[str, np.ndarray],
    directory: pathlib.Path,
) -> None:
  """Raises NonFiniteLoss, the batch saved, if loss or gradients are not finite.

  Args:
    step: number of the update, from 1.
    metrics: of this update, on the host.
    batch: that this update was given.
    directory: where `nonfinite_batch_STEP.npz` goes.
  """
  if np.isfinite(metrics['loss']) and np.isfinite(metrics['grad_norm']):
    return
  saved = directory / f'nonfinite_batch_{step}.npz'
  if hosts.is_first():
    directory.mkdir(parents=True, exist_ok=True)
    np.savez(saved, allow_pickle=False, **batch)
  raise NonFiniteLoss(step, metrics, saved)
