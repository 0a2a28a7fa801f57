"""DPO on the corrections: what LEAFE would be with the mistake as a negative.

    dpo   a'_tau is preferred to a_tau after h_tau, on the events of D_cf

The same trees, events and number of updates as `leafe_cf`; the reference is the
frozen base (arXiv 2305.18290). LEAFE itself never uses a_tau.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from leafe_jax import hosts
from leafe_jax.config import Dpo, Experiment
from leafe_jax.endings import EarlyEnd
from leafe_jax.experience import build, dataset, pipeline, preferences
from leafe_jax.learner.dpo import preference_loss, reference_logprobs
from leafe_jax.learner.scoring import Scorer
from leafe_jax.methods import lengths, stage1
from leafe_jax.methods.arms import ALL_READ, BASE, Arm, Phase
from leafe_jax.methods.collect import load_trees
from leafe_jax.methods.effort import Effort, training
from leafe_jax.methods.effort import tuned as tuned_effort
from leafe_jax.methods.run import Run
from leafe_jax.methods.training import optimise
from leafe_jax.methods.tuning import tuned
from leafe_jax.planning import jobs


def settings(config: Experiment) -> Dpo:
  """The section with what it leaves to distillation filled in."""
  given, distill = config.dpo, config.distill
  follows = {
      'steps': distill.steps,
      'batch_rows': -(-distill.batch_rows // 2),
      'row_length': 2 * distill.row_length,
      # As many micro-batches as leave no device without a row.
      'grad_accumulation': -(-distill.grad_accumulation // 2),
      'checkpoint_every': distill.checkpoint_every,
  }
  open_ones = {k: v for k, v in follows.items() if not getattr(given, k)}
  return dataclasses.replace(given, **open_ones)


def prefer(run: Run, directory: pathlib.Path) -> dict[str, Any]:
  """From trees to weights. RunStopped where they hold no correction."""
  config = settings(run.config)
  summary = _write_pairs(run, directory / 'data')
  # From disk also the first time, so that a resumed run reads the same.
  joined = preferences.join(dataset.read(directory / 'data'))
  pairs = preferences.fit(joined, config.row_length)
  if not pairs:
    raise EarlyEnd(
        f"arm 'dpo': each of {len(joined)} pairs is longer than "
        f'dpo.row_length={config.row_length}, which holds both sequences of a pair'
    )
  references = references_of(run, BASE, pairs, config)

  def fit(config: Dpo, place: pathlib.Path) -> dict[str, Any]:
    return train_on_pairs(run, 'dpo', place, BASE, pairs, references, config)

  result = tuned(run, DPO.name, config, fit)
  left_out = len(joined) - len(pairs)
  return {'experience': summary, **result, 'pairs': len(pairs), 'left_out': left_out}


def references_of(
    run: Run, phase: str, pairs: Sequence[preferences.Pair], config: Dpo
) -> list[np.ndarray]:
  """Log-probabilities by what a phase trained, whose weights are let go after it."""
  params = run.start(phase)
  score = Scorer(run.shape.policy, run.mesh, run.frozen_beneath(params))
  rows = -(-config.batch_rows // config.grad_accumulation)  # as an update's at a time
  return reference_logprobs(score, params, pairs, config.row_length, rows)


def train_on_pairs(
    run: Run, label: str, directory: pathlib.Path, start: str,
    pairs: Sequence[preferences.Pair], references: Sequence[np.ndarray], config: Dpo,
) -> dict[str, Any]:  # fmt: skip
  """Trains what the phase `start` did to prefer the chosen responses."""
  packing = pipeline.Packing(config.batch_rows, config.row_length)
  batches = preferences.batches(pairs, references, packing, run.config.seed)
  loss = functools.partial(
      preference_loss, beta=config.beta, sft_weight=config.sft_weight
  )
  return optimise(run, label, directory, run.start(start), batches, loss, config)


def _write_pairs(run: Run, directory: pathlib.Path) -> dict[str, Any]:
  trees = load_trees(run.directory.phase(stage1.EXPLORE.name).dir)
  summary = build.Summary(tasks=len(trees))
  pairs = preferences.pairs(trees, run.config.experience, summary)
  if not pairs:
    raise EarlyEnd(
        "arm 'dpo' has nothing to learn from: no tree holds a correction that "
        "experience.cf_filter lets pass. Explore more tasks "
        '(--config.explore.num_tasks) or start from a better base.'
        + lengths.trouble(trees, run.config)
    )
  both = [half for pair in pairs for half in (pair.chosen, pair.rejected)]
  hosts.first(lambda: dataset.write(directory, both))
  return summary.as_dict()


def _effort(config: Experiment) -> Effort:
  found = settings(config)
  return tuned_effort(config, training(jobs.preference(found, found.beta), found))


# Of distillation those that `settings` may follow.
_FOLLOWED = ('steps', 'batch_rows', 'row_length', 'grad_accumulation')
DPO_READS = ('dpo', 'tune.factors', *(f'distill.{name}' for name in _FOLLOWED))
DPO = Phase(
    'distill/dpo', (*ALL_READ, 'experience', *DPO_READS),
    prefer, _effort, after=(BASE, stage1.EXPLORE.name),
)  # fmt: skip

ARMS = (
    Arm(
        'dpo', "DPO that prefers a'_tau to a_tau after h_tau", (stage1.EXPLORE, DPO),
        DPO.name, (stage1.EXPLORE.name,),
    ),
)
