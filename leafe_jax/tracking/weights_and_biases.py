"""Weights & Biases, through its package `wandb`.

Where no key is found the run is kept in a directory, which `wandb sync` uploads
later; WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_BASE_URL and the other variables
of the package count as always.
"""

from __future__ import annotations

import contextlib
import netrc
import os
import pathlib
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import wandb
from absl import logging

from leafe_jax.tracking.api import Cell, Subject

PROJECT = 'leafe_jax'
_INIT_S = 20.0
_FINISH_S = 20.0
_SIGNAL = 128
_KEYS = ('WANDB_API_KEY', 'WANDB_IDENTITY_TOKEN_FILE')
_PICTURES = ('.png',)
_STAGE = 'WANDB_DATA_DIR'


class WeightsAndBiases:
  """A run there, or in a directory to be uploaded.

  Parts are prefixes of the figures' names, each with a step of its own as its x-axis:
  the package takes no step that is not larger than the one before, which parts that
  are told again after a resume would not be.
  """

  def __init__(self, subject: Subject):
    subject.directory.mkdir(parents=True, exist_ok=True)
    self._directory = subject.directory
    self._parts: set[str] = set()
    self._run = _connect(subject)
    if self._run.settings.mode == 'offline':
      logging.info(
          '--tracker=wandb: kept in %s; "wandb sync" with that directory uploads it',
          pathlib.Path(self._run.dir).parent,
      )
    else:
      logging.info('--tracker=wandb: %s', self._run.url)

  def scalars(self, part: str, step: int, values: Mapping[str, float]) -> None:
    axis = f'{part}/step'
    if part not in self._parts:
      self._parts.add(part)
      self._run.define_metric(axis, hidden=True)
      self._run.define_metric(f'{part}/*', step_metric=axis)
    figures = {f'{part}/{name}': value for name, value in values.items()}
    self._run.log({**figures, axis: step})

  def flush(self, part: str) -> None:
    """The package sends by itself."""

  def table(
      self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]
  ) -> None:
    data = [list(row) for row in rows]
    with _staged(self._directory):
      self._run.log({name: wandb.Table(columns=list(columns), data=data)})

  def files(self, name: str, paths: Sequence[pathlib.Path]) -> None:
    artifact = wandb.Artifact(f'{name}-{self._run.id}', type=name)
    with _staged(self._directory):
      for path in paths:
        artifact.add_file(str(path), name=path.name)
      self._run.log_artifact(artifact)
    pictures = [path for path in paths if path.suffix in _PICTURES]
    self._run.log({path.stem: wandb.Image(str(path)) for path in pictures})

  def close(self, exit_code: int) -> None:
    if exit_code > _SIGNAL:
      self._run.mark_preempting()
    self._run.finish(exit_code=exit_code)


@contextlib.contextmanager
def _staged(directory: pathlib.Path) -> Iterator[None]:
  """Keeps copies of files beside the run and not at home, which may be read-only.

  Offline they wait there until `wandb sync`, maybe on a machine with another home.
  """
  if _STAGE in os.environ:
    yield
    return
  os.environ[_STAGE] = str(directory / 'wandb')
  try:
    yield
  finally:
    del os.environ[_STAGE]


def _connect(subject: Subject) -> Any:
  """The run: online where there is a key and a server, else offline."""
  asked = os.environ.get('WANDB_MODE') or (None if has_key() else 'offline')
  try:
    return _init(subject, asked)
  except wandb.errors.CommError as error:
    text = ' '.join(str(error).split())
    logging.warning('--tracker=wandb: no connection (%s); offline from now on', text)
    wandb.teardown(exit_code=1)  # it holds the id
    return _init(subject, 'offline')


def _init(subject: Subject, mode: Any) -> Any:
  # 'allow' makes a resumed run go on, and `wandb sync` append what was kept offline.
  return wandb.init(
      project=subject.project or os.environ.get('WANDB_PROJECT') or PROJECT,
      id=subject.id, name=subject.name, group=subject.group or None,
      config=dict(subject.config), dir=str(subject.directory), mode=mode,
      resume='allow', reinit='create_new', allow_val_change=True, settings=_settings(),
  )


def _settings() -> wandb.Settings:
  """Nothing is uploaded that may hold a secret, and nothing is waited for."""
  return wandb.Settings(
      console='off', silent=True,
      # Command lines, package URLs and uncommitted changes.
      x_disable_meta=True, x_save_requirements=False, disable_git=True,
      disable_code=True, save_code=False,
      init_timeout=_INIT_S, finish_timeout=_FINISH_S,
  )  # fmt: skip


def has_key() -> bool:
  """Whether the package would find a key, which it asks people for otherwise."""
  if any(os.environ.get(name) for name in _KEYS):
    return True
  url = os.environ.get('WANDB_BASE_URL') or 'https://api.wandb.ai'
  host = urllib.parse.urlsplit(url).hostname or ''
  place = os.environ.get('NETRC') or str(pathlib.Path.home() / '.netrc')
  try:
    return netrc.netrc(place).authenticators(host) is not None
  except (OSError, netrc.NetrcParseError):
    return False
