"""Adapters leave as peft's files, or merged into their base."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from leafe_jax import settings
from leafe_jax.config import Experiment, Mesh, Policy
from leafe_jax.learner import checkpoints
from leafe_jax.policy import hf_export, huggingface, lora, model, sharding
from leafe_jax.text import tokenizers
from tools import export_hf

# Fewer KV heads, and heads that are not the width: a mixed-up axis shows.
POLICY = Policy(
    num_layers=2, embed_dim=24, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=40,
    qkv_bias=True, lora_rank=3, lora_alpha=12.0,
)  # fmt: skip
FEW = dataclasses.replace(POLICY, lora_targets=('q', 'o', 'down'))


def _mesh():
  return sharding.make_mesh(Mesh(), jax.devices()[:1])


def _adapters(policy, vocab_size=31):
  rng = np.random.default_rng(5)
  table = lora.table(policy, vocab_size)
  return {
      name: jnp.asarray(0.3 * rng.standard_normal(weight.shape), jnp.float32)
      for name, weight in table.items()
  }


def _write_both(tmp_path, policy):
  """(base, adapters) in our form and, as files, in `base` and `adapter`."""
  shape = huggingface.Shape(dataclasses.replace(policy, lora_rank=0), 31)
  base = model.init_params(shape.policy, 31, jax.random.key(0), _mesh())
  hf_export.write(tmp_path / 'base', base, shape, fields={'pad_token_id': 0})
  adapters = _adapters(policy)
  hf_export.write_adapter(
      tmp_path / 'adapter', adapters, policy, str(tmp_path / 'base')
  )
  return base, adapters


@pytest.mark.parametrize('policy', [POLICY, FEW], ids=['all', 'few'])
def test_the_files_say_what_merging_gives(tmp_path, policy):
  """Merged by the formula from the files alone, in the checkpoint's names."""
  base, adapters = _write_both(tmp_path, policy)
  config = json.loads((tmp_path / 'adapter' / 'adapter_config.json').read_text())
  found = safetensors.numpy.load_file(
      tmp_path / 'adapter' / 'adapter_model.safetensors'
  )
  theirs = safetensors.numpy.load_file(tmp_path / 'base' / 'model.safetensors')
  modules = {name.split('.')[-3] for name in found}
  assert modules == set(config['target_modules'])
  assert len(found) == 2 * policy.num_layers * len(policy.lora_targets)
  for name, into in found.items():
    if '.lora_A.' in name:
      out_of = found[name.replace('.lora_A.', '.lora_B.')]
      target = name.removeprefix('base_model.model.').replace('.lora_A.', '.')
      theirs[target] += config['lora_alpha'] / config['r'] * out_of @ into
  shape = huggingface.Shape(policy, 31)
  hf_export.write(tmp_path / 'merged', lora.merge(base, adapters, policy), shape)
  ours = safetensors.numpy.load_file(tmp_path / 'merged' / 'model.safetensors')
  assert ours.keys() == theirs.keys()
  for name, tensor in ours.items():
    np.testing.assert_allclose(tensor, theirs[name], atol=1e-5, err_msg=name)


@pytest.mark.filterwarnings('ignore::FutureWarning')  # peft on transformers 5
def test_peft_loads_the_files_with_our_logits(tmp_path):
  torch = pytest.importorskip('torch', reason='the reference runs on torch')
  peft = pytest.importorskip('peft', reason='the files are for peft')
  transformers = pytest.importorskip('transformers')
  torch.set_num_threads(1)
  base, adapters = _write_both(tmp_path, POLICY)
  reference = transformers.AutoModelForCausalLM.from_pretrained(
      tmp_path / 'base', dtype=torch.float32, local_files_only=True
  )
  reference = peft.PeftModel.from_pretrained(reference, tmp_path / 'adapter').eval()
  tokens = np.random.default_rng(0).integers(1, 31, (2, 12))
  with torch.no_grad():
    expected = reference(torch.as_tensor(tokens)).logits.numpy()
  places = np.broadcast_to(np.arange(12), tokens.shape)
  joined = lora.join(base, adapters, POLICY)
  ones = np.ones_like(places)
  found = jax.jit(model.forward, static_argnums=1)(
      joined, POLICY, tokens.astype(np.int32), places, ones
  )
  np.testing.assert_allclose(found, expected, atol=2e-4)
  with reference.disable_adapter(), torch.no_grad():
    bare = reference(torch.as_tensor(tokens)).logits.numpy()
  assert np.abs(expected - bare).max() > 0.1


@pytest.mark.filterwarnings('ignore::FutureWarning')  # peft on transformers 5
def test_peft_finds_adapters_in_a_model_that_sees(tmp_path, recwarn):
  """Gemma 3 of 4B and above: names as in the model that also reads images."""
  torch = pytest.importorskip('torch', reason='the reference runs on torch')
  peft = pytest.importorskip('peft', reason='the files are for peft')
  transformers = pytest.importorskip('transformers')
  torch.set_num_threads(1)
  text = dict(
      vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
      num_attention_heads=2, num_key_value_heads=1, head_dim=8, sliding_window=4,
      query_pre_attn_scalar=8,
  )
  eyes = dict(
      hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
      image_size=8, patch_size=4,
  )
  transformers.Gemma3ForConditionalGeneration(transformers.Gemma3Config(
      text_config=text, vision_config=eyes, mm_tokens_per_image=4, image_token_index=30,
  )).save_pretrained(tmp_path / 'base')
  shape = huggingface.read_shape(tmp_path / 'base', Policy())
  policy = dataclasses.replace(shape.policy, lora_rank=3, lora_targets=('q', 'down'))
  adapters = _adapters(policy)
  fields = json.loads((tmp_path / 'base' / 'config.json').read_text())
  hf_export.write_adapter(
      tmp_path / 'adapter', adapters, policy, str(tmp_path / 'base'), fields
  )
  reference = peft.AutoPeftModelForCausalLM.from_pretrained(
      tmp_path / 'adapter', dtype=torch.float32
  ).eval()
  assert not [x for x in recwarn if 'adapter keys' in str(x.message)]
  tokens = np.arange(1, 13, dtype=np.int32)[None]
  with torch.no_grad():
    expected = reference(input_ids=torch.as_tensor(tokens).long()).logits.numpy()
  base = huggingface.load_params(tmp_path / 'base', shape, _mesh())
  places = np.arange(12)[None]
  run = jax.jit(model.forward, static_argnums=1)
  joined = lora.join(base, adapters, policy)
  found = run(joined, policy, tokens, places, np.ones_like(places))
  np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.fixture(name='rundir')
def _rundir(tmp_path):
  """A run's directory with nothing but what is exported."""
  directory = tmp_path / 'run'
  directory.mkdir()
  config = dataclasses.replace(Experiment(), policy=POLICY)
  (directory / 'config.json').write_text(json.dumps(settings.to_dict(config)))
  tokenizer = tokenizers.build_word_tokenizer(['red', 'box'], horizon=3)
  tokenizers.save_tokenizer(tokenizer, directory / 'tokenizer')
  size = len(tokenizer)
  base = model.init_params(POLICY, size, jax.random.key(0), _mesh())
  checkpoints.save_params(directory / 'warm_start' / 'params', base)
  checkpoints.save_params(
      directory / 'distill' / 'leafe' / 'params', _adapters(POLICY, size)
  )
  return directory


def test_a_run_is_exported_merged_alone_and_as_its_base(rundir, tmp_path):
  export_hf.export(rundir, 'distill/leafe', tmp_path / 'merged', 10**9)
  export_hf.export(rundir, 'warm_start', tmp_path / 'base', 10**9)
  export_hf.export_adapter(rundir, 'distill/leafe', tmp_path / 'adapter')
  tensors = {
      name: safetensors.numpy.load_file(tmp_path / name / 'model.safetensors')
      for name in ('merged', 'base')
  }
  moved = {
      name for name, tensor in tensors['base'].items()
      if not np.array_equal(tensor, tensors['merged'][name])
  }
  assert moved == {name for name in tensors['base'] if '_proj.weight' in name}
  assert (tmp_path / 'adapter' / 'adapter_config.json').is_file()


def test_a_phase_without_adapters_is_refused(rundir, tmp_path):
  with pytest.raises(FileNotFoundError, match="'warm_start' .* has no adapters"):
    export_hf.export_adapter(rundir, 'warm_start', tmp_path / 'adapter')
  assert not (tmp_path / 'adapter').exists()
