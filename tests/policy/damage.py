"""Checkpoints made sound, and changed into what users have."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from leafe_jax.config import Policy
from leafe_jax.policy import hf_export, huggingface, weights

POINTER = 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2471645608\n'
VOCAB = 61
LLAMA = Policy(
    num_layers=2, embed_dim=32, num_heads=4, num_kv_heads=4, head_dim=8, mlp_dim=48,
    tie_embeddings=False,
)
SHAPES = {
    'llama': LLAMA,
    'qwen2': dataclasses.replace(LLAMA, qkv_bias=True),
    'qwen3': dataclasses.replace(LLAMA, qk_norm=True),
}
INDEX = 'model.safetensors.index.json'
FIRST = 'model-00001-of-00006.safetensors'
SCALED = {'rope_type': 'llama3', 'factor': 32.0, 'low_freq_factor': 1.0,
          'high_freq_factor': 4.0, 'original_max_position_embeddings': 16}

Change = Callable[[pathlib.Path], object]


def _params(policy: Policy, seed: int = 0, vocab_size: int = VOCAB) -> dict:
  rng = np.random.default_rng(seed)
  return {
      name: jnp.asarray(0.3 * rng.standard_normal(weight.shape) + (weight.std is None))
      .astype('float32')
      for name, weight in weights.weight_table(policy, vocab_size).items()
  }


def make(
    directory: pathlib.Path, kind: str = 'llama', tied: bool = False, seed: int = 0,
    vocab_size: int = VOCAB, shards: bool = False,
) -> pathlib.Path:
  """A sound checkpoint, to be damaged."""
  policy = dataclasses.replace(SHAPES[kind], tie_embeddings=tied)
  hf_export.write(
      directory, _params(policy, seed, vocab_size),
      huggingface.Shape(policy, vocab_size), fields={'max_position_embeddings': 64},
      max_shard_bytes=20_000 if shards else 10**9,
  )
  return directory


def edit(**fields: object) -> Change:
  """Sets fields of config.json."""
  def change(directory: pathlib.Path) -> None:
    path = directory / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))

  return change


def drop(*names: str) -> Change:
  def change(directory: pathlib.Path) -> None:
    path = directory / 'config.json'
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in fields.items() if k not in names}))

  return change


def tensors(**changes: Callable[[dict], object]) -> Change:
  """Changes what model.safetensors holds."""
  [change] = changes.values()

  def apply(directory: pathlib.Path) -> None:
    path = directory / 'model.safetensors'
    found = safetensors.numpy.load_file(path)
    change(found)
    safetensors.numpy.save_file(found, path, metadata={'format': 'pt'})

  return apply


def content(name: str, data: str | bytes) -> Change:
  def change(directory: pathlib.Path) -> None:
    path = directory / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)

  return change


def cut(name: str, part: float) -> Change:
  def change(directory: pathlib.Path) -> None:
    data = (directory / name).read_bytes()
    (directory / name).write_bytes(data[: int(len(data) * part)])

  return change


def only(name: str) -> Change:
  """The weights under another name alone."""
  return lambda directory: (directory / 'model.safetensors').rename(directory / name)


def beside(name: str, seed: int = 9) -> Change:
  """Other weights in a file that does not count."""
  def change(directory: pathlib.Path) -> None:
    other = make(directory.with_name('other'), seed=seed)
    shutil.copy(other / 'model.safetensors', directory / name)

  return change


def both(*changes: Change) -> Change:
  def change(directory: pathlib.Path) -> None:
    for one in changes:
      one(directory)

  return change


def old_shards(directory: pathlib.Path) -> None:
  """An index and shards of another training, beside model.safetensors."""
  other = make(directory.with_name('other'), seed=9, shards=True)
  for path in other.glob('model*'):
    shutil.copy(path, directory)


def head(differs: bool, embedding: bool = True) -> Change:
  def change(found: dict) -> None:
    table = found['model.embed_tokens.weight']
    found['lm_head.weight'] = table + differs * np.ones_like(table)[::-1] * 0.1
    found['lm_head.weight'][3] *= 1 + differs
    if not embedding:
      del found['model.embed_tokens.weight']

  return tensors(change=change)


def links(directory: pathlib.Path) -> None:
  """As in a cache, where files are links to elsewhere."""
  blobs = directory.with_name('blobs')
  directory.rename(blobs)
  directory.mkdir()
  for number, path in enumerate(sorted(blobs.iterdir())):
    path = path.rename(blobs / str(number)) and path
    (directory / path.name).symlink_to(blobs / str(number))


def lead_out(name: str) -> Change:
  """A file as a link to what lies elsewhere on the machine."""
  def change(directory: pathlib.Path) -> None:
    secret = directory.with_name('secret')
    (directory / name).replace(secret)
    (directory / name).symlink_to(secret)

  return change


def lead_out_below(directory: pathlib.Path) -> None:
  """A directory as a link, and an index that names a file in it."""
  elsewhere = directory.with_name('elsewhere')
  elsewhere.mkdir()
  (directory / 'model.safetensors').replace(elsewhere / 'w.safetensors')
  (directory / 'here').symlink_to(elsewhere)
  set_map({FIRST: 'here/w.safetensors'})(directory)


LEADS_OUT = {
    'weights are a link to elsewhere': (
        lead_out('model.safetensors'), 'model.safetensors is a link to'
    ),
    'config.json is a link to elsewhere': (
        lead_out('config.json'), 'outside of the directory'
    ),
    'a directory is a link to elsewhere': (lead_out_below, 'here is a link to'),
}


def adapter(directory: pathlib.Path) -> None:
  found = {'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight':
           np.ones((2, 32), np.float32),
           'base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight':
           np.ones((32, 2), np.float32)}
  safetensors.numpy.save_file(found, directory / 'adapter_model.safetensors')
  fields = {'peft_type': 'LORA', 'task_type': 'CAUSAL_LM', 'r': 2, 'lora_alpha': 4,
            'target_modules': ['q_proj'], 'base_model_name_or_path': 'x'}
  (directory / 'adapter_config.json').write_text(json.dumps(fields))


def set_map(value: object) -> Change:
  return lambda directory: (directory / INDEX).write_text(
      json.dumps({'metadata': {}, 'weight_map': value})
  )
