"""This project's side of the workers: starts them, asks, and reads replies."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
from typing import Any

from tools.benchmarks.machine import Seconds
from tools.benchmarks.workloads import Conversation

_WORKERS = pathlib.Path(__file__).parent / 'workers'
# The flag that names an interpreter, and what it must have.
NEEDS = {
    'tunix': ('tunix_python', 'pip install google-tunix==0.1.7'),
    'transformers': ('torch_python', 'pip install torch==2.13.0 transformers==5.23.0'),
}


class PeerUnavailable(RuntimeError):
  """A worker that cannot run here; says why and what to install."""


class Peer:
  """One other sampler in a process of its own.

  Args:
    name: one of `NEEDS`.
    python: interpreter that has its packages.
    checkpoint: Hugging Face directory of the weights.

  Raises:
    PeerUnavailable: no interpreter, or the worker ended while it started.
  """

  def __init__(self, name: str, python: str, checkpoint: pathlib.Path):
    self.name = name
    flag, install = NEEDS[name]
    advice = f'in an environment of its own: {install}; then --{flag}=ITS_PYTHON'
    if not python:
      raise PeerUnavailable(f'{name} skipped, no --{flag}; {advice}')
    command = [python, str(_WORKERS / f'{name}_worker.py'), str(checkpoint)]
    try:
      self._process = subprocess.Popen(
          command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
      )
    except OSError as error:
      raise PeerUnavailable(f'{name} skipped, {error}; {advice}') from error
    self.versions = self._read(f'{name} skipped, {python} cannot run it; {advice}')

  def run(self, workload: Conversation) -> Seconds:
    """Seconds of one run. PeerUnavailable if the worker ended."""
    assert self._process.stdin is not None
    self._process.stdin.write(json.dumps(dataclasses.asdict(workload)) + '\n')
    self._process.stdin.flush()
    reply = self._read(f'{self.name} ended during a run; its errors are above')
    if reply['sampled'] != workload.num_sampled:
      raise ValueError(
          f'{self.name} sampled {reply["sampled"]} tokens, not {workload.num_sampled}'
      )
    return Seconds(reply['wall'], reply['cpu'])

  def close(self) -> None:
    self._process.terminate()
    self._process.wait()

  def _read(self, complaint: str) -> dict[str, Any]:
    assert self._process.stdout is not None
    line = self._process.stdout.readline()
    if not line:
      self.close()
      raise PeerUnavailable(complaint)
    return json.loads(line)
