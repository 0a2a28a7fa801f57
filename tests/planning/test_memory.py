"""The memory plan against XLA's own account, and when it stops a run."""

import dataclasses
import math

import jax
import pytest

from configs import slices, sokoban, webshop
from leafe_jax import config as config_lib
from leafe_jax import settings
from leafe_jax.methods.run import Run
from leafe_jax.planning import memory, programs
from leafe_jax.policy import sharding
from leafe_jax.rundir import RunDirectory, RunStopped
from tools import targets

VOCAB = 600
FACTOR = 2  # what the docstring of `memory` promises
CONFIG = config_lib.Experiment(
    policy=config_lib.Policy(num_layers=4, scan_layers=True, remat='full'),
    distill=config_lib.Distill(batch_rows=8, row_length=256, grad_accumulation=2),
    sampler=config_lib.Sampler(num_pages=256, dispatch_rows=16),
)


def make_target(config):
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
  return programs.Target(config, config.policy, VOCAB, mesh)


def size(plan, *names):
  return sum(part.size for part in plan.parts if part.name in names)


def test_the_train_step_takes_what_was_planned():
  target = make_target(CONFIG)
  plan = memory.plan(target)
  found = programs.trace(target, 'train').lower().compile().memory_analysis()
  exact = size(plan, 'weights', 'optimizer', 'batch')
  assert found.argument_size_in_bytes == exact
  ratio = size(plan, 'gradients', 'activations', 'logits') / found.temp_size_in_bytes
  assert 1 / FACTOR < ratio < FACTOR


def test_the_sampler_takes_what_was_planned():
  target = make_target(CONFIG)
  plan = memory.plan(target)
  found = programs.trace(target, 'prefill').lower().compile().memory_analysis()
  rows = 50_000  # ids and keys of a dispatch
  spare = found.argument_size_in_bytes - size(plan, 'weights', 'KV pages')
  assert 0 < spare < rows
  ratio = size(plan, 'dense rows') / found.temp_size_in_bytes
  assert 1 / FACTOR < ratio < FACTOR


def test_devices_share_what_is_sharded():
  values = webshop.get_config('qwen2_5_7b')
  alone = memory.plan(targets.make_target(_with(values, tensor=1), 1), 'tpu')
  shared = memory.plan(targets.make_target(_with(values, tensor=4), 16), 'tpu')
  assert size(shared, 'optimizer') == pytest.approx(size(alone, 'optimizer') / 16, 1e-3)
  assert size(shared, 'KV pages') == size(alone, 'KV pages') // 16


def _with(values, tensor):
  values = values.copy_and_resolve_references()
  values.mesh.tensor = tensor
  return values


@pytest.mark.parametrize('name', sorted(slices.SLICES))
def test_the_exact_parts_of_every_slice_fit(name):
  topology = slices.SLICES[name].topology
  chips = math.prod(int(side) for side in topology.partition(':')[2].split('x'))
  plan = memory.plan(targets.make_target(webshop.get_config(name), chips), 'tpu')
  limit = {'v5e': 16, 'v5p': 95, 'v6e': 32}[topology[:3]] * 2**30
  assert plan.certain < limit


def test_pages_that_fit_use_up_the_memory():
  plan = memory.plan(make_target(CONFIG))
  limit = 2.0 * plan.peak
  grown = dataclasses.replace(
      CONFIG.sampler, num_pages=plan.pages_that_fit(limit)
  )
  filled = memory.plan(make_target(dataclasses.replace(CONFIG, sampler=grown)))
  assert limit - plan.page < filled.peak <= limit
  assert plan.pages_that_fit(0) == 0


def test_a_run_that_cannot_fit_is_stopped_with_the_table():
  target = make_target(CONFIG)
  plan = memory.plan(target)
  assert 'fits' in memory.check(target, plan.peak)
  assert 'TIGHT' in memory.check(target, plan.peak - 1)  # an estimate stops no run
  with pytest.raises(memory.DoesNotFit, match='KV pages: 256 asked for'):
    memory.check(target, plan.certain - 1)


def test_a_pool_too_small_for_one_transcript_is_refused():
  pages = -(-CONFIG.policy.max_length // CONFIG.sampler.page_size) + 1

  def check(count):
    sampler = dataclasses.replace(CONFIG.sampler, num_pages=count)
    return memory.check(make_target(dataclasses.replace(CONFIG, sampler=sampler)), 1e12)

  assert 'fits' in check(pages)
  with pytest.raises(memory.DoesNotFit, match=f'at least {pages} are needed'):
    check(pages - 1)


def test_the_defaults_fit_this_machine():
  limit = memory.device_limit()
  assert limit > 2**30
  plan = memory.plan(make_target(config_lib.Experiment()))
  assert plan.certain < 2**30


def test_a_run_checks_its_memory_at_the_start(tmp_path):
  config = settings.from_config_dict(sokoban.get_config('debug'))
  fits = Run(config, RunDirectory(tmp_path / 'a'), '')
  fits.check_memory()
  deep = dataclasses.replace(config.policy, num_layers=10**8)
  huge = Run(
      dataclasses.replace(config, policy=deep), RunDirectory(tmp_path / 'b'), ''
  )
  with pytest.raises(RunStopped, match='GB a device at least(.|\n)*optimizer'):
    huge.check_memory()
