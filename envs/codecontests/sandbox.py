"""Runs untrusted Python programs.

A program gets an empty file system but for the system's Python, no network, no
environment, its own processes and a scratch directory that is gone afterwards;
memory, CPU, wall time, processes, files and output are limited. Three tools do
it: `setpriv` drops the user (limits on processes do not bind root, and a fork
bomb would take the machine), `bwrap` builds the namespaces, `prlimit` sets the
limits. Control groups bound the whole process tree where they can be made.

`run` may be called from several threads at once; it keeps no state.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import selectors
import shutil
import signal
import subprocess
import tempfile
import time

from envs import api
from envs.codecontests import cgroups

_NOBODY = 65534
_PYTHON = '/usr/bin/python3'
_PACKAGES = {'setpriv': 'util-linux', 'prlimit': 'util-linux', 'bwrap': 'bubblewrap'}
_CHUNK = 65_536
# Set hashing is seeded at random otherwise, and programs would not repeat.
_ENVIRONMENT = {
    'PATH': '/usr/bin:/bin', 'PYTHONHASHSEED': '0', 'PYTHONIOENCODING': 'utf-8'
}  # fmt: skip
_FLAGS = ('-s', '-S', '-B')


class SandboxUnavailable(api.EnvError):
  """This machine cannot isolate programs; says what to install."""


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a program may take.

  Attributes:
    cpu_seconds: of each process; the whole run gets `wall_seconds`.
    wall_seconds: from start to end.
    memory_mb: address space of each process, and memory of all together where
      control groups can be made.
    processes: at a time, its own included.
    file_mb: size of a file; scratch_mb: of all of them.
    output_bytes: of each of stdout and stderr; more ends the run.
  """

  cpu_seconds: int = 2
  wall_seconds: float = 8.0
  memory_mb: int = 256
  processes: int = 64
  file_mb: int = 16
  scratch_mb: int = 32
  output_bytes: int = 1 << 20


@dataclasses.dataclass(frozen=True)
class Execution:
  """How a run ended.

  Attributes:
    stdout, stderr: at most `output_bytes` of each.
    exit_code: 128 + n for signal n.
    stopped: 'wall' or 'output' if a limit here ended it, else ''.
    out_of_memory: whether the kernel killed it for memory.
    seconds: wall time.
  """

  stdout: bytes
  stderr: bytes
  exit_code: int
  stopped: str
  out_of_memory: bool
  seconds: float


class Sandbox:
  """See the module's docstring.

  Attributes:
    isolated: whether programs can reach nothing but their scratch directory.
    python: (major, minor) version of the Python that runs them.
  """

  def __init__(self, allow_unsafe_execution: bool = False):
    """Checks the machine with a trial run.

    Args:
      allow_unsafe_execution: where isolation is impossible, run programs with
        resource limits alone. They can then read, write and send whatever this
        process can: only for programs that you trust.

    Raises:
      SandboxUnavailable: names what is missing.
    """
    self.isolated = True
    self.python = (0, 0)
    self._groups = True
    problem = self._missing() or self._trial()
    if problem and self._groups:
      self._groups = False
      problem = self._missing() or self._trial()
    if not problem:
      return
    if not allow_unsafe_execution:
      raise SandboxUnavailable(
          f'programs cannot be isolated on this machine: {problem}. Install what '
          'is missing, or set allow_unsafe_execution=True to run programs with '
          'resource limits only'
      )
    logging.warning(
        'UNSAFE: programs run without isolation, with resource limits only (%s)',
        problem,
    )
    self.isolated = False

  def _missing(self) -> str:
    missing = [
        f'{tool} (package {package})'
        for tool, package in _PACKAGES.items()
        if shutil.which(tool) is None
    ]
    if not pathlib.Path(_PYTHON).exists():
      missing.append(f'{_PYTHON} (package python3)')
    return f'no {", ".join(missing)}' if missing else ''

  def _trial(self) -> str:
    program = 'import sys\nprint(*sys.version_info[:2])'
    ran = self.run(program, '', Limits(wall_seconds=20))
    match ran.stdout.split():
      case [major, minor]:
        self.python = (int(major), int(minor))
        return ''
    return f'a trial run failed: {ran.stderr.decode(errors="replace").strip()!r}'

  def run(self, program: str, stdin: str, limits: Limits) -> Execution:
    """Runs a program on an input."""
    with tempfile.TemporaryDirectory(prefix='leafe-run-') as name:
      directory = pathlib.Path(name)
      code = directory / 'code'
      code.mkdir()
      # Read by another user than the one that writes it.
      for path in (directory, code):
        path.chmod(0o755)
      (code / 'main.py').write_bytes(program.encode(errors='replace'))
      (directory / 'input').write_bytes(stdin.encode(errors='replace'))
      for path in (code / 'main.py', directory / 'input'):
        path.chmod(0o644)
      if not self.isolated:
        return _execute(_unsafe_command(code, limits), directory, limits, None)
      # Above the limit of one process, whose own MemoryError is the better end.
      group = (
          cgroups.create(limits.memory_mb * 2, limits.processes + 8)
          if self._groups
          else cgroups.Group(())
      )
      try:
        command = [*group.join_command(), *_isolated_command(code, limits)]
        return _execute(command, directory, limits, group)
      finally:
        group.remove()


def _isolated_command(code: pathlib.Path, limits: Limits) -> list[str]:
  drop = ['--no-new-privs']
  if os.geteuid() == 0:
    drop = [f'--reuid={_NOBODY}', f'--regid={_NOBODY}', '--clear-groups', *drop]
  environment = [x for item in _ENVIRONMENT.items() for x in ('--setenv', *item)]
  return [
      'setpriv', *drop,
      'bwrap', '--unshare-all', '--unshare-user', '--disable-userns',
      '--die-with-parent', '--new-session', '--clearenv', *environment,
      '--cap-drop', 'ALL', '--ro-bind', '/usr', '/usr',
      '--symlink', 'usr/lib', '/lib', '--symlink', 'usr/lib64', '/lib64',
      '--symlink', 'usr/bin', '/bin', '--proc', '/proc', '--dev', '/dev',
      '--size', str(limits.scratch_mb << 20), '--tmpfs', '/tmp',
      '--ro-bind', str(code), '/code', '--chdir', '/tmp',
      'prlimit', f'--as={limits.memory_mb << 20}',
      f'--cpu={limits.cpu_seconds}:{limits.cpu_seconds + 1}',
      f'--nproc={limits.processes}', f'--fsize={limits.file_mb << 20}',
      '--nofile=64', '--core=0', '--', _PYTHON, *_FLAGS, '/code/main.py',
  ]  # fmt: skip


def _unsafe_command(code: pathlib.Path, limits: Limits) -> list[str]:
  limit = (
      f'ulimit -v {limits.memory_mb << 10}; ulimit -t {limits.cpu_seconds}; '
      f'ulimit -f {limits.file_mb << 11}; ulimit -c 0; exec "$@"'
  )
  python = _PYTHON if pathlib.Path(_PYTHON).exists() else 'python3'
  return ['/bin/sh', '-c', limit, 'sh', python, *_FLAGS, str(code / 'main.py')]


def _execute(
    command: list[str],
    directory: pathlib.Path,
    limits: Limits,
    group: cgroups.Group | None,
) -> Execution:
  start = time.monotonic()
  with (
      open(directory / 'input', 'rb') as stdin,
      subprocess.Popen(
          command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
          env=_ENVIRONMENT, cwd=directory, start_new_session=True, bufsize=0,
      ) as process,
  ):  # fmt: skip
    try:
      stdout, stderr, stopped = _watch(process, start + limits.wall_seconds, limits)
    finally:
      _kill(process)
  code = process.returncode
  return Execution(
      stdout=stdout,
      stderr=stderr,
      exit_code=128 - code if code < 0 else code,
      stopped=stopped,
      out_of_memory=group is not None and group.ran_out_of_memory(),
      seconds=time.monotonic() - start,
  )


def _watch(
    process: subprocess.Popen[bytes], deadline: float, limits: Limits
) -> tuple[bytes, bytes, str]:
  """Reads output until the process ends or a limit is reached."""
  assert process.stdout is not None and process.stderr is not None
  outputs = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
  first, second = outputs
  stopped = ''
  exit_fd = os.pidfd_open(process.pid)
  try:
    with selectors.DefaultSelector() as selector:
      for fd in outputs:
        os.set_blocking(fd, False)
        selector.register(fd, selectors.EVENT_READ)
      selector.register(exit_fd, selectors.EVENT_READ)
      while not stopped:
        ready = [key.fd for key, _ in selector.select(deadline - time.monotonic())]
        if time.monotonic() >= deadline:
          stopped = 'wall'
        for fd in ready:
          if fd != exit_fd and not _read(fd, outputs[fd], limits.output_bytes):
            selector.unregister(fd)
        if any(len(output) > limits.output_bytes for output in outputs.values()):
          stopped = 'output'
        elif exit_fd in ready:
          break
    for fd, output in outputs.items():
      while len(output) <= limits.output_bytes and _read(
          fd, output, limits.output_bytes
      ):
        pass
      if len(output) > limits.output_bytes:
        stopped = stopped or 'output'
  finally:
    os.close(exit_fd)
  cap = limits.output_bytes
  return bytes(outputs[first][:cap]), bytes(outputs[second][:cap]), stopped


def _read(fd: int, output: bytearray, cap: int) -> bool:
  """Reads what is there, a little past the cap at most; False at the end."""
  try:
    data = os.read(fd, min(_CHUNK, cap - len(output) + 1))
  except BlockingIOError:
    return False
  output += data
  return bool(data)


def _kill(process: subprocess.Popen[bytes]) -> None:
  """Ends the process; its namespaces, and all that runs in them, follow."""
  try:
    os.killpg(process.pid, signal.SIGKILL)
  except (ProcessLookupError, PermissionError):
    process.kill()
  process.wait()
