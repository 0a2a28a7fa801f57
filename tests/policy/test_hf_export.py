"""Exports can be read elsewhere, by others, with their tokenizers."""

from __future__ import annotations

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import transformers

from configs import webshop
from leafe_jax import launch, settings
from leafe_jax.config import Experiment, Mesh, Policy
from leafe_jax.learner import checkpoints
from leafe_jax.policy import hf_export, huggingface, sharding, weights
from leafe_jax.text import tokenizers
from tests.text.chat_tokenizers import CHATML, make_tokenizer
from tools import check_parity, export_hf

SCRATCH = Policy(
    num_layers=2, embed_dim=32, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=48
)
PARTS = {
    'plain': SCRATCH,
    'biases': dataclasses.replace(SCRATCH, qkv_bias=True),
    'norms': dataclasses.replace(SCRATCH, qk_norm=True),
}
TEXT = "red box it's <t1> <act> unheard"


def _params(policy, vocab_size):
  rng = np.random.default_rng(0)
  return {
      name: jnp.asarray(0.3 * rng.standard_normal(weight.shape), policy.param_dtype)
      for name, weight in weights.weight_table(policy, vocab_size).items()
  }


def _export(tmp_path, policy):
  """A run from scratch with one trained phase, exported; its weights, tokenizer."""
  run, out = tmp_path / 'run', tmp_path / 'out'
  config = dataclasses.replace(Experiment(), policy=policy)
  run.mkdir()
  (run / 'config.json').write_text(json.dumps(settings.to_dict(config)))
  tokenizer = tokenizers.build_word_tokenizer(['red', 'box', "it's"], horizon=3)
  tokenizers.save_tokenizer(tokenizer, run / 'tokenizer')
  params = _params(policy, len(tokenizer))
  checkpoints.save_params(run / 'distill' / 'leafe' / 'params', params)
  export_hf.export(run, 'distill/leafe', out, 10**9)
  return out, params, tokenizer


@pytest.mark.parametrize('policy', PARTS.values(), ids=PARTS)
def test_tokenizers_of_policies_from_scratch_are_read_by_transformers(tmp_path, policy):
  out, _, tokenizer = _export(tmp_path, policy)
  found = transformers.AutoTokenizer.from_pretrained(out, local_files_only=True)
  assert found.encode(TEXT) == tokenizer.encode(TEXT)
  assert found.eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize('policy', PARTS.values(), ids=PARTS)
def test_policies_from_scratch_come_back_with_the_same_bits(tmp_path, policy):
  out, params, tokenizer = _export(tmp_path, policy)
  shape = huggingface.read_shape(out, Policy())
  assert (shape.policy.qkv_bias, shape.policy.qk_norm) == (
      policy.qkv_bias, policy.qk_norm
  )
  assert shape.vocab_size == len(tokenizer)
  again = huggingface.load_params(out, shape, sharding.make_mesh(Mesh()))
  assert again.keys() == params.keys()
  for name, array in params.items():
    np.testing.assert_array_equal(again[name], array)


def test_whoever_may_read_the_config_may_read_the_weights(tmp_path):
  out, _, _ = _export(tmp_path, SCRATCH)
  modes = {path.stat().st_mode for path in out.iterdir() if path.is_file()}
  assert modes == {(out / 'config.json').stat().st_mode}


def test_a_llama_with_biases_is_what_transformers_computes(tmp_path):
  torch = pytest.importorskip('torch', reason='the reference runs on torch')
  torch.set_num_threads(1)
  out, _, _ = _export(tmp_path, PARTS['biases'])
  parity = check_parity.compare(str(out), length=17)
  assert parity.holds(), parity


def test_a_llama_whose_output_bias_was_trained_is_refused(tmp_path):
  out, _, _ = _export(tmp_path, PARTS['biases'])
  path = out / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  tensors['model.layers.1.self_attn.o_proj.bias'][3] = 0.1
  safetensors.numpy.save_file(tensors, path)
  with pytest.raises(huggingface.UnsupportedCheckpoint, match='biases on attention'):
    huggingface.read_shape(out, Policy())


def _make_checkpoint(directory):
  tokenizer = make_tokenizer(CHATML)
  shape = huggingface.Shape(SCRATCH, len(tokenizer))
  fields = {'max_position_embeddings': 512, 'transformers_weights': 'x.safetensors'}
  hf_export.write(directory, _params(SCRATCH, len(tokenizer)), shape)
  config = json.loads((directory / 'config.json').read_text())
  (directory / 'config.json').write_text(json.dumps(config | fields))
  (directory / 'model.safetensors').rename(directory / 'x.safetensors')
  tokenizer.chat_template = {'default': CHATML, 'tool_use': CHATML + '{# tools #}'}
  tokenizer.save_pretrained(directory)
  assert (directory / 'additional_chat_templates').is_dir()


def test_a_checkpoint_by_a_relative_path_is_exported_from_elsewhere(
    tmp_path, monkeypatch
):
  _make_checkpoint(tmp_path / 'home' / 'checkpoint')
  (tmp_path / 'elsewhere').mkdir()
  monkeypatch.chdir(tmp_path / 'home')
  values = webshop.get_config()
  values.update_from_flattened_dict({'policy.checkpoint': 'checkpoint'})
  config = launch.check(values)
  assert config == launch.check(values)  # the same command resumes
  assert config.policy.checkpoint == str(tmp_path / 'home' / 'checkpoint')
  run = tmp_path / 'run'
  run.mkdir()
  (run / 'config.json').write_text(json.dumps(settings.to_dict(config)))
  source = tmp_path / 'home' / 'checkpoint'
  shape = huggingface.read_shape(source, Policy())
  params = huggingface.load_params(source, shape, sharding.make_mesh(Mesh()))
  checkpoints.save_params(run / 'distill' / 'leafe' / 'params', params)
  monkeypatch.chdir(tmp_path / 'elsewhere')
  export_hf.export(run, 'distill/leafe', tmp_path / 'out', 10**9)
  found = transformers.AutoTokenizer.from_pretrained(tmp_path / 'out')
  assert set(found.chat_template) == {'default', 'tool_use'}
  again = huggingface.load_params(tmp_path / 'out', shape, sharding.make_mesh(Mesh()))
  for name, array in params.items():
    np.testing.assert_array_equal(again[name], array)
  assert 'transformers_weights' not in huggingface.read_fields(tmp_path / 'out')


def test_no_checkpoint_stays_none():
  assert launch.check(webshop.get_config()).policy.checkpoint == ''
