"""Which options go together: what no single option's range can say.

Only what the options themselves tell; what depends on a checkpoint's files, a
world or the devices is checked where these are opened.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence

from leafe_jax import buckets, files
from leafe_jax.config import Env, Experiment, Policy, Sampler, Training
from leafe_jax.policy import kinds

# Turns that a word-level policy has marks for, but the one of the last observation.
MAX_HORIZON = 63


def conflicts(config: Experiment) -> Iterator[str]:
  """One line for every conflict: the options, their values, what is wanted."""
  if not config.policy.checkpoint:  # which brings sizes of its own
    yield from _of_sizes(config.policy)
    yield from _of_marks(config)
  if config.warm_start.steps:
    yield from _of_batches('warm_start', config.warm_start)
  yield from _of_workers(config)
  yield from _of_lengths(config)
  yield from _of_batches('distill', config.distill)
  yield from _of_batches('dpo', config.dpo)
  yield from _of_devices(config, config.sampler)
  yield from _of_places(config)
  yield from _of_repetitions(config)
  if config.jerp.initial_score <= config.jerp.prune_at:
    yield (
        f'jerp.initial_score={config.jerp.initial_score:g} would be removed at once: '
        f'it must be above jerp.prune_at={config.jerp.prune_at:g}'
    )
  if config.tune.like and not config.tune.factors:
    yield (
        f'tune.like={config.tune.like} takes over the choices of a sweep, and '
        'tune.factors is empty: give the factors of that sweep'
    )


def _of_sizes(policy: Policy) -> Iterator[str]:
  if policy.head_dim % 2:
    yield (
        f'policy.head_dim={policy.head_dim} must be even: rotary embeddings turn '
        'its halves'
    )
  if policy.num_heads % policy.num_kv_heads:
    yield (
        f'policy.num_kv_heads={policy.num_kv_heads} must divide '
        f'policy.num_heads={policy.num_heads}'
    )
  low, high = policy.rope_low_freq_factor, policy.rope_high_freq_factor
  if policy.rope_type == 'llama3' and low >= high:
    yield (
        f'policy.rope_low_freq_factor={low:g} must be below '
        f'policy.rope_high_freq_factor={high:g}'
    )
  slow, fast = policy.rope_beta_slow, policy.rope_beta_fast
  if policy.rope_type == 'yarn' and slow >= fast:
    yield (
        f'policy.rope_beta_slow={slow:g} must be below policy.rope_beta_fast={fast:g}'
    )
  turned = policy.head_dim * policy.rope_share
  if policy.rope_share < 1 and turned % 2:
    yield (
        f'policy.rope_share={policy.rope_share:g} of policy.head_dim='
        f'{policy.head_dim} is {turned:g}; rotary positions need an even number'
    )
  values, keys = policy.delta_value_heads, policy.delta_key_heads
  if {'delta', 'delta_experts'} & {*policy.layer_kinds} and values % keys:
    yield (
        f'policy.delta_key_heads={keys} must divide policy.delta_value_heads={values}'
    )
  experts = {'experts', 'delta_experts'} & {*policy.layer_kinds}
  if policy.shared_expert_dim and not (experts or policy.checkpoint):
    yield (
        f'policy.shared_expert_dim={policy.shared_expert_dim} needs layers of experts '
        'beside it: --config.policy.layer_kinds=experts'
    )
  try:
    kinds.of_layers(policy)
  except ValueError as error:
    yield str(error)


def _of_marks(config: Experiment) -> Iterator[str]:
  if config.env.horizon > MAX_HORIZON:
    yield (
        f'env.horizon={config.env.horizon} must be at most {MAX_HORIZON}: a policy '
        'without a checkpoint (policy.checkpoint) has marks for no more turns'
    )


def _of_workers(config: Experiment) -> Iterator[str]:
  for name in ('step_timeout', 'worker_gb'):
    value = getattr(config.env, name)
    if value and not config.env.workers:
      yield (
          f'env.{name}={value:g} needs env.workers of at least 1: a session in the '
          "run's own process cannot be ended alone"
      )
  yield from _of_fleet(config.env)


def _of_fleet(env: Env) -> Iterator[str]:
  if env.fleet == 'ray':
    if not env.workers:
      yield "env.fleet='ray' needs env.workers of at least 1: how many it is to start"
    return
  usual = Env()
  for name in ('fleet_address', 'fleet_resource', 'worker_cpus'):
    value = getattr(env, name)
    if value != getattr(usual, name):
      yield (
          f"env.{name}={value!r} needs env.fleet='ray' and does nothing with "
          f"'process': leave one of them out"
      )


def _of_lengths(config: Experiment) -> Iterator[str]:
  longest = config.policy.max_length
  for name in ('max_response_tokens', 'max_reflection_tokens'):
    size = getattr(config.explore, name)
    if size >= longest:
      yield (
          f'explore.{name}={size} must be below policy.max_length={longest}, which '
          'holds the prompt too'
      )
  row = config.grpo.row_length
  if 0 < row < longest:
    yield (
        f'grpo.row_length={row} must hold a whole transcript: at least '
        f'policy.max_length={longest}, or 0 for just that'
    )


def _of_batches(name: str, training: Training) -> Iterator[str]:
  rows, parts = training.batch_rows, training.grad_accumulation
  if rows and parts > rows:  # 0 in dpo: follows from distill
    yield (
        f'{name}.grad_accumulation={parts} must be at most '
        f'{name}.batch_rows={rows}: a micro-batch has at least a row'
    )


def _of_devices(config: Experiment, sampler: Sampler) -> Iterator[str]:
  rest = [name for name, size in vars(config.mesh).items() if size == -1]
  if len(rest) > 1:
    yield (
        f'{", ".join(f"mesh.{name}=-1" for name in rest)}: '
        'only one of them may be -1, the remaining devices'
    )
  if not sampler.prefill_buckets:
    yield 'sampler.prefill_buckets is empty; it must name at least one size'


def _of_places(config: Experiment) -> Iterator[str]:
  for path, place in (
      ('policy.checkpoint', config.policy.checkpoint),
      ('policy.prompts', config.policy.prompts),
      *(('warm_start.data', place) for place in config.warm_start.data),
  ):
    if files.is_url(place) and not buckets.is_bucket(place):
      yield f'{path}={place} is {files.ONLY_BUCKETS}'
  if files.is_url(config.tune.like):
    yield f'tune.like={config.tune.like} is {files.NO_URL}'


def _of_repetitions(config: Experiment) -> Iterator[str]:
  """What is done for each item is kept under its name, so names must differ."""
  named: dict[str, Sequence[str]] = {
      'arms': config.arms,
      'study.seeds': [str(seed) for seed in config.study.seeds],
      'tune.factors': [f'{x:g}' for x in config.tune.factors],
      'evaluate.more_temperatures': [
          f'{x:g}' for x in config.evaluate.more_temperatures
      ],
  }
  for path, names in named.items():
    twice = [name for name, n in collections.Counter(names).items() if n > 1]
    if twice:
      yield f'{path} names {", ".join(twice)} more than once'
  if not all(config.evaluate.stop_strings):
    yield "evaluate.stop_strings holds '', where every response would end"
