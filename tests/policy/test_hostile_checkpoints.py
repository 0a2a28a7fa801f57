"""Directories as users have them: read as transformers does, or refused in a line."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from configs import webshop
from leafe_jax import rundir, settings
from leafe_jax.config import Experiment, Mesh, Policy
from leafe_jax.endings import RunStopped
from leafe_jax.methods.run import Run
from leafe_jax.methods.warm_start import import_checkpoint
from leafe_jax.policy import hf_files, huggingface, model, sharding
from tests.policy.damage import (
  FIRST,
  INDEX,
  LEADS_OUT,
  POINTER,
  SCALED,
  VOCAB,
  adapter,
  beside,
  both,
  content,
  cut,
  drop,
  edit,
  head,
  links,
  make,
  old_shards,
  only,
  set_map,
  tensors,
)
from tests.text.chat_tokenizers import CHATML, make_tokenizer
from tools import check_parity, import_hf, targets

ROOT = pathlib.Path(__file__).resolve().parents[2]

READ = {
    'tied, but the head differs': ('llama', True, head(differs=True)),
    'tied, but the head of qwen2 differs': ('qwen2', True, head(differs=True)),
    'tied, and the head is a copy': ('qwen3', True, head(differs=False)),
    'tied, and only the head is there': ('qwen2', True, head(False, embedding=False)),
    'llama3 rope over unscaled parameters': ('llama', False, edit(rope_scaling=SCALED)),
    'factor 32 over 8': (
        'llama', False,
        edit(rope_parameters={**SCALED, 'factor': 8.0, 'rope_theta': 77.0},
             rope_scaling=SCALED),
    ),
    'the base of parameters that do not count': (
        'llama', False,
        both(edit(rope_parameters={'rope_type': 'default', 'rope_theta': 77.0},
                  rope_scaling=SCALED), drop('rope_theta')),
    ),
    'a scaling without a type': ('llama', False, edit(rope_scaling={'factor': 2.0})),
    'an original length beside the section': (
        'llama', False,
        edit(rope_scaling=SCALED, original_max_position_embeddings=8),
    ),
    'no original length': (
        'qwen2', False,
        edit(rope_scaling={k: v for k, v in SCALED.items() if k[:4] != 'orig'}),
    ),
    'old shards beside the file': ('llama', False, old_shards),
    'an old index of nothing beside the file': (
        'llama', False, set_map({'a': 'model-00001-of-00002.safetensors'})
    ),
    'consolidated weights': ('llama', False, beside('consolidated.safetensors')),
    'a variant': ('llama', False, beside('model.fp16.safetensors')),
    'an adapter': ('llama', False, adapter),
    'a file named by config.json': (
        'llama', False, both(beside('other.safetensors'),
                             edit(transformers_weights='other.safetensors')),
    ),
    'links': ('llama', False, links),
    'no architectures': ('qwen2', False, drop('architectures')),
    'swish': ('llama', False, edit(hidden_act='swish')),
    'a half of the weights in half precision': (
        'llama', False,
        tensors(change=lambda found: found.update(
            {k: v.astype(np.float16) for k, v in found.items() if 'mlp' in k})),
    ),
    **{
        f'{name} null': ('llama', False, edit(**{name: None}))
        for name in ('num_key_value_heads', 'head_dim', 'quantization_config',
                     'rope_scaling', 'rope_parameters', 'architectures', 'layer_types')
    },
    **{
        f'{name} missing': ('llama', False, drop(name))
        for name in ('num_key_value_heads', 'head_dim', 'rms_norm_eps', 'hidden_act',
                     'tie_word_embeddings', 'attention_bias', 'max_position_embeddings')
    },
    'no rope at all': (
        'qwen2', False, drop('rope_theta', 'rope_scaling', 'rope_parameters')
    ),
    'kv heads null in qwen2': ('qwen2', False, edit(num_key_value_heads=None)),
}


@pytest.mark.parametrize('name', READ)
def test_what_transformers_reads_is_read_alike(tmp_path, name):
  torch = pytest.importorskip('torch', reason='the reference runs on torch')
  torch.set_num_threads(1)
  kind, tied, change = READ[name]
  directory = make(tmp_path / 'checkpoint', kind, tied)
  change(directory)
  tokens = np.random.default_rng(0).integers(0, VOCAB, (1, 33))
  with torch.no_grad():
    reference = check_parity.load_reference(str(directory))
    expected = reference(torch.as_tensor(tokens)).logits.numpy()
  found = check_parity.Ours(str(directory)).logits(tokens)
  assert np.abs(found - expected).max() < check_parity.MAX_LOGITS


WRONG_SIZES = ([32], -32, 0, 32.0, '32', True, {'a': 1})
SIZES = ('vocab_size', 'hidden_size', 'intermediate_size', 'num_hidden_layers',
         'num_attention_heads', 'num_key_value_heads', 'head_dim')
DYNAMIC = {'rope_type': 'dynamic', 'factor': 4.0}

REFUSED = {
    'dynamic over parameters': (
        edit(rope_scaling=DYNAMIC), "'dynamic' (rope_scaling)"
    ),
    'dynamic, as it was called': (
        edit(rope_scaling={'type': 'dynamic', 'factor': 2.0}), "'dynamic'"
    ),
    'a null type': (edit(rope_scaling={'rope_type': None, 'factor': 2}), 'type None'),
    'rope by layers': (
        edit(rope_scaling={'full_attention': {'rope_type': 'yarn'}}), 'kind of layer'
    ),
    'rope is a list': (edit(rope_parameters=[1]), 'rope_parameters is [1]'),
    'rope is a text': (edit(rope_scaling='yarn'), "rope_scaling is 'yarn'"),
    'a factor is a text': (
        edit(rope_scaling={**SCALED, 'factor': '8'}), "rope_scaling.factor is '8'"
    ),
    'a factor is missing': (
        edit(rope_scaling={'rope_type': 'llama3'}), 'rope_scaling.factor is missing'
    ),
    'factors that cross': (
        edit(rope_scaling={**SCALED, 'high_freq_factor': 1.0}), 'high_freq_factor is 1'
    ),
    'a part of each head': (edit(partial_rotary_factor=0.5), 'part of each head (0.5)'),
    'a negative base': (edit(rope_parameters=None, rope_theta=-1), 'rope_theta is -1'),
    'epsilon is a text': (edit(rms_norm_eps='1e-5'), "rms_norm_eps is '1e-5'"),
    'epsilon is not finite': (edit(rms_norm_eps=float('nan')), 'rms_norm_eps is nan'),
    'tied is a text': (edit(tie_word_embeddings='no'), "tie_word_embeddings is 'no'"),
    'activation': (edit(hidden_act='gelu'), "hidden_act is 'gelu'; supported: silu"),
    'quantised': (edit(quantization_config={'bits': 4}), 'quantization_config'),
    'biases': (edit(attention_bias=True), 'biases on attention'),
    'biases on the mlp': (edit(mlp_bias=True), 'biases on the MLP'),
    'windows': (edit(layer_types=['sliding_attention'] * 2), 'sliding window'),
    'layers that differ': (
        edit(per_layer_config={'0': {'head_dim': 4}}), 'per_layer_config'
    ),
    'heads that do not divide': (
        edit(num_key_value_heads=3), 'num_key_value_heads is 3; it must divide'
    ),
    'an odd head': (edit(head_dim=7), 'head_dim is 7'),
    'another kind': (edit(model_type='mistral'), "model_type 'mistral'"),
    'another architecture': (
        edit(architectures=['LlamaForSequenceClassification']), 'SequenceClassification'
    ),
    'architectures is a text': (
        edit(architectures='LlamaForCausalLM'), "architectures is 'LlamaForCausalLM'"
    ),
    'neither kind nor architecture': (drop('architectures', 'model_type'), "'?'"),
    **{
        f'{name} is {value!r}': (edit(**{name: value}), f'{name} is ')
        for name in SIZES for value in WRONG_SIZES
    },
    **{
        f'no {name}': (drop(name), f'{name} is missing') for name in SIZES[:5]
    },
    'config.json is a pointer': (content('config.json', POINTER), 'Git LFS pointer'),
    'config.json is cut short': (cut('config.json', 0.7), 'config.json is not JSON'),
    'config.json is empty': (content('config.json', ''), 'config.json is not JSON'),
    'config.json is a list': (content('config.json', '[]'), 'config.json holds a list'),
    'config.json is no text': (content('config.json', b'\xff\xfe{'), 'config.json is'),
    'config.json is deep': (content('config.json', '[' * 99_999), 'is not JSON'),
    'no config.json': (lambda d: (d / 'config.json').unlink(), 'no config.json in'),
    'an adapter alone': (
        both(adapter, lambda d: (d / 'config.json').unlink()), 'merge the adapter'
    ),
    **LEADS_OUT,
    'no directory': (shutil.rmtree, 'there is no directory'),
    'weights are a pointer': (content('model.safetensors', POINTER), 'Git LFS pointer'),
    'weights are cut short': (cut('model.safetensors', 0.9), 'damaged or cut short'),
    'weights are cut in the header': (cut('model.safetensors', 0.001), 'cut short'),
    'weights are empty': (content('model.safetensors', ''), '(0 bytes)'),
    'weights are a page': (content('model.safetensors', '<html>' * 99), 'damaged or'),
    'nothing but a .bin': (only('pytorch_model.bin'), 'pytorch_model.bin: let'),
    'nothing but shards': (only('model-00001-of-00001.safetensors'), 'neither'),
    'nothing but consolidated': (only('consolidated.safetensors'), 'consolidated'),
    'nothing but a gguf': (only('model.gguf'), 'model.gguf'),
    'no weights': (lambda d: (d / 'model.safetensors').unlink(), 'neither model.safe'),
    'a named file that is missing': (
        edit(transformers_weights='x.safetensors'), 'no x.safetensors'
    ),
    'a named file elsewhere': (
        edit(transformers_weights='../x.safetensors'), 'not in the directory'
    ),
    'NaN': (
        tensors(change=lambda found: found['model.norm.weight'].put(3, np.nan)),
        'tensor model.norm.weight in model.safetensors holds NaN',
    ),
    'infinity': (
        tensors(change=lambda found: found['model.layers.1.mlp.up_proj.weight'].put(
            5, -np.inf)),
        'model.layers.1.mlp.up_proj.weight in model.safetensors holds NaN or inf',
    ),
    'whole numbers': (
        tensors(change=lambda found: found.update(
            {'lm_head.weight': np.ones((VOCAB, 32), np.int8)})),
        'lm_head.weight in model.safetensors is stored as I8',
    ),
    'other sizes': (
        edit(vocab_size=VOCAB + 3), f'has shape ({VOCAB}, 32), not ({VOCAB + 3}, 32)'
    ),
    'a layer too few': (edit(num_hidden_layers=3), "missing tensors: ['model.layers.2"),
    'a layer too many': (edit(num_hidden_layers=1), "surplus tensors: ['model.la"),
    'no head': (
        tensors(change=lambda found: found.pop('lm_head.weight')), "['lm_head.weight']"
    ),
}
BROKEN_INDEX = {
    'a pointer': (content(INDEX, POINTER), f'{INDEX} is a Git LFS pointer'),
    'not JSON': (cut(INDEX, 0.5), f'{INDEX} is not JSON'),
    'a list': (content(INDEX, '[]'), f'{INDEX} holds a list'),
    'without a map': (content(INDEX, '{}'), 'weight_map is None'),
    'a map that is a list': (set_map(['a']), "weight_map is ['a']"),
    'an empty map': (set_map({}), 'weight_map is {}'),
    'numbers': (set_map({'a': 3}), 'weight_map names 3'),
    'above': (set_map({'a': '../x.safetensors'}), "names '../x.safetensors', which"),
    'far above': (set_map({'a': 'x/../../y.safetensors'}), 'not in the directory'),
    'elsewhere': (set_map({'a': '/etc/hostname'}), 'not in the directory'),
    'nothing': (set_map({'a': ''}), 'not in the directory'),
    'the directory itself': (set_map({'a': 'sub/'}), 'no sub in'),
    'a file that is missing': (set_map({'a': 'b.safetensors'}), 'no b.safetensors in'),
    'a shard that is a pointer': (
        content(FIRST, POINTER),
        f'{FIRST} is a Git LFS pointer',
    ),
    'a shard that is cut short': (
        cut(FIRST, 0.5), f'{FIRST} is damaged or cut short',
    ),
}
REFUSED_WITH_INDEX = {f'index: {name}': case for name, case in BROKEN_INDEX.items()}


def _load(directory: pathlib.Path) -> model.Params:
  shape = huggingface.read_shape(directory, Policy())
  return huggingface.load_params(directory, shape, sharding.make_mesh(Mesh()))


@pytest.mark.parametrize('name', [*REFUSED, *REFUSED_WITH_INDEX])
def test_the_rest_is_refused_in_one_line_that_names_it(tmp_path, name):
  change, named = {**REFUSED, **REFUSED_WITH_INDEX}[name]
  sharded = name in REFUSED_WITH_INDEX
  directory = make(tmp_path / 'checkpoint', shards=sharded)
  change(directory)
  with pytest.raises((OSError, huggingface.UnsupportedCheckpoint)) as error:
    _load(directory)
  assert named in str(error.value)
  assert '\n' not in str(error.value)


def test_shards_are_read_by_their_index(tmp_path):
  whole, shards = make(tmp_path / 'whole'), make(tmp_path / 'shards', shards=True)
  beside('consolidated.safetensors')(shards)
  again = _load(shards)
  for name, array in _load(whole).items():
    np.testing.assert_array_equal(array, again[name])


def test_the_head_that_counts_is_the_stored_one(tmp_path):
  """Where it is a copy, there is one table, as config.json says."""
  for differs in (False, True):
    directory = make(tmp_path / str(differs), tied=True)
    head(differs)(directory)
    shape = huggingface.read_shape(directory, Policy())
    assert shape.policy.tie_embeddings is not differs


def test_sizes_are_known_without_weights(tmp_path):
  directory = make(tmp_path / 'checkpoint')
  shape = huggingface.read_shape(directory, Policy())
  (directory / 'model.safetensors').unlink()
  assert huggingface.read_shape(directory, Policy()) == shape


def test_what_is_too_large_for_its_type_is_refused(tmp_path):
  directory = make(tmp_path / 'checkpoint')
  tensors(change=lambda found: found['model.norm.weight'].put(0, 3.4e38))(directory)
  shape = huggingface.read_shape(directory, Policy(param_dtype='bfloat16'))
  with pytest.raises(huggingface.UnsupportedCheckpoint, match='infinity in bfloat16'):
    huggingface.load_params(directory, shape, sharding.make_mesh(Mesh()))


def _run(directory: pathlib.Path, checkpoint: pathlib.Path, **policy: object) -> Run:
  base = Experiment()
  config = dataclasses.replace(
      base,
      policy=dataclasses.replace(
          base.policy, checkpoint=str(checkpoint), **{'max_length': 64, **policy}
      ),
  )
  return Run(config, rundir.RunDirectory(directory), settings.sha256(config))


def _with_tokenizer(directory: pathlib.Path, vocab_size: int) -> pathlib.Path:
  make(directory, vocab_size=vocab_size)
  make_tokenizer(CHATML).save_pretrained(directory)
  return directory


def test_a_run_refuses_more_ids_than_rows(tmp_path):
  """The tokenizer has 258 ids."""
  with pytest.raises(RunStopped, match=r'ids up to 257 .*, the embedding 257 rows'):
    _run(tmp_path / 'a', _with_tokenizer(tmp_path / 'few', 257)).shape  # noqa: B018
  run = _run(tmp_path / 'b', _with_tokenizer(tmp_path / 'enough', 258))
  assert run.shape.vocab_size == 258


def test_a_run_refuses_positions_that_the_weights_never_saw(tmp_path):
  checkpoint = _with_tokenizer(tmp_path / 'checkpoint', 300)
  stopped = r'max_length=65 is above max_position_embeddings=64 .*max_length=64 or less'
  with pytest.raises(RunStopped, match=stopped):
    _run(tmp_path / 'run', checkpoint, max_length=65).shape  # noqa: B018
  edit(max_position_embeddings=512, rope_scaling=SCALED)(checkpoint)
  assert _run(tmp_path / 'run', checkpoint, max_length=512).shape.vocab_size == 300


def test_a_run_without_a_tokenizer_reads_no_weights(tmp_path, monkeypatch):
  monkeypatch.setattr(hf_files, 'read', lambda *_: pytest.fail('weights were read'))
  run = _run(tmp_path / 'run', make(tmp_path / 'checkpoint'))
  with pytest.raises(RunStopped, match=r'checkpoint: no tokenizer in'):
    import_checkpoint(run, tmp_path / 'base')


def test_a_run_without_a_template_reads_no_weights(tmp_path, monkeypatch):
  monkeypatch.setattr(hf_files, 'read', lambda *_: pytest.fail('weights were read'))
  checkpoint = _with_tokenizer(tmp_path / 'checkpoint', 300)
  (checkpoint / 'chat_template.jinja').unlink()
  with pytest.raises(RunStopped, match=r'checkpoint: .*no chat template'):
    import_checkpoint(_run(tmp_path / 'run', checkpoint), tmp_path / 'base')


def test_a_run_names_checkpoint_tensor_and_file(tmp_path):
  checkpoint = _with_tokenizer(tmp_path / 'checkpoint', 300)
  tensors(change=lambda found: found['lm_head.weight'].put(1, np.nan))(checkpoint)
  run = _run(tmp_path / 'run', checkpoint)
  with pytest.raises(RunStopped, match=r'lm_head\.weight in model\.safeten') as error:
    import_checkpoint(run, tmp_path / 'base')
  assert str(error.value).startswith(f'policy.checkpoint={checkpoint}: tensor')
  assert not (tmp_path / 'base').exists()


def test_plans_name_the_checkpoint_and_the_remedy(tmp_path):
  values = webshop.get_config()
  checkpoint = str(make(tmp_path / 'checkpoint'))
  values.update({'policy': {'checkpoint': checkpoint, 'max_length': 65}})
  with pytest.raises(ValueError, match=r'policy\.checkpoint=.*max_length=64 or less'):
    targets.make_target(values, 1)
  content('config.json', POINTER)(tmp_path / 'checkpoint')
  with pytest.raises(ValueError, match=r'policy\.checkpoint=.*Git LFS pointer'):
    targets.make_target(values, 1)


def test_what_ours_alone_reads_is_no_parity(tmp_path):
  pytest.importorskip('torch', reason='the reference runs on torch')
  drop('model_type')(make(tmp_path / 'checkpoint'))
  with pytest.raises(check_parity.NotReadByBoth, match='does not load') as error:
    check_parity.compare(str(tmp_path / 'checkpoint'), length=5)
  assert '\n' not in str(error.value)


def test_programs_end_with_one_line(tmp_path):
  make(tmp_path / 'checkpoint')
  cut('model.safetensors', 0.5)(tmp_path / 'checkpoint')
  with pytest.raises(huggingface.UnsupportedCheckpoint, match='cut short'):
    import_hf.convert(str(tmp_path / 'checkpoint'), tmp_path / 'out', Policy())
  assert not (tmp_path / 'out').exists()
  done = subprocess.run(
      [sys.executable, '-m', 'tools.import_hf', '--workdir=' + str(tmp_path / 'out'),
       f'--checkpoint={tmp_path / "checkpoint"}'],
      cwd=ROOT, capture_output=True, text=True, check=False,
  )
  assert done.returncode == 1
  [line] = done.stderr.splitlines()
  assert 'model.safetensors is damaged or cut short' in line
