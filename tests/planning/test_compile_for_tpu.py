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
  plan = memory.plan(target, 'tpu')
  exact = [p.size for p in plan.parts if p.name in ('weights', 'optimizer', 'batch')]
  # Layouts of the chip pad small arrays.
  found = compiled.memory_analysis().argument_size_in_bytes
  assert sum(exact) <= found < 1.2 * sum(exact)


def test_a_turn_compiles_and_is_reported(target):
  report = compile_for_tpu.compile_program(target, 'decode', chips.find_chip('v5e'))
  assert 0 < report.arguments < report.peak < report.hbm
  kinds = {collective.kind for collective in report.collectives}
  assert {'all-gather', 'all-reduce'} & kinds
  # Every weight of a layer multiplies every row once a step.
  weights = 2 * (128 * 128 * 8 + 3 * 128 * 256) + 128 * 512
  assert report.flops * 4 > 2 * 4 * weights * report.decode_steps
  assert 'fits' in '\n'.join(report.lines())


def test_a_turn_reads_and_writes_its_pages_in_place(target):
  compiled = programs.compile_uncached(programs.trace(target, 'decode').lower())
  assert 'ragged_paged_attention' in compiled.as_text()
  pool = target.pool()
  size = math.prod(pool.sharding.shard_shape(pool.shape)) * pool.dtype.itemsize
  found = compiled.memory_analysis()
  assert found.alias_size_in_bytes >= size
  assert found.peak_memory_in_bytes < found.argument_size_in_bytes + size / 2
  exact = [
      part.size for part in memory.plan(target, 'tpu').parts
      if part.name in ('weights', 'KV pages')
  ]
  rows = 100_000  # ids, keys and tokens of a dispatch
  assert 0 <= found.argument_size_in_bytes - sum(exact) < rows


def test_weights_are_gathered_once_a_turn(target):
  at_every_step = dataclasses.replace(
      target.config,
      sampler=dataclasses.replace(target.config.sampler, gather_weights=False),
  )
  sent = [
      compile_for_tpu.compile_program(
          dataclasses.replace(target, config=config), 'decode', chips.find_chip('v5e')
      ).sent
      for config in (target.config, at_every_step)
  ]
  weights = 2 * sum(math.prod(x.shape) for x in target.params().values())
  shard = weights / 4
  # Each step gathers the half of a tensor shard that a chip does not have.
  assert sent[1] - sent[0] > (target.num_decode - 2) * shard / 2


def test_a_topology_that_does_not_exist_is_named():
  with pytest.raises(ValueError, match='v5e:1x7'):
    compile_for_tpu.topology_devices('v5e:1x7')
