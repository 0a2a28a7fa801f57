"""Whose a run directory is: claimed for a config, forked from another, or refused."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from absl import logging

from envs import api, registry
from leafe_jax import buckets, inputs, rundir, settings, standing
from leafe_jax.command_line import UsageError
from leafe_jax.config import Experiment
from leafe_jax.files import write_atomic


def claim(
    directory: rundir.RunDirectory,
    config: Experiment,
    fork_from: str,
    phases: standing.Phases,
) -> None:
  """Makes the directory this config's, or finds that it is already.

  Args:
    directory: of the run; the caller holds its lock.
    config: of the run.
    fork_from: another run's directory, whose unaffected phases are copied; ''.
    phases: of the run, in order.

  Raises:
    UsageError: the directory belongs to another config, or cannot be forked.
  """
  new, old = settings.to_dict(config), directory.config()
  if old is not None and not directory.is_blank():
    check_owner(directory, config)
    logging.info('%s: resumed', directory.path)
  elif directory.is_blank():
    _check_world(config)
    directory.save_config(new)
  else:
    check_owner(directory, config)
    directory.save_config(new)
    logging.warning(
        '%s/config.json was lost: written again, as the last start was with the '
        'same config', directory.path,
    )
  if fork_from:
    source, changed = _origin(fork_from, directory, config)
    found = standing.fork(source, directory, changed, phases)
    if any(phase.kept for phase in found):  # all read the policy, so it is the same
      _copy_words(source, directory)
    logging.info('forked from %s:\n%s', source.path, standing.describe(found))


def _copy_words(
    source: rundir.RunDirectory, target: rundir.RunDirectory
) -> None:
  """What a checkpoint is told, as its run began: a template may name the day."""
  for name in ('prompts.json', 'chat_template.json'):
    path = source.path / name
    if path.exists() and not (target.path / name).exists():
      write_atomic(target.path / name, path.read_bytes())


def preview(
    directory: rundir.RunDirectory,
    config: Experiment,
    fork_from: str,
    phases: standing.Phases,
) -> str:
  """What `claim` and the run after it would keep and do; changes nothing.

  Raises:
    UsageError: as `claim`.
  """
  if not directory.is_blank():
    check_owner(directory, config)
  if not fork_from:
    return standing.describe(standing.at_start(directory, phases))
  source, changed = _origin(fork_from, directory, config)
  return standing.describe(standing.after_fork(source, directory, changed, phases))


def check_owner(directory: rundir.RunDirectory, config: Experiment) -> None:
  """Checks that what a directory holds was made with a config.

  Raises:
    UsageError: with another one, or nothing says with which.
  """
  new, old = settings.to_dict(config), directory.config()
  if old not in (None, new):
    raise UsageError(
        f'{directory.path} belongs to another config (old -> new):\n  '
        + '\n  '.join(settings.difference(old, new))
        + '\nFor a run with the new one that keeps the phases it leaves as '
        f'they are:\n  --workdir=NEW --fork_from={directory.path}'
    )
  recorded, digest = directory.recorded_sha256(), settings.sha256(config)
  if recorded is None and old is None:
    raise UsageError(
        f'{directory.path} has phases but no config.json, and neither attempts.jsonl '
        'nor results.json says which config they were made with: put config.json '
        'back, or take another --workdir'
    )
  if recorded not in (None, digest):
    lost = 'is lost' if old is None else 'was changed'
    raise UsageError(
        f'{directory.path}: config.json {lost}, and the phases there were made with '
        f'another config (sha256 {recorded[:12]}) than this one ({digest[:12]}): put '
        'config.json back, give the options of the first start (attempts.jsonl has '
        'its command), or take another --workdir'
    )


def _check_world(config: Experiment) -> None:
  """Makes the world and its teacher once: only they know what options may be.

  A phase asks for them hours later: the gate for a teacher without mistakes.
  """
  if config.env.fleet == 'ray' and importlib.util.find_spec('ray') is None:
    raise UsageError("env.fleet='ray' needs the package ray: pip install -e '.[ray]'")
  try:
    options = inputs.local_options(config.env.options)
    world = registry.make(config.env.name, **options)
  except (ValueError, TypeError, OSError, ImportError, api.EnvError) as error:
    raise UsageError(f'env.options: {_one_line(error)}') from error
  with contextlib.closing(world):
    for options in ({}, api.FAULTLESS):
      _check_teacher(world, {**config.env.teacher, **options})


def _check_teacher(world: api.World, options: Mapping[str, Any]) -> None:
  try:
    world.teacher(**options)
  except NotImplementedError:  # a checkpoint needs none
    return
  except (ValueError, TypeError, api.EnvError) as error:
    raise UsageError(
        f'env.teacher: with the options {options}: {_one_line(error)}'
    ) from error


def _one_line(error: Exception) -> str:
  return ' '.join(str(error).split())


def _origin(
    fork_from: str, directory: rundir.RunDirectory, config: Experiment
) -> tuple[rundir.RunDirectory, list[str]]:
  """The run to fork from, and the options that differ. UsageError for no run."""
  source = buckets.open_run(fork_from).absolute()
  if source == directory.path or not (source / 'config.json').is_file():
    raise UsageError(f'--fork_from={source}: not the directory of another run')
  origin = rundir.RunDirectory(source, make=False)
  changed = settings.changes(origin.config() or {}, settings.to_dict(config))
  return origin, list(changed)
