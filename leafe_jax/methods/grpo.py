"""GRPO and GiGPO, and LEAFE on top of GRPO.

    grpo        groups of episodes are their own baseline (arXiv 2402.03300)
    gigpo       ... and so are turns in the same state (arXiv 2505.10978)
    leafe_grpo  Stage 1 and Stage 2 of LEAFE from the weights of grpo, the
                order of the paper's main table (arXiv 2603.16843, section 4.1)
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from leafe_jax.config import Experiment, Grpo
from leafe_jax.methods import effort, leafe, stage1
from leafe_jax.methods.arms import PLAY_READS, Arm, Phase
from leafe_jax.methods.effort import Effort
from leafe_jax.methods.online import OnlineTraining
from leafe_jax.methods.run import Run
from leafe_jax.methods.tuning import tuned

GRPO_READS = (*PLAY_READS, 'grpo', 'tune.factors')


def grpo(run: Run, directory: pathlib.Path) -> dict:
  """Episode advantages alone."""
  del directory  # the phase's, as `tuned` knows
  return _train(run, 'grpo', 0.0)


def gigpo(run: Run, directory: pathlib.Path) -> dict:
  """Episode advantages plus omega times step advantages."""
  del directory
  return _train(run, 'gigpo', run.config.grpo.gigpo_weight)


def _train(run: Run, name: str, step_weight: float) -> dict:
  def fit(config: Grpo, directory: pathlib.Path) -> dict:
    return OnlineTraining(run, name, directory, step_weight, config=config).train()

  return tuned(run, name, run.config.grpo, fit)


def _effort(name: str) -> Callable[[Experiment], Effort]:
  return lambda config: effort.tuned(config, effort.optimising(config, name))


GRPO = Phase('grpo', GRPO_READS, grpo, _effort('grpo'))
GIGPO = Phase('gigpo', GRPO_READS, gigpo, _effort('gigpo'))
EXPLORE = stage1.exploration('explore_grpo', start=GRPO.name)

GRPO_ARM = Arm(
    'grpo', 'clipped surrogate, group baseline', (GRPO,), GRPO.name, (GRPO.name,)
)

ARMS = (
    GRPO_ARM,
    Arm('gigpo', 'GRPO with anchor-state groups', (GIGPO,), GIGPO.name, (GIGPO.name,)),
    leafe.Recipe('leafe_grpo', EXPLORE, start=GRPO_ARM).arm(
        'LEAFE from the weights of grpo'
    ),
)
