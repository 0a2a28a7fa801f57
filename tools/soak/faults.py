"""What may happen to a run; each kind a class, all of them in `FAULTS`.

A fault is drawn from a generator, so a number and a seed give the same one again;
only the instant at which a signal meets the run is the machine's.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from tools.soak.play import Ending, Player

_SKIPPED = ('.lock', 'log.txt', 'attempts.jsonl')  # nobody's result
UNMOUNTABLE = 'mounting is not allowed here'


class NotPossible(RuntimeError):
  """The machine does not allow this fault; says why."""


@dataclasses.dataclass
class Scene:
  """A run that a fault happens to.

  Attributes:
    player: of the run.
    reference: the directory of the undisturbed run.
    seconds: that the undisturbed run took.
    rng: of the draw.
    files: path -> its content before it was damaged, to be put back.
    detail: what was done, for the report.
    endings: of all starts so far.
  """

  player: Player
  reference: pathlib.Path
  seconds: float
  rng: random.Random
  files: dict[pathlib.Path, bytes] = dataclasses.field(default_factory=dict)
  detail: str = ''
  endings: list[Ending] = dataclasses.field(default_factory=list)

  def start(self, disturb=None, limit_bytes: int = 0) -> Ending:
    """Starts the run once more."""
    self.endings.append(self.player.start(disturb, limit_bytes))
    return self.endings[-1]


class Fault(Protocol):
  """Something that happens to a run.

  Attributes:
    name: in the table.
    variant: of the config; '' or a way of `troubled`.
    processes: of the run.
  """

  @property
  def name(self) -> str: ...
  @property
  def variant(self) -> str: ...
  @property
  def processes(self) -> int: ...

  def happen(self, scene: Scene) -> tuple[int, ...]:
    """Starts and disturbs the run; the exit codes that it may have then.

    Raises:
      NotPossible: the machine does not allow it.
    """
    ...


@dataclasses.dataclass(frozen=True)
class Signals:
  """Signals at a random time, one after another."""

  name: str
  numbers: tuple[int, ...]
  variant: str = ''
  processes: int = 1
  between: tuple[float, float] = (0.0, 0.9)  # of the time of an undisturbed run

  def happen(self, scene: Scene) -> tuple[int, ...]:
    after = scene.rng.uniform(*self.between) * scene.seconds
    gaps = [scene.rng.uniform(0.0, 0.5) for _ in self.numbers[1:]]
    names = ', '.join(signal.Signals(number).name for number in self.numbers)
    victim = scene.rng.randrange(self.processes)
    scene.detail += f'{names} to process {victim} after {after:.1f} s'

    def disturb(processes: Sequence[subprocess.Popen]) -> None:
      _sleep(processes, after)
      for number, gap in zip(self.numbers, [*gaps, 0.0], strict=True):
        processes[victim].send_signal(number)
        _sleep(processes, gap)

    scene.start(disturb)
    # Before it listens, a signal ends it as it ends any program.
    return (0, *(code for n in self.numbers for code in (-n, 128 + n)))


def _sleep(processes: Sequence[subprocess.Popen], seconds: float) -> None:
  end = time.monotonic() + seconds
  while time.monotonic() < end and all(p.poll() is None for p in processes):
    time.sleep(0.01)


# When there is something to be damaged.
_HALF_DONE = Signals('', (signal.SIGKILL,), between=(0.3, 0.95))


@dataclasses.dataclass(frozen=True)
class Damage:
  """A file of the run directory changed between two starts."""

  name: str
  change: Callable[[pathlib.Path, random.Random], str]
  variant: str = ''
  processes: int = 1

  def happen(self, scene: Scene) -> tuple[int, ...]:
    workdir = scene.player.workdir
    if scene.rng.random() < 0.5:
      shutil.copytree(scene.reference, workdir)
      scene.detail += 'finished; '
    else:
      _HALF_DONE.happen(scene)
      scene.detail += '; '
    found = [path for path in _files(workdir) if path.stat().st_size]
    if found:
      path = _choose(found, scene.rng)
      scene.files[path] = path.read_bytes()
      scene.detail += f'{path.relative_to(workdir)} {self.change(path, scene.rng)}'
    return (0, 1, 2, -signal.SIGKILL)


def _files(workdir: pathlib.Path) -> list[pathlib.Path]:
  return [
      path
      for path in sorted(workdir.rglob('*'))
      if path.is_file() and path.name not in _SKIPPED
      and 'tensorboard' not in path.parts and not path.name.endswith('.partial')
  ]


def _choose(found: Sequence[pathlib.Path], rng: random.Random) -> pathlib.Path:
  """One of the files; checkpoints, which are most of them, are one place of many."""
  places: dict[pathlib.Path, list[pathlib.Path]] = {}
  for path in found:
    whole = [p for p in path.parents if p.name in ('checkpoints', 'params')]
    places.setdefault(whole[-1] if whole else path.parent, []).append(path)
  return rng.choice(rng.choice(list(places.values())))


def flip(path: pathlib.Path, rng: random.Random) -> str:
  """Changes a bit."""
  content = bytearray(path.read_bytes())
  place, bit = rng.randrange(len(content)), rng.randrange(8)
  content[place] ^= 1 << bit
  path.write_bytes(content)
  return f'bit {bit} of byte {place} flipped'


def truncate(path: pathlib.Path, rng: random.Random) -> str:
  """Cuts the end off."""
  length = rng.randrange(path.stat().st_size)
  os.truncate(path, length)
  return f'cut to {length} bytes'


def delete(path: pathlib.Path, rng: random.Random) -> str:
  """Removes the file."""
  path.unlink()
  return 'deleted'


def swap(path: pathlib.Path, rng: random.Random) -> str:
  """Gives it the content of another file, where there is one of its kind."""
  others = [
      other for other in _files(path.parent.parent)
      if other.suffix == path.suffix and other != path
  ]
  if not others:
    return truncate(path, rng)
  other = rng.choice(others)
  path.write_bytes(other.read_bytes())
  return f'became a copy of {other.parent.name}/{other.name}'


def _mount(workdir: pathlib.Path, options: str) -> None:
  """Mounts a memory of a size there. NotPossible where one may not."""
  workdir.mkdir(parents=True, exist_ok=True)
  command = ['mount', '-t', 'tmpfs', '-o', options, 'soak', str(workdir)]
  if subprocess.run(command, capture_output=True, check=False).returncode:
    raise NotPossible(UNMOUNTABLE)


def _remount(workdir: pathlib.Path, options: str) -> None:
  subprocess.run(['mount', '-o', f'remount,{options}', str(workdir)], check=True)


def unmount(workdir: pathlib.Path) -> None:
  """Copies what lies in a mounted directory to a plain one of the same name."""
  if workdir.is_mount():
    beside = workdir.with_name(f'{workdir.name}.copy')
    shutil.copytree(workdir, beside)
    subprocess.run(['umount', '-l', str(workdir)], check=True)
    workdir.rmdir()
    beside.rename(workdir)


@dataclasses.dataclass(frozen=True)
class FullDisk:
  """A disk that is too small until the run has said so."""

  name: str = 'full disk'
  variant: str = ''
  processes: int = 1

  def happen(self, scene: Scene) -> tuple[int, ...]:
    needed = sum(p.stat().st_size for p in scene.reference.rglob('*') if p.is_file())
    size = int(scene.rng.uniform(0.02, 0.9) * needed)
    scene.detail += f'a disk of {size} of {needed} bytes'
    _mount(scene.player.workdir, f'size={size}')
    scene.start()
    _remount(scene.player.workdir, 'size=50%')
    return (0, 1)


@dataclasses.dataclass(frozen=True)
class LimitedFiles:
  """No file may grow over a size (RLIMIT_FSIZE), until the run has said so."""

  name: str = 'files too large'
  variant: str = ''
  processes: int = 1

  def happen(self, scene: Scene) -> tuple[int, ...]:
    size = 1 << scene.rng.randrange(9, 18)
    scene.detail += f'no file over {size} bytes'
    scene.start(limit_bytes=size)
    return (0, 1)


@dataclasses.dataclass(frozen=True)
class ReadOnly:
  """A directory of a half-finished run that nothing can be written to."""

  name: str = 'read-only'
  variant: str = ''
  processes: int = 1

  def happen(self, scene: Scene) -> tuple[int, ...]:
    _mount(scene.player.workdir, 'size=50%')
    _HALF_DONE.happen(scene)
    scene.detail += ', then read-only'
    _remount(scene.player.workdir, 'ro')
    scene.start()
    _remount(scene.player.workdir, 'rw')
    return (0, 1, -signal.SIGKILL)


FAULTS: tuple[Fault, ...] = (
    Signals('kill -9', (signal.SIGKILL,)),
    Signals('SIGTERM', (signal.SIGTERM,)),
    Signals('SIGINT', (signal.SIGINT,)),
    Signals('SIGHUP', (signal.SIGHUP,)),
    Signals('two signals', (signal.SIGTERM, signal.SIGINT)),
    FullDisk(),
    LimitedFiles(),
    ReadOnly(),
    Damage('flipped bit', flip),
    Damage('truncated file', truncate),
    Damage('deleted file', delete),
    Damage('swapped file', swap),
    Signals('dying world', (signal.SIGKILL,), 'exit'),
    Signals('hanging world', (signal.SIGKILL,), 'hang'),
    Signals('lying world', (signal.SIGKILL,), 'lie'),
    Signals('raising world', (signal.SIGKILL,), 'raise'),
    Signals('lost peer', (signal.SIGKILL,), processes=2),
)
