"""Adapters trained over frozen bases in few bits: Gated DeltaNet, and experts."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from leafe_jax import config as config_lib
from leafe_jax.learner import checkpoints, losses, train, update
from leafe_jax.policy import hf_export, huggingface, layers, lora, model, quantize
from tests.drawn import draw_params
from tests.learner.conftest import VOCAB

pytest.importorskip('qwix', reason='quantised weights need qwix')

DELTA = config_lib.Policy(
    num_layers=2, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=24,
    layer_kinds=('delta', 'full'), delta_key_heads=2, delta_value_heads=4,
    delta_key_dim=4, delta_value_dim=6, qk_norm=True, norm_plus_one=True,
    output_gate=True, rope_share=0.5, lora_rank=2,
    lora_targets=('q', 'k', 'v', 'o', 'mix', 'z', 'fade', 'beta', 'out', 'up', 'down'),
    quantize='nf4', scan_layers=True, remat='full',
)  # fmt: skip
EXPERTS = config_lib.Policy(
    num_layers=2, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=24,
    layer_kinds=('experts',), num_experts=4, experts_per_token=2, expert_dim=8,
    qk_norm=True, tie_embeddings=False, lora_rank=2, lora_targets=('q', 'k', 'v', 'o'),
    quantize='int8', scan_layers=True,
)  # fmt: skip
RATE, STEPS = 0.01, 8


@dataclasses.dataclass
class Case:
  """A policy over its frozen base: in few bits, and as what these spell."""

  policy: config_lib.Policy
  mesh: jax.sharding.Mesh
  frozen: dict[str, Any]
  spelt: dict[str, Any]

  def adapters(self) -> dict[str, jax.Array]:
    """Fresh ones whose B is not zero, so that every gradient is there."""
    rng = np.random.default_rng(1)
    return {
        name: jax.device_put(0.2 * rng.standard_normal(x.shape, np.float32), x.sharding)
        for name, x in lora.abstract_params(self.policy, VOCAB, self.mesh).items()
    }

  def update(self, frozen: dict[str, Any]) -> Any:
    """Plain gradient descent: what an update changes is the gradient."""
    return update.make_update(
        self.policy, optax.sgd(RATE), losses.weighted_nll, self.mesh,
        forward=model.token_scores, frozen=frozen,
    )

  def state(self) -> update.TrainState:
    return update.init_state(self.adapters(), optax.sgd(RATE), self.mesh)


@pytest.fixture(scope='module', params=[
    DELTA, pytest.param(EXPERTS, marks=pytest.mark.slow('as beside recurrent layers')),
], ids=['delta', 'experts'])
def case(request, mesh):
  policy = request.param
  base = draw_params(policy, VOCAB, mesh, seed=4)
  frozen = lora.freeze(dict(base), policy, mesh)
  kept = {name for name, weight in frozen.items() if quantize.is_quantized(weight)}
  assert kept == {name for name in base if name in layers.INPUTS}
  spelt = {name: quantize.dense(weight, 'float32') for name, weight in frozen.items()}
  return Case(policy, mesh, frozen, spelt)


@pytest.fixture(scope='module')
def apply(case):
  return case.update(case.frozen)


@pytest.fixture(scope='module')
def trained(case, apply):
  """Adapters after some updates, and the losses on the way."""
  rng = np.random.default_rng(2)
  tokens = rng.integers(0, VOCAB, (4, 24)).astype(np.int32)
  batch = {
      'tokens': tokens, 'weights': np.ones(tokens.shape, np.float32),
      'segment_ids': np.ones(tokens.shape, np.int32),
      'positions': np.arange(24, dtype=np.int32)[None].repeat(4, 0),
  }
  state, found, steps = case.state(), [], []
  for _ in range(STEPS):
    steps.append(jax.device_get(state.params))
    state, metrics = apply(state, batch)
    found.append(float(metrics['loss']))
  return batch, steps, jax.device_get(state.params), found


def test_gradients_are_those_over_what_the_bits_spell(case, trained):
  batch, [start, after, *_], _, losses_ = trained
  state, metrics = case.update(case.spelt)(case.state(), batch)
  assert float(metrics['loss']) == pytest.approx(losses_[0], rel=1e-5)
  for name, array in jax.device_get(state.params).items():
    ours, theirs = (x - start[name] for x in (after[name], array))
    assert np.abs(theirs).max() > 1e-6, name
    np.testing.assert_allclose(ours, theirs, atol=2e-5, err_msg=name)


def test_the_loss_falls_and_the_base_stays(case, apply, trained):
  *_, last, found = trained
  assert found[-1] < found[0] - 0.02, found
  assert last.keys() == lora.table(case.policy, VOCAB).keys()
  assert apply.num_compilations() == 1


def test_a_run_that_was_stopped_goes_on_with_the_same_bits(
    case, apply, stream, tmp_path
):
  expected = train.train(case.state(), stream(), apply, 4)
  for steps in (2, 4):
    kept = checkpoints.Checkpoints(tmp_path)
    found = train.train(case.state(), stream(), apply, steps, kept, checkpoint_every=2)
    kept.close()
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, found, expected)))
  assert sorted(found.params) == sorted(lora.table(case.policy, VOCAB))


@pytest.mark.filterwarnings('ignore::FutureWarning')  # peft on transformers 5
def test_what_is_exported_speaks_as_the_run_does(case, trained, tmp_path):
  """Merged in transformers, and as an adapter of peft over the base's bits."""
  torch = pytest.importorskip('torch', reason='the reference runs on torch')
  peft = pytest.importorskip('peft', reason='the files are for peft')
  transformers = pytest.importorskip('transformers')
  torch.set_num_threads(1)
  batch, _, adapters, _ = trained
  shape = huggingface.Shape(case.policy, VOCAB)
  merged = lora.merge(case.frozen, adapters, case.policy)
  hf_export.write(tmp_path / 'merged', merged, shape, fields={'pad_token_id': 0})
  hf_export.write(tmp_path / 'base', case.spelt, shape, fields={'pad_token_id': 0})
  hf_export.write_adapter(
      tmp_path / 'adapter', adapters, case.policy, str(tmp_path / 'base')
  )
  load = transformers.AutoModelForCausalLM.from_pretrained
  over_base = peft.PeftModel.from_pretrained(
      load(tmp_path / 'base', dtype=torch.float32), tmp_path / 'adapter'
  )
  joined = lora.join(case.frozen, adapters, case.policy)
  rest = [jnp.asarray(batch[name]) for name in ('tokens', 'positions', 'segment_ids')]
  ours = jax.jit(model.forward, static_argnums=1)(joined, case.policy, *rest)
  for theirs in (load(tmp_path / 'merged', dtype=torch.float32), over_base):
    with torch.no_grad():
      found = theirs.eval()(torch.as_tensor(batch['tokens'])).logits.numpy()
    np.testing.assert_allclose(found, ours, atol=3e-4)
