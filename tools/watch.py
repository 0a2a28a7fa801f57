"""Follows runs while they go, on a page of this machine.

    python -m tools.watch --run=DIR [--run=DIR2 ...]

Phase, rate and time left, memory, success and parse rates so far, losses, the last
episodes, and every tree with its tokens, as it grows. It reads the directories and
writes nothing, so it works on runs that are finished, that another machine writes, and
on the directory of a study (one column a seed). Several runs stand side by side, what
differs in their configs first.

The page is for this machine: --host=127.0.0.1 is the default. From elsewhere take a
tunnel (ssh -L 8090:localhost:8090 MACHINE); --host=0.0.0.0 lets everybody who reaches
the port read the runs.
"""

from __future__ import annotations

import errno
import pathlib
import socket
from collections.abc import Sequence

from absl import flags

from leafe_jax import command_line, files
from leafe_jax.watch.server import Server
from leafe_jax.watch.several import Runs

_EVERYWHERE = ('0.0.0.0', '::', '')


def define_flags() -> None:
  """Defines the flags; by the program alone, as tools share their names."""
  flags.DEFINE_multi_string('run', None, 'Directory of a run; may be given again.')
  flags.mark_flag_as_required('run')
  flags.register_validator(
      'run', lambda places: not any(map(files.is_url, places or ())), files.NO_URL
  )
  flags.DEFINE_string('host', '127.0.0.1', 'Address to listen at.')
  flags.DEFINE_integer(
      'port', 8090, 'Port to listen at; 0 for any that is free.', lower_bound=0,
      upper_bound=65535,
  )
  flags.DEFINE_list(
      'names', [], 'Names by which readers may call this machine, besides localhost.'
  )


def check_places(places: Sequence[str]) -> list[pathlib.Path]:
  """The directories. UsageError for one that is not there."""
  found = [pathlib.Path(place).expanduser() for place in places]
  for place in found:
    if not place.is_dir():
      raise command_line.UsageError(
          f'--run={place}: there is no such directory; a run makes its --workdir when '
          'it starts'
      )
  return found


def listen(runs: Runs, host: str, port: int, names: Sequence[str]) -> Server:
  """A server that listens. UsageError where it cannot."""
  try:
    return Server(runs, host, port, names)
  except socket.gaierror as error:
    raise command_line.UsageError(f'--host={host}: {error.strerror}') from error
  except OSError as error:
    if error.errno == errno.EADDRINUSE:
      raise command_line.UsageError(
          f'--port={port} of {host} is in use; give another one, or --port=0 for any '
          'that is free'
      ) from error
    raise command_line.UsageError(
        f'cannot listen at --host={host} --port={port}: {error.strerror or error}'
    ) from error


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments: {argv[1:]}')
  values = flags.FLAGS
  runs = Runs(check_places(values.run))
  names = [*values.names]
  if values.host in _EVERYWHERE:
    names.append(socket.gethostname())
  with listen(runs, values.host, values.port, names) as server:
    print(f'{runs.name}: {server.url}   (Ctrl-C ends it)', flush=True)
    if values.host in _EVERYWHERE:
      print('Everybody who reaches this port can read these runs.', flush=True)
    try:
      server.serve_forever()
    except KeyboardInterrupt:
      print()


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
