"""ALFWorld: synthetic rooms for small policies, a quick look, and real games.

    pip install --no-deps -r requirements-optional.lock     (the engine)

    python -m leafe_jax.main --config=configs/alfworld.py --workdir=runs/alfworld
      A policy of 0.2 M parameters from scratch on made-up rooms with all six types
      of tasks (envs/alfworld/rooms.py), in a few words a turn; the real engine
      judges. Hardware: 2 CPU cores, 4 GB of memory. Not run at this size yet.

    python -m leafe_jax.main --config=configs/alfworld.py:debug \\
        --workdir=runs/alfworld_debug
      Every phase at toy size, to see that everything works. The figures mean
      nothing. Hardware: 2 CPU cores.

    make model
    python -m leafe_jax.main --config=configs/alfworld.py:smollm2 \\
        --workdir=runs/alfworld_smollm2
      SmolLM2-135M-Instruct in the games' own words on the made-up rooms: taught by a
      script in sentences (360 episodes, 0.57 M tokens), then explored and trained. A
      further seed takes --config.seed=1 and --fork_from=runs/alfworld_smollm2, which
      keeps what was taught. Hardware: 2 CPU cores with AVX512_BF16 or AMX, 12 GiB;
      planned at the measured speeds for 45 minutes of teaching and 85 for the rest.
      Not run at this size yet. :smollm2_debug teaches the same model for two updates
      and runs GRPO in chats of three turns; the figures mean nothing.

    XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 \\
    python -m leafe_jax.main --config=configs/alfworld.py:qwen2_5_7b_qlora_gpu1 \\
        --config.policy.checkpoint=/data/Qwen2.5-7B-Instruct \\
        --config.env.options.data_dir=/data/alfworld --workdir=/runs/alfworld_7b
      Game files, official or rebuilt (tools/build_alfworld_games.py), in ALFWorld's
      own words, played by a real checkpoint on one GPU of 80 GB.
      Also :qwen2_5_1_5b_gpu1, :qwen3_4b_gpu1, :qwen2_5_7b_lora_gpu1, and on eight
      GPUs :qwen2_5_7b_gpu8 (configs/pretrained.py). Planned, not run yet.
"""

from __future__ import annotations

import functools

import ml_collections

from configs import base, pretrained
from envs.alfworld import env, expert, files, rooms, text_expert
from leafe_jax import settings

# Of `env.make`, without meaning for synthetic rooms.
_FILES_ONLY = ('data_dir',)


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The config of a variant. ValueError, naming them, for another one."""
  return base.choose(_VARIANTS, arg, __file__)


def _synthetic() -> ml_collections.ConfigDict:
  config = base.default()
  with config.unlocked():
    # The horizon ends episodes; the world has no limit of its own.
    options = base.arguments(env.make, rooms.build, view='compact', max_steps=0)
    for name in _FILES_ONLY:
      del options[name]
    config.env.options = options
    config.env.teacher = base.arguments(expert.HouseholdTeacher)
  config.env.name = 'alfworld'
  # The script wins nine games of ten in so many turns.
  config.env.horizon = 16
  # A turn is some fourteen words.
  config.policy.max_length = 448
  config.sampler.length_buckets = (96, 192, 320, 448)
  config.warm_start.update(num_demonstrations=20_000, row_length=448)
  config.distill.row_length = 448
  config.evaluate.num_tasks = 120
  config.grpo.update(base.SMALL_GRPO)
  return config


def _debug() -> ml_collections.ConfigDict:
  config = _synthetic()
  # Easy games: a policy of a few updates must solve some of them.
  config.env.options.update(
      task_types=('pick_and_place_simple',), num_things=4,
      train_games=40, validation_games=8, test_games=8,
  )
  config.env.teacher.update(quality=0.95, search=0.8, patience=0.9)
  config.env.horizon = 10
  config.policy.max_length = 256
  config.sampler.length_buckets = (96, 256)
  config.warm_start.row_length = config.distill.row_length = 256
  return base.make_debug(config, num_demonstrations=500)


def _smollm2() -> ml_collections.ConfigDict:
  """A pretrained model in the games' own words."""
  config = base.default()
  with config.unlocked():
    options = base.arguments(env.make, rooms.build, view='text', max_steps=0)
    for name in _FILES_ONLY:
      del options[name]
    config.env.options = options
    config.env.teacher = base.arguments(
        text_expert.TextHouseholdTeacher, search=0.3, patience=0.5, care=0.4
    )
  config.env.name = 'alfworld'
  config.env.horizon = 16
  pretrained.smollm2(config, length=2048)
  config.warm_start.num_demonstrations = 360
  config.explore.update(num_tasks=16, attempts=6)
  config.evaluate.num_samples = 4
  return config


def _smollm2_debug() -> ml_collections.ConfigDict:
  config = _smollm2()
  pretrained.smollm2_debug(config)
  return config


def _real(name: str) -> ml_collections.ConfigDict:
  """A real checkpoint, with a variant of `pretrained.GPUS`."""
  config = base.default()
  with config.unlocked():
    config.env.name = 'alfworld'
    config.env.options = base.arguments(
        env.make, files.load, games='files', data_dir=settings.REQUIRED
    )
  config.env.horizon = 50
  base.make_pretrained(config, max_length=12_288)
  config.sampler.length_buckets = (2048, 4096, 8192, 12_288)
  pretrained.apply(config, name)
  config.explore.update(max_response_tokens=256, reflect_every=8)
  config.evaluate.update(split='validation', num_tasks=140, wave_tasks=10)
  return config


_VARIANTS = {
    '': _synthetic, 'debug': _debug, 'smollm2': _smollm2,
    'smollm2_debug': _smollm2_debug,
} | {
    name: functools.partial(_real, name) for name in pretrained.GPUS
}
# variant -> how many devices it is for
DEVICES = {name: variant.devices for name, variant in pretrained.GPUS.items()}
