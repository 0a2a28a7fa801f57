"""Qwen3.5-MoE whole: Gated DeltaNet, routed experts and a shared one in one layer."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from leafe_jax import config as config_lib
from leafe_jax.policy import hf_export, huggingface, lora, sharding
from leafe_jax.policy.hf_files import UnsupportedCheckpoint
from leafe_jax.sampler import Request, Rules, Sampler
from tests.drawn import draw_params
from tests.policy.packing import SCORE, packed
from tools import check_parity

# Odd shapes: heads wider than the width, three value heads a key head, half a period.
SHAPE = dict(
    vocab_size=53, hidden_size=20, num_hidden_layers=6, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, linear_num_key_heads=2,
    linear_num_value_heads=6, linear_key_head_dim=6, linear_value_head_dim=10,
    linear_conv_kernel_dim=3, max_position_embeddings=256, num_experts=5,
    num_experts_per_tok=3, moe_intermediate_size=14, shared_expert_intermediate_size=22,
    rope_parameters={
        'rope_type': 'default', 'rope_theta': 1e4, 'partial_rotary_factor': 0.5,
        'mrope_section': [2, 1, 1],
    },
)  # fmt: skip
VOCAB = 29
POLICY = config_lib.Policy(
    num_layers=4, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8,
    layer_kinds=('delta_experts', 'delta_experts', 'delta_experts', 'experts'),
    num_experts=4, experts_per_token=2, expert_dim=10, shared_expert_dim=12,
    qk_norm=True, norm_plus_one=True, output_gate=True, rope_share=0.25,
    delta_key_heads=2, delta_value_heads=4, delta_key_dim=4, delta_value_dim=6,
    tie_embeddings=False, max_length=48, scan_layers=True,
)  # fmt: skip
ROWS = config_lib.Sampler(
    page_size=4, num_pages=64, num_memories=16, max_rows=4, dispatch_rows=4,
    prefill_buckets=(8,), length_buckets=(48,), decode_chunk=4,
)  # fmt: skip


@pytest.fixture(scope='module', name='mesh')
def _mesh():
  return sharding.make_mesh(config_lib.Mesh(), jax.devices()[:1])


@pytest.fixture(scope='module', name='params')
def _params(mesh):
  return draw_params(POLICY, VOCAB, mesh)


@pytest.fixture(scope='module', name='checkpoint')
def _checkpoint(tmp_path_factory):
  """As transformers writes it: with a matrix an expert, and all of a layer in one."""
  torch = pytest.importorskip('torch', reason='the reference runs on torch')
  transformers = pytest.importorskip('transformers')
  torch.set_num_threads(1)
  torch.manual_seed(0)
  config = transformers.Qwen3_5MoeTextConfig(**SHAPE)
  reference = transformers.Qwen3_5MoeForCausalLM(config)
  with torch.no_grad():
    for parameter in reference.parameters():
      parameter.add_(0.05 * torch.randn_like(parameter))
  root = tmp_path_factory.mktemp('qwen3_5_moe')
  reference.save_pretrained(root / 'apart')
  reference.save_pretrained(root / 'fused', save_original_format=False)
  return root


def load(directory, mesh):
  shape = huggingface.read_shape(directory, config_lib.Policy())
  return shape, huggingface.load_params(directory, shape, mesh)


def test_logits_decoding_loss_and_gradients_equal_those_of_transformers(checkpoint):
  """Also of heads that fade at once: A_log is as transformers draws it."""
  parity = check_parity.compare(str(checkpoint / 'apart'), length=33)
  assert parity.same_greedy
  assert parity.logits < 2e-4
  assert parity.loss < 1e-4
  assert parity.gradients is not None
  assert parity.gradients < 1e-4, parity.worst


def test_both_layouts_are_read_and_written_back_with_the_same_bits(
    checkpoint, mesh, tmp_path
):
  import transformers

  shape, params = load(checkpoint / 'apart', mesh)
  assert shape.policy.layer_kinds == (*['delta_experts'] * 3, 'experts')
  assert params['egate_weight_ledm'].shape == (6, 5, 20, 14)
  assert params['sgate_weight_lds'].shape == (6, 20, 22)
  for name, weight in load(checkpoint / 'fused', mesh)[1].items():
    np.testing.assert_array_equal(weight, params[name])
  hf_export.write(tmp_path / 'ours', params, shape)
  assert load(tmp_path / 'ours', mesh)[0] == shape
  read = transformers.AutoModelForCausalLM.from_pretrained
  written = tmp_path / 'ours', checkpoint / 'fused'
  ours, theirs = (read(directory).state_dict() for directory in written)
  assert ours.keys() == theirs.keys()
  for name, tensor in theirs.items():
    assert tensor.equal(ours[name]), name


def test_the_text_part_is_read_without_eyes_and_without_heads_that_guess(
    checkpoint, mesh, tmp_path
):
  """As the published files are laid out: model.language_model, model.visual, mtp."""
  shape, params = load(checkpoint / 'fused', mesh)
  tensors = safetensors.numpy.load_file(checkpoint / 'fused' / 'model.safetensors')
  one = np.zeros(3, np.float32)
  moved = {
      name.replace('model.', 'model.language_model.', 1): x
      for name, x in tensors.items()
  }
  moved |= {'mtp.layers.0.mlp.experts.0.up_proj.weight': one, 'model.visual.x': one}
  safetensors.numpy.save_file(
      moved, tmp_path / 'model.safetensors', metadata={'format': 'pt'}
  )
  fields = json.loads((checkpoint / 'fused' / 'config.json').read_text())
  (tmp_path / 'config.json').write_text(json.dumps({
      'architectures': ['Qwen3_5MoeForConditionalGeneration'],
      'model_type': 'qwen3_5_moe', 'text_config': fields,
      'tie_word_embeddings': fields['tie_word_embeddings'],
  }))
  whole, found = load(tmp_path, mesh)
  assert whole == shape
  for name, weight in params.items():
    np.testing.assert_array_equal(weight, found[name])


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'num_experts_per_tok': 6}, 'num_experts_per_tok is 6; there are 5'),
        ({'shared_expert_intermediate_size': 0}, 'expert_intermediate_size is 0'),
        ({'linear_num_key_heads': 4}, 'key_heads is 4; it must divide'),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path, changes, named):
  fields = {'architectures': ['Qwen3_5MoeForCausalLM'], **SHAPE, **changes}
  (tmp_path / 'config.json').write_text(json.dumps(fields))
  with pytest.raises(UnsupportedCheckpoint, match=named):
    huggingface.read_shape(tmp_path, config_lib.Policy())


def test_a_shared_expert_is_of_one_class_alone():
  assert hf_export.architecture(POLICY) == 'Qwen3_5MoeForCausalLM'
  for changes in ({'shared_expert_dim': 0}, {'renormalise_experts': False}):
    with pytest.raises(ValueError, match=f'{next(iter(changes))}='):
      hf_export.architecture(dataclasses.replace(POLICY, **changes))


def test_sequences_of_a_row_do_not_see_each_other(params):
  one, other = list(range(1, 12)), [5, 3, 28, 2, 8]
  whole = SCORE(params, POLICY, *packed([one, other]))
  for start, row in ((0, one), (len(one), other)):
    alone = SCORE(params, POLICY, *packed([row]))
    own, first = slice(start, start + len(row)), slice(len(row))
    np.testing.assert_allclose(
        whole.logprobs[:, own], alone.logprobs[:, first], atol=1e-5)
    np.testing.assert_array_equal(
        whole.noted.routes[:, own], alone.noted.routes[:, first])
  assert whole.noted.load.tokens.sum(1).tolist() == [2 * 16] * 4  # without padding


@pytest.mark.parametrize('dtype', [
    'float32', pytest.param('bfloat16', marks=pytest.mark.slow('as float32')),
])
def test_sampling_and_its_branches_go_where_training_goes(mesh, params, dtype):
  """A branch is read from the memory at its point, not from the beginning."""
  policy = dataclasses.replace(POLICY, dtype=dtype)
  sampler = Sampler(policy, ROWS, mesh)
  sampler.load(params, 0)
  prompt, rules = list(range(1, 12)), Rules(max_tokens=9)
  [first] = sampler.sample(
      [Request(sampler.extend(sampler.empty(), prompt), (1, 0))], rules)
  branch = sampler.extend(first.state, [4, 2])
  [second] = sampler.sample([Request(branch, (1, 1))], rules)
  for asked, sample in (
      (prompt, first), ([*prompt, *first.tokens, 4, 2], second),
  ):
    found = SCORE(params, policy, *packed([[*asked, *sample.tokens]]))
    own = np.s_[0, len(asked) : len(asked) + 9]
    logprobs, routes = found.logprobs[own], np.asarray(found.noted.routes)[own]
    if dtype == 'float32':
      np.testing.assert_allclose(sample.logprobs, logprobs, atol=1e-4)
      assert sample.routes == routes.tolist()
    else:
      same = np.array(sample.routes) == routes
      assert same.mean() > 0.5
      # A token that was sent elsewhere changes what all later ones read.
      count = len(same) if same.all() else int(np.argmin(same))
      np.testing.assert_allclose(
          sample.logprobs[:count], logprobs[:count], atol=0.1
      )


def test_adapters_go_on_all_but_the_routed_experts(params):
  targets = ('q', 'mix', 'out', 'sgate', 'sup', 'sdown')
  policy = dataclasses.replace(POLICY, lora_rank=2, lora_targets=targets)
  rng = np.random.default_rng(3)
  adapters = {
      name: jnp.float32(0.2 * rng.standard_normal(weight.shape))
      for name, weight in lora.table(policy, VOCAB).items()
  }
  rows = packed([list(range(1, VOCAB))])
  apart = SCORE(lora.join(params, adapters, policy), policy, *rows).logprobs
  merged = SCORE(lora.merge(params, adapters, policy), POLICY, *rows).logprobs
  np.testing.assert_allclose(apart, merged, atol=1e-3)
  assert np.abs(apart - SCORE(params, POLICY, *rows).logprobs).max() > 0.05
  with pytest.raises(ValueError, match='lora_targets is egate; .*sgate,sup,sdown'):
    lora.check(dataclasses.replace(policy, lora_targets=('q', 'egate')))


EIGHT_DEVICES = """
import jax, numpy as np
from leafe_jax import config as C
from leafe_jax.policy import model, sharding
from leafe_jax.sampler import Request, Rules, Sampler
from tests.policy.test_qwen3_5_moe import POLICY, ROWS, VOCAB

tokens = np.arange(8 * 6, dtype=np.int32).reshape(8, 6) % VOCAB
places = np.arange(6)[None].repeat(8, axis=0)

def play(sizes, devices):
  mesh = sharding.make_mesh(sizes, devices)
  params = model.init_params(POLICY, VOCAB, jax.random.key(0), mesh)
  with jax.set_mesh(mesh):
    found = jax.jit(model.token_scores, static_argnums=1)(
        params, POLICY, *(jax.device_put(x, sharding.batch_sharding(mesh, x.shape))
                          for x in (tokens, places, np.ones_like(places))))
  sampler = Sampler(POLICY, ROWS, mesh)
  sampler.load(params, 0)
  states = [sampler.extend(sampler.empty(), list(range(i + 1))) for i in range(4)]
  samples = sampler.sample(
      [Request(state, (1, i)) for i, state in enumerate(states)], Rules(max_tokens=6))
  return jax.tree.map(np.asarray, found), [(s.tokens, s.routes) for s in samples]

one = play(C.Mesh(), jax.devices()[:1])
many = play(C.Mesh(fsdp=2, tensor=2, expert=2), jax.devices())
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), many[0], one[0])
assert many[1] == one[1]
"""


def test_eight_devices_compute_and_sample_what_one_does():
  flags = (
      '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 '
      '--xla_llvm_disable_expensive_passes=true'
  )
  environment = {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  done = subprocess.run(
      [sys.executable, '-c', EIGHT_DEVICES], env=environment, capture_output=True,
      text=True, check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
