"""Checkpoints: all that a training run needs to go on with the same bits.

Orbax writes in the background. When a checkpoint is complete it is sealed
(`leafe_jax.seals`). Only sealed checkpoints whose files still match are restored;
what is half-written or damaged is reported, removed, and the one before is used.

    directory/steps/40/...      state (orbax) and extra (JSON)
    directory/seals/40.json     sizes and digests
"""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import SingleDeviceSharding

from leafe_jax import buckets, hosts, seals
from leafe_jax.endings import RunStopped


class DamagedCheckpoint(RunStopped, ValueError):
  """Files of a checkpoint are missing or differ from what was sealed."""


class Restored(NamedTuple):
  """A checkpoint.

  Attributes:
    step: updates done.
    state: the pytree that was saved, placed as the target said.
    cursor: position in the data stream, for `set_state`; None if not saved.
    keys: random keys by name.
    metadata: JSON types.
  """

  step: int
  state: Any
  cursor: Any
  keys: dict[str, jax.Array]
  metadata: dict[str, Any]


class Checkpoints:
  """The checkpoints of one phase; keeps the last `keep` of them."""

  def __init__(self, directory: str | os.PathLike[str], keep: int = 2):
    root = pathlib.Path(directory).absolute()
    self._phase = root.parent.name
    self._seals = root / 'seals'
    self._steps = buckets.place(root / 'steps')
    self._seals.mkdir(parents=True, exist_ok=True)
    self._manager = ocp.CheckpointManager(
        self._steps,
        options=ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=True, create=True
        ),
        item_handlers={
            'state': ocp.StandardCheckpointHandler(),
            'extra': ocp.JsonCheckpointHandler(),
        },
    )
    self._unsealed: int | None = None

  def save(
      self,
      step: int,
      state: Any,
      cursor: Any = None,
      keys: Mapping[str, jax.Array] | None = None,
      metadata: Mapping[str, Any] | None = None,
  ) -> None:
    """Starts to save; returns when `state` may be donated again.

    Args:
      step: updates done; larger than that of every earlier checkpoint.
      state: a pytree of arrays.
      cursor: JSON types or bytes, as a data iterator's `get_state` gives it.
      keys: typed random keys by name.
      metadata: JSON types.
    """
    self.poll(wait=True)
    extra = {
        'cursor': _cursor_to_json(cursor),
        'keys': {name: _key_to_json(key) for name, key in (keys or {}).items()},
        'metadata': dict(metadata or {}),
    }
    self._manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), extra=ocp.args.JsonSave(extra)
        ),
    )
    self._unsealed = step

  def poll(self, wait: bool = False) -> None:
    """Seals the last checkpoint once it is complete; cheap, call it often."""
    if self._unsealed is None:
      return
    if wait:
      self._manager.wait_until_finished()
    if self._manager.is_saving_in_progress():
      return
    if hosts.is_first():
      seals.write(self._steps / str(self._unsealed), self._seal(self._unsealed))
      self._drop_old_seals()
      buckets.commit(self._seals, f'checkpoint {self._unsealed} of {self._phase}')
    self._unsealed = None

  def steps(self) -> list[int]:
    """Steps of the complete checkpoints, oldest first."""
    return [step for step in sorted(self._manager.all_steps()) if self._intact(step)]

  def restore(self, target: Any) -> Restored | None:
    """The newest intact checkpoint; None if there is none.

    Args:
      target: pytree of arrays or of ShapeDtypeStructs with shardings, of the
        structure that was saved. It may live on another mesh.

    Raises:
      ValueError: the saved shapes are not those of `target`.
    """
    self.poll(wait=True)
    for step in sorted(self._manager.all_steps(), reverse=True):
      if hosts.first(functools.partial(self._intact, step)):
        return self._restore(step, target)
      logging.warning(
          'checkpoint %d in %s is half-written or damaged: removed, going back '
          'to the one before', step, self._steps,
      )
      self._manager.delete(step)
    return None

  def close(self) -> None:
    """Waits for what is being saved and seals it."""
    self.poll(wait=True)
    self._manager.close()

  def _restore(self, step: int, target: Any) -> Restored:
    saved = self._manager.item_metadata(step)['state']
    _check_shapes(_tree_of(saved), target, self._steps / str(step))
    restored = self._manager.restore(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract(target)),
            extra=ocp.args.JsonRestore(),
        ),
    )
    extra = restored['extra']
    return Restored(
        step=step,
        state=restored['state'],
        cursor=_cursor_from_json(extra['cursor']),
        keys={name: _key_from_json(key) for name, key in extra['keys'].items()},
        metadata=extra['metadata'],
    )

  def _intact(self, step: int) -> bool:
    try:
      _check_seal(self._steps / str(step), self._seal(step))
    except DamagedCheckpoint as error:
      logging.warning('%s', error)
      return False
    return True

  def _seal(self, step: int) -> pathlib.Path:
    return self._seals / f'{step}.json'

  def _drop_old_seals(self) -> None:
    kept = {str(step) for step in self._manager.all_steps()}
    for seal in self._seals.glob('*.json'):
      if seal.stem not in kept:
        seal.unlink()


def abstract(tree: Any) -> Any:
  """Shapes, types and shardings of a pytree of arrays."""
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
  )


def save_params(directory: str | os.PathLike[str], params: Any) -> None:
  """Saves final weights, replacing what was in `directory`."""
  root = pathlib.Path(directory).absolute()
  hosts.first(lambda: _clear(root))
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(buckets.place(root) / 'params', params)
  hosts.first(lambda: seals.write(buckets.place(root), root / seals.SEAL))


def load_params(directory: str | os.PathLike[str], target: Any = None) -> Any:
  """Inverse of `save_params`.

  Args:
    directory: as given to `save_params`.
    target: pytree of arrays or ShapeDtypeStructs with shardings; None puts
      everything on the first device.

  Raises:
    DamagedCheckpoint: nothing there, half-written, or changed since.
    ValueError: the saved shapes are not those of `target`.
  """
  root = pathlib.Path(directory).absolute()
  hosts.first(lambda: _check_weights(root))
  with ocp.StandardCheckpointer() as checkpointer:
    where = buckets.place(root) / 'params'
    saved = _tree_of(checkpointer.metadata(where).item_metadata)
    target = _on_first_device(saved) if target is None else target
    _check_shapes(saved, target, root)
    return checkpointer.restore(where, abstract(target))


def _tree_of(metadata: Any) -> Any:
  return getattr(metadata, 'tree', metadata)


def _on_first_device(saved: Any) -> Any:
  sharding = SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), saved
  )


def _check_shapes(saved: Any, target: Any, where: pathlib.Path) -> None:
  """Raises ValueError that names the first array that does not fit."""
  shapes = _shapes(saved)
  for name, shape in _shapes(target).items():
    if shapes.get(name) != shape:
      found = shapes.get(name, 'absent')
      raise ValueError(f'{name} is {found} in {where}, but {shape} is wanted')


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  return {
      jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
      if hasattr(leaf, 'shape')
  }


def _clear(root: pathlib.Path) -> None:
  shutil.rmtree(root, ignore_errors=True)
  root.mkdir(parents=True)
  buckets.clear(root)


def _check_weights(root: pathlib.Path) -> None:
  """Raises DamagedCheckpoint that says what can be done."""
  try:
    _check_seal(buckets.place(root), root / seals.SEAL)
  except DamagedCheckpoint as error:
    raise DamagedCheckpoint(
        f'{error}; remove {root}, and its run makes the weights again where it is '
        'started again'
    ) from error


def _check_seal(directory: pathlib.Path, seal: pathlib.Path) -> None:
  """Raises DamagedCheckpoint naming the first file that differs."""
  if not seal.exists():
    raise DamagedCheckpoint(f'{directory} was never finished')
  try:
    wrong = seals.differences(directory, seal)
  except seals.BrokenSeal as error:
    raise DamagedCheckpoint(str(error)) from error
  for name, what in wrong.items():
    raise DamagedCheckpoint(f'{directory / name} {what}')


def _cursor_to_json(cursor: Any) -> Any:
  return {'bytes': cursor.decode()} if isinstance(cursor, bytes) else {'json': cursor}


def _cursor_from_json(record: Mapping[str, Any]) -> Any:
  return record['bytes'].encode() if 'bytes' in record else record['json']


def _key_to_json(key: jax.Array) -> dict[str, Any]:
  data = jax.device_get(jax.random.key_data(key))
  return {'impl': str(jax.random.key_impl(key)), 'data': data.tolist()}


def _key_from_json(record: Mapping[str, Any]) -> jax.Array:
  data = jax.numpy.asarray(record['data'], dtype='uint32')
  return jax.random.wrap_key_data(data, impl=record['impl'])
