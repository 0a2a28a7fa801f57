"""An environment of your own, or one by name, with a checkpoint or from scratch.

`:ENV[,VARIANT]` names the environment: one of `envs.registry.names()`, gymnasium
and textarena among them, or a function of yours as package.module:function. Its
options are set by flags, whatever they are called: --config.env.options.KEY=VALUE.

    python -m leafe_jax.main --config=configs/custom.py:my_package.my_module:make \\
        --config.policy.checkpoint=/data/Qwen2.5-1.5B-Instruct \\
        --config.env.options.size=5 --workdir=runs/mine
      A chat checkpoint of any size on the devices that are here, in bfloat16, all
      weights trained. Transcripts of 4096 tokens at most, 64 of them at a time.
      Planned to fit one GPU of 80 GB up to 3 B weights, with
      XLA_PYTHON_CLIENT_MEM_FRACTION=0.95; tools.plan with the same --config flags
      says what yours takes. For larger ones --config.policy.lora_rank=16 and
      --config.policy.param_dtype=bfloat16 (7 B: 28 GB), for less memory also
      --config.policy.max_length=2048 and --config.sampler.num_pages=1024.
      On CPUs, for small models: --config.policy.scan_layers=False, and without
      AVX512_BF16 or AMX --config.policy.dtype=float32.

    python -m leafe_jax.main --config=configs/custom.py:gymnasium \\
        --config.env.options.env_id=FrozenLake-v1 --config.env.options.observe=render \\
        --config.env.options.kwargs.render_mode=ansi \\
        --config.env.options.action_names="['left', 'down', 'right', 'up']" \\
        --config.policy.checkpoint=DIR --workdir=runs/lake
      The same with a game of gymnasium; docs/bring_your_own_environment.md has more.

    python -m leafe_jax.main --workdir=runs/words \\
        --config=configs/custom.py:my_package.my_module:make,words
      A policy of 0.2 M parameters from scratch, on two CPU cores. The world must
      have a vocabulary and a teacher, whose options are --config.env.teacher.KEY.

`,debug` and `,words_debug` are the same at toy size, on a CPU, to see that every
phase works: the figures mean nothing. `,qwen2_5_7b_qlora_gpu1` and the other
variants of GPUs in configs/pretrained.py are for their models and devices, with
transcripts of 8192 tokens. Planned, not run at those sizes yet.
"""

from __future__ import annotations

import functools

import ml_collections

from configs import base, pretrained
from envs import registry

_FORM = 'configs/custom.py:ENV[,VARIANT]'
_NAMES = f'{", ".join(registry.names())}, or your own as package.module:function'
_DEBUG_LENGTH = 2048


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The config of 'ENV[,VARIANT]'. ValueError, in one line, for what is neither."""
  name, _, variant = (part.strip() for part in arg.partition(','))
  if not name:
    raise ValueError(f'{_FORM} needs an environment: one of {_NAMES}')
  known, _, rest = name.partition(':')
  if known in registry.names() and rest and rest in _VARIANTS:
    raise ValueError(f'{name}: a comma goes before the variant: {known},{rest}')
  try:
    registry.check(name)
  except (ValueError, ImportError) as error:
    form = '' if ':' in name else f' ({_FORM})'
    raise ValueError(f'{error}{form}') from error
  config = base.choose(_VARIANTS, variant, __file__)
  config.env.name = name
  return config


def _checkpoint() -> ml_collections.ConfigDict:
  """A chat checkpoint, whatever its size."""
  config = base.make_pretrained(base.default(), max_length=4096)
  config.sampler.update(
      length_buckets=(1024, 2048, 4096), num_pages=2048, max_rows=64, dispatch_rows=32,
      prefill_buckets=(64, 128, 256, 1024),
  )
  config.distill.update(batch_rows=32, grad_accumulation=16)
  config.explore.update(
      num_tasks=256, wave_tasks=32, attempts=8, max_response_tokens=256
  )
  config.evaluate.update(num_samples=16, wave_tasks=16)
  return config


def _debug() -> ml_collections.ConfigDict:
  """Every phase at toy size, for a checkpoint that is small as well."""
  config = _checkpoint()
  config.env.horizon = 3
  config.policy.update(dtype='float32', max_length=_DEBUG_LENGTH)
  config.sampler.update(
      length_buckets=(_DEBUG_LENGTH,), prefill_buckets=(256,), num_pages=512,
      max_rows=8, dispatch_rows=8, decode_chunk=16,
  )
  config.gate.update(num_tasks=2, min_parsed=0.0, min_diagnosis=0.0, min_follow=0.0)
  config.explore.update(
      num_tasks=2, wave_tasks=2, attempts=3, reflect_every=2, max_response_tokens=16,
      max_reflection_tokens=32,
  )
  config.distill.update(
      steps=2, batch_rows=2, grad_accumulation=1, row_length=_DEBUG_LENGTH,
      checkpoint_every=1,
  )
  config.warm_start.update(
      batch_rows=2, grad_accumulation=1, row_length=_DEBUG_LENGTH, checkpoint_every=1
  )
  config.grpo.update(base.DEBUG_GRPO)
  config.evaluate.update(num_tasks=2, num_samples=2, wave_tasks=2, bootstrap=100)
  return config


def _words_debug() -> ml_collections.ConfigDict:
  return base.make_debug(base.default(), num_demonstrations=400)


def _planned(name: str) -> ml_collections.ConfigDict:
  """A variant of `pretrained.GPUS`."""
  config = base.make_pretrained(base.default(), max_length=8192)
  config.sampler.length_buckets = (2048, 4096, 8192)
  pretrained.apply(config, name)
  config.explore.max_response_tokens = 512
  config.evaluate.update(num_samples=16, wave_tasks=10)
  return config


_VARIANTS = {
    '': _checkpoint, 'debug': _debug, 'words': base.default,
    'words_debug': _words_debug,
} | {name: functools.partial(_planned, name) for name in pretrained.GPUS}
# variant -> how many devices it is for; the environment comes before the comma
DEVICES = {f',{name}': variant.devices for name, variant in pretrained.GPUS.items()}
