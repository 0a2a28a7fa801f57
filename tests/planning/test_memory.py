"""The memory plan against XLA's own account, and when it stops a run."""

import dataclasses
import math

import jax
import pytest

from configs import codecontests, pretrained, sokoban, webshop
from leafe_jax import config as config_lib
from leafe_jax import experiment, settings
from leafe_jax.endings import RunStopped
from leafe_jax.methods.run import Run
from leafe_jax.planning import estimates, jobs, memory, programs
from leafe_jax.policy import layers, sharding
from leafe_jax.rundir import RunDirectory
from leafe_jax.sampler import windows
from tools import targets

VOCAB = 600
SHARE = 0.15  # what the docstring of `memory` promises
CONFIG = config_lib.Experiment(
    policy=config_lib.Policy(num_layers=4, scan_layers=True, remat='full'),
    distill=config_lib.Distill(batch_rows=8, row_length=256, grad_accumulation=2),
    sampler=config_lib.Sampler(num_pages=256, dispatch_rows=16),
)


# In the proportions of real policies: weights outweigh what one micro-batch needs.
REAL = config_lib.Experiment(
    policy=config_lib.Policy(
        num_layers=8, embed_dim=256, num_heads=8, num_kv_heads=2, head_dim=32,
        mlp_dim=1024, scan_layers=True, remat='full', max_length=256, logit_chunk=64,
    ),
    distill=config_lib.Distill(batch_rows=4, row_length=256, grad_accumulation=4),
    grpo=config_lib.Grpo(
        tasks_per_step=2, group_size=4, minibatches=2, grad_accumulation=4
    ),
    sampler=config_lib.Sampler(
        num_pages=1024, dispatch_rows=8, prefill_buckets=(16, 64),
        length_buckets=(256,),
    ),
)


def make_target(config):
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
  return programs.Target(config, config.policy, VOCAB, mesh)


def size(plan, *names):
  """Of the parts with these names, in whatever moment each is largest."""
  return sum(
      max(m.part(name).size for m in plan.moments if m.part(name)) for name in names
  )


def taken(target, program, job=None):
  """(arguments, all that XLA's program has on a device)."""
  found = programs.trace(target, program, job).lower().compile().memory_analysis()
  arguments = found.argument_size_in_bytes
  return arguments, arguments + found.temp_size_in_bytes


def with_adapters(quantize='none', dtype='float32'):
  if quantize != 'none':
    pytest.importorskip('qwix', reason='quantised weights need qwix')
  policy = dataclasses.replace(
      REAL.policy, lora_rank=4, lora_targets=('q', 'down'), quantize=quantize,
      dtype=dtype, param_dtype=dtype,
  )
  # Compiles fast; micro-batches and their sums are those of 'all weights'.
  distill = dataclasses.replace(REAL.distill, batch_rows=1, grad_accumulation=1)
  return dataclasses.replace(REAL, policy=policy, distill=distill)


SHAPES = {
    'small': lambda: CONFIG,
    'all weights': lambda: REAL,
    'adapters': lambda: with_adapters(dtype='bfloat16'),
    'windows': lambda: dataclasses.replace(
        REAL,
        policy=dataclasses.replace(
            REAL.policy, layer_kinds=('sliding', 'full'), window=40
        ),
    ),
    'nf4': lambda: with_adapters('nf4'),
}


@pytest.mark.parametrize('name', [
    'all weights', pytest.param('adapters', marks=pytest.mark.slow('as nf4')), 'nf4',
])
def test_the_train_step_takes_what_was_planned(name):
  target = make_target(SHAPES[name]())
  job = jobs.distillation(target.config)
  moment = memory.plan(target).moment(job.name)
  arguments, everything = taken(target, 'train', job)
  scratch = {'gradients', 'activations', 'copies', 'widened', 'updates'}
  exact = sum(part.size for part in moment.parts if part.name not in scratch)
  assert arguments == exact
  assert moment.total() == pytest.approx(everything, rel=SHARE)


@pytest.mark.parametrize('name', ['small', 'all weights', 'nf4', 'windows'])
def test_the_sampler_takes_what_was_planned(name):
  target = make_target(SHAPES[name]())
  plan = memory.plan(target)
  moment = plan.moment(memory.SAMPLING)
  arguments, everything = taken(target, 'prefill')
  rows = 50_000  # ids and keys of a dispatch
  spare = arguments - (moment.total() - size(plan, 'dense rows'))
  assert 0 < spare < rows
  assert moment.total() == pytest.approx(everything, rel=SHARE)


def test_a_policy_that_plays_between_updates_keeps_pages_and_reference():
  grpo = dataclasses.replace(REAL.grpo, minibatches=4, grad_accumulation=1)
  config = dataclasses.replace(REAL, grpo=grpo)
  job, target = jobs.group_policy('grpo', config), make_target(config)
  plan = memory.plan(target, of=(job,), plays=False)
  assert [moment.name for moment in plan.moments] == ['grpo', 'grpo rollouts']
  for moment in plan.moments:
    weights = moment.part('weights').size
    assert moment.part('reference').size == weights
    assert moment.part('optimizer').size > 2 * weights
    assert moment.part(memory.POOL)
  update = plan.moment('grpo')
  beside = update.part('reference').size + update.part(memory.POOL).size
  arguments, everything = taken(target, 'train', job)
  assert update.total() - beside == pytest.approx(everything, rel=SHARE)
  grpo = dataclasses.replace(grpo, kl=0.0)
  free = jobs.group_policy('grpo', dataclasses.replace(REAL, grpo=grpo))
  assert memory.plan(target, of=(free,)).moment('grpo').part('reference') is None


def test_adapters_have_gradients_and_the_frozen_base_has_none():
  alike = dataclasses.replace(REAL, distill=with_adapters().distill)
  whole, adapters = (
      memory.plan(make_target(config)).moment('distillation')
      for config in (alike, with_adapters())
  )
  assert adapters.part('frozen weights').size == whole.part('weights').size
  assert adapters.part('optimizer').size < whole.part('optimizer').size / 5
  assert adapters.part('gradients').size < whole.part('gradients').size / 5
  packed = memory.plan(make_target(with_adapters('nf4'))).moment('distillation')
  matrices = estimates.size([
      value for name, value in make_target(REAL).base().items()
      if name.split('_')[1] == 'weight'
  ])
  rest = adapters.part('frozen weights').size - matrices
  # Of each number's 32 bits four are left; 64 inputs (o: a head's 32) share a scale.
  shared = matrices // 64
  found = packed.part('frozen weights').size - rest - matrices // 8
  assert shared < found < 1.1 * shared


def test_only_cpus_lack_the_types_that_weights_are_kept_in():
  target = make_target(with_adapters('nf4', 'bfloat16'))
  moments = {
      platform: memory.plan(target, platform).moment('distillation')
      for platform in ('cpu', 'gpu', 'tpu')
  }
  matrices = [v for name, v in target.base().items() if name in layers.INPUTS]
  found = moments['cpu'].part('widened').size
  codes = estimates.size(matrices) // 2  # of bfloat16: a byte for every number
  assert codes < found < 1.01 * codes
  assert not moments['gpu'].part('widened') and not moments['tpu'].part('widened')


def test_a_base_taught_from_scratch_is_trained_whole_under_adapters():
  target = make_target(with_adapters())
  job = jobs.supervised('warm start', CONFIG.warm_start, whole=True)
  moment = memory.plan(target, of=(job,)).moment('warm start')
  assert moment.part('frozen weights') is None
  assert moment.part('optimizer').size > 2 * moment.part('weights').size


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


@pytest.mark.parametrize('name', sorted(pretrained.SLICES))
def test_the_exact_parts_of_every_slice_fit(name):
  topology = pretrained.SLICES[name].topology
  chips = math.prod(int(side) for side in topology.partition(':')[2].split('x'))
  plan = memory.plan(targets.make_target(webshop.get_config(name), chips), 'tpu')
  limit = {'v5e': 16, 'v5p': 95, 'v6e': 32}[topology[:3]] * 2**30
  assert plan.certain < limit


@pytest.mark.parametrize('file', [webshop, codecontests])  # shortest, longest chats
@pytest.mark.parametrize('name', sorted(pretrained.GPUS))
def test_every_variant_of_gpus_fits_with_room(file, name):
  variant = pretrained.GPUS[name]
  if variant.quantize != 'none':
    pytest.importorskip('qwix', reason='quantised weights need qwix')
  target = targets.make_target(file.get_config(name), file.DEVICES[name])
  plan = experiment.look_ahead(target, 'gpu').plan
  limit = 75 * 2**30  # 95 % of what a card of 80 GB has
  assert plan.peak < 0.95 * limit, memory.table(plan, limit)
  assert 'warm start' not in {moment.name for moment in plan.moments}


def test_pages_that_fit_use_up_the_memory():
  plan = memory.plan(make_target(CONFIG))
  limit = 2.0 * plan.peak
  grown = dataclasses.replace(
      CONFIG.sampler, num_pages=plan.pages_that_fit(limit)
  )
  filled = memory.plan(make_target(dataclasses.replace(CONFIG, sampler=grown)))
  assert limit - plan.page < filled.peak <= limit
  assert plan.pages_that_fit(0) == 0


def plan_of_gemma(**changes):
  """Gemma 3 1B, 64 chats of 8,192 tokens."""
  policy = config_lib.Policy(
      num_layers=26, embed_dim=1152, num_heads=4, num_kv_heads=1, head_dim=256,
      mlp_dim=6912, layer_kinds=('sliding',) * 5 + ('full',), window=512,
      max_length=8192, dtype='bfloat16', param_dtype='bfloat16', scan_layers=True,
  )  # fmt: skip
  sampler = config_lib.Sampler(
      page_size=64, num_pages=64 * 128, max_rows=64, dispatch_rows=32,
      prefill_buckets=(64, 256, 1024), length_buckets=(2048, 8192), **changes,
  )  # fmt: skip
  config = config_lib.Experiment(policy=policy, sampler=sampler)
  return memory.plan(make_target(config), 'gpu', of=())


def test_layers_with_windows_need_their_windows_and_not_the_chats():
  token = 2 * 256 * 2  # bytes of keys and values of a layer
  few, all_of_them = plan_of_gemma(), plan_of_gemma(num_window_pages=64 * 128)
  assert size(few, memory.POOL) == 4 * 64 * 8192 * token  # the layers that see all
  written = -(-(63 + 1024 + 32) // 64)
  assert few.num_window_pages == 64 * 2 * 9 + 32 * written
  before, now = (
      size(plan, memory.POOL, memory.WINDOW_POOL) for plan in (all_of_them, few)
  )
  assert before == 26 * 64 * 8192 * token
  assert now < 0.35 * before
  limit = 2 * few.peak
  assert few.pages_that_fit(limit) > 4 * all_of_them.pages_that_fit(limit)
  text = memory.table(few, limit)
  assert f'({64 * few.pages_that_fit(limit):,} tokens)' in text
  assert 'pages of layers with a window: 1728 (sampler.num_window_pages)' in text


def test_a_policy_of_windows_alone_counts_their_pages():
  policy = dataclasses.replace(CONFIG.policy, layer_kinds=('sliding',), window=40)
  sampler = dataclasses.replace(CONFIG.sampler, num_window_pages=100)
  config = dataclasses.replace(CONFIG, policy=policy, sampler=sampler)
  plan = memory.plan(make_target(config))
  assert plan.page == 0 and plan.moment(memory.SAMPLING).part(memory.POOL) is None
  limit = plan.moment(memory.SAMPLING).total()
  assert plan.pages_that_fit(limit) == 100
  assert 'room for 100, ' in memory.table(plan, limit)
  least = -(-(15 + 64 + 32) // 16) + windows.nodes_reached(40, 16)
  small = dataclasses.replace(sampler, num_window_pages=least - 1)
  with pytest.raises(memory.DoesNotFit, match=f'_pages={least - 1}: .* {least}'):
    memory.check(make_target(dataclasses.replace(config, sampler=small)), 1e12)


def test_a_run_that_cannot_fit_is_stopped_with_the_table():
  target = make_target(CONFIG)
  plan = memory.plan(target)
  assert 'fits' in memory.check(target, plan.peak).verdict(plan.peak)
  # An estimate stops no run.
  assert 'TIGHT' in memory.check(target, plan.peak - 1).verdict(plan.peak - 1)
  with pytest.raises(memory.DoesNotFit, match='KV pages: 256 asked for'):
    memory.check(target, plan.certain - 1)


def test_a_pool_too_small_for_one_transcript_is_refused():
  pages = -(-CONFIG.policy.max_length // CONFIG.sampler.page_size) + 1

  def check(count):
    sampler = dataclasses.replace(CONFIG.sampler, num_pages=count)
    return memory.check(make_target(dataclasses.replace(CONFIG, sampler=sampler)), 1e12)

  assert 'fits' in check(pages).verdict(1e12)
  with pytest.raises(memory.DoesNotFit, match=f'at least {pages} are needed'):
    check(pages - 1)


def test_the_defaults_fit_this_machine():
  limit = memory.device_limit()
  assert limit > 2**30
  plan = memory.plan(make_target(config_lib.Experiment()))
  assert plan.certain < 2**30


@pytest.mark.parametrize(
    ('dtype', 'mlp_dim', 'said'),
    [('bfloat16', 10**7, 1), ('float32', 10**7, 0), ('bfloat16', 64, 0)],
)
def test_a_model_for_accelerators_says_that_it_is_on_cpus(
    dtype, mlp_dim, said, monkeypatch
):
  warnings = []
  monkeypatch.setattr(memory.logging, 'warning', warnings.append)
  for checkpoint in ('', '/data/model'):
    policy = dataclasses.replace(
        CONFIG.policy, checkpoint=checkpoint, dtype=dtype, mlp_dim=mlp_dim
    )
    memory.say_if_slow(make_target(dataclasses.replace(CONFIG, policy=policy)))
  assert len(warnings) == said
  assert all('docker run --gpus=all' in warning for warning in warnings)


def test_a_run_checks_its_memory_at_the_start(tmp_path):
  config = settings.from_config_dict(sokoban.get_config('debug'))
  fits = Run(config, RunDirectory(tmp_path / 'a'), '')
  fits.check_memory()
  wide = dataclasses.replace(config.policy, mlp_dim=10**10)
  huge = Run(
      dataclasses.replace(config, policy=wide), RunDirectory(tmp_path / 'b'), ''
  )
  with pytest.raises(RunStopped, match='GB a device at least(.|\n)*optimizer'):
    huge.check_memory()
