"""Checkpoints are read and written exactly, or refused by name."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from leafe_jax import settings
from leafe_jax.config import Experiment, Mesh, Policy
from leafe_jax.learner import checkpoints
from leafe_jax.policy import hf_export, huggingface, rope, sharding, weights
from leafe_jax.text import tokenizers
from tools import check_parity, export_hf, import_hf

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = {
    'hidden_size': 48,
    'intermediate_size': 80,
    'num_hidden_layers': 3,
    'num_attention_heads': 6,
    'num_key_value_heads': 2,
    'head_dim': 16,
    'vocab_size': 97,
    'rms_norm_eps': 1e-5,
    'hidden_act': 'silu',
    'rope_parameters': {'rope_theta': 50_000.0, 'rope_type': 'default'},
}
# Short, so that 33 positions see all its parts: kept, slowed, and in between.
LLAMA3 = {
    'rope_theta': 50_000.0,
    'rope_type': 'llama3',
    'factor': 8.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
    'original_max_position_embeddings': 16,
}
OLD_DYNAMIC_ROPE = {'rope_scaling': {'type': 'dynamic'}, 'rope_parameters': None}
SLIDING = {'layer_types': ['full_attention', 'sliding_attention'] * 2}
PARTIAL_ROPE = {'rope_parameters': {'partial_rotary_factor': 0.5}}
# As Qwen2.5-0.5B: seven query heads for each of two.
SEVEN_GROUPS = {'hidden_size': 112, 'num_attention_heads': 14, 'head_dim': 8}

OURS = Policy(
    num_layers=3, embed_dim=48, num_heads=6, num_kv_heads=2, head_dim=16, mlp_dim=80
)
SHAPES = {
    'qwen2': dataclasses.replace(OURS, qkv_bias=True, tie_embeddings=False),
    'qwen3': dataclasses.replace(OURS, qk_norm=True),
    'llama': OURS,
    'llama 3.1': dataclasses.replace(
        OURS, tie_embeddings=False, rope_type='llama3', rope_original_length=16
    ),
}


def _mesh():
  return sharding.make_mesh(Mesh())


def _write(directory, architecture, **changes):
  fields = {'architectures': [architecture], **SMALL, **changes}
  (directory / 'config.json').write_text(json.dumps(fields))
  return directory


def _random_params(policy, vocab_size=97):
  """Weights off their defaults, norms and biases too."""
  rng = np.random.default_rng(0)
  return {
      name: jnp.asarray(
          0.3 * rng.standard_normal(weight.shape) + (weight.std is None),
          policy.param_dtype,
      )
      for name, weight in weights.weight_table(policy, vocab_size).items()
  }


def _same_bits(a, b):
  def bits(arrays):
    return {k: (x.dtype, x.shape, np.asarray(x).tobytes()) for k, x in arrays.items()}

  return bits(a) == bits(b)


def _skip_without_torch():
  torch = pytest.importorskip('torch', reason='the reference runs on torch')
  torch.set_num_threads(1)  # threads that wait for each other take far longer


def _save_reference(directory, family, **options):
  """A random checkpoint, written by transformers in several files."""
  import torch
  import transformers

  options = {**SMALL, **options}
  config = getattr(transformers, f'{family}Config')(**options)
  torch.manual_seed(0)
  reference = getattr(transformers, f'{family}ForCausalLM')(config)
  with torch.no_grad():
    for parameter in reference.parameters():  # norms and biases off their defaults
      parameter.add_(0.1 * torch.randn_like(parameter))
  reference.save_pretrained(directory, max_shard_size='60KB')


def _slow(*case):
  return pytest.param(*case, marks=pytest.mark.slow('as its neighbours'))


@pytest.mark.parametrize(
    ('family', 'options'),
    [
        _slow('Qwen2', {'num_key_value_heads': 6}),
        ('Qwen2', {'tie_word_embeddings': True}),
        ('Qwen2', SEVEN_GROUPS),
        ('Qwen3', {'tie_word_embeddings': True}),
        _slow('Qwen3', {'num_key_value_heads': 6, 'head_dim': 8}),
        _slow('Llama', {}),
        ('Llama', {**SEVEN_GROUPS, 'tie_word_embeddings': True}),
        ('Llama', {'rope_parameters': LLAMA3}),
        _slow('Llama', {'rope_parameters': LLAMA3, 'tie_word_embeddings': True}),
    ],
)
def test_logits_decoding_loss_and_gradients_equal_those_of_transformers(
    tmp_path, family, options
):
  _skip_without_torch()
  _save_reference(tmp_path, family, **options)
  parity = check_parity.compare(str(tmp_path), length=33)
  assert parity.same_greedy
  assert parity.logits < 2e-4
  assert parity.loss < 1e-4
  assert parity.gradients is not None
  assert parity.gradients < 1e-4, parity.worst


@pytest.mark.parametrize('policy', SHAPES.values(), ids=SHAPES)
def test_transformers_loads_what_was_written_with_equal_logits(tmp_path, policy):
  _skip_without_torch()
  hf_export.write(
      tmp_path / 'out', _random_params(policy), huggingface.Shape(policy, 97),
      fields={'pad_token_id': 0}, max_shard_bytes=60_000,
  )
  parity = check_parity.compare(str(tmp_path / 'out'), length=33)
  assert parity.holds(), parity


def test_a_checkpoint_of_transformers_comes_back_with_the_same_bits(tmp_path):
  _skip_without_torch()
  _save_reference(tmp_path, 'Qwen2', tie_word_embeddings=True)
  shape = huggingface.read_shape(tmp_path, Policy())
  params = huggingface.load_params(tmp_path, shape, _mesh())
  hf_export.write(tmp_path / 'out', params, shape, fields={'max_window_layers': 5})
  before = {}
  for path in tmp_path.glob('*.safetensors'):
    before |= safetensors.numpy.load_file(path)
  after = safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')
  assert _same_bits(before, after)
  assert huggingface.read_fields(tmp_path / 'out')['max_window_layers'] == 5


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('policy', SHAPES.values(), ids=SHAPES)
def test_what_is_written_is_read_back_with_the_same_bits(tmp_path, policy, dtype):
  policy = dataclasses.replace(policy, param_dtype=dtype)
  shape, params = huggingface.Shape(policy, 97), _random_params(policy)
  hf_export.write(tmp_path / 'out', params, shape, max_shard_bytes=60_000)
  assert len(list((tmp_path / 'out').glob('*.safetensors'))) > 1
  options = Policy(param_dtype=dtype)
  assert huggingface.read_shape(tmp_path / 'out', options) == shape
  assert _same_bits(huggingface.load_params(tmp_path / 'out', shape, _mesh()), params)


def test_no_file_is_larger_than_asked_for(tmp_path):
  hf_export.write(
      tmp_path / 'out', _random_params(OURS), huggingface.Shape(OURS, 97),
      max_shard_bytes=60_000,
  )
  files = sorted((tmp_path / 'out').glob('*.safetensors'))
  tensors = [safetensors.numpy.load_file(path) for path in files]
  assert all(sum(a.nbytes for a in file.values()) <= 60_000 for file in tensors)
  index = json.loads((tmp_path / 'out' / 'model.safetensors.index.json').read_text())
  assert index['weight_map'] == {
      name: path.name for path, file in zip(files, tensors) for name in file
  }
  total = sum(a.nbytes for file in tensors for a in file.values())
  assert index['metadata']['total_size'] == total


def test_nothing_is_written_over(tmp_path):
  (tmp_path / 'precious').touch()
  with pytest.raises(FileExistsError, match='not empty'):
    hf_export.write(tmp_path, _random_params(OURS), huggingface.Shape(OURS, 97))
  assert [path.name for path in tmp_path.iterdir()] == ['precious']


def test_parts_that_no_architecture_has_are_not_written(tmp_path):
  policy = dataclasses.replace(OURS, qkv_bias=True, qk_norm=True)
  with pytest.raises(ValueError, match='not Qwen3ForCausalLM, with qkv_bias=True'):
    hf_export.write(tmp_path / 'out', {}, huggingface.Shape(policy, 97))


EIGHT_DEVICES = """
import sys
import jax, numpy as np
from leafe_jax.config import Mesh, Policy
from leafe_jax.policy import hf_export, huggingface, sharding

shape = huggingface.read_shape(sys.argv[1], Policy())
one = sharding.make_mesh(Mesh(), jax.devices()[:1])
params = huggingface.load_params(sys.argv[1], shape, one)
for number, sizes in enumerate((Mesh(fsdp=8), Mesh(data=2, fsdp=2, tensor=2))):
  spread = huggingface.load_params(sys.argv[1], shape, sharding.make_mesh(sizes))
  assert not spread['gate_weight_ldf'].sharding.is_fully_replicated
  for name, array in params.items():
    np.testing.assert_array_equal(spread[name], array)
  out = f'{sys.argv[1]}/{number}'
  hf_export.write(out, spread, shape)
  again = huggingface.load_params(out, shape, one)
  for name, array in params.items():
    np.testing.assert_array_equal(again[name], array)
"""


def test_every_mesh_reads_and_writes_the_same_weights(tmp_path):
  hf_export.write(
      tmp_path / 'in', _random_params(OURS), huggingface.Shape(OURS, 97)
  )
  flags = (
      '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 '
      '--xla_llvm_disable_expensive_passes=true'
  )
  env = {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  done = subprocess.run(
      [sys.executable, '-c', EIGHT_DEVICES, str(tmp_path / 'in')],
      cwd=ROOT, env=env, capture_output=True, text=True,
  )
  assert done.returncode == 0, done.stderr


def _make_run(directory):
  """A run's directory with nothing but what is exported."""
  config = dataclasses.replace(Experiment(), policy=OURS)
  directory.mkdir()
  (directory / 'config.json').write_text(json.dumps(settings.to_dict(config)))
  tokenizer = tokenizers.build_word_tokenizer(['red', 'box'], horizon=3)
  tokenizers.save_tokenizer(tokenizer, directory / 'tokenizer')
  params = _random_params(OURS, len(tokenizer))
  checkpoints.save_params(directory / 'distill' / 'leafe' / 'params', params)
  return params


def test_the_policy_of_a_run_is_exported_and_imported_again(tmp_path):
  params = _make_run(tmp_path / 'run')
  out = tmp_path / 'out'
  name = export_hf.export(tmp_path / 'run', 'distill/leafe', out, 10**9)
  assert name == 'LlamaForCausalLM'
  import_hf.convert(str(out), tmp_path / 'again', Policy())
  assert _same_bits(checkpoints.load_params(tmp_path / 'again' / 'params'), params)
  tokenizer = tokenizers.load_tokenizer(out)
  assert tokenizer.decode(tokenizer('red box')['input_ids']) == 'red box'
  fields = huggingface.read_fields(out)
  assert fields['eos_token_id'] == tokenizer.eos_token_id
  assert fields['vocab_size'] == len(tokenizer)


def test_a_phase_without_weights_is_refused_with_those_that_have_them(tmp_path):
  _make_run(tmp_path / 'run')
  choices = r"'distill/rft'.*choose from distill/leafe$"
  with pytest.raises(FileNotFoundError, match=choices):
    export_hf.export(tmp_path / 'run', 'distill/rft', tmp_path / 'out', 10**9)
  assert not (tmp_path / 'run' / 'distill' / 'rft').exists()
  with pytest.raises(FileNotFoundError, match=r'no config\.json of a run'):
    export_hf.export(tmp_path / 'nowhere', 'distill/rft', tmp_path / 'out', 10**9)


def test_llama3_rope_keeps_fast_turns_and_slows_down_slow_ones():
  plain = dataclasses.replace(OURS, head_dim=64)
  scaled = dataclasses.replace(plain, rope_type='llama3', rope_original_length=512)
  one = jnp.ones((1, 1), jnp.int32)
  angle, slowed = (
      np.arctan2(*(np.asarray(part).ravel() for part in reversed(angles)))
      for angles in (rope.angles(one, plain), rope.angles(one, scaled))
  )
  turns = 512 * angle / (2 * np.pi)
  np.testing.assert_allclose(slowed[turns > 4], angle[turns > 4], rtol=1e-6)
  np.testing.assert_allclose(slowed[turns < 1], angle[turns < 1] / 8, rtol=1e-6)
  between = (turns > 1) & (turns < 4)
  assert between.any()
  assert (slowed < angle)[between].all()
  assert (slowed > angle / 8)[between].all()


@pytest.mark.parametrize(
    ('architecture', 'changes', 'named'),
    [
        ('MixtralForCausalLM', {}, 'MixtralForCausalLM'),
        ('LlamaForCausalLM', {'use_sliding_window': True}, 'sliding window'),
        ('LlamaForCausalLM', {'quantization_config': {}}, 'quantised'),
        ('LlamaForCausalLM', SLIDING, 'sliding window'),
        ('LlamaForCausalLM', {'rope_parameters': {'rope_type': 'yarn'}}, 'factor'),
        ('LlamaForCausalLM', {'rope_parameters': {'rope_type': 'llama3'}}, 'factor'),
        ('LlamaForCausalLM', PARTIAL_ROPE, 'part of each head'),
        ('LlamaForCausalLM', OLD_DYNAMIC_ROPE, 'dynamic'),
        ('LlamaForCausalLM', {'attention_bias': True}, 'biases on attention'),
        ('LlamaForCausalLM', {'hidden_act': 'gelu'}, 'gelu'),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    tmp_path, architecture, changes, named
):
  _write(tmp_path, architecture, **changes)
  with pytest.raises(huggingface.UnsupportedCheckpoint, match=named):
    huggingface.read_shape(tmp_path, Policy())


def test_the_old_generations_rope_keys_are_read(tmp_path):
  _write(tmp_path, 'LlamaForCausalLM', rope_theta=1234.0, rope_parameters=None)
  assert huggingface.read_shape(tmp_path, Policy()).policy.rope_theta == 1234.0


def test_the_old_generations_llama3_keys_are_read(tmp_path):
  scaling = {k: v for k, v in LLAMA3.items() if k != 'rope_theta'}
  _write(
      tmp_path, 'LlamaForCausalLM', rope_theta=5e5, rope_parameters=None,
      rope_scaling=scaling,
  )
  policy = huggingface.read_shape(tmp_path, Policy()).policy
  assert (policy.rope_type, policy.rope_theta) == ('llama3', 5e5)
  assert (policy.rope_factor, policy.rope_original_length) == (8.0, 16)


def test_missing_and_surplus_tensors_are_listed(tmp_path):
  _write(tmp_path, 'LlamaForCausalLM', tie_word_embeddings=True)
  shape = huggingface.read_shape(tmp_path, Policy())
  tensors = {'model.embed_tokens.weight': np.zeros((97, 48), np.float32),
             'model.extra.weight': np.zeros(3, np.float32)}
  safetensors.numpy.save_file(tensors, tmp_path / 'model.safetensors')
  with pytest.raises(huggingface.UnsupportedCheckpoint) as error:
    huggingface.load_params(tmp_path, shape, _mesh())
  assert 'model.layers.0.input_layernorm.weight' in str(error.value)
  assert 'model.extra.weight' in str(error.value)


def test_options_of_the_run_survive(tmp_path):
  _write(tmp_path, 'Qwen3ForCausalLM')
  options = dataclasses.replace(Policy(), max_length=99, remat='full', num_layers=17)
  policy = huggingface.read_shape(tmp_path, options).policy
  assert (policy.max_length, policy.remat, policy.num_layers) == (99, 'full', 3)
  assert policy.qk_norm and not policy.qkv_bias


def test_a_directory_without_checkpoint_is_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'config\.json'):
    huggingface.read_shape(tmp_path, Policy())


@pytest.mark.parametrize(
    ('array', 'named'),
    [
        (np.zeros((48, 97), np.float32), r'\(48, 97\), not \(97, 48\)'),
        (np.zeros((97, 48), np.int8), 'stored as I8'),
    ],
)
def test_tensors_of_a_wrong_shape_or_type_are_named(tmp_path, array, named):
  shape = huggingface.Shape(OURS, 97)
  hf_export.write(tmp_path / 'out', _random_params(OURS), shape)
  path = tmp_path / 'out' / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  tensors['model.embed_tokens.weight'] = array
  safetensors.numpy.save_file(tensors, path)
  with pytest.raises(huggingface.UnsupportedCheckpoint, match=named) as error:
    huggingface.load_params(tmp_path / 'out', shape, _mesh())
  assert 'model.embed_tokens.weight' in str(error.value)


def test_a_missing_file_of_the_index_is_named(tmp_path):
  shape = huggingface.Shape(OURS, 97)
  hf_export.write(
      tmp_path / 'out', _random_params(OURS), shape, max_shard_bytes=60_000
  )
  path = sorted((tmp_path / 'out').glob('*.safetensors'))[1]
  path.unlink()
  with pytest.raises(FileNotFoundError, match=path.name):
    huggingface.load_params(tmp_path / 'out', shape, _mesh())
