"""A GGUF file (llama.cpp's) as the parts of a Hugging Face checkpoint.

Read with the `gguf` package, which is not needed for anything else. Quantised
tensors become float32 values: those that the file's own programs compute with, not
those of the checkpoint that it was made from.

What is undone: llama.cpp stores the rows of a Llama's q and k in another order,
because it rotates neighbours and not halves; Qwen's are left as they are. A head that
is missing is the embedding. Llama 3.1's scaling of RoPE is in the file as a vector of
divisors, from which its options follow.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from leafe_jax.files import is_lfs_pointer
from leafe_jax.policy.families import FAMILIES
from leafe_jax.policy.hf_files import UnsupportedCheckpoint

# Their names of our architectures.
ARCHITECTURES = {
    'llama': 'LlamaForCausalLM', 'qwen2': 'Qwen2ForCausalLM',
    'qwen3': 'Qwen3ForCausalLM',
}  # fmt: skip
_WHOLE = {
    'token_embd': 'model.embed_tokens', 'output_norm': 'model.norm',
    'output': 'lm_head',
}  # fmt: skip
_LAYER = {
    'attn_norm': 'input_layernorm', 'ffn_norm': 'post_attention_layernorm',
    'attn_q': 'self_attn.q_proj', 'attn_k': 'self_attn.k_proj',
    'attn_v': 'self_attn.v_proj', 'attn_output': 'self_attn.o_proj',
    'attn_q_norm': 'self_attn.q_norm', 'attn_k_norm': 'self_attn.k_norm',
    'ffn_gate': 'mlp.gate_proj', 'ffn_up': 'mlp.up_proj', 'ffn_down': 'mlp.down_proj',
}  # fmt: skip
_ROPE_DIVISORS = 'rope_freqs.weight'
# Of Llama 3.1 and 3.2; their factors of 8 and 32 follow from the divisors.
_LLAMA3 = {
    'low_freq_factor': 1.0, 'high_freq_factor': 4.0,
    'original_max_position_embeddings': 8192,
}  # fmt: skip


class GgufFile:
  """An open GGUF file of a supported architecture.

  Args:
    path: of the file.

  Attributes:
    fields: its metadata by name, as Python values.
    architecture: 'llama', 'qwen2' or 'qwen3'.

  Raises:
    ImportError: without the package `gguf`.
    FileNotFoundError: no such file.
    UnsupportedCheckpoint: it is damaged, one part of several, or of another kind.
  """

  def __init__(self, path: pathlib.Path):
    self.path = path
    self._gguf = _package()
    reader = _read(self._gguf, path)
    self.fields = {name: field.contents() for name, field in reader.fields.items()}
    self._tensors = {tensor.name: tensor for tensor in reader.tensors}
    self.architecture = str(self.fields.get('general.architecture', ''))
    self._check()

  def _check(self) -> None:
    if self.architecture not in ARCHITECTURES:
      raise self.unsupported(
          f'architecture {self.architecture!r}; supported: {", ".join(ARCHITECTURES)}'
      )
    if int(self.fields.get('split.count', 1)) > 1:
      raise self.unsupported(
          'one part of several; join them first (llama-gguf-split --merge)'
      )
    if int(self._own('expert_count', 0)):
      raise self.unsupported('a mixture of experts')
    scaling = self._own('rope.scaling.type', 'none')
    if scaling != 'none':
      raise self.unsupported(f'rope.scaling.type {scaling!r}; supported: none')
    missing = {'token_embd.weight', 'output_norm.weight'} - self._tensors.keys()
    if missing:
      raise self.unsupported(f'it has no tensor {min(missing)}: is it a whole model?')

  def unsupported(self, what: str) -> UnsupportedCheckpoint:
    """The error that says so of this file."""
    return UnsupportedCheckpoint(f'{self.path.name}: {what}')

  def _own(self, name: str, default: Any = None) -> Any:
    """A field of the architecture. UnsupportedCheckpoint: absent, with no default."""
    value = self.fields.get(f'{self.architecture}.{name}', default)
    if value is None:
      raise self.unsupported(f'no field {self.architecture}.{name}')
    return value

  def config(self) -> dict[str, Any]:
    """config.json, but for the special tokens. Raises UnsupportedCheckpoint."""
    name = ARCHITECTURES[self.architecture]
    heads = int(self._own('attention.head_count'))
    width = int(self._own('embedding_length'))
    biases = 'blk.0.attn_q.bias' in self._tensors
    return {
        'architectures': [name],
        'model_type': FAMILIES[name].model_type,
        'vocab_size': int(self._tensors['token_embd.weight'].shape[1]),
        'num_hidden_layers': int(self._own('block_count')),
        'hidden_size': width,
        'num_attention_heads': heads,
        'num_key_value_heads': int(self._own('attention.head_count_kv', heads)),
        'head_dim': int(self._own('attention.key_length', width // heads)),
        'intermediate_size': int(self._own('feed_forward_length')),
        'hidden_act': 'silu',
        'rms_norm_eps': _short(self._own('attention.layer_norm_rms_epsilon')),
        'max_position_embeddings': int(self._own('context_length')),
        'tie_word_embeddings': 'output.weight' not in self._tensors,
        'use_sliding_window': False,
        **({} if self.architecture == 'qwen2' else {'attention_bias': biases}),
        **self._rope(),
    }

  def _rope(self) -> dict[str, Any]:
    theta = _short(self._own('rope.freq_base', 10_000.0))
    scaling = self._rope_scaling(theta)
    rope = {'rope_theta': theta, **(scaling or {'rope_type': 'default'})}
    return {'rope_theta': theta, 'rope_scaling': scaling, 'rope_parameters': rope}

  def _rope_scaling(self, theta: float) -> dict[str, Any] | None:
    if _ROPE_DIVISORS not in self._tensors:
      return None
    divisors = self._tensor(_ROPE_DIVISORS)
    found = {'rope_type': 'llama3', 'factor': float(divisors.max()), **_LLAMA3}
    if not np.allclose(divisors, _llama3_divisors(theta, len(divisors), found), 1e-3):
      raise self.unsupported(f"{_ROPE_DIVISORS} is not Llama 3's scaling of RoPE")
    return found

  def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
    """(Hugging Face's name, float32 array), one in memory at a time.

    Raises:
      UnsupportedCheckpoint: a tensor of no place in these models.
    """
    for name in self._tensors:
      if name != _ROPE_DIVISORS:
        yield self._their_name(name), self._in_order(name, self._tensor(name))

  def _tensor(self, name: str) -> np.ndarray:
    tensor = self._tensors[name]
    try:
      values = self._gguf.dequantize(tensor.data, tensor.tensor_type)
    except (NotImplementedError, ValueError) as error:
      raise self.unsupported(
          f'tensor {name} of type {tensor.tensor_type.name} cannot be read: {error}'
      ) from error
    return np.asarray(values, np.float32).reshape(tensor.shape[::-1].tolist())

  def _their_name(self, name: str) -> str:
    stem, _, kind = name.rpartition('.')
    parts = stem.split('.')
    if stem in _WHOLE:
      return f'{_WHOLE[stem]}.{kind}'
    if len(parts) == 3 and parts[0] == 'blk' and parts[2] in _LAYER:
      return f'model.layers.{parts[1]}.{_LAYER[parts[2]]}.{kind}'
    raise self.unsupported(f'tensor {name}, which no {self.architecture} has')

  def _in_order(self, name: str, values: np.ndarray) -> np.ndarray:
    part = name.split('.')[-2]
    if self.architecture != 'llama' or part not in ('attn_q', 'attn_k'):
      return values
    heads = self.config()[
        'num_attention_heads' if part == 'attn_q' else 'num_key_value_heads'
    ]
    return halves(values, heads)


def halves(values: np.ndarray, heads: int) -> np.ndarray:
  """Rows of q or k with a head's first half before its second, not by turns.

  Args:
    values: [heads * head_dim, ...].
    heads: of q, or of k.
  """
  apart = values.reshape(heads, -1, 2, *values.shape[1:])
  return apart.swapaxes(1, 2).reshape(values.shape)


def _llama3_divisors(
    theta: float, count: int, scaling: Mapping[str, Any]
) -> np.ndarray:
  """By what each frequency is divided; see transformers' rope type of that name."""
  frequencies = theta ** -(np.arange(count) / count)
  turns = scaling['original_max_position_embeddings'] * frequencies / (2 * np.pi)
  low, high = scaling['low_freq_factor'], scaling['high_freq_factor']
  smooth = np.clip((turns - low) / (high - low), 0, 1)
  return 1 / ((1 - smooth) / scaling['factor'] + smooth)


def _short(value: Any) -> float:
  """A float32 by the fewest digits that mean it: 1e-05, not 9.999999747378752e-06."""
  return float(str(np.float32(value)))


def check_package() -> None:
  """ImportError, with what to do, without the package `gguf`."""
  _package()


def _package() -> Any:
  try:
    import gguf  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise ImportError(
        "GGUF files are read with the package 'gguf', which is not installed: "
        "pip install 'gguf>=0.19'"
    ) from error
  return gguf


def _read(package: Any, path: pathlib.Path) -> Any:
  if not path.is_file():
    raise FileNotFoundError(f'there is no file {path}')
  if is_lfs_pointer(path):
    raise UnsupportedCheckpoint(
        f'{path.name} is a Git LFS pointer, not the model; fetch it: git lfs pull'
    )
  try:
    return package.GGUFReader(path)
  # What numpy raises over a file that ends too early, and the package over others.
  except (ValueError, IndexError, KeyError, TypeError) as error:
    raise UnsupportedCheckpoint(
        f'{path.name} is no GGUF file, or cut short ({path.stat().st_size:,} bytes): '
        f'{" ".join(str(error).split())}'
    ) from error
