"""Every family computes what transformers does, and goes back to it."""

import json

import numpy as np
import pytest

from leafe_jax.config import Mesh, Policy
from leafe_jax.policy import families, hf_export, huggingface, sharding
from tools import check_parity

SMALL = {
    'vocab_size': 101, 'hidden_size': 48, 'intermediate_size': 72,
    'num_attention_heads': 4, 'num_key_value_heads': 2, 'num_hidden_layers': 3,
    'pad_token_id': 0, 'max_position_embeddings': 512,
}  # fmt: skip
YARN = {
    'rope_type': 'yarn', 'factor': 16.0, 'original_max_position_embeddings': 32,
    'rope_theta': 1e4,
}
MSCALE = {'mscale': 1.2, 'mscale_all_dim': 0.7, 'truncate': False, 'beta_fast': 20.0}
LINEAR = {'rope_type': 'linear', 'factor': 3.0, 'rope_theta': 1e4}
BY_KIND = {
    'full_attention': {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 1e6},
    'sliding_attention': {'rope_type': 'default', 'rope_theta': 1e4},
}
GEMMA = {
    'head_dim': 18, 'query_pre_attn_scalar': 30, 'sliding_window': 11,
    'num_hidden_layers': 3, 'rope_parameters': BY_KIND,
    'layer_types': ['sliding_attention', 'sliding_attention', 'full_attention'],
}
CASES = {
    'Mistral': ('Mistral', {'head_dim': 14, 'sliding_window': None}),
    'Mistral with a window': ('Mistral', {'head_dim': 14, 'sliding_window': 13}),
    'Qwen2 with YaRN': ('Qwen2', {'num_hidden_layers': 2, 'rope_parameters': YARN}),
    'Llama with YaRN': ('Llama', {'rope_parameters': YARN | MSCALE}),
    'Llama, linear': ('Llama', {'num_hidden_layers': 2, 'rope_parameters': LINEAR}),
    'Qwen2 with windows': (
        'Qwen2',
        {'use_sliding_window': True, 'sliding_window': 9, 'max_window_layers': 1},
    ),
    'Qwen3 with windows': (
        'Qwen3',
        {
            'head_dim': 14, 'use_sliding_window': True, 'sliding_window': 9,
            'layer_types': ['sliding_attention', 'full_attention', 'full_attention'],
        },
    ),
    'SmolLM3': ('SmolLM3', {'num_hidden_layers': 4}),
    'Granite': (
        'Granite',
        {
            'embedding_multiplier': 12.0, 'residual_multiplier': 0.22,
            'attention_multiplier': 0.07, 'logits_scaling': 7.5,
            'tie_word_embeddings': True,
        },
    ),
    'Gemma 3': ('Gemma3', GEMMA),
    'OLMo 3': ('Olmo3', {'num_hidden_layers': 4, 'sliding_window': 9}),
}  # fmt: skip


def save_reference(directory, name):
  """A random checkpoint of a case, written by transformers."""
  torch = pytest.importorskip('torch', reason='the reference runs on torch')
  import transformers

  torch.set_num_threads(1)
  torch.manual_seed(0)
  family, options = CASES[name]
  text = 'Text' if family == 'Gemma3' else ''
  config = getattr(transformers, f'{family}{text}Config')(**SMALL | options)
  save(getattr(transformers, f'{family}ForCausalLM')(config), directory)
  return config


def save(reference, directory):
  import torch

  with torch.no_grad():
    for parameter in reference.parameters():  # norms and biases off their defaults
      parameter.add_(0.1 * torch.randn_like(parameter))
  reference.save_pretrained(directory)


def save_with_images(directory):
  """A Gemma 3 that reads images too, its text part small."""
  pytest.importorskip('torch', reason='the reference runs on torch')
  import transformers

  text = SMALL | {
      'head_dim': 16, 'query_pre_attn_scalar': 16, 'sliding_window': 8,
      'num_hidden_layers': 6,
  }
  vision = {
      'hidden_size': 16, 'intermediate_size': 16, 'num_hidden_layers': 1,
      'num_attention_heads': 1, 'image_size': 28, 'patch_size': 14,
  }
  config = transformers.Gemma3Config(
      text_config=text, vision_config=vision, mm_tokens_per_image=4,
      image_token_index=100, boi_token_index=98, eoi_token_index=99,
  )
  save(transformers.Gemma3ForConditionalGeneration(config), directory)


@pytest.mark.parametrize('name', ['Granite', 'Gemma 3', 'OLMo 3'])
def test_gradients_and_decoding_are_those_of_transformers(tmp_path, monkeypatch, name):
  monkeypatch.setattr(check_parity, 'NEW_TOKENS', 12)
  save_reference(tmp_path, name)
  parity = check_parity.compare(str(tmp_path), length=37)
  assert parity.holds(), parity


def logits_differ(directory):
  """By how much, of ours and of transformers."""
  import torch

  tokens = np.random.default_rng(0).integers(1, SMALL['vocab_size'] - 3, (2, 37))
  ours = check_parity.Ours(str(directory)).logits(tokens)
  reference = check_parity.load_reference(str(directory))
  with torch.no_grad():
    theirs = reference(torch.as_tensor(tokens)).logits.numpy()
  return np.abs(ours - theirs).max()


@pytest.mark.parametrize('name', CASES)
def test_families_compute_what_transformers_does(tmp_path, name):
  save_reference(tmp_path, name)
  assert logits_differ(tmp_path) < 1e-4


def test_a_text_part_among_images_computes_what_transformers_does(tmp_path):
  save_with_images(tmp_path)
  assert logits_differ(tmp_path) < 1e-4


def read(directory):
  shape = huggingface.read_shape(directory, Policy(scan_layers=True))
  return shape, huggingface.load_params(directory, shape, sharding.make_mesh(Mesh()))


@pytest.mark.parametrize('name', CASES)
def test_what_is_written_is_what_was_read_and_transformers_agrees(tmp_path, name):
  config = save_reference(tmp_path / 'theirs', name)
  fields = json.loads((tmp_path / 'theirs' / 'config.json').read_text())
  shape, params = read(tmp_path / 'theirs')
  hf_export.write(tmp_path / 'ours', params, shape, fields=fields)
  again, same = read(tmp_path / 'ours')
  assert again == shape
  for weight, array in params.items():
    np.testing.assert_array_equal(array, same[weight])
  written = type(config).from_pretrained(tmp_path / 'ours')
  ignored = ('dtype', '_name_or_path', 'transformers_version', 'architectures')
  theirs, ours = config.to_dict(), written.to_dict()
  for name in theirs.keys() - set(ignored):
    if name != 'max_window_layers' and ours.get(name) != theirs[name]:
      assert name in ('rope_parameters', 'sliding_window'), name
  # Without what the source said, too.
  hf_export.write(tmp_path / 'alone', params, shape)
  assert read(tmp_path / 'alone')[0] == shape


def test_the_text_part_alone_is_written(tmp_path):
  save_with_images(tmp_path / 'theirs')
  fields = json.loads((tmp_path / 'theirs' / 'config.json').read_text())
  shape, params = read(tmp_path / 'theirs')
  hf_export.write(tmp_path / 'ours', params, shape, fields=fields)
  written = json.loads((tmp_path / 'ours' / 'config.json').read_text())
  assert written['architectures'] == ['Gemma3ForCausalLM']
  assert 'vision_config' not in written
  import transformers

  model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'ours')
  assert type(model).__name__ == 'Gemma3ForCausalLM'
  assert read(tmp_path / 'ours')[0] == shape


def write_config(directory, architecture, **changes):
  fields = SMALL | {'architectures': [architecture]} | changes
  (directory / 'config.json').write_text(json.dumps(fields))
  return directory


OLD_GEMMA = {
    'rope_theta': 1e6, 'rope_local_base_freq': 1e4, 'sliding_window_pattern': 6,
    'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'}, 'sliding_window': 512,
    'num_hidden_layers': 13, 'head_dim': 16,
}


def test_a_gemma_of_older_files(tmp_path):
  write_config(tmp_path, 'Gemma3ForCausalLM', model_type='gemma3_text', **OLD_GEMMA)
  policy = huggingface.read_shape(tmp_path, Policy()).policy
  assert policy.layer_kinds == ('sliding',) * 5 + ('full',)
  assert (policy.rope_theta, policy.rope_local_theta) == (1e6, 1e4)
  assert (policy.rope_type, policy.rope_factor, policy.window) == ('linear', 8.0, 512)
  assert policy.tie_embeddings


def test_a_text_part_may_leave_out_what_its_class_knows(tmp_path):
  text = {'hidden_size': 64, 'num_hidden_layers': 6, 'model_type': 'gemma3_text'}
  fields = {
      'architectures': ['Gemma3ForConditionalGeneration'], 'model_type': 'gemma3',
      'text_config': text,
  }
  (tmp_path / 'config.json').write_text(json.dumps(fields))
  shape = huggingface.read_shape(tmp_path, Policy())
  assert shape.vocab_size == 262_208
  assert (shape.policy.num_heads, shape.policy.head_dim) == (8, 256)


def test_yarn_stretches_the_positions(tmp_path):
  scaling = {'type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 512}
  write_config(tmp_path, 'Qwen2ForCausalLM', rope_scaling=scaling)
  huggingface.check_length(tmp_path, 2048)
  with pytest.raises(huggingface.UnsupportedCheckpoint, match='2049'):
    huggingface.check_length(tmp_path, 2049)


@pytest.mark.parametrize(
    ('architecture', 'changes', 'message'),
    [
        ('LlamaForCausalLM', {'rope_scaling': {'type': 'dynamic', 'factor': 2.0}},
         "rope type 'dynamic' .rope_scaling.: its frequencies change"),
        ('LlamaForCausalLM', {'rope_scaling': {'type': 'longrope', 'factor': 2.0}},
         "rope type 'longrope'"),
        ('LlamaForCausalLM', {'rope_scaling': {'type': 'linear'}},
         'rope_scaling.factor is missing'),
        ('Qwen2ForCausalLM',
         {'rope_scaling': {'type': 'yarn', 'factor': 4.0, 'beta_fast': 1.0}},
         'beta_fast is 1.0; it must be above beta_slow'),
        ('LlamaForCausalLM', {'use_sliding_window': True}, 'has no sliding window'),
        ('Gemma3ForCausalLM', {'sliding_window': None}, 'sliding_window is missing'),
        ('Qwen2ForCausalLM', {'use_sliding_window': True, 'sliding_window': 0},
         'sliding_window is 0; it must be'),
        ('Qwen3ForCausalLM', {'layer_types': ['chunked_attention'] * 3},
         "layers of type 'chunked_attention'"),
        ('Qwen3ForCausalLM', {'layer_types': ['full_attention']},
         'layer_types names 1 layers of 3'),
        ('SmolLM3ForCausalLM', {'no_rope_layers': [1, 0]}, 'no_rope_layers is'),
        ('Gemma3ForCausalLM', {'final_logit_softcapping': 30.0}, 'capped logits'),
        ('Gemma3ForCausalLM', {'use_bidirectional_attention': True}, 'later tokens'),
        ('Gemma3ForCausalLM', {'rope_parameters': {'rope_theta': 5e5}},
         'rope_parameters has rope_theta; those of model_type gemma3_text are by kind'),
        ('GraniteForCausalLM', {'logits_scaling': 0}, 'logits_scaling is 0'),
        ('Gemma3ForConditionalGeneration', {}, 'text_config is missing'),
    ],
)  # fmt: skip
def test_what_cannot_be_expressed_is_refused_by_name(
    tmp_path, architecture, changes, message
):
  write_config(tmp_path, architecture, **changes)
  with pytest.raises(huggingface.UnsupportedCheckpoint, match=message):
    huggingface.read_shape(tmp_path, Policy())


def test_a_policy_that_no_class_can_hold_is_not_written():
  policy = Policy(qk_norm=True, layer_kinds=('no_rope',))
  refusal = 'not Qwen3ForCausalLM, with layer_kinds=no_rope'
  with pytest.raises(ValueError, match=refusal):
    hf_export.architecture(policy)
  assert families.refusal(Policy(), 'LlamaForCausalLM') == ''
