"""The command line: reads flags, checks the config, hands over.

    python -m leafe_jax.main --config=configs/webshop.py --workdir=runs/webshop
"""

from __future__ import annotations

import contextlib
import signal
import sys

from absl import app, flags
from ml_collections import config_flags

from leafe_jax import buckets, claims, command_line, launch, settings, standing, usage
from leafe_jax.command_line import EXIT_STOPPED, EXIT_USAGE, HELP, UsageError
from leafe_jax.config import Experiment
from leafe_jax.endings import RunStopped, WorkdirBusy
from leafe_jax.files import DamagedFile
from leafe_jax.rundir import RunDirectory


def parse(argv: list[str]) -> list[str]:
  """Parses all flags; a mistake ends the program with one line."""
  if any(argument in HELP for argument in argv[1:]):
    sys.stdout.write(usage.text() + '\n')
    raise SystemExit(0)
  try:
    return launch.parse_flags(flags.FLAGS, argv)
  except UsageError as error:
    raise SystemExit(refuse(str(error))) from None


def refuse(message: str, code: int = EXIT_USAGE) -> int:
  """Says on stderr why nothing is run; returns the exit code."""
  return command_line.refuse(message, code, 'leafe_jax')


def main(argv: list[str]) -> int:
  """Starts or resumes the run. Returns the exit code."""
  if len(argv) > 1:
    return refuse(f'unexpected argument {argv[1]!r}; see --help')
  values = flags.FLAGS
  try:
    config = launch.check(values.config)
    launch.trackers(values)  # before hours are spent
    phases = _plan(config, values.until)
    if values.dry_run:
      return _preview(config, phases, values)
    with _joined(values):
      return _start(config, phases, values)
  except (settings.ConfigError, UsageError) as error:
    return refuse(str(error))
  except RunStopped as error:  # nobody to join, or nothing to keep
    return refuse(str(error), EXIT_STOPPED)


def _preview(
    config: Experiment, phases: standing.Phases, values: flags.FlagValues
) -> int:
  """Says what a start would keep and what it would do, phase by phase."""
  directory = RunDirectory(buckets.open_run(values.workdir), make=False)
  found = claims.preview(directory, config, values.fork_from, phases)
  sys.stdout.write(buckets.spoken(f'{directory.path}\n{found}\n'))
  return 0


def _start(
    config: Experiment, phases: standing.Phases, values: flags.FlagValues
) -> int:
  """Runs or resumes; a refusal is the same for all processes of the run."""
  try:
    _run_in(_directory(values.workdir), config, phases, values)
  except (UsageError, WorkdirBusy) as error:
    return refuse(str(error))
  except RunStopped as error:
    launch.keep_traceback(error)
    return refuse(str(error), error.exit_code)
  except DamagedFile as error:
    launch.keep_traceback(error)
    return refuse(str(error), EXIT_STOPPED)
  except (OSError, ValueError, RuntimeError) as error:
    trouble = command_line.disk_trouble(error)
    if trouble is None:
      raise
    launch.keep_traceback(error)
    return refuse(trouble, EXIT_STOPPED)
  return 0


def _directory(workdir: str) -> RunDirectory:
  if buckets.is_bucket(workdir):
    from leafe_jax import hosts
    from leafe_jax.buckets.directory import BucketDirectory

    return BucketDirectory(workdir, hosts.index())
  try:
    return RunDirectory(workdir)
  except OSError as error:
    if command_line.disk_trouble(error):
      raise
    raise UsageError(f'--workdir={workdir} cannot be made: {error}') from error


def _run_in(
    directory: RunDirectory, config: Experiment, phases: standing.Phases,
    values: flags.FlagValues,
) -> None:
  from leafe_jax import hosts, stops

  def prepare() -> None:
    claims.claim(directory, config, values.fork_from, phases)
    launch.record(directory, sys.argv, settings.sha256(config))

  with contextlib.ExitStack() as stack:
    hosts.first(lambda: stack.enter_context(directory.locked()))
    launch.start_logging(directory, hosts.index(), hosts.count() > 1)
    stops.listen(values.grace_s)
    hosts.first(prepare)
    _run(config, directory, values)


def _joined(values: flags.FlagValues) -> contextlib.AbstractContextManager[None]:
  from leafe_jax import hosts

  try:
    arguments = hosts.arguments(
        values.coordinator, values.num_processes, values.process_id,
        values.distributed,
    )
  except ValueError as error:
    raise UsageError(str(error)) from error
  return hosts.joined(arguments, values.join_timeout)


def _plan(config: Experiment, until: str) -> standing.Phases:
  from leafe_jax import experiment  # takes seconds: flags are checked before

  try:
    experiment.check_until(config, until)
    return experiment.phase_inputs(config)
  except ValueError as error:  # an arm or a phase that does not exist
    raise settings.ConfigError(str(error)) from error


def _run(
    config: Experiment, directory: RunDirectory, values: flags.FlagValues
) -> None:
  from leafe_jax import experiment
  from leafe_jax.policy import runtime, sharding

  runtime.keep_freed_memory()
  runtime.collect_rarely()
  runtime.enable_compilation_cache(launch.cache_directory())
  digest, trackers = settings.sha256(config), launch.trackers(values)
  try:
    experiment.run(config, directory.path, digest, values.until, trackers)
  except sharding.MeshError as error:
    path = config_flags.get_config_filename(values['config'])
    others = launch.variants_for(path, error.num_devices)
    raise UsageError(f'{error}{others}') from error


def program() -> None:
  """The whole program; exits."""
  launch.define_flags(flags.FLAGS)
  try:
    app.run(main, flags_parser=parse)
  except KeyboardInterrupt:  # later a run saves what it has (`stops`)
    message = 'stopped before the run began; the same command starts it'
    raise SystemExit(refuse(message, 128 + signal.SIGINT)) from None


if __name__ == '__main__':
  program()
