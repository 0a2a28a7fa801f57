"""Options of methods in which the policy, or an expert, teaches step by step.

Sections of `leafe_jax.config.Experiment`, as those in `leafe_jax/config.py`.
"""

from __future__ import annotations

import dataclasses

from leafe_jax.options import option


@dataclasses.dataclass(frozen=True)
class SelfDistill:
  """The policy that sees more as teacher (arXiv 2601.18734, 2601.20802, 2605.15155)."""

  divergence: str = option('forward', "leafe_opd: KL from the student on tokens it sampled, or from the teacher over its likeliest tokens", ('forward', 'reverse'))
  top_k: int = option(20, "forward: how many of the teacher's likeliest tokens count at each place", at_least=1)
  clip: float = option(0.0, "forward: the most that a token's largest term counts, its others shrinking with it (0.05 in OPSD, term by term); 0: no limit", at_least=0)
  samples: int = option(1, 'leafe_opd: fresh responses per event, each time', at_least=1)
  refresh: int = option(25, 'leafe_opd: updates between fresh responses', at_least=1)
  temperature: float = option(1.0, 'leafe_opd: sampling temperature of fresh responses', above=0)
  teacher: str = option('base', "sdpo: whose weights teach: the base's, or those of the present step", ('base', 'live'))
  weight: float = option(1.0, "sdpo: share of distillation in the loss; the rest is the policy gradient with grpo's clip, kl and entropy, which do not count at 1", at_least=0, at_most=1)
  ratio_clip: float = option(2.0, 'sdpo: the most that the ratio to the policy that sampled counts; 0: the ratio is not used', at_least=0)
  gate_weight: float = option(0.1, 'sdar: lambda, weight of the gated term beside GRPO (0.01 in the released code)', at_least=0)
  gate_sharpness: float = option(10.0, 'sdar: beta of the gate (5 in the released code)', at_least=0)


@dataclasses.dataclass(frozen=True)
class Mel:
  """Meta-experience beside GRPO (arXiv 2602.10224)."""

  weight: float = option(1.0, 'weight of the likelihood of what was learnt', at_least=0)
  pairs_per_task: int = option(1, 'pairs of a failure and a success per group (open in the paper)', at_least=1)
  max_tokens: int = option(512, 'sampled tokens of a meta-experience; a word-level policy has explore.max_reflection_tokens', at_least=1)
  temperature: float = option(1.0, 'sampling temperature of meta-experience', at_least=0)
  validate: bool = option(True, 'keep only what solves the task in one replay that is shown it; off: the ablation')


@dataclasses.dataclass(frozen=True)
class StepAgent:
  """Learning an expert's steps one by one (arXiv 2411.03817, which gives no numbers)."""

  cycles: int = option(3, 'implicit: rounds of answering all expert states and preferring the expert', at_least=1)
  beta: float = option(0.1, 'implicit: how dear it is to leave the reference', above=0)
  later_beta: float = option(0.5, 'implicit: the same from the second cycle on (as in ETO)', above=0)
  rounds: int = option(30, 'inverse: rounds of answers, discriminator and policy updates', at_least=1)
  states_per_round: int = option(128, 'inverse: expert states that are answered in a round; 0: all', at_least=0)
  reward_clip: float = option(5.0, 'inverse: step rewards -log D are cut to this size', above=0)
  kl: float = option(0.05, 'inverse: weight of the KL (k3) to the reference', at_least=0)
  entropy: float = option(0.001, 'inverse: weight of the entropy bonus', at_least=0)
  discriminator_rate: float = option(1e-4, 'inverse: learning rate of the discriminator', above=0)
  discriminator_updates: int = option(1, 'inverse: its updates in a round', at_least=1)
  smoothing: float = option(0.1, 'inverse: label smoothing of the discriminator', at_least=0, below=0.5)
