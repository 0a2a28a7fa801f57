"""All arms by name, and which of them each method compares."""

from __future__ import annotations

from leafe_jax.config import Experiment
from leafe_jax.methods import (
  ace,
  arms,
  controls,
  dpo,
  early_experience,
  grpo,
  jerp,
  leafe,
  mel,
  r2mem,
  retro,
  self_distill,
  step_agent,
)
from leafe_jax.methods.arms import Arm

ARMS = arms.table(
    leafe.ARMS, controls.ARMS, dpo.ARMS, grpo.ARMS, jerp.ARMS, ace.ARMS,
    early_experience.ARMS, self_distill.ARMS, mel.ARMS, step_agent.ARMS,
    r2mem.ARMS, retro.ARMS,
)

METHODS = {
    'leafe': ('base', 'rft', 'leafe_reh', 'leafe'),
    'iterated': ('base', 'leafe', 'leafe_2', 'leafe_3'),
    'controls': ('base', 'leafe', *(arm.name for arm in (*controls.ARMS, *dpo.ARMS))),
    'grpo': ('base', 'grpo'),
    'gigpo': ('base', 'grpo', 'gigpo'),
    'leafe_grpo': ('base', 'leafe', 'grpo', 'leafe_grpo'),
    'jerp': ('base', 'grpo', 'jerp'),
    'ace': ('base', 'ace', 'ace_online'),
    'r2mem': ('base', 'r2mem', 'r2mem_turns'),
    'retro': ('base', 'grpo', 'retro_in_context', 'retro_trained'),
    'early_experience': (
        'base', 'imitation', 'iwm', 'self_reflection', 'leafe', 'leafe_ee',
    ),
    'self_distillation': ('base', 'leafe', 'leafe_opd', 'grpo', 'sdpo', 'sdar'),
    'mel': ('base', 'grpo', 'mel'),
    'step_agent': ('base', 'step_sft', 'step_implicit', 'step_inverse'),
    'study': (
        'base', 'rft', 'rft_matched', 'refine', 'grpo', 'gigpo', 'imitation', 'iwm',
        'self_reflection', 'ace', 'jerp', 'advice', 'leafe_reh', 'leafe_cf', 'leafe',
        'leafe_2', 'leafe_grpo', 'leafe_random_turn', 'leafe_no_hint',
        'leafe_branch_hint', 'leafe_all', 'leafe_noisy', 'leafe_ee', 'dpo',
    ),
}


def find_arm(name: str) -> Arm:
  """The arm of that name. ValueError with the choices for another name."""
  if name not in ARMS:
    raise ValueError(f'unknown arm {name!r}; choose from {", ".join(ARMS)}')
  return ARMS[name]


def arms_of(config: Experiment) -> list[Arm]:
  """The arms of a run: those it names, else its method's. ValueError as above."""
  return [find_arm(name) for name in config.arms or METHODS[config.method]]
