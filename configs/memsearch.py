"""Memory search: the generated default, a quick look, LoCoMo and HotpotQA.

    python -m leafe_jax.main --config=configs/memsearch.py --workdir=runs/memsearch
      A policy of 0.2 M parameters from scratch on generated conversations whose
      facts change. Hardware: 2 CPU cores, 4 GiB. Not run at this size yet.

    python -m leafe_jax.main --config=configs/memsearch.py:debug --workdir=runs/debug
      Every phase at toy size, R2-Mem among the arms, to see that everything works.
      The figures mean nothing. Hardware: 2 CPU cores.

    python -m leafe_jax.main --config=configs/memsearch.py:locomo_qwen2_5_7b_gpu8 \\
        --config.policy.checkpoint=/data/Qwen2.5-7B-Instruct \\
        --config.env.options.data_path=/data/locomo10.json --workdir=/runs/locomo
      R2-Mem against the base on LoCoMo, and on HotpotQA (distractor) with
      :hotpot_qwen2_5_7b_gpu8; all devices of configs/pretrained.py. Not run at this
      size yet.
"""

from __future__ import annotations

import functools

import ml_collections

from configs import base, pretrained
from envs.memsearch import embedded, env, expert
from leafe_jax import settings

# Of `env.make`, without meaning for generated conversations.
_FILES_ONLY = ('data_path', 'train_memories', 'validation_memories')


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The config of a variant. ValueError, naming them, for another one."""
  return base.choose(_VARIANTS, arg, __file__)


def _embedded() -> ml_collections.ConfigDict:
  config = base.default()
  with config.unlocked():
    options = base.arguments(env.make, embedded.build, view='compact')
    for name in _FILES_ONLY:
      del options[name]
    config.env.options = options
    config.env.teacher = base.arguments(expert.MemoryTeacher)
  config.env.name = 'memsearch'
  config.env.horizon = 8
  config.grpo.update(base.SMALL_GRPO)
  # The base has never seen more than one piece of advice at a time.
  config.r2mem.shown = 1
  return config


def _debug() -> ml_collections.ConfigDict:
  config = _embedded()
  # Easy: a policy of a few updates must solve some of it.
  config.env.options.update(
      people=2, topics=2, sessions=3, max_changes=1, hits=2,
      kinds=('now', 'never'), train_questions=60, validation_questions=10,
      test_questions=10, questions_per_memory=4,
  )
  config.env.horizon = 5
  config.method = 'r2mem'
  config.r2mem.num_tasks = 8
  return base.make_debug(config, num_demonstrations=800)


def _file(source: str, name: str) -> ml_collections.ConfigDict:
  """LoCoMo or HotpotQA, with a variant of `configs.pretrained`."""
  config = base.default()
  with config.unlocked():
    config.env.options = base.arguments(
        env.make, source=source, data_path=settings.REQUIRED, view='text',
        hits=5,
    )
  config.env.name = 'memsearch'
  config.env.horizon = 8
  base.make_pretrained(config, max_length=8192)
  config.sampler.length_buckets = (2048, 4096, 8192)
  pretrained.apply(config, name)
  config.method = 'r2mem'
  config.explore.max_response_tokens = 512
  config.evaluate.update(num_tasks=2000, num_samples=4, wave_tasks=50)
  config.r2mem.num_tasks = 200 if source == 'locomo' else 25
  return config


_VARIANTS = {'': _embedded, 'debug': _debug} | {
    f'{source}_{name}': functools.partial(_file, source, name)
    for source in ('locomo', 'hotpot')
    for name in pretrained.DEVICES
}
# variant -> how many devices it is for
DEVICES = {
    f'{source}_{name}': count
    for source in ('locomo', 'hotpot')
    for name, count in pretrained.DEVICES.items()
}
