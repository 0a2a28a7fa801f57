"""What a phase may take, before it starts: episodes, tokens, updates, jobs.

Upper bounds from the config alone: every episode as long as it may be, every
reflection asked for twice. Most runs take a fraction of the tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from leafe_jax.config import Experiment, Explore, Training
from leafe_jax.planning import jobs
from leafe_jax.planning.jobs import Job
from leafe_jax.rollout.reflect import MAX_ATTEMPTS


@dataclasses.dataclass(frozen=True)
class Effort:
  """Most of everything; efforts add up.

  Attributes:
    episodes: played to an end; branches count.
    sampled: tokens, those of reflections included.
    updates: of weights.
    trained: tokens of the rows of all updates, padding included.
    jobs: what is trained, for the memory plan.
  """

  episodes: int = 0
  sampled: int = 0
  updates: int = 0
  trained: int = 0
  jobs: tuple[Job, ...] = ()

  def __add__(self, other: Effort) -> Effort:
    return Effort(*(
        getattr(self, field.name) + getattr(other, field.name)
        for field in dataclasses.fields(self)
    ))

  def times(self, count: int) -> Effort:
    """The same thing `count` times; its jobs are the same ones."""
    found = total([self] * count)
    return dataclasses.replace(found, jobs=self.jobs)

  def counts(self) -> tuple[int, int, int, int]:
    """Episodes, tokens sampled, updates, tokens trained on."""
    return self.episodes, self.sampled, self.updates, self.trained

  @property
  def plays(self) -> bool:
    """Whether the sampler runs outside of the jobs."""
    return bool(self.sampled) and not any(job.plays for job in self.jobs)


def total(efforts: Iterable[Effort]) -> Effort:
  return sum(efforts, Effort())


def acting(config: Experiment, episodes: int) -> Effort:
  """Episodes without reflection."""
  turns = config.env.horizon * config.explore.max_response_tokens
  return Effort(episodes, episodes * min(turns, config.policy.max_length))


def asking(count: int, max_tokens: int, attempts: int = MAX_ATTEMPTS) -> Effort:
  """Questions, each asked again if its answer cannot be read."""
  return Effort(sampled=count * max_tokens * attempts)


def exploring(config: Experiment, explore: Explore, tasks: int) -> Effort:
  """Trees. What matches the steps of another phase has its number of episodes."""
  episodes = tasks * explore.attempts
  in_progress = config.env.horizon // explore.reflect_every if (
      explore.reflect_every) else 0
  asked = 0 if explore.feedback == 'outcome' or not explore.max_depth else (
      episodes * (1 + in_progress))
  return acting(config, episodes) + asking(asked, explore.max_reflection_tokens)


def training(job: Job, config: Training, share: float = 1.0) -> Effort:
  """A share of the updates of a supervised phase."""
  updates = max(1, round(share * config.steps))
  tokens = updates * config.batch_rows * config.row_length
  return Effort(updates=updates, trained=tokens, jobs=(job,))


def distilling(config: Experiment, share: float = 1.0) -> Effort:
  """Stage 2, once for every learning rate that is tried."""
  return tuned(config, training(jobs.distillation(config), config.distill, share))


def optimising(
    config: Experiment, name: str, *, asks: bool = False, job: Job | None = None
) -> Effort:
  """GRPO and its kin, without what is asked for lessons."""
  grpo, job = config.grpo, job or jobs.group_policy(name, config, asks=asks)
  updates, episodes = jobs.updates(grpo), grpo.tasks_per_step * grpo.group_size
  trained = grpo.steps * grpo.epochs * episodes * job.length
  played = acting(config, grpo.steps * episodes)
  return played + Effort(updates=updates, trained=trained, jobs=(job,))


def tuned(config: Experiment, effort: Effort) -> Effort:
  """A phase that tries all learning rates of the sweep, if there is one."""
  tune = config.tune
  if not tune.factors or tune.like:
    return effort
  judged = acting(config, tune.num_tasks * tune.num_samples)
  return (effort + judged).times(len(tune.factors))
