"""The description of a job: what runs, on what, and what it needs."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Sequence

PORT = 8476  # where process 0 listens, if the processes cannot find each other
MAIN = ('python', '-m', 'leafe_jax.main')
_SPARE_S = 5  # between the end of the program's grace period and being killed
_NAME = re.compile(r'[a-z]([-a-z0-9]{0,38}[a-z0-9])?')
_VARIABLE = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')
_TPU = re.compile(r'(v\d\w*?)-(\d+)')
_GPU = re.compile(r'([a-z][a-z0-9-]*?):(\d+)')


class BadJob(ValueError):
  """The description cannot be; one line that names the flag."""


@dataclasses.dataclass(frozen=True)
class Tpu:
  """A slice of TPUs.

  Attributes:
    type: as gcloud has it, such as v5litepod-16.
    gke: the accelerator's name in GKE.
    topology: such as 4x4.
    chips: in the slice.
    chips_per_host: of them.
  """

  type: str
  gke: str
  topology: str
  chips: int
  chips_per_host: int

  @property
  def hosts(self) -> int:
    return self.chips // self.chips_per_host


@dataclasses.dataclass(frozen=True)
class Gpu:
  """The GPUs of one machine: their kind, in small letters, and their number."""

  kind: str
  count: int


@dataclasses.dataclass(frozen=True)
class Generation:
  """A generation of TPUs: its name in GKE, cores in the type's number, topologies."""

  gke: str
  cores_per_chip: int
  topologies: Sequence[str]


_FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_CUBES = (
    '2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8', '8x8x16',
)  # fmt: skip
TPUS = {
    'v4': Generation('tpu-v4-podslice', 2, _CUBES),
    'v5litepod': Generation('tpu-v5-lite-podslice', 1, _FLAT),
    'v5p': Generation('tpu-v5p-slice', 2, _CUBES),
    'v6e': Generation('tpu-v6e-slice', 1, _FLAT),
}
# Software of the virtual machines, by the start of the accelerator's type.
RUNTIMES = {
    'v4-': 'tpu-ubuntu2204-base',
    'v5litepod-': 'v2-alpha-tpuv5-lite',
    'v5p-': 'v2-alpha-tpuv5',
    'v6e-': 'v2-alpha-tpuv6e',
}
# Kind of GPU -> its name in GKE and with SkyPilot.
GPUS = {
    'l4': ('nvidia-l4', 'L4'),
    'a100': ('nvidia-tesla-a100', 'A100'),
    'a100-80gb': ('nvidia-a100-80gb', 'A100-80GB'),
    'h100': ('nvidia-h100-80gb', 'H100'),
    'h200': ('nvidia-h200-141gb', 'H200'),
}


@dataclasses.dataclass(frozen=True)
class Job:
  """A run on some cluster.

  Attributes:
    name: of the job, small letters, digits and '-'.
    accelerator: 'v5litepod-16', 'h100:8' or 'cpu', see `TPUS` and `GPUS`.
    slices: of TPUs, or machines with GPUs or none.
    config, workdir: of the run; the directory is relative to `storage`.
    flags: further flags of the run.
    storage: a directory that all hosts share, or a bucket, as the target says.
    image: a container image with this program; ''.
    repository, branch: the code, for targets that install it.
    spot: whether it may be pre-empted.
    grace_s: seconds from SIGTERM to the end of the program.
    restarts: after a failure or a pre-emption, at most.
    hours: at most, for schedulers that ask.
    variables: names of variables of the environment that the run gets.
    project, zone, cluster, partition: where, for targets that ask.
    version: of a TPU's runtime; '' takes the type's.
    queued: whether a request for TPUs waits in a queue.
    cpus: of each process, one a GPU, for schedulers that bind processes to CPUs.
  """

  name: str
  accelerator: str
  slices: int
  config: str
  workdir: str
  flags: tuple[str, ...] = ()
  storage: str = ''
  image: str = ''
  repository: str = ''
  branch: str = 'main'
  spot: bool = False
  grace_s: int = 25
  restarts: int = 20
  hours: int = 24
  variables: tuple[str, ...] = ()
  project: str = ''
  zone: str = ''
  cluster: str = ''
  partition: str = ''
  version: str = ''
  queued: bool = True
  cpus: int = 8

  def __post_init__(self) -> None:
    if not _NAME.fullmatch(self.name):
      raise BadJob(
          f"--name={self.name}: take small letters, digits and '-', at most 40, "
          'beginning with a letter'
      )
    for variable in self.variables:
      if not _VARIABLE.fullmatch(variable):
        raise BadJob(
            f'--env={variable.partition("=")[0]}: give the names of variables alone; '
            'their values stay in the environment, or with the cluster'
        )
    if self.workdir.startswith('/') or '..' in self.workdir.split('/'):
      raise BadJob(f'--workdir={self.workdir}: give a path below --storage')

  @property
  def tpu(self) -> Tpu | None:
    """The slice of TPUs, None for something else. BadJob for an unknown type."""
    found = _TPU.fullmatch(self.accelerator)
    return _tpu(self.accelerator, found[1], int(found[2])) if found else None

  @property
  def gpu(self) -> Gpu | None:
    """The GPUs of a machine, None for something else. BadJob for an unknown kind."""
    found = _GPU.fullmatch(self.accelerator)
    if not found:
      return None
    if found[1] not in GPUS or not int(found[2]):
      raise BadJob(
          f'--accelerator={self.accelerator}: choose KIND:NUMBER from {", ".join(GPUS)}'
      )
    return Gpu(found[1], int(found[2]))

  def check_accelerator(self) -> None:
    """BadJob for what is neither TPUs, GPUs nor cpu."""
    if not (self.tpu or self.gpu or self.accelerator == 'cpu'):
      raise BadJob(
          f'--accelerator={self.accelerator}: give a slice of TPUs (v5litepod-16), '
          'the GPUs of a machine (h100:8) or cpu'
      )

  @property
  def runtime(self) -> str:
    """Software of a TPU's machines. BadJob, naming the known types, without one."""
    if self.version:
      return self.version
    for start, runtime in RUNTIMES.items():
      if self.accelerator.startswith(start):
        return runtime
    raise BadJob(
        f'--accelerator={self.accelerator}: no default runtime; give --version, or a '
        f'type that starts with {", ".join(RUNTIMES)}'
    )

  @property
  def hosts(self) -> int:
    """Machines of the whole job."""
    return self.slices * (self.tpu.hosts if self.tpu else 1)

  @property
  def kill_s(self) -> int:
    """Seconds from SIGTERM to SIGKILL that leave the grace period whole."""
    return self.grace_s + _SPARE_S

  def needs(self, **flags: str) -> None:
    """BadJob for the first of the attributes, flag -> its meaning, that is empty."""
    for flag, meaning in flags.items():
      if not getattr(self, flag):
        raise BadJob(f'--{flag} is missing: {meaning}')

  def arguments(self, *, distributed: bool = True) -> list[str]:
    """Flags of the run on every host, but for its directory."""
    found = [f'--config={self.config}', f'--grace_s={self.grace_s}', *self.flags]
    return [*found, '--distributed=on'] if distributed and self.hosts > 1 else found

  def command(
      self, directory: str, *further: str, program: Sequence[str] = MAIN
  ) -> str:
    """One line of shell that becomes the program, so that signals reach it.

    Args:
      directory: of the run, shell text.
      *further: flags, shell text; with them the processes do not look for each other.
      program: what is called.
    """
    given = shlex.join([*program, *self.arguments(distributed=not further)])
    return ' '.join(['exec', given, f'--workdir={directory}', *further])


def _tpu(type_: str, generation: str, number: int) -> Tpu:
  known = TPUS.get(generation)
  if known is None:
    raise BadJob(f'--accelerator={type_}: choose the TPUs from {", ".join(TPUS)}')
  chips = number // known.cores_per_chip
  topology = next((t for t in known.topologies if _size(t) == chips), None)
  if topology is None or number % known.cores_per_chip:
    sizes = ', '.join(str(_size(t) * known.cores_per_chip) for t in known.topologies)
    raise BadJob(f'--accelerator={type_}: {generation} has slices of {sizes}')
  alone = known.topologies is _FLAT and chips <= 8
  return Tpu(type_, known.gke, topology, chips, chips if alone else 4)


def _size(topology: str) -> int:
  size = 1
  for side in topology.split('x'):
    size *= int(side)
  return size
