"""CodeContests: the embedded default, a quick look, and real programs.

    python -m leafe_jax.main --config=configs/codecontests.py --workdir=runs/code
      A policy of 0.2 M parameters from scratch, on generated tasks in a tiny
      language (envs/codecontests/compact.py): no Python, no sandbox, no data.
      Hardware: 2 CPU cores, 4 GiB.

    python -m leafe_jax.main --config=configs/codecontests.py:debug \\
        --workdir=runs/code_debug
      Every phase at toy size, to see that everything works. The figures mean
      nothing. Hardware: 2 CPU cores.

    make model
    python -m leafe_jax.main --config=configs/codecontests.py:smollm2 \\
        --config.env.options.data_path=/data/mbpp.jsonl --workdir=runs/code_smollm2
      SmolLM2-135M-Instruct writes the functions of MBPP: taught by a script that has
      the data's solutions and speaks of the tests, then explored and trained.
      Hardware: 2 CPU cores with AVX512_BF16 or AMX, 12 GiB, bubblewrap installed.
      Planned, not run yet.

    XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 \\
    python -m leafe_jax.main --config=configs/codecontests.py:qwen2_5_7b_qlora_gpu1 \\
        --config.policy.checkpoint=/data/Qwen2.5-7B-Instruct \\
        --config.env.options.data_path=/data/codecontests --workdir=/runs/code_7b
      Real programs in the sandbox (bubblewrap installed), written and learnt by
      a real checkpoint on one GPU of 80 GB.
      Also :qwen2_5_1_5b_gpu1, :qwen3_4b_gpu1, :qwen2_5_7b_lora_gpu1, and on eight
      GPUs :qwen2_5_7b_gpu8 (configs/pretrained.py). Planned, not run yet.
"""

from __future__ import annotations

import functools

import ml_collections

from configs import base, pretrained
from envs.codecontests import env, expert, generator, text_expert
from leafe_jax import settings

# Of `env.make`, without meaning for generated tasks.
_DATA_ONLY = ('data_path', 'max_tests', 'workers', 'allow_unsafe_execution')


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The config of a variant. ValueError, naming them, for another one."""
  return base.choose(_VARIANTS, arg, __file__)


def _embedded() -> ml_collections.ConfigDict:
  config = base.default()
  config.env.update(name='codecontests', horizon=4)
  with config.unlocked():
    # Four examples leave little to hidden tests, which say nothing but 'fail'.
    options = base.arguments(env.make, generator.build, public_tests=4)
    for name in _DATA_ONLY:
      del options[name]
    config.env.options = options
    config.env.teacher = base.arguments(expert.CodeTeacher)
  # Four submissions leave no room for reflections in progress.
  config.explore.reflect_every = 0
  config.evaluate.num_tasks = 150
  config.grpo.update(base.SMALL_GRPO)
  return config


def _debug() -> ml_collections.ConfigDict:
  config = _embedded()
  # One number per program: a policy of a few updates must solve some tasks.
  config.env.options.update(
      clauses=1, hidden_tests=4, train_tasks=60, validation_tasks=10, test_tasks=10
  )
  config.env.teacher.update(quality=0.9, care=0.8)
  return base.make_debug(config, num_demonstrations=1600)


def _smollm2() -> ml_collections.ConfigDict:
  """A pretrained model that writes short functions."""
  config = base.default()
  config.env.update(name='codecontests', horizon=4)
  with config.unlocked():
    config.env.options = base.arguments(
        env.make, source='mbpp', data_path=settings.REQUIRED
    )
    config.env.teacher = base.arguments(text_expert.TextCodeTeacher)
  pretrained.smollm2(config, length=2048)
  config.warm_start.num_demonstrations = 360
  config.explore.update(
      num_tasks=16, attempts=6, reflect_every=0, max_response_tokens=192
  )
  config.evaluate.num_samples = 4
  return config


def _real(name: str) -> ml_collections.ConfigDict:
  """A real checkpoint, with a variant of `pretrained.GPUS`."""
  config = base.default()
  config.env.update(name='codecontests', horizon=4)
  with config.unlocked():
    config.env.options = base.arguments(
        env.make, source='codecontests', data_path=settings.REQUIRED
    )
  base.make_pretrained(config, max_length=16_384)
  config.sampler.update(max_rows=64, length_buckets=(4096, 8192, 16_384))
  pretrained.apply(config, name)
  config.explore.update(reflect_every=0, max_response_tokens=2048)
  config.evaluate.update(num_tasks=165, wave_tasks=10)
  return config


_VARIANTS = {'': _embedded, 'debug': _debug, 'smollm2': _smollm2} | {
    name: functools.partial(_real, name) for name in pretrained.GPUS
}
# variant -> how many devices it is for
DEVICES = {name: variant.devices for name, variant in pretrained.GPUS.items()}
