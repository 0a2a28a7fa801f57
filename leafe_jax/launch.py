"""Between the command line and a run: flags, checks, the run directory."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import logging as python_logging
import os
import pathlib
import runpy
import subprocess
import sys
import threading
from typing import Any

import ml_collections
from absl import flags, logging

from envs import registry
from leafe_jax import buckets, command_line, rundir, settings
from leafe_jax.command_line import UsageError
from leafe_jax.config import Experiment
from leafe_jax.tracking import choice


def define_flags(values: flags.FlagValues) -> None:
  """Defines --config, --workdir, --fork_from ... and the flags of several hosts."""
  command_line.define_config(values)
  command_line.define_path(
      'workdir', None, 'Directory of the run, or gs://BUCKET/DIRECTORY.',
      buckets_too=True, values=values,
  )
  command_line.define_path(
      'fork_from', '', 'Directory of the run to take phases from.',
      buckets_too=True, values=values,
  )
  flags.DEFINE_string(
      'until', '', 'Phase to stop after; empty: the last.', flag_values=values
  )
  flags.DEFINE_boolean(
      'dry_run', False, 'Say what would be kept and what done, and stop.',
      flag_values=values,
  )
  _define_tracker_flags(values)
  _define_host_flags(values)


def _define_tracker_flags(values: flags.FlagValues) -> None:
  # Not options of the config: who watches a run changes nothing about it, and may
  # be another one after a resume.
  flags.DEFINE_list(
      'tracker', list(choice.DEFAULT),
      f'Who is told of the run, of {", ".join(choice.NAMES)}; empty: nobody.',
      flag_values=values,
  )
  flags.DEFINE_string(
      'tracker_project', '', 'Project of trackers that have them.', flag_values=values
  )


def trackers(values: flags.FlagValues) -> choice.Choice:
  """Those that the flags name. Raises UsageError."""
  try:
    choice.check(values.tracker, values.tracker_project)
  except ValueError as error:
    raise UsageError(str(error)) from error
  return choice.Choice(tuple(values.tracker), values.tracker_project)


def _define_host_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_enum(
      'distributed', 'auto', ['auto', 'on', 'off'],
      'Whether to join other processes, named by the environment.',
      flag_values=values,
  )
  flags.DEFINE_string(
      'coordinator', '', 'HOST:PORT where process 0 listens.', flag_values=values
  )
  flags.DEFINE_integer(
      'num_processes', 0, 'Processes of the run.', lower_bound=0, flag_values=values
  )
  flags.DEFINE_integer(
      'process_id', -1, 'Number of this process, from 0.', lower_bound=-1,
      flag_values=values,
  )
  flags.DEFINE_integer(
      'join_timeout', 300, 'Seconds to wait for the other processes.',
      lower_bound=1, flag_values=values,
  )
  flags.DEFINE_float(
      'grace_s', 25.0,
      'Seconds from SIGTERM or Ctrl-C to the end, for an update or a turn to finish'
      ' and to be saved.',
      lower_bound=0.0, flag_values=values,
  )  # fmt: skip


def parse_flags(values: flags.FlagValues, argv: list[str]) -> list[str]:
  """Parses `argv`; returns what is left. Raises UsageError."""
  rest = command_line.parse(values, argv, config=True)
  if not values.workdir:
    raise UsageError('--workdir=DIR is missing; see --help')
  return rest


def variants_for(path: str, num_devices: int) -> str:
  """Names a config file's variants for so many devices, ready to end a message.

  A file that has such variants lists them in DEVICES, with a comma before those
  that go on after an environment's name; empty for another one.

  Args:
    path: FILE[:VARIANT], as --config takes it.
    num_devices: there are.
  """
  file, _, variant = path.partition(':')
  known = runpy.run_path(file).get('DEVICES', {})
  stem = variant.partition(',')[0]
  found = [
      f'{stem}{name}' if name.startswith(',') else name
      for name, devices in known.items()
      if devices == num_devices
  ]
  return f', or take --config={file}:' + ', :'.join(found) if found else ''


def check(config: ml_collections.ConfigDict) -> Experiment:
  """The checked config, its files by absolute paths. Raises ConfigError.

  What is recorded then holds wherever a later program is started.
  """
  experiment = _resolve_paths(settings.from_config_dict(config))
  policy = experiment.policy
  for name in ('prompts', 'template'):
    if getattr(policy, name) and not policy.checkpoint:
      raise settings.ConfigError(
          f'policy.{name} is {getattr(policy, name)!r}, which a policy without a '
          'checkpoint does not read: give --config.policy.checkpoint=DIR too'
      )
  _check_teaching(experiment)
  try:
    registry.check(experiment.env.name)
  except (ValueError, ImportError) as error:
    raise settings.ConfigError(f'env.name: {error}') from error
  return experiment


def _check_teaching(config: Experiment) -> None:
  """Refuses a base that nothing teaches, and data that nothing reads."""
  warm, taught = config.warm_start, bool(config.policy.checkpoint)
  if not taught and not warm.steps:
    raise settings.ConfigError(
        'warm_start.steps=0 leaves a policy without a checkpoint at random weights: '
        'give --config.policy.checkpoint=DIR, or steps'
    )
  if warm.data and not (taught and warm.steps):
    missing = 'warm_start.steps above 0' if taught else 'policy.checkpoint=DIR'
    raise settings.ConfigError(
        f'warm_start.data={",".join(warm.data)} is read by the cold start of a '
        f'checkpoint alone: give --config.{missing} too'
    )
  if warm.steps and not warm.num_demonstrations and not warm.data:
    raise settings.ConfigError(
        f'warm_start.steps={warm.steps} has nothing to teach: give '
        '--config.warm_start.num_demonstrations=N (scripted episodes)'
        + (' or --config.warm_start.data=FILE' if taught else '')
    )


def _resolve_paths(config: Experiment) -> Experiment:
  given = {name: getattr(config.policy, name) for name in ('checkpoint', 'prompts')}
  found = {name: _absolute(path) for name, path in given.items() if path}
  data = tuple(map(_absolute, config.warm_start.data))
  return dataclasses.replace(
      config, policy=dataclasses.replace(config.policy, **found),
      warm_start=dataclasses.replace(config.warm_start, data=data),
  )


def _absolute(path: str) -> str:
  if buckets.is_bucket(path):
    return path.rstrip('/')
  return os.path.abspath(os.path.expanduser(path))


def record(directory: rundir.RunDirectory, argv: list[str], sha256: str) -> None:
  """Notes this start in attempts.jsonl; warns where other code started it last."""
  before, now = directory.last_attempt().get('git'), _git_hash()
  if before and now and before != now:
    logging.warning(
        '%s was last run with the code of commit %s, this is %s: what is made again'
        ' may come out otherwise', directory.path, before, now,
    )
  directory.record_attempt({
      'time': datetime.datetime.now(datetime.UTC).isoformat('T', 'seconds'),
      'argv': argv,
      'config_sha256': sha256,
      'git': now,
      'host': os.uname().nodename,
      'pid': os.getpid(),
  })


def _git_hash() -> str | None:
  command = ['git', 'rev-parse', 'HEAD']
  root = pathlib.Path(__file__).resolve().parent
  try:
    found = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=10, check=True
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return found.stdout.strip()


def cache_directory() -> pathlib.Path:
  """Where compiled programs are kept, for all runs of this user."""
  home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  default = pathlib.Path(home) / 'leafe_jax' / 'compiled'
  return pathlib.Path(os.environ.get('JAX_COMPILATION_CACHE_DIR') or default)


def _note_threads(file: python_logging.Handler) -> None:
  """Sends what threads of libraries cannot raise to the log file alone.

  tensorstore's do so by the dozen when a disk is full; the error that ends the run
  is raised on the main thread.
  """
  shown = sys.unraisablehook

  def note(found: Any) -> None:
    if threading.current_thread() is threading.main_thread():
      shown(found)
      return
    error = (found.exc_type, found.exc_value, found.exc_traceback)
    file.handle(python_logging.LogRecord(
        'threads', python_logging.ERROR, __file__, 0, 'a thread of a library failed',
        (), error,
    ))

  sys.unraisablehook = note


def keep_traceback(error: BaseException) -> None:
  """Writes where an error came from to the log files alone."""
  record = python_logging.LogRecord(
      'run', python_logging.ERROR, __file__, 0, 'stopped', (),
      (type(error), error, error.__traceback__),
  )
  for handler in python_logging.getLogger().handlers:
    if isinstance(handler, _LogFile):
      handler.handle(record)


def _say_uncaught(log: pathlib.Path) -> None:
  """One line for what nobody foresaw; its traceback goes to the log."""
  shown = sys.excepthook

  def say(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if not issubclass(kind, Exception):
      shown(kind, error, trace)
      return
    keep_traceback(error)
    text = command_line.printable(' '.join(str(error).split()))
    sys.stderr.write(
        f'leafe_jax: not foreseen, {kind.__name__}: {text}; the traceback is in {log}\n'
    )

  sys.excepthook = say


def start_logging(
    directory: rundir.RunDirectory, process: int = 0, several: bool = False
) -> None:
  """Our log at level info, libraries' at warning; to stderr and log.txt.

  Other processes than the first write log.hostN.txt, and only warnings to
  stderr. Tracebacks that are logged, and those of errors that nobody catches,
  stand in the file alone.

  Args:
    directory: of the run.
    process: number of this one.
    several: whether there are others. What native libraries write to stderr stands
      in the file alone then: on the loss of another process a hundred lines.
  """
  logging.use_absl_handler()
  logging.set_verbosity(logging.INFO)
  logging.set_stderrthreshold(logging.WARNING if process else logging.INFO)
  name = f'log.host{process}.txt' if process else 'log.txt'
  file = _LogFile(directory.path / name, encoding='utf-8')
  file.setFormatter(_Escaped())
  if several:
    _divert_native(file)
  _note_threads(file)
  _say_uncaught(directory.path / name)
  python_logging.getLogger().addHandler(file)
  logging.get_absl_handler().setFormatter(_Brief())
  for handler in (logging.get_absl_handler(), file):
    handler.addFilter(command_line.is_ours_or_serious)


def _divert_native(file: python_logging.FileHandler) -> None:
  """Sends what is written to descriptor 2 to a log file; Python's stderr stays."""
  sys.stderr.flush()
  sys.stderr = os.fdopen(os.dup(2), 'w', buffering=1, errors='backslashreplace')
  logging.get_absl_handler().python_handler.setStream(sys.stderr)
  assert file.stream is not None  # it is open
  os.dup2(file.stream.fileno(), 2)


class _Escaped(logging.PythonFormatter):
  """Lines with nothing that writes to a terminal by itself."""

  def format(self, record: python_logging.LogRecord) -> str:
    return command_line.printable(buckets.spoken(super().format(record)))


class _Brief(_Escaped):
  """Lines without tracebacks."""

  def format(self, record: python_logging.LogRecord) -> str:
    record = copy.copy(record)
    record.exc_info = record.exc_text = None
    return super().format(record)


class _LogFile(python_logging.FileHandler):
  """A log that a full disk cuts short: whoever saves next says so."""

  def handleError(self, record: python_logging.LogRecord) -> None:  # noqa: N802
    if not isinstance(sys.exc_info()[1], OSError):
      super().handleError(record)
