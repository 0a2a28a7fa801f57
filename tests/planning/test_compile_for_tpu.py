"""The real programs go through the real TPU compiler; needs libtpu, no TPU."""

import dataclasses
import math

import pytest

from leafe_jax import config as config_lib
from leafe_jax.planning import chips, memory, programs
from leafe_jax.policy import sharding
from tools import compile_for_tpu

pytest.importorskip(
    'libtpu', reason="the TPU compiler is not installed (pip install '.[tpu]')"
)
CONFIG = config_lib.Experiment(
    policy=config_lib.Policy(
        num_layers=2, embed_dim=128, num_heads=2, num_kv_heads=2, head_dim=128,
        mlp_dim=256, dtype='bfloat16', scan_layers=True, remat='full', max_length=256,
    ),
    mesh=config_lib.Mesh(tensor=2),
    sampler=config_lib.Sampler(
        page_size=16, num_pages=4096, dispatch_rows=4, prefill_buckets=(32,),
        length_buckets=(256,),
    ),
    distill=config_lib.Distill(batch_rows=4, row_length=256, grad_accumulation=2),
)  # fmt: skip


@pytest.fixture(scope='module')
def target():
  devices = compile_for_tpu.topology_devices('v5e:2x2')
  mesh = sharding.make_mesh(CONFIG.mesh, devices)
  return programs.Target(CONFIG, CONFIG.policy, 512, mesh)


def test_the_train_step_compiles_with_splash_attention(target):
  compiled = programs.compile_uncached(programs.trace(target, 'train').lower())
  assert 'splash' in compiled.as_text()
  parts = memory.plan(target, 'tpu').moment('distillation').parts
  exact = [p.size for p in parts if p.name in ('weights', 'optimizer', 'batch')]
  # Layouts of the chip pad small arrays.
  found = compiled.memory_analysis().argument_size_in_bytes
  assert sum(exact) <= found < 1.2 * sum(exact)


def compile_turn(target):
  return compile_for_tpu.compile_program(target, 'decode', chips.find_chip('v5e'))


@pytest.fixture(scope='module')
def turn(target):
  return compile_turn(target)


def test_a_turn_compiles_and_is_reported(turn):
  assert 0 < turn.arguments < turn.peak < turn.hbm
  kinds = {collective.kind for collective in turn.collectives}
  assert {'all-gather', 'all-reduce'} & kinds
  # Every weight of a layer multiplies every row once a step.
  weights = 2 * (128 * 128 * 8 + 3 * 128 * 256) + 128 * 512
  assert turn.flops * 4 > 2 * 4 * weights * turn.decode_steps
  assert 'fits' in '\n'.join(turn.lines())


def test_a_turn_reads_and_writes_its_pages_in_place(target, turn):
  lowered = programs.trace(target, 'decode').lower()
  assert 'ragged_paged_attention' in lowered.as_text()
  planned = memory.plan(target, 'tpu').moment(memory.SAMPLING)
  sizes = {part.name: part.size for part in planned.parts}
  assert turn.peak < turn.arguments + sizes['KV pages'] / 2
  spare = turn.arguments - sizes['weights'] - sizes['KV pages']
  assert 0 <= spare < 100_000  # ids, keys and tokens of a dispatch
  # What a full dispatch holds beside them, within a factor of four: there is
  # little of it here, and small arrays are padded.
  assert 1 / 4 < sizes['paged rows'] / (turn.peak - turn.arguments) < 4


def test_a_turn_with_windows_and_experts_compiles(target):
  """The paged kernel of the chip sees the pages near a token alone."""
  policy = dataclasses.replace(
      CONFIG.policy, layer_kinds=('sliding', 'experts'), window=40, num_experts=4,
      experts_per_token=2, expert_dim=128, shared_expert_dim=128,
  )
  mixed = dataclasses.replace(target, policy=policy)
  lowered = programs.trace(mixed, 'decode').lower().as_text()
  assert lowered.count('@ragged_paged_attention') >= 2  # prompt and response
  found = compile_turn(mixed)
  assert found.flops > 0 and found.peak < found.hbm


def test_weights_are_gathered_once_a_turn(target, turn):
  sampler = dataclasses.replace(target.config.sampler, gather_weights=False)
  config = dataclasses.replace(target.config, sampler=sampler)
  at_every_step = compile_turn(dataclasses.replace(target, config=config))
  weights = 2 * sum(math.prod(x.shape) for x in target.params().values())
  # Each step gathers the half of a tensor shard that a chip does not have.
  assert at_every_step.sent - turn.sent > (target.num_decode - 2) * weights / 8


def test_a_topology_that_does_not_exist_is_named():
  with pytest.raises(ValueError, match='v5e:1x7'):
    compile_for_tpu.topology_devices('v5e:1x7')
