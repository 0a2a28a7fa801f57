"""Qwen3-MoE whole: files, packing, sampling, adapters, types, metrics."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax import config as config_lib
from leafe_jax.learner import losses, optimizers, policy_update, scoring, update
from leafe_jax.policy import experts, hf_export, huggingface, lora, model, sharding
from leafe_jax.policy.hf_files import UnsupportedCheckpoint
from leafe_jax.sampler import Request, Rules, Sampler
from tests.drawn import draw_params
from tests.policy.packing import SCORE, packed

VOCAB = 33
POLICY = config_lib.Policy(
    num_layers=2, embed_dim=24, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=20,
    layer_kinds=('experts',), num_experts=6, experts_per_token=2, expert_dim=10,
    qk_norm=True, tie_embeddings=False, max_length=48, scan_layers=True,
)  # fmt: skip
ROWS = config_lib.Sampler(
    page_size=4, num_pages=64, max_rows=4, dispatch_rows=4, prefill_buckets=(8,),
    length_buckets=(48,), decode_chunk=4,
)  # fmt: skip


@pytest.fixture(scope='module', name='mesh')
def _mesh():
  return sharding.make_mesh(config_lib.Mesh(), jax.devices()[:1])


@pytest.fixture(scope='module', name='params')
def _params(mesh):
  return draw_params(POLICY, VOCAB, mesh)


@pytest.fixture(scope='module', name='checkpoint')
def _checkpoint(tmp_path_factory):
  """As transformers writes it: odd sizes, one layer of three without experts."""
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  torch.manual_seed(0)
  config = transformers.Qwen3MoeConfig(
      vocab_size=97, hidden_size=22, intermediate_size=38, num_hidden_layers=3,
      num_attention_heads=6, num_key_value_heads=2, head_dim=10, num_experts=5,
      moe_intermediate_size=14, num_experts_per_tok=3, norm_topk_prob=True,
      mlp_only_layers=[1], max_position_embeddings=256, initializer_range=0.2,
  )
  found = transformers.Qwen3MoeForCausalLM(config)
  root = tmp_path_factory.mktemp('qwen3_moe')
  found.save_pretrained(root / 'apart')
  found.save_pretrained(root / 'fused', save_original_format=False)
  return root


def read(directory, mesh):
  shape = huggingface.read_shape(directory, config_lib.Policy(scan_layers=True))
  return shape, huggingface.load_params(directory, shape, mesh)


def equal(one, other):
  assert one.keys() == other.keys()
  jax.tree.map(np.testing.assert_array_equal, dict(one), dict(other))


def test_logits_gradients_and_greedy_tokens_are_those_of_transformers(checkpoint):
  from tools import check_parity

  parity = check_parity.compare(str(checkpoint / 'apart'), 24)
  assert parity.holds(), parity


def test_both_layouts_of_files_are_read_and_written_back(checkpoint, mesh, tmp_path):
  transformers = pytest.importorskip('transformers')
  shape, params = read(checkpoint / 'apart', mesh)
  assert shape.policy.layer_kinds == ('experts', 'full')
  assert params['egate_weight_ledm'].shape == (2, 5, 22, 14)
  assert params['gate_weight_ldf'].shape == (1, 22, 38)
  equal(read(checkpoint / 'fused', mesh)[1], params)
  hf_export.write(tmp_path / 'out', params, shape)
  again, back = read(tmp_path / 'out', mesh)
  assert again == shape
  equal(back, params)
  load = transformers.AutoModelForCausalLM.from_pretrained
  ours, theirs = load(tmp_path / 'out'), load(checkpoint / 'fused')
  for (name, one), other in zip(
      ours.state_dict().items(), theirs.state_dict().values(), strict=True
  ):
    assert one.equal(other), name


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'num_experts': 7}, 'num_experts is 7 and num_local_experts 5'),
        ({'num_experts_per_tok': 6}, 'num_experts_per_tok is 6; there are 5'),
        ({'num_local_experts': 6, 'num_experts': 6}, 'says 6 experts of width 14'),
        ({'moe_intermediate_size': 7}, 'has shape (5, 22, 14); config.json says 5'),
        ({'use_sliding_window': True}, 'use_sliding_window is true'),
        ({'mlp_only_layers': ['one']}, 'mlp_only_layers is'),
    ],
)
def test_what_is_wrong_is_named(checkpoint, mesh, tmp_path, changed, message):
  import json
  import shutil

  shutil.copytree(checkpoint / 'fused', tmp_path / 'c')
  path = tmp_path / 'c' / 'config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | changed))
  with pytest.raises(UnsupportedCheckpoint, match='.') as caught:
    read(tmp_path / 'c', mesh)
  assert message in str(caught.value)


def test_missing_fields_have_the_defaults_of_transformers():
  from leafe_jax.policy import hf_config

  fields = hf_config.completed({
      'model_type': 'qwen3_moe', 'vocab_size': 9, 'hidden_size': 8,
      'intermediate_size': 8, 'num_hidden_layers': 4, 'num_attention_heads': 4,
      'decoder_sparse_step': 2,
  })
  found = hf_config.policy_options(fields, config_lib.Policy(), False)
  assert found.layer_kinds == ('full', 'experts')
  sizes = found.num_experts, found.experts_per_token, found.expert_dim
  assert sizes == (128, 8, 768) and not found.renormalise_experts


def test_sequences_of_a_row_do_not_see_each_other(params):
  one, other = list(range(1, 12)), [5, 3, 30, 2, 8]
  whole = SCORE(params, POLICY, *packed([one, other]))
  for start, row in ((0, one), (len(one), other)):
    alone = SCORE(params, POLICY, *packed([row]))
    own, first = slice(start, start + len(row)), slice(len(row))
    np.testing.assert_allclose(
        whole.logprobs[:, own], alone.logprobs[:, first], atol=1e-5)
    np.testing.assert_array_equal(
        whole.noted.routes[:, own], alone.noted.routes[:, first])
  assert whole.noted.load.tokens.sum(1).tolist() == [2 * 16] * 2  # without padding


def scored(policy, params, prompt, tokens):
  """(log-probabilities, routes) of a response by the training forward."""
  found = SCORE(params, policy, *packed([[*prompt, *tokens]]))
  own = np.s_[0, len(prompt) : len(prompt) + len(tokens)]
  return np.asarray(found.logprobs)[own], np.asarray(found.noted.routes)[own]


@pytest.mark.parametrize(
    ('form', 'scan', 'dtype'),
    [
        ('dense', True, 'float32'), ('paged', True, 'float32'),
        pytest.param('dense', True, 'bfloat16', marks=pytest.mark.slow('as float32')),
    ],
)
def test_sampling_and_its_branches_go_where_training_goes(
    mesh, params, form, scan, dtype
):
  """Routes too; in bfloat16 nearly all, as the router itself is not rounded."""
  policy = dataclasses.replace(POLICY, scan_layers=scan, dtype=dtype)
  sampler = Sampler(policy, dataclasses.replace(ROWS, attention=form), mesh)
  sampler.load(params, 0)
  prompt, rules = list(range(1, 12)), Rules(max_tokens=9)
  [first] = sampler.sample(
      [Request(sampler.extend(sampler.empty(), prompt), (1, 0))], rules)
  branch = sampler.extend(first.state, [4, 2])
  [second] = sampler.sample([Request(branch, (1, 1))], rules)
  for asked, sample in (
      (prompt, first), ([*prompt, *first.tokens, 4, 2], second),
  ):
    logprobs, routes = scored(policy, params, asked, sample.tokens)
    assert len(sample.routes) == len(sample.tokens) == 9
    if dtype == 'float32':
      np.testing.assert_allclose(sample.logprobs, logprobs, atol=1e-4)
      assert sample.routes == routes.tolist()
    else:
      np.testing.assert_allclose(sample.logprobs, logprobs, atol=0.1)
      assert np.mean(np.array(sample.routes) == routes) > 0.5


@pytest.mark.parametrize('form', [
    'int8', pytest.param('nf4', marks=pytest.mark.slow('as int8')),
])
def test_adapters_go_on_attention_over_experts_of_few_bits(mesh, params, form):
  pytest.importorskip('qwix', reason='quantised weights need qwix')
  policy = dataclasses.replace(
      POLICY, lora_rank=2, lora_targets=('q', 'o'), quantize=form
  )
  frozen = lora.freeze(jax.tree.map(jnp.copy, params), policy, mesh)
  adapters = lora.init_params(policy, VOCAB, jax.random.key(1), mesh)
  adapters = {name: array + 0.05 for name, array in adapters.items()}
  joined = lora.join(frozen, adapters, policy)
  sampler = Sampler(policy, ROWS, mesh)
  sampler.load(joined, 0)
  [sample] = sampler.sample(
      [Request(sampler.extend(sampler.empty(), [3, 1, 2]), (1, 0))],
      Rules(max_tokens=6))
  logprobs, routes = scored(policy, joined, [3, 1, 2], sample.tokens)
  np.testing.assert_allclose(sample.logprobs, logprobs, atol=1e-4)
  assert sample.routes == routes.tolist()
  merged = lora.merge(frozen, adapters, policy)
  assert merged.keys() == params.keys()
  found, _ = scored(POLICY, merged, [3, 1, 2], sample.tokens)
  np.testing.assert_allclose(found, logprobs, atol=1e-4)
  with pytest.raises(ValueError, match='experts get no adapters.*=q,k,v,o'):
    lora.check(dataclasses.replace(policy, lora_targets=('q', 'gate')))


def test_the_usual_targets_stop_nobody_who_trains_all_weights():
  lora.check(POLICY)
  for asked in ({'lora_rank': 2}, {'lora_targets': ('q', 'gate')}):
    with pytest.raises(ValueError, match='lora_targets is gate'):
      lora.check(dataclasses.replace(POLICY, **asked))


def batch_of(tokens):
  return {
      'tokens': tokens, 'weights': np.ones(tokens.shape, np.float32),
      'segment_ids': np.ones(tokens.shape, np.int32),
      'positions': np.arange(tokens.shape[1], dtype=np.int32)[None].repeat(4, 0),
  }


def test_updates_report_how_busy_the_experts_are(mesh, params):
  """And with a weight of the loss that keeps them equally busy, make them so."""
  tokens = np.random.default_rng(0).integers(0, VOCAB, (4, 12)).astype(np.int32)
  found = {}
  for weight in (0.0, 5.0):
    policy = dataclasses.replace(POLICY, router_loss=weight)
    optimizer = optimizers.make_optimizer(3e-3, 40, warmup_fraction=0.0)
    run = update.make_update(
        policy, optimizer, losses.weighted_nll, mesh, grad_accumulation=2,
        forward=model.token_scores,
    )
    state = update.init_state(jax.tree.map(jnp.copy, params), optimizer, mesh)
    for _ in range(8):
      state, metrics = run(state, batch_of(tokens))
      found.setdefault(weight, []).append({k: float(v) for k, v in metrics.items()})
  first, last = found[0.0][0], found[5.0][-1]
  assert first['experts_busiest_max'] >= first['experts_busiest'] > 1
  assert 0 <= first['experts_idle'] < 1
  share = 5.0 * first['experts_imbalance']
  assert found[5.0][0]['loss'] == pytest.approx(first['loss'] + share, rel=1e-4)
  assert 1.9 < last['experts_imbalance'] < found[0.0][-1]['experts_imbalance']


def test_reinforcement_learning_reports_tokens_that_were_sent_elsewhere(
    mesh, params, tmp_path
):
  tokens = np.random.default_rng(1).integers(0, VOCAB, (4, 12)).astype(np.int32)
  rows = batch_of(tokens) | {'advantages': np.ones(tokens.shape, np.float32)}
  config = config_lib.Grpo(minibatches=1, epochs=1, kl=0.0)
  run = policy_update.PolicyUpdate(POLICY, config, mesh, 0, tmp_path)
  score = scoring.Scorer(POLICY, mesh)
  rows['logprobs'], routes = score.with_routes(params, rows)
  assert routes is not None
  elsewhere = routes.copy()
  elsewhere[:, 6:9] += 1
  for said, apart in ((routes, 0.0), (elsewhere, 3 / 12)):
    state = run.init_state(jax.tree.map(jnp.copy, params))
    _, metrics = run(state, rows | {'routes': said}, {}, 1)
    assert metrics['routes_apart'] == pytest.approx(apart)


def test_experts_that_cannot_be_are_refused(mesh):
  for options, message in (
      ({'num_experts': 0}, 'give policy.num_experts'),
      ({'experts_per_token': 7}, 'there are policy.num_experts=6'),
  ):
    with pytest.raises(ValueError, match=message):
      model.param_shardings(dataclasses.replace(POLICY, **options), VOCAB, mesh)
  wide = sharding.make_abstract_mesh(config_lib.Mesh(fsdp=1, expert=4), 4)
  with pytest.raises(ValueError, match='mesh.expert=4 does not divide 6 experts'):
    experts.check(POLICY, wide)
