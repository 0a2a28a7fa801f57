"""The device programs of a run, lowered from shapes alone.

These are the programs that a run dispatches, made by the same functions;
nothing is allocated, and the devices of the mesh need not exist here.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from leafe_jax.config import Experiment, Policy
from leafe_jax.learner.update import TrainState, abstract_state, make_update
from leafe_jax.planning import jobs
from leafe_jax.planning.jobs import Job
from leafe_jax.policy import kinds, lora, model, sharding
from leafe_jax.sampler import engine, ragged, recall, windows
from leafe_jax.sampler.batching import Buckets

Name = Literal['train', 'prefill', 'decode']
NAMES: tuple[Name, ...] = ('train', 'prefill', 'decode')


@dataclasses.dataclass(frozen=True)
class Target:
  """What programs are made for.

  Attributes:
    config: the run.
    policy: sizes of the policy (the config's, or a checkpoint's).
    vocab_size: rows of its embedding table.
    mesh: the devices.
  """

  config: Experiment
  policy: Policy
  vocab_size: int
  mesh: Mesh

  @property
  def buckets(self) -> Buckets:
    shards = sharding.num_row_shards(self.mesh)
    return Buckets(
        self.config.sampler, self.policy.max_length, shards,
        recurrent=kinds.count('delta', self.policy) > 0,
        window=windows.window_of(self.policy),
    )

  @property
  def num_decode(self) -> int:
    """Room for the longest response that the run asks for."""
    explore = self.config.explore
    return self.buckets.num_decode(
        max(explore.max_response_tokens, explore.max_reflection_tokens)
    )

  def base(self) -> dict[str, Any]:
    """The weights of a whole policy."""
    return model.abstract_params(self.policy, self.vocab_size, self.mesh)

  def trained(self, job: Job) -> dict[str, Any]:
    """What a job trains: all weights, or the adapters over a frozen base."""
    if not self.policy.lora_rank or job.whole:
      return self.base()
    return lora.abstract_params(self.policy, self.vocab_size, self.mesh)

  def frozen(self, job: Job | None = None) -> dict[str, Any]:
    """What lies beneath the adapters of a job, or of a player; else nothing."""
    if not self.policy.lora_rank or (job is not None and job.whole):
      return {}
    return lora.abstract_frozen(self.policy, self.vocab_size, self.mesh)

  def params(self) -> dict[str, Any]:
    """What the sampler takes: the weights, with their adapters if they have any."""
    if not self.policy.lora_rank:
      return self.base()
    adapters = lora.abstract_params(self.policy, self.vocab_size, self.mesh)
    return {**self.frozen(), **adapters}

  def state(self, job: Job) -> TrainState:
    """What an update of a job changes: trained weights and optimizer state."""
    return abstract_state(self.trained(job), job.optimizer, self.mesh)

  def batch_rows(self, job: Job) -> int:
    """Rows of a job's batches, as `put_batch` pads them."""
    multiple = sharding.num_row_shards(self.mesh) * job.grad_accumulation
    return -(-job.rows // multiple) * multiple

  @property
  def platform(self) -> str:
    """Of the mesh's devices; of this process if the mesh names none."""
    return sharding.platform_of(self.mesh)

  def sampler_attention(self, platform: str = '') -> str:
    """'dense' or 'paged', by default on the mesh's own platform."""
    return ragged.choose_form(
        self.config.sampler.attention, self.policy, self.mesh,
        platform or self.platform,
    )

  def pools(self, platform: str = '') -> dict[int, jax.ShapeDtypeStruct]:
    """The KV pages by window, see `engine.abstract_pools`."""
    form = self.sampler_attention(platform)
    return engine.abstract_pools(self.policy, self.config.sampler, self.mesh, form)

  def memories(self) -> Any:
    """Of recurrent layers, as `pools`; None without such layers."""
    return recall.abstract_pool(self.policy, self.config.sampler, self.mesh)


def trace(target: Target, name: Name, job: Job | None = None) -> Any:
  """The traced program (`jax.stages.Traced`): `.jaxpr`, `.lower().compile()`.

  Args:
    target: shapes and devices.
    name: 'train', one update; 'prefill', the longest read; 'decode', a turn
      with the longest prompt and response.
    job: what 'train' updates; a distillation if not given.
  """
  if name == 'train':
    return _trace_update(target, job or jobs.distillation(target.config))
  return _trace_turn(target, target.num_decode if name == 'decode' else 0)


def compile_uncached(lowered: Any) -> Any:
  """Compiles without leaving the program in the compilation cache.

  A program for devices that are not here can be written there, but reading it
  back fails.
  """
  option = 'jax_persistent_cache_min_compile_time_secs'
  before = getattr(jax.config, option)
  jax.config.update(option, math.inf)
  try:
    return lowered.compile()
  finally:
    jax.config.update(option, before)


def _trace_update(target: Target, job: Job) -> Any:
  update = make_update(
      target.policy, job.optimizer, job.loss, target.mesh,
      grad_accumulation=job.grad_accumulation, forward=model.token_scores,
      forward_reads=('weights',), frozen=target.frozen(job),
  )
  return update.trace(
      target.state(job), target.batch_rows(job), job.length, job.arrays
  )


def _trace_turn(target: Target, num_decode: int) -> Any:
  buckets, mesh = target.buckets, target.mesh
  # A response needs less new prompt than the longest read, but may have it.
  sampler = target.config.sampler
  prefix = buckets.lengths[-1] // buckets.page_size
  num_pages = engine.num_pages(sampler, mesh)
  batch = buckets.blank(buckets.new_tokens[-1], prefix, num_decode, num_pages)
  batch = _abstract(batch, engine.row_shardings(mesh, batch))
  program = engine.turn_program(
      target.policy, sampler, mesh, target.sampler_attention()
  )
  with jax.set_mesh(mesh):
    return program.trace(
        num_decode, target.params(), target.pools(), batch, target.memories()
    )


def _abstract(arrays: Any, places: Any) -> Any:
  def describe(x: Any, place: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype, sharding=place)

  return jax.tree.map(describe, arrays, places)
