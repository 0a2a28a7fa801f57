"""The real programs go through the real TPU compiler; needs libtpu, no TPU."""

import functools

import jax
import jax.numpy as jnp
import pytest

from leafe_jax import config as config_lib
from leafe_jax.planning import chips, memory, programs
from leafe_jax.policy import sharding
from leafe_jax.sampler import paged
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
        page_size=16, num_pages=64, dispatch_rows=4, prefill_buckets=(32,),
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


def test_paged_decoding_compiles_with_its_kernel(target):
  pool = paged.abstract_pool(CONFIG.policy, 64, 16, target.mesh)
  place = functools.partial(sharding.batch_sharding, target.mesh)

  def ids(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=place(shape))

  step = jax.jit(paged.decode_step, static_argnums=0, donate_argnums=2)
  rows = paged.Rows(ids(4), ids(4), ids(4, 16))
  with jax.set_mesh(target.mesh):
    lowered = step.lower(CONFIG.policy, target.params(), pool, rows)
  assert 'custom-call' in programs.compile_uncached(lowered).as_text()
  assert 'paged' in lowered.as_text(debug_info=True)


def test_a_topology_that_does_not_exist_is_named():
  with pytest.raises(ValueError, match='v5e:1x7'):
    compile_for_tpu.topology_devices('v5e:1x7')
