"""The checkpoint that a run began with: its files are noted when it is imported.

What a later start reads of it (configuration, tokenizer, template) must still be
that; so must the weights, where they are to be imported again.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

from leafe_jax import seals
from leafe_jax.endings import RunStopped
from leafe_jax.files import DamagedFile

FILE = 'checkpoint.json'
_WEIGHTS = '.safetensors'
_READ = ('.json', '.jinja', '.model', '.tiktoken', '.txt', _WEIGHTS)


def keep(checkpoint: str, directory: pathlib.Path) -> None:
  """Notes the files of a checkpoint, or compares them with those noted before.

  Args:
    checkpoint: its directory.
    directory: of the phase that imports it.

  Raises:
    RunStopped: names a file that is another one than then.
  """
  if (directory / FILE).exists():
    check(checkpoint, directory, weights=True)
    return
  place = pathlib.Path(checkpoint)
  directory.mkdir(parents=True, exist_ok=True)
  found = {name: seals.digest(place / name) for name in _names(checkpoint)}
  seals.write_record(directory / FILE, found)


def check(checkpoint: str, directory: pathlib.Path, weights: bool = False) -> None:
  """Compares with what was noted, if anything was; as `keep`.

  Args:
    checkpoint, directory: as for `keep`.
    weights: whether the weights, too, and not only what each start reads.
  """
  if not (directory / FILE).exists():
    return
  try:
    noted = seals.read_record(directory / FILE)
  except DamagedFile as error:
    raise RunStopped(f'{error}; put it back, or remove {directory}') from error
  chosen = {n: e for n, e in noted.items() if weights or not n.endswith(_WEIGHTS)}
  for name, what in seals.compare(pathlib.Path(checkpoint), chosen).items():
    raise RunStopped(
        f'policy.checkpoint={checkpoint}: {name} {what} when the run began ({FILE} in '
        f'{directory}); put the old one back, or begin anew in another --workdir'
    )


def _names(checkpoint: str) -> Iterator[str]:
  for entry in sorted(os.scandir(checkpoint), key=lambda entry: entry.name):
    if entry.is_file() and entry.name.endswith(_READ):
      yield entry.name
