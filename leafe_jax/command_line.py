"""Command lines, of the run and of the tools: parsed, or refused in one line.

    if __name__ == '__main__':
      command_line.run(main)

A mistake ends the program with exit code 2 and one line on stderr that names
it; so does what the machine lacks (a file, a package, room on the disk).
"""

from __future__ import annotations

import errno
import functools
import logging as python_logging
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from leafe_jax import buckets, files, neighbours, open_options, settings
from leafe_jax.endings import RunStopped

flags.disclaim_key_flags()  # flags that are defined here belong to who asks for them

EXIT_STOPPED = 1
EXIT_USAGE = 2
HELP = ('--help', '-help', '-h', '--helpshort', '-helpshort')
_OVERRIDE = re.compile(r'--?(?:config|noconfig)\.([^=]+)')
_CONFIG = re.compile(r'--?config(?:=(.*))?$', re.DOTALL)
# Where libraries lie; Debian's own in the second.
_INSTALLED = frozenset({'site-packages', 'dist-packages'})
_MISSING = re.compile(r'flag --(\w+)=None: .* must have a value other than None')
# Of the disk, and how it says so through libraries that keep no error number.
_FULL = {
    errno.ENOSPC: 'No space left on device',
    errno.EDQUOT: 'Disk quota exceeded',
    errno.EROFS: 'Read-only file system',
    errno.EFBIG: 'File too large',
}
_LIMITED = 'Raise the limit on the size of files (ulimit -f)'


class UsageError(ValueError):
  """The command line asks for something that cannot be; one clear text."""


def define_config(
    values: flags.FlagValues = flags.FLAGS, argv: Sequence[str] = ()
) -> None:
  """Defines --config=FILE[:VARIANT], whose options can be overridden.

  Args:
    values: takes the flag.
    argv: where the overrides are; none before `parse` has looked at them.
  """
  config_flags.DEFINE_config_file(
      'config', None, 'Config file, FILE[:VARIANT].', flag_values=values,
      lock_config=True, sys_argv=list(argv),
  )


def define_path(
    name: str,
    default: str | None,
    doc: str,
    *,
    required: bool = False,
    buckets_too: bool = False,
    values: flags.FlagValues = flags.FLAGS,
) -> flags.FlagHolder[Any]:
  """Defines the flag of a file or directory.

  Args:
    name, default, doc, required, values: as for any flag.
    buckets_too: whether it may be a URL, gs://BUCKET/DIRECTORY.
  """
  refusal = files.ONLY_BUCKETS if buckets_too else files.NO_URL
  holder = flags.DEFINE_string(
      name, default, doc, required=required, flag_values=values
  )
  flags.register_validator(
      name, lambda place: not place or not files.is_url(place) or (
          buckets_too and buckets.is_bucket(place)
      ), refusal, flag_values=values,
  )  # fmt: skip
  return holder


def define_numbers(name: str, default: Sequence[str], doc: str) -> None:
  """Defines a flag of whole numbers from 0, separated by commas."""
  flags.DEFINE_list(name, list(default), doc)
  flags.register_validator(
      name, lambda items: all(item.isdigit() for item in items),
      'give whole numbers, separated by commas',
  )


def parse(values: flags.FlagValues, argv: list[str], config: bool) -> list[str]:
  """Parses `argv`; returns what is left.

  Args:
    values: takes the flags.
    argv: of the program, its name included.
    config: whether there is --config, with overrides.

  Raises:
    UsageError: says what is wrong.
  """
  try:
    if config:
      return _parse_with_config(values, argv)
    return values(argv)
  except flags.Error as error:
    raise UsageError(f'{_last_line(error)}; see --help') from error
  except settings.ConfigError as error:
    raise UsageError(str(error)) from error


def _parse_with_config(values: flags.FlagValues, argv: list[str]) -> list[str]:
  argv = _config_first(values.read_flags_from_files(argv, force_gnu=False))
  loaded = _load(_config_path(argv))
  options, argv = open_options.take(argv, loaded)
  for argument in argv[1:]:
    if found := _OVERRIDE.match(argument):
      _check_override(found[1], loaded)
  _check_lists(argv, loaded)
  # Defined anew: only there it is told on which command line the overrides are.
  delattr(values, 'config')
  define_config(values, argv)
  rest = values(argv)
  open_options.put(options, values.config)
  _leave_alone(values.config, loaded, argv)
  return rest


def _check_lists(argv: Sequence[str], loaded: Any) -> None:
  """UsageError for a list that is given twice: both would be taken for its items."""
  given = [found[1] for word in argv[1:] if (found := _OVERRIDE.match(word))]
  for path in sorted({path for path in given if given.count(path) > 1}):
    if isinstance(functools.reduce(getattr, path.split('.'), loaded), (tuple, list)):
      raise UsageError(
          f'--config.{path} is given {given.count(path)} times; give it once, as in '
          f'--config.{path}=A,B'
      )


def _leave_alone(config: Any, loaded: Any, argv: Sequence[str]) -> None:
  """A checkpoint in place of a policy from scratch is not taught unless asked.

  The steps of the file are those of a policy from scratch then.
  """
  asked = any(
      (found := _OVERRIDE.match(argument)) and found[1] == 'warm_start.steps'
      for argument in argv[1:]
  )
  if 'policy' not in config or 'warm_start' not in config:
    return
  brought = config.policy.checkpoint and not loaded.policy.checkpoint
  if brought and not asked:
    config.warm_start.steps = 0


def run(main: Callable[[list[str]], Any], *, config: bool = False) -> None:
  """Runs a tool: `main` with the arguments left by its flags; exits.

  Args:
    main: returns the exit code, None for 0.
    config: whether it has --config (`define_config`).
  """

  def parse_or_help(argv: list[str]) -> list[str]:
    if any(argument in HELP for argument in argv[1:]):
      app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    try:
      return parse(flags.FLAGS, argv, config)
    except UsageError as error:
      raise SystemExit(refuse(str(error))) from None

  def guarded(argv: list[str]) -> Any:
    try:
      return main(argv)
    except (UsageError, settings.ConfigError) as error:
      return refuse(str(error))
    except (OSError, ImportError, RunStopped, files.DamagedFile) as error:
      return refuse(disk_trouble(error) or str(error))

  logging.get_absl_handler().addFilter(is_ours_or_serious)
  app.run(guarded, flags_parser=parse_or_help)


def is_ours_or_serious(record: python_logging.LogRecord) -> bool:
  """Whether a line of the log is worth showing: libraries warn at least."""
  if record.levelno >= python_logging.WARNING or neighbours.is_ours(record.pathname):
    return True
  return not _INSTALLED & set(pathlib.Path(record.pathname).parts)


def refuse(message: str, code: int = EXIT_USAGE, program: str = '') -> int:
  """Says on stderr why nothing is done; returns the exit code."""
  name = program or pathlib.Path(sys.argv[0]).stem
  sys.stderr.write(f'{name}: {printable(buckets.spoken(message))}\n')
  return code


def printable(text: str) -> str:
  """A text that can do nothing to a terminal: all but line breaks escaped."""
  return ''.join(
      char if char.isprintable() or char == '\n'
      else char.encode('unicode_escape').decode()
      for char in text
  )


def disk_trouble(error: BaseException) -> str | None:
  """What to do about a disk that is full, write-protected or limited, if that is it."""
  for cause in _causes(error):
    for number, text in _FULL.items():
      if getattr(cause, 'errno', None) == number or text in str(cause):
        place = getattr(cause, 'filename', None)
        where = f'{place}: ' if place else ''
        remedy = _LIMITED if number == errno.EFBIG else 'Make room'
        return (
            f'{where}{text}: what was saved is whole. {remedy}, and the same '
            'command goes on'
        )
  return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
  seen: list[BaseException] = []
  while error is not None and error not in seen:
    seen.append(error)
    yield error
    error = error.__cause__ or error.__context__


def _config_first(argv: list[str]) -> list[str]:
  """The arguments with --config before its overrides, as ml_collections wants it.

  Its file is one that is there, or the package's of that name.
  """
  for i, argument in enumerate(argv[1:], start=1):
    if found := _CONFIG.match(argument):
      end = i + (1 if found[1] is not None else 2)
      path = found[1] if found[1] is not None else ''.join(argv[i + 1 : end])
      file, colon, variant = path.partition(':')
      known = f'{neighbours.find_file(file)}{colon}{variant}'
      return [argv[0], f'--config={known}', *argv[1:i], *argv[end:]]
  return argv


def _config_path(argv: Sequence[str]) -> str:
  path = argv[1].removeprefix('--config=') if argv[1:] else ''
  if not path or path == argv[1]:
    raise UsageError('--config=FILE[:VARIANT] is missing; see --help')
  return path


def _load(path: str) -> ml_collections.ConfigDict:
  """The config of FILE[:VARIANT], to check names before flags are parsed."""
  file = path.partition(':')[0]
  if not pathlib.Path(file).is_file():
    raise UsageError(
        f'--config: there is no file {file!r}, here or in the package, which has '
        f'{", ".join(neighbours.shipped_configs())}'
    )
  argv = ['', f'--config={path}']
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=argv)
  try:
    values(argv)
  except (flags.Error, SyntaxError, ImportError, AttributeError) as error:
    hidden = isinstance(error, ImportError) and neighbours.explain('configs', 'envs')
    why = f'; {hidden}' if hidden else ''
    raise UsageError(f'--config={path}: {_last_line(error)}{why}') from error
  config = values.config
  if not isinstance(config, ml_collections.ConfigDict):
    raise UsageError(f'--config={path}: get_config returned no ConfigDict')
  return config


def _check_override(path: str, config: ml_collections.ConfigDict) -> None:
  known = settings.flatten(config.to_dict())
  if path in open_options.SECTIONS and path in known:  # empty, so it looks like a value
    raise UsageError(f'{path} is a section; give --config.{path}.KEY=VALUE')
  if path in known:
    return
  inside = [name for name in known if name.startswith(f'{path}.')]
  if inside:
    raise UsageError(f'{path} is a section; set one of {", ".join(inside)}')
  section = path.rpartition('.')[0]
  beside = sorted(
      name.removeprefix(f'{section}.')
      for name in known
      if section.startswith('env.') and name.startswith(f'{section}.')
  )
  if beside:  # free options: only the config file knows their names
    raise UsageError(
        f'unknown option {path}{settings.suggest(path, known)} '
        f'(options of {section}: {", ".join(beside)})'
    )
  tail = path.removeprefix('env.')
  world = f'env.options.{tail}'
  if tail != path and open_options.is_open(world, config):
    raise UsageError(
        f'{settings.unknown_option(path)}; an option of the world is --config.{world}'
    )
  raise UsageError(settings.unknown_option(path))


def _last_line(error: Exception) -> str:
  lines = str(error).strip().splitlines() or [type(error).__name__]
  line = lines[-1].removeprefix('ValueError: ').removeprefix('TypeError: ').strip()
  missing = _MISSING.search(line)
  return f'--{missing[1]} is missing' if missing else line
