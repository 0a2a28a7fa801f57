"""Sokoban: the generated default and a quick look.

    python -m leafe_jax.main --config=configs/sokoban.py --workdir=runs/sokoban
      A policy of 0.2 M parameters from scratch on generated 6x6 rooms with one
      box, all arms. Hardware: 2 CPU cores, 4 GiB.

    python -m leafe_jax.main --config=configs/sokoban.py:study --workdir=runs/study
      All arms and controls over three seeds, learning rates chosen on validation
      tasks. Hardware: 2 CPU cores, several hours; eleven arms on 80 levels took
      less than an hour a seed and core.

    python -m leafe_jax.main --config=configs/sokoban.py:debug \\
        --workdir=runs/sokoban_debug
      Every phase at toy size, to see that everything works. The figures mean
      nothing. Hardware: 2 CPU cores.
"""

from __future__ import annotations

import ml_collections

from configs import base
from envs.sokoban import env, expert, levels

# Of `env.make`, without meaning for generated levels.
_BOXOBAN_ONLY = ('data_dir', 'difficulty')


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The config of a variant. ValueError, naming them, for another one."""
  return base.choose(_VARIANTS, arg, __file__)


def _generated() -> ml_collections.ConfigDict:
  config = base.default()
  with config.unlocked():
    # Without the word for it a small policy does not find the turn to go back
    # to: a box is lost long before the episode ends.
    options = base.arguments(
        env.make, levels.build, view='compact', max_steps=15,
        deadlock_feedback=True, inner_walls=3, min_moves=6,
    )  # fmt: skip
    for name in _BOXOBAN_ONLY:
      del options[name]
    config.env.options = options
    # Always the same mistake: one that errs at random leaves a base that solves
    # nearly every level within 128 tries.
    config.env.teacher = base.arguments(
        expert.SokobanTeacher, quality=0.97, haste=0.97
    )
  config.env.name = 'sokoban'
  # The room ends a game at the same turn.
  config.env.horizon = 15
  config.warm_start.steps = 4800
  config.grpo.update(base.SMALL_GRPO)
  return config


def _study() -> ml_collections.ConfigDict:
  return base.make_study(_generated())


def _debug() -> ml_collections.ConfigDict:
  config = _generated()
  # Easy levels: a policy of a few updates must solve some of them.
  config.env.options.update(
      inner_walls=0, depth=2, min_moves=1, max_moves=4, max_steps=8,
      train_levels=60, validation_levels=10, test_levels=10,
  )
  config.env.teacher.update(quality=0.9, haste=0.2)
  config.env.horizon = 8
  return base.make_debug(config, num_demonstrations=800)


_VARIANTS = {'': _generated, 'debug': _debug, 'study': _study}
