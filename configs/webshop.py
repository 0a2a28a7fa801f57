"""WebShop: the embedded default, a quick look, and the paper's setting.

    python -m leafe_jax.main --config=configs/webshop.py --workdir=runs/webshop
      A policy of 0.2 M parameters from scratch on the generated shop, all arms.
      Hardware: 2 CPU cores, 2 GB of memory; 5 to 7 minutes. Expected over three
      seeds: base Pass@1 .13 to .15, Pass@128 .53 to .55; LEAFE .20 to .28 and
      .74 to .84.

    python -m leafe_jax.main --config=configs/webshop.py:study --workdir=runs/study
      All arms and controls over three seeds, learning rates chosen on validation
      tasks. Hardware: 2 CPU cores, several hours. Fourteen of the arms on 100 tasks
      took 35 to 55 minutes a seed on one core; expected: base Pass@1 .15, Pass@128
      .57; GRPO .22 and .59; LEAFE .28 and .74.

    python -m leafe_jax.main --config=configs/webshop.py:debug --workdir=runs/debug
      Every phase at toy size, to see that everything works. The figures mean
      nothing. Hardware: 2 CPU cores.

    make model
    python -m leafe_jax.main --config=configs/webshop.py:smollm2 --workdir=runs/smollm2
    python -m leafe_jax.main --config=configs/webshop.py:smollm2 --config.seed=1 \\
        --workdir=runs/smollm2_1 --fork_from=runs/smollm2
      SmolLM2-135M-Instruct in the shop's own text pages: taught by a script in
      sentences (420 episodes, 0.57 M tokens), then explored and trained. A second
      seed keeps what was taught. Hardware: 2 CPU cores with AVX512_BF16 or AMX,
      12 GiB; planned at the measured speeds for 45 minutes of teaching and 85 for
      the rest. Intel without AMX takes twice as long. Not run to its end yet.
      :smollm2_debug teaches the same model for two updates and runs GRPO in chats
      of three turns; the figures mean nothing.

    XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 \\
    python -m leafe_jax.main --config=configs/webshop.py:qwen2_5_7b_qlora_gpu1 \\
        --config.policy.checkpoint=/data/Qwen2.5-7B-Instruct \\
        --config.env.options.data_dir=/data/webshop --workdir=/runs/webshop_7b
      The official catalogue, played and learnt by a real checkpoint on one GPU
      of 80 GB; also :qwen2_5_1_5b_gpu1, :qwen3_4b_gpu1, :qwen2_5_7b_lora_gpu1, on
      eight :qwen2_5_7b_gpu8, and slices of TPUs, :qwen2_5_7b and :llama3_70b among
      them (configs/pretrained.py has them all). Planned (tools.plan) and, for the
      slices, compiled (tools.compile_for_tpu); not run at this size yet.
"""

from __future__ import annotations

import functools

import ml_collections

from configs import base, pretrained
from envs.webshop import embedded, env, expert, text_expert
from leafe_jax import settings

# Of `env.make`, without meaning on the generated shop.
_OFFICIAL_ONLY = ('data_dir', 'goal_seed', 'human_goals', 'max_goals_per_product')


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The config of a variant. ValueError, naming them, for another one."""
  return base.choose(_VARIANTS, arg, __file__)


def _embedded() -> ml_collections.ConfigDict:
  config = base.default()
  with config.unlocked():
    options = base.arguments(
        env.make, embedded.build, catalogue='embedded', view='compact', page_size=3
    )
    for name in _OFFICIAL_ONLY:
      del options[name]
    config.env.options = options
    config.env.teacher = base.arguments(expert.ShopTeacher)
  # With few different goals the base learns them by heart, not to match rows.
  config.env.options.train_goals = 2400
  # Chosen on validation tasks, see BUILD_NOTES.md.
  config.distill.update(beta=2.0, steps=300, checkpoint_every=100)
  config.evaluate.num_tasks = 150
  config.grpo.update(base.SMALL_GRPO)
  # The base has never seen a memory: every rule more costs it success at first.
  config.jerp.top_k = config.retro.shown_at_test = 1
  return config


def _smollm2() -> ml_collections.ConfigDict:
  """A pretrained model in the shop's own text pages."""
  config = base.default()
  with config.unlocked():
    options = base.arguments(
        env.make, embedded.build, catalogue='embedded', view='text', page_size=3
    )
    for name in _OFFICIAL_ONLY:
      del options[name]
    config.env.options = options
    config.env.teacher = base.arguments(text_expert.TextShopTeacher)
  # The material stands among a product's features: smaller than the default's, so
  # that the script finds what is wanted in twelve turns seven times of ten.
  config.env.options.update(
      types=12, num_products=120, materials=2, colours=6, sizes=4, rank_decay=0.8,
      train_goals=400, validation_goals=60, test_goals=80,
  )
  config.env.horizon = 12
  pretrained.smollm2(config, length=2560)
  config.warm_start.num_demonstrations = 420
  config.explore.update(num_tasks=24, attempts=8)
  return config


def _smollm2_debug() -> ml_collections.ConfigDict:
  config = _smollm2()
  pretrained.smollm2_debug(config)
  return config


def _study() -> ml_collections.ConfigDict:
  return base.make_study(_embedded())


def _debug() -> ml_collections.ConfigDict:
  config = _embedded()
  # An easy shop: a policy of a few updates must solve some tasks of it.
  config.env.options.update(
      num_products=48, types=4, colours=4, sizes=4, rank_decay=0.5,
      train_goals=60, validation_goals=10, test_goals=10,
  )
  config.env.teacher.update(quality=1.0, care=1.0)
  return base.make_debug(config, num_demonstrations=800)


def _official(name: str) -> ml_collections.ConfigDict:
  """The paper's setting, with a variant of `configs.pretrained`."""
  config = base.default()
  with config.unlocked():
    config.env.options = base.arguments(
        env.make, catalogue='official', data_dir=settings.REQUIRED, view='text',
        page_size=10,
    )
  base.make_pretrained(config, max_length=8192)
  config.sampler.length_buckets = (2048, 4096, 8192)
  pretrained.apply(config, name)
  config.explore.max_response_tokens = 512
  config.evaluate.update(num_tasks=500, wave_tasks=10)
  return config


_VARIANTS = {'': _embedded, 'debug': _debug, 'study': _study,
             'smollm2': _smollm2, 'smollm2_debug': _smollm2_debug} | {
    name: functools.partial(_official, name) for name in pretrained.DEVICES
}
# variant -> how many devices it is for
DEVICES = pretrained.DEVICES
