"""Gathers what the model card of a phase's weights tells, from the run's directory."""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

from leafe_jax import redaction
from leafe_jax.evaluation.model_card import BadCard, Facts, check, licence_of
from leafe_jax.files import read_object
from leafe_jax.methods.catalogue import arms_of
from leafe_jax.methods.run import Run


@dataclasses.dataclass(frozen=True)
class Given:
  """What the command line says.

  Attributes:
    name: of the model.
    phase: whose weights they are.
    adapter: whether they are adapters.
    base: id of the base on the Hub; '' leaves it to the checkpoint.
    licence: identifier; '' leaves it to the base.
    datasets: ids on the Hub.
  """

  name: str
  phase: str
  adapter: bool
  base: str = ''
  licence: str = ''
  datasets: Sequence[str] = ()


def gather(run: Run, given: Given) -> Facts:
  """The facts of a card.

  Raises:
    BadCard: no licence is known, or something that the Hub would not take.
  """
  config, checkpoint = run.config, run.config.policy.checkpoint
  base = given.base or (_hub_id(pathlib.Path(checkpoint)) if checkpoint else '')
  licence = given.licence or (_licence(pathlib.Path(checkpoint)) if checkpoint else '')
  check(base, licence, given.datasets)
  arms = {arm.name: arm for arm in arms_of(config)}
  own = [name for name, arm in arms.items() if arm.weights == given.phase]
  return Facts(
      name=given.name, arm=_arm_of(given.phase, own),
      arms={name: arm.doc for name, arm in arms.items()}, base=base,
      base_name=pathlib.PurePath(checkpoint).name if checkpoint else '',
      licence=licence, datasets=given.datasets, environment=config.env.name,
      taught=config.warm_start.steps > 0,
      method=config.method, adapter=given.adapter,
      results=_results(run.directory.path), command=_command(run),
      config=redaction.config_text(config),
  )


def _arm_of(phase: str, arms: Sequence[str]) -> str:
  """The arm of a phase; of several with its weights the one that is called so."""
  named = phase.rpartition('/')[2]
  return named if named in arms else next(iter(arms), '')


def _hub_id(checkpoint: pathlib.Path) -> str:
  """What the base's config.json says that it is, if that can be an id of the Hub."""
  name = _read(checkpoint / 'config.json').get('_name_or_path', '')
  if not isinstance(name, str) or name.count('/') != 1 or name.startswith(('/', '.')):
    return ''
  try:
    check(name, 'other', ())
  except BadCard:
    return ''
  return name


def _licence(checkpoint: pathlib.Path) -> str:
  try:
    return licence_of((checkpoint / 'README.md').read_text(encoding='utf-8'))
  except (OSError, UnicodeError):
    return ''


def _results(rundir: pathlib.Path) -> dict[str, Any]:
  return _read(rundir / 'results.json')


def _read(path: pathlib.Path) -> dict[str, Any]:
  try:
    return read_object(path)
  except (OSError, ValueError):
    return {}


def _command(run: Run) -> str:
  """The last start, without places of this machine and secrets."""
  argv = run.directory.last_attempt().get('argv') or ['']
  arguments = [_shown(argument) for argument in argv[1:]]
  return shlex.join(['python', '-m', 'leafe_jax.main', *arguments])


def _shown(argument: str) -> str:
  name, equals, value = argument.partition('=')
  last = name.rpartition('.')[2]
  value = redaction.hide({last: value})[last]
  if value.startswith(('/', '~')):
    # Of a config what lies in the repository, of other files their names.
    value = ('configs/' if name == '--config' else '') + pathlib.PurePath(value).name
  return f'{name}{equals}{value}'
