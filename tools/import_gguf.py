"""Writes a GGUF file (Llama, Qwen2, Qwen3) as a Hugging Face checkpoint.

    pip install 'gguf>=0.19'
    python -m tools.import_gguf --file=F.gguf --out=DIR

DIR gets config.json, safetensors, the tokenizer with its chat template and
generation_config.json; a run takes it with --config.policy.checkpoint=DIR, and
transformers loads it. Quantised weights are written as the numbers that they stand
for; --dtype=bfloat16 halves the file and rounds them once more. --tokenizer=DIR takes
the tokenizer files of the original checkpoint instead of the file's own.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Container, Sequence
from typing import Any

import jax.numpy as jnp
from absl import flags

from leafe_jax import command_line
from leafe_jax.config import Policy
from leafe_jax.policy import hf_export, hf_files, hf_names, huggingface
from leafe_jax.policy.gguf_files import GgufFile
from leafe_jax.policy.weights import weight_table
from leafe_jax.text import gguf_tokenizer
from leafe_jax.text.tokenizers import TokenizerError

# What a refusal is, whatever part of a file it is about.
REFUSALS = (huggingface.UnsupportedCheckpoint, TokenizerError)


def convert(
    file: pathlib.Path, out: pathlib.Path, dtype: str = 'float32',
    tokenizer: pathlib.Path | None = None,
) -> huggingface.Shape:
  """Writes the checkpoint, all of it or nothing; returns the policy's shape.

  Args:
    file: a GGUF file.
    out: to write; must not exist, or be empty.
    dtype: of the stored weights.
    tokenizer: directory whose tokenizer files are copied; None: the file's own.

  Raises:
    ImportError: without the package `gguf`.
    OSError: no such file, or `out` holds something.
    UnsupportedCheckpoint, TokenizerError: this file cannot be taken over.
  """
  source = GgufFile(file)
  endings = gguf_tokenizer.endings(source.fields)
  config = {**source.config(), **endings, 'dtype': dtype, 'torch_dtype': dtype}
  with hf_export.written_whole(out) as partial:
    _write(partial / 'config.json', config)
    _write(partial / 'generation_config.json', endings)
    if tokenizer is None:
      gguf_tokenizer.build(source.fields).save_pretrained(partial)
    else:
      hf_export.copy_tokenizer(tokenizer, partial)
    tensors = {
        name: values.astype(jnp.dtype(dtype)) for name, values in source.tensors()
    }
    hf_files.write(tensors, partial / hf_files.WEIGHTS)
    shape = huggingface.read_shape(partial, Policy())  # refuses what no run can take
    _check_whole(shape, tensors)
  return shape


def _check_whole(shape: huggingface.Shape, tensors: Container[str]) -> None:
  """UnsupportedCheckpoint for the first tensor that a policy of this shape lacks."""
  for ours in weight_table(shape.policy, shape.vocab_size):
    for name in hf_names.their_names(ours, shape.policy):
      if name not in tensors:
        raise huggingface.UnsupportedCheckpoint(f'the file has no tensor {name}')


def _write(path: pathlib.Path, content: dict[str, Any]) -> None:
  path.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')


def define_flags() -> None:
  """Defines the flags; by the program alone, as tools share their names."""
  command_line.define_path('file', None, 'A GGUF file.', required=True)
  command_line.define_path('out', None, 'Directory to write.', required=True)
  command_line.define_path('tokenizer', '', 'Directory of other tokenizer files.')
  flags.DEFINE_enum(
      'dtype', 'float32', ['float32', 'bfloat16'], 'Type to store weights in.'
  )


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments: {argv[1:]}')
  values = flags.FLAGS
  tokenizer = pathlib.Path(values.tokenizer) if values.tokenizer else None
  try:
    shape = convert(
        pathlib.Path(values.file), pathlib.Path(values.out), values.dtype, tokenizer
    )
  except REFUSALS as error:
    raise command_line.UsageError(f'{values.file}: {error}') from error
  policy = shape.policy
  print(
      f'{values.out}: {policy.num_layers} layers, {policy.embed_dim} wide, '
      f'{shape.vocab_size:,} tokens'
  )


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
