"""Several processes, usually one a host, that make up one run.

All of them run the same program over one mesh of all their devices: they grow
the same trees, ask for the same samples in the same order and take the same
updates. What is divided is what happens on hosts: environments and what is kept of
turns (`leafe_jax.rollout.crew`), files of experience, shards of checkpoints. What
belongs to the run as a whole (its directory, progress, reports) is process 0's.

One process alone is a run of one: every function here then does its work on
the spot, without communication.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import signal
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from absl import logging
from jax._src import distributed
from jax.experimental import multihost_utils

from leafe_jax import buckets
from leafe_jax.endings import RunStopped

T = TypeVar('T')

EXIT_LOST = 1
_SMALLEST_BLOCK = 1024
_HEARTBEAT_S = 60  # a host that dies without closing its connections
_SHUTDOWN_S = 30
_FAREWELL_S = 3  # for the others to hear what was wrong
_ASK = 'Are all started, with the same --coordinator and --num_processes?'
# The runtime's errors reach Python as various types.
_SIGNS_OF_LOSS = ('Gloo', 'Connection closed', 'Socket closed', 'UNAVAILABLE')


class OutOfStep(RunStopped):
  """The processes did not do the same; going on would corrupt the run."""


class _Process:
  """What this process remembers.

  Attributes:
    trail: checksum of what it ran, to be compared with the others'.
    alone: whether it does what the others wait for (`first`).
    wish: number of the signal that it got; 0: none.
    agreed: that of all processes, as of the last exchange.
    joined: whether it met the others.
  """

  trail = 0
  alone = False
  wish = 0
  agreed = 0
  joined = False


def count() -> int:
  """Number of processes; does not start the accelerator when there is one."""
  return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
  """Number of this process, from 0."""
  return jax.process_index() if jax.distributed.is_initialized() else 0


def is_first() -> bool:
  return index() == 0


def share(total: int) -> slice:
  """This process's part of `total` things; parts differ by at most one."""
  return part(total, index(), count())


def part(total: int, place: int, places: int) -> slice:
  """Part number `place` of `total` things cut into `places`, in order."""
  return slice(total * place // places, total * (place + 1) // places)


def witness(*arrays: Any) -> None:
  """Notes the host arrays of what is about to run on the devices.

  The notes of all processes are compared at the next exchange, so that a
  process that went its own way stops the run instead of corrupting it.
  """
  if count() > 1:
    for array in arrays:
      data = np.ascontiguousarray(array).data
      _Process.trail = zlib.crc32(data, _Process.trail)


def wish(number: int) -> None:
  """Notes that this process got a signal, to be told with what is exchanged next."""
  _Process.wish = number


def wished() -> int:
  """The largest wish of all processes, as of the last exchange; 0: none.

  Between two exchanges all processes have the same answer. One that works alone
  (`first`) has its own.
  """
  return _Process.wish if count() == 1 or _Process.alone else _Process.agreed


def exchange(payload: bytes) -> list[bytes]:
  """Everybody's payload, in the order of the processes. All must call it.

  Their wishes (`wish`) travel with it.

  Raises:
    OutOfStep: the processes ran different programs before.
  """
  if count() == 1:
    return [payload]
  if _Process.alone:
    raise AssertionError('an exchange inside of first(): the others wait for it')
  header = np.array([len(payload), _Process.trail, _Process.wish], np.uint32)
  lengths, trails, wishes = multihost_utils.process_allgather(header).T
  _Process.agreed = int(wishes.max())
  if len(set(trails.tolist())) > 1:
    raise OutOfStep(
        'the processes of this run are out of step (checksums of what they ran: '
        f'{trails.tolist()}). Nothing wrong was saved; start all of them again'
    )
  if not lengths.any():
    return [b''] * len(lengths)
  # Blocks of few sizes: every new one is compiled.
  size = max(_SMALLEST_BLOCK, 1 << (int(lengths.max()) - 1).bit_length())
  block = np.zeros(size, np.uint8)
  block[: len(payload)] = np.frombuffer(payload, np.uint8)
  blocks = multihost_utils.process_allgather(block)
  return [row[:length].tobytes() for row, length in zip(blocks, lengths, strict=True)]


def meet() -> None:
  """Returns when every process has come here. Raises OutOfStep."""
  exchange(b'')


def first(work: Callable[[], T]) -> T:
  """Process 0 does `work`, once all are here; everybody gets the result.

  Args:
    work: returns JSON types; tuples come out as lists on the other processes.

  Raises:
    RunStopped: on the other processes, when `work` raised an error a run can
      end with; process 0 raises the error itself.
  """
  if count() == 1:
    return work()
  mirror = buckets.shared
  offers = exchange(mirror.offer() if mirror else b'')
  job = functools.partial(mirror.share, work, offers) if mirror else work
  answer, error = _try(job) if is_first() else (b'', None)
  answer = exchange(answer)[0]
  if error is not None:
    raise error
  found = json.loads(answer)
  if 'error' in found:
    stopped = RunStopped(f'process 0: {found["error"]}')
    stopped.exit_code = found['exit_code']
    raise stopped
  return mirror.receive(found['result']) if mirror else found['result']


def _try(work: Callable[[], Any]) -> tuple[bytes, Exception | None]:
  _Process.alone = True
  try:
    return json.dumps({'result': work()}).encode(), None
  except (ValueError, RuntimeError, OSError) as error:
    code = getattr(error, 'exit_code', RunStopped.exit_code)
    return json.dumps({'error': str(error), 'exit_code': code}).encode(), error
  finally:
    _Process.alone = False


@contextlib.contextmanager
def joined(found: dict[str, Any] | None, timeout_s: int) -> Iterator[None]:
  """Joins the other processes of the run, and leaves them at the end.

  An error that only this process may have ends it at once, without the
  farewell that the others would never come to: they notice, and end too.

  Args:
    found: from `arguments`.
    timeout_s: how long to wait for the others.
  """
  if found is None:
    yield
    return
  _initialize(found, timeout_s)
  _Process.joined = True
  logging.info(
      'process %d of %d, %d of %d devices', index(), count(),
      jax.local_device_count(), jax.device_count(),
  )
  done = False
  try:
    yield
    done = True
  finally:
    if not done:
      _abandon()
    jax.distributed.shutdown()
    _on_abort(None)


def arguments(
    coordinator: str, num_processes: int, process_id: int, mode: str
) -> dict[str, Any] | None:
  """Arguments of `jax.distributed.initialize`; None for a run of one process.

  Args:
    coordinator: HOST:PORT where process 0 listens; '' leaves it, and the two
      numbers, to what `mode` finds.
    num_processes: of the run; 0: not given.
    process_id: of this one, from 0; -1: not given.
    mode: 'auto' joins where SLURM, a TPU slice or JAX_COORDINATOR_ADDRESS name
      several processes; 'on' joins whatever jax finds; 'off' is alone.

  Raises:
    ValueError: the numbers do not fit together.
  """
  given = bool(coordinator) + (num_processes > 0) + (process_id >= 0)
  if given:
    _check_numbers(coordinator, num_processes, process_id, given)
    return {
        'coordinator_address': coordinator,
        'num_processes': num_processes,
        'process_id': process_id,
    }
  return {} if mode == 'on' or (mode == 'auto' and _several_named()) else None


def _check_numbers(
    coordinator: str, num_processes: int, process_id: int, given: int
) -> None:
  if given < 3:
    raise ValueError(
        '--coordinator=HOST:PORT, --num_processes and --process_id go together'
    )
  host, _, port = coordinator.rpartition(':')
  if not host or not port.isdigit():
    raise ValueError(f'--coordinator={coordinator} is not HOST:PORT')
  if process_id >= num_processes:
    raise ValueError(
        f'--process_id={process_id} is out of range: choose from 0 to '
        f'{num_processes - 1} (--num_processes={num_processes})'
    )


def _several_named() -> bool:
  """Whether the environment names more than one process."""
  known = os.environ
  # SLURM_NTASKS is the allocation's, also in the shell of "srun --pty bash" within it.
  tasks = known.get('SLURM_STEP_NUM_TASKS') or known.get('SLURM_NTASKS', '1')
  return (
      'JAX_COORDINATOR_ADDRESS' in known
      or ('SLURM_STEP_NODELIST' in known and int(tasks) > 1)
      or ',' in known.get('TPU_WORKER_HOSTNAMES', '')
  )


def _initialize(found: dict[str, Any], timeout_s: int) -> None:
  where = found.get('coordinator_address', 'the coordinator')
  who = found.get('process_id', '?')
  # Left to itself, the runtime aborts with a stack trace.
  alarm = threading.Timer(
      timeout_s, _end_at_once,
      [
          f'process {who}: not all processes met at {where} within {timeout_s} s. '
          + _ASK
      ],
  )
  alarm.daemon = True
  alarm.start()
  _on_abort(ctypes.cast(_aborted, ctypes.c_void_p))
  try:
    jax.distributed.initialize(
        **found,
        initialization_timeout=timeout_s + 30,
        heartbeat_timeout_seconds=_HEARTBEAT_S,
        shutdown_timeout_seconds=_SHUTDOWN_S,
    )
    # Taken back from the runtime, which would swallow it.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    _compare_counts(timeout_s)
    jax.devices()  # the runtimes meet here
    _check_devices()
  except ValueError as error:
    _on_abort(None)
    raise RunStopped(
        f'found no processes to join ({error}): start under SLURM or on a TPU '
        'slice, or name them by --coordinator=HOST:PORT, --num_processes=N and '
        '--process_id=I; a single process needs none of it (--distributed=off)'
    ) from error
  except jax.errors.JaxRuntimeError:  # an exception that is not caught would hang
    _abandon()
  finally:
    alarm.cancel()


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(number: int) -> None:
  del number
  if not _Process.joined:
    _end_at_once(f'process {_number()}: was not let in or lost the others. {_ASK}')
  _end_at_once(
      f'process {_number()}: lost another process (it was killed, or gave no sign of '
      f'life for {_HEARTBEAT_S} s), or the runtime failed; what it said is in the '
      'log. Start the same command on all hosts again: the run goes on from what was '
      'saved'
  )


def _number() -> int:
  """Of this process, also before its devices are known."""
  return distributed.global_state.process_id


def _on_abort(function: ctypes.c_void_p | None) -> None:
  """Sets what an abort calls, on its own thread; None: nothing.

  The runtime aborts when it misses another process; no exception is raised then.
  Python's own handlers would run on the main thread, which may be waiting.
  """
  libc = ctypes.CDLL(None)
  libc.signal.argtypes = ctypes.c_int, ctypes.c_void_p
  libc.signal(signal.SIGABRT, function)


def _check_devices() -> None:
  """Ends this process if its devices are not those of all processes."""
  met, found = distributed.global_state.num_processes, jax.process_count()
  if met != found:
    _end_at_once(
        f'process {_number()}: {met} processes met, but the devices are those of '
        f'{found}; this platform does not join several processes'
    )


def _compare_counts(timeout_s: int) -> None:
  """Ends this process if another one was told of another number of processes."""
  state = distributed.global_state
  name, own = 'leafe_jax/num_processes', str(state.num_processes)
  assert state.client is not None  # it is joined
  state.client.key_value_set(f'{name}/{state.process_id}', own)
  others = range(1, state.num_processes) if state.process_id == 0 else [0]
  for other in others:
    told = state.client.blocking_key_value_get(f'{name}/{other}', 1000 * timeout_s)
    if told != own:
      time.sleep(0 if state.process_id else _FAREWELL_S)
      _end_at_once(
          f'process {state.process_id} was told of {own} processes (--num_processes), '
          f'process {other} of {told}; start all of them with the same number'
      )


def _abandon() -> None:
  """Ends this process under the exception that is being handled."""
  error = sys.exc_info()[1]
  text = str(error)
  lost = any(sign in text for sign in _SIGNS_OF_LOSS)
  if lost or isinstance(error, jax.errors.JaxRuntimeError):
    _end_at_once(
        f'process {_number()}: lost another process, or the devices failed '
        f'({text.splitlines()[0]}). Start the same command on all hosts again: '
        'the run goes on from what was saved'
    )
  traceback.print_exc()
  _end_at_once(f'process {_number()} failed; the others end too')


def _end_at_once(message: str) -> None:
  sys.stderr.write(f'leafe_jax: {message}\n')
  sys.stderr.flush()
  logging.flush()
  os._exit(EXIT_LOST)


